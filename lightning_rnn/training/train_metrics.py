"""Loss and accuracy of a training epoch, over all ranks and across a resume."""

from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from lightning_rnn.distributed import gather_objects
from lightning_rnn.training.logs import log_epoch

BLOCK_SIZE = 256  # batches between two readings of the numbers, each of which stalls an accelerator
SUMS = "train_sums"  # entry of a checkpoint


class TrainMetrics(Callback):
    """Logs mean loss and accuracy of each training epoch.

    The sums of all ranks are part of a checkpoint, so that an epoch that is interrupted and resumed
    reports the means over all its batches.
    """

    def __init__(self) -> None:
        self._sums = [0.0, 0.0, 0.0]  # losses, correct sequences, sequences
        self._pending: list[tuple[Tensor, Tensor, int]] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Start from zero."""
        self._sums = [0.0, 0.0, 0.0]
        self._pending = []

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Add a batch."""
        self._pending.append((pl_module.step_loss, pl_module.step_correct, len(batch)))
        if len(self._pending) == BLOCK_SIZE:
            self._read_pending()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Log the means."""
        loss, correct, count = self._gather().sum(0).tolist()
        values = {"train/loss": loss / count, "train/accuracy": correct / count}
        log_epoch(pl_module, values, step=trainer.global_step - 1)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        """Store the sums of all ranks."""
        checkpoint[SUMS] = self._gather()

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        """Continue from the stored sums; rank 0 takes all if the number of ranks has changed."""
        sums = checkpoint.get(SUMS)
        if sums is None:
            return
        if len(sums) == trainer.world_size:
            self._sums = sums[trainer.global_rank].tolist()
        elif trainer.global_rank == 0:
            self._sums = sums.sum(0).tolist()

    def _gather(self) -> Tensor:
        """Return the sums (ranks, 3) of all ranks; a collective call."""
        self._read_pending()
        return torch.tensor(gather_objects(self._sums), dtype=torch.float64)

    def _read_pending(self) -> None:
        if not self._pending:
            return
        losses = torch.stack([loss for loss, _, _ in self._pending]).tolist()
        correct = torch.stack([correct for _, correct, _ in self._pending])
        self._sums[1] += int(correct.sum())
        for loss, (_, _, batch_size) in zip(losses, self._pending, strict=True):
            self._sums[0] += loss * batch_size  # one by one, so that the block size does not matter
            self._sums[2] += batch_size
        self._pending = []
