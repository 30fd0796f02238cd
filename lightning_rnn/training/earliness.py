"""Accuracy as a function of the share of each sequence that the network has read."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_rnn.atomic_files import atomic_write
from lightning_rnn.data.sequences import SequenceBatch
from lightning_rnn.errors import import_extra
from lightning_rnn.evaluation.drawing import new_axes, pixels, save_png
from lightning_rnn.training.classifier import SequenceClassifier
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
        self._num_correct = torch.zeros(len(SHARES))
        self._num_sequences = torch.zeros(())

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Classify the beginnings of a batch."""
        assert isinstance(batch, SequenceBatch)
        assert isinstance(pl_module, SequenceClassifier)
        assert batch.y is not None
        is_sequence = batch.index >= 0  # other rows only fill the batch of an idle rank
        counts = []
        for share in SHARES:
            # 1e-9 less, so that 0.7 * 10 = 7.000000000000001 is 7 steps
            lengths = (batch.lengths * share - 1e-9).ceil().long().clamp(min=1)
            predicted = pl_module.network.decision.predict(pl_module(batch.x, lengths))
            counts.append((predicted == batch.y)[is_sequence].sum())
        self._num_correct = self._num_correct.to(batch.x.device) + torch.stack(counts)
        self._num_sequences = self._num_sequences.to(batch.x.device) + is_sequence.sum()

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sum over all ranks and write the files."""
        num_correct = trainer.strategy.reduce(self._num_correct, reduce_op="sum")
        num_sequences = trainer.strategy.reduce(self._num_sequences, reduce_op="sum")
        self._num_correct = torch.zeros(len(SHARES))
        self._num_sequences = torch.zeros(())
        if not trainer.is_global_zero:
            return
        assert isinstance(num_correct, Tensor)
        assert isinstance(num_sequences, Tensor)
        accuracy = (num_correct.double() / num_sequences.double()).tolist()
        lines = ["share_seen,accuracy"]
        for share, value in zip(SHARES, accuracy, strict=True):
            lines.append(f"{share},{value:.6g}")
        path = self.folder / "earliness.csv"
        with atomic_write(path) as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"earliness written to {path}")
        with self.contain_failure():
            self._draw(accuracy)

    def _draw(self, accuracy: list[float]) -> None:
        figure, axes = new_axes("earliness", "share of each sequence seen (%)", "accuracy")
        axes.plot([100 * share for share in SHARES], accuracy, marker="o")
        axes.set_xlim(0, 103)
        axes.set_ylim(0, 1.03)
        path = self.folder / "earliness.png"
        save_png(pixels(figure), path)
        print(f"figure written to {path}")
