"""Accuracy as a function of the share of each sequence that the network has read."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

from lightning_rnn.atomic_files import atomic_write
from lightning_rnn.errors import import_extra
from lightning_rnn.evaluation.drawing import new_axes, save_png
from lightning_rnn.training.watching import Watcher

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class Earliness(Watcher):
    """Writes `earliness.csv` and `earliness.png` at the end of a test.

    Each sequence is cut after ceil(share * length) steps; the network is the same for all shares.

    Args:
        folder: Folder of the files.

    Raises:
        OptionError: If matplotlib is not installed.
    """

    def __init__(self, folder: Path) -> None:
        import_extra("matplotlib.figure", "figures")
        self.folder = folder
        self._counts = torch.zeros(len(SHARES) + 1)  # correct predictions by share, sequences

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Classify the beginnings of a batch."""
        is_sequence = batch.index >= 0  # other rows only fill the batch of an idle rank
        counts = []
        for share in SHARES:
            # 1e-9 less, so that 0.7 * 10 = 7.000000000000001 is 7 steps
            lengths = (batch.lengths * share - 1e-9).ceil().long().clamp(min=1)
            predicted = pl_module.network.decision.predict(pl_module(batch.x, lengths))
            counts.append((predicted == batch.y)[is_sequence].sum())
        counts.append(is_sequence.sum())
        self._counts = self._counts.to(batch.x.device) + torch.stack(counts)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Sum over all ranks and write the files."""
        counts: Any = trainer.strategy.reduce(self._counts, reduce_op="sum")
        self._counts = torch.zeros(len(SHARES) + 1)
        if not trainer.is_global_zero:
            return
        accuracy = (counts[:-1].double() / counts[-1].double()).tolist()
        lines = ["share_seen,accuracy"]
        for share, value in zip(SHARES, accuracy, strict=True):
            lines.append(f"{share},{value:.6g}")
        path = self.folder / "earliness.csv"
        with atomic_write(path) as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"earliness written to {path}")
        with self.contain_failure():
            figure, axes = new_axes("earliness", "share of each sequence seen (%)", "accuracy")
            axes.plot([100 * share for share in SHARES], accuracy, marker="o")
            axes.set_xlim(0, 103)
            axes.set_ylim(0, 1.03)
            save_png(figure, path.with_suffix(".png"))
            print(f"figure written to {path.with_suffix('.png')}")
