"""Checks and logs the loss and the gradients of training steps."""

import math
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from lightning_rnn.data.sequences import SequenceBatch
from lightning_rnn.distributed import gather_objects
from lightning_rnn.errors import NumericError
from lightning_rnn.training.logs import write_to_loggers


class StepMonitor(Callback):
    """Stops a run whose gradients are not finite, and logs every `log_every_n_steps`-th step.

    Logged are the loss, the norm of the gradients before clipping, and the learning rate of the
    first parameter group. The gradients are the same on all ranks, so all ranks stop at the same
    step.
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

        Raises:
            NumericError: If the loss or a gradient is not finite.
        """
        gradients = []
        for parameter in pl_module.parameters():
            if parameter.grad is not None:
                gradients.append(parameter.grad.flatten())
        self._norm = torch.linalg.vector_norm(torch.cat(gradients))
        if self._norm.is_cpu or _is_logged(trainer, trainer.global_step):
            self._check_finite(trainer, pl_module)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Log the step."""
        step = trainer.global_step - 1
        if self._norm is None or not _is_logged(trainer, step):  # None while gradients accumulate
            return
        pl_module.log("train/loss_step", pl_module.step_loss, prog_bar=True, logger=False)
        values = {
            "train/loss_step": pl_module.step_loss,
            "train/grad_norm": self._norm,
            "train/lr": trainer.optimizers[0].param_groups[0]["lr"],
        }
        write_to_loggers(trainer.loggers, values, step)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        """Refuse to save weights that are not finite.

        Raises:
            NumericError: If the last loss or gradient was not finite.
        """
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


def _is_logged(trainer: Trainer, step: int) -> bool:
    interval: int = trainer.log_every_n_steps  # type: ignore[attr-defined]  # Lightning does not declare it
    return interval > 0 and (step + 1) % interval == 0
