"""What a run that is resumed within an epoch needs beyond Lightning's checkpoint."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler, StochasticWeightAveraging

from lightning_rnn.distributed import gather_objects

ENTRY = "gradients"  # of a checkpoint


class ResumedEpoch(Callback):
    """Saves gradients that are still accumulating, and sets up callbacks within an epoch.

    Lightning sets up `StochasticWeightAveraging` and `GradientAccumulationScheduler` at the start
    of an epoch only, and the former changes the learning rate at that time.
    """

    def __init__(self) -> None:
        self._states: dict[str, Any] = {}  # of the callbacks in the checkpoint
        self._gradients: list[list[Any]] = []  # of each rank

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Store the gradients of all ranks until the optimizer has used them; a collective call."""
        progress = trainer.fit_loop.epoch_loop.batch_progress
        is_stepped = progress.current.ready % trainer.accumulate_grad_batches == 0
        if is_stepped or progress.is_last_batch:
            return
        own = [None if p.grad is None else p.grad.cpu() for p in pl_module.parameters()]
        checkpoint[ENTRY] = gather_objects(own)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep what `on_train_start` needs."""
        self._states = checkpoint["callbacks"]
        self._gradients = checkpoint.get(ENTRY, [])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the gradients, and set up the callbacks."""
        if trainer.global_rank < len(self._gradients):
            gradients = self._gradients[trainer.global_rank]
            for parameter, gradient in zip(pl_module.parameters(), gradients, strict=True):
                if gradient is not None:
                    parameter.grad = gradient.to(parameter)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]  # undeclared
            if isinstance(callback, StochasticWeightAveraging):
                self._set_up_averaging(trainer, pl_module, callback)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set the number of batches to accumulate, once the learning rate schedule is known."""
        if not self._states:
            return
        self._states = {}
        for callback in trainer.callbacks:  # type: ignore[attr-defined]  # undeclared
            if isinstance(callback, GradientAccumulationScheduler):
                callback.on_train_epoch_start(trainer)

    def _set_up_averaging(
        self, trainer: Trainer, pl_module: LightningModule, callback: StochasticWeightAveraging
    ) -> None:
        state = self._states.get(callback.state_key, {})
        averages = callback.swa_start <= trainer.current_epoch <= callback.swa_end
        if not averages or state.get("scheduler_state") is None:
            return
        groups = trainer.optimizers[0].param_groups
        before = [{**group} for group in groups]
        callback.on_train_epoch_start(trainer, pl_module)
        for group, settings in zip(groups, before, strict=True):
            group.update(settings)
