"""How early is a class known? Accuracy against the share of each sequence that has been seen."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_rnn.atomic_files import atomic_write
from lightning_rnn.data.sequences import SequenceBatch
from lightning_rnn.errors import import_extra
from lightning_rnn.evaluation.plots import save
from lightning_rnn.training.classifier import SequenceClassifier

SHARES = tuple(percent / 100 for percent in range(10, 101, 10))


class Earliness(Callback):
    """Writes `earliness.csv` and `earliness.png` at the end of a test.

    Each sequence is cut after ceil(share * length) steps; the model is the same at all shares.
    """

    def __init__(self, folder: Path) -> None:
        """Set up; the files go into `folder`.

        Raises:
            OptionError: matplotlib is not installed.
        """
        self.folder, self._figure = folder, import_extra("matplotlib.figure", "figures").Figure
        self._right = torch.zeros(
            len(SHARES) + 1
        )  # for each share the number decided rightly, then the number of all

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Judge the beginnings of a batch."""
        assert isinstance(batch, SequenceBatch) and isinstance(pl_module, SequenceClassifier)
        assert batch.y is not None
        real = batch.index >= 0  # the others only fill an empty rank
        counts: list[Tensor] = []
        for share in SHARES:
            lengths = (batch.lengths * share - 1e-9).ceil().long().clamp(min=1)
            decided = pl_module.network.decision.predict(pl_module(batch.x, lengths))
            counts.append((decided == batch.y)[real].sum())
        self._right = self._right.to(pl_module.device) + torch.stack([*counts, real.sum()])

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add up over all ranks and write."""
        sums = trainer.strategy.reduce(self._right, reduce_op="sum")
        self._right = torch.zeros(len(SHARES) + 1)
        if not trainer.is_global_zero:
            return
        assert isinstance(sums, Tensor)
        accuracy = (sums[:-1].double() / sums[-1].double()).tolist()
        rows = [f"{share},{value:.6g}\n" for share, value in zip(SHARES, accuracy, strict=True)]
        with atomic_write(self.folder / "earliness.csv") as beside:
            beside.write_text("share_seen,accuracy\n" + "".join(rows), encoding="utf-8")
        figure = self._figure(figsize=(5, 3.5), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        axes.plot([100 * share for share in SHARES], accuracy, marker="o")
        axes.set(
            xlabel="share of each sequence seen (%)",
            ylabel="accuracy",
            xlim=(0, 103),
            ylim=(0, 1.03),
        )
        axes.grid(alpha=0.3)
        save(figure, self.folder / "earliness.png")
        print(f"earliness written to {self.folder / 'earliness.csv'} and .png")
