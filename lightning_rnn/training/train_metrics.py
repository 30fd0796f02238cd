"""Loss, accuracy and gradients in training: logged step by step and epoch by epoch, and checked."""

import math
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from lightning_rnn.data.sequences import SequenceBatch
from lightning_rnn.distributed import gather_objects
from lightning_rnn.errors import NumericError
from lightning_rnn.training.logs import log_epoch, write_to_loggers

BLOCK_SIZE = 256  # batches between two readings of the numbers, each of which stalls an accelerator
SUMS = "train_sums"  # entry of a checkpoint


class StepMonitor(Callback):
    """Stops a run whose gradients are not finite, and logs every `log_every_n_steps`-th step.

    Logged are the loss, the norm of the gradients before clipping, and the learning rate of the
    first parameter group. The gradients are the same on all ranks, so all ranks stop at the same
    step, with a NumericError.
    """

    def __init__(self) -> None:
        self._batch: SequenceBatch | None = None
        self._norm: Tensor | None = None  # of the last optimizer step

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remember the batch; no optimizer step has been made with it."""
        self._batch = batch
        self._norm = None

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: Any, optimizer: Optimizer
    ) -> None:
        """Compute the norm of the gradients and check that it is finite.

        Reading a number stalls an accelerator; there, the check waits for the next logged step.
        """
        gradients = []
        for parameter in pl_module.parameters():
            if parameter.grad is not None:
                gradients.append(parameter.grad.flatten())
        self._norm = torch.linalg.vector_norm(torch.cat(gradients))
        if self._norm.is_cpu or _is_logged(trainer, trainer.global_step):
            self._check_finite(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the step, unless gradients are still accumulating."""
        if self._norm is None or not _is_logged(trainer, trainer.global_step - 1):
            return
        pl_module.log("train/loss_step", pl_module.step_loss, prog_bar=True, logger=False)
        values = {
            "train/loss_step": pl_module.step_loss,
            "train/grad_norm": self._norm,
            "train/lr": trainer.optimizers[0].param_groups[0]["lr"],
        }
        write_to_loggers(trainer, values)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        """Refuse to save weights that are not finite."""
        self._check_finite(trainer, pl_module)

    def _check_finite(self, trainer: Trainer, pl_module: Any) -> None:
        skips_such_steps = trainer.precision == "16-mixed"  # its gradient scaler does
        if self._norm is None or self._batch is None or skips_such_steps:
            return
        norm = float(self._norm)
        if math.isfinite(norm):
            return
        largest_inputs = self._batch.x.nan_to_num(0.0).abs().amax((1, 2))  # (B,)
        position = largest_inputs.argmax()
        own_largest = (float(largest_inputs[position]), int(self._batch.index[position]))
        largest, row = max(gather_objects(own_largest))
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        raise NumericError(
            f"training stopped at step {trainer.global_step}: "
            f"loss {float(pl_module.step_loss):.4g}, gradient norm {norm:.4g}, "
            f"learning rate {rate:.4g}; the largest input of the batch is {largest:.4g}, "
            f"in training sequence {row}. Try a lower lr or gradient_clip_val."
        )


class TrainMetrics(Callback):
    """Logs mean loss and accuracy of each training epoch, over all ranks.

    The sums of all ranks are part of a checkpoint, so that an epoch that is interrupted and resumed
    reports the means over all its batches.
    """

    def __init__(self) -> None:
        self._sums = [0.0, 0.0, 0.0]  # losses, correct sequences, sequences
        self._pending: list[tuple[Tensor, Tensor, int]] = []

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Restore the metrics of a checkpoint, which callbacks may monitor before the next ones."""
        if trainer.ckpt_path is not None:
            for name, value in pl_module.checkpoint_metrics.items():
                metric = torch.tensor(value, dtype=torch.float32)
                if float(metric) != value and not math.isnan(value):
                    # with precision 64-true, some metrics are logged in float64
                    metric = torch.tensor(value, dtype=torch.float64)
                trainer.callback_metrics[name] = metric

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Start from zero."""
        self._sums = [0.0, 0.0, 0.0]
        self._pending = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add a batch."""
        self._pending.append((pl_module.step_loss, pl_module.step_correct, len(batch)))
        if len(self._pending) == BLOCK_SIZE:
            self._read_pending()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Log the means."""
        loss, correct, count = self._gather().sum(0).tolist()
        log_epoch(pl_module, "train", {"loss": loss / count, "accuracy": correct / count})

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


def _is_logged(trainer: Trainer, step: int) -> bool:
    interval: int = trainer.log_every_n_steps  # type: ignore[attr-defined]  # undeclared
    return interval > 0 and (step + 1) % interval == 0
