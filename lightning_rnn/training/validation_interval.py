"""How often a run is validated, saved and reported on, and when it ends.

With few training sequences an epoch takes a few milliseconds, and a validation with a checkpoint
takes longer than the epoch. Short epochs are therefore validated and saved together.
"""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_rnn.training.data_statistics import sequence_data

NUM_STEPS = 50  # between two validations, at least
NUM_VALIDATIONS = 20  # of a run, at least; a short run is validated more often


def epochs_per_validation(trainer: Trainer, num_batches: float) -> int:
    """Return the number of epochs after which a run is validated, saved and reported on.

    It is the highest power of two for which that takes at most 50 steps, or a twentieth of the
    run; 1 if an epoch alone takes more. An epoch has `num_batches` batches on each rank.

    Example:
        >>> [epochs_per_validation(Trainer(max_steps=2000), batches) for batches in (3, 40)]
        [16, 1]
    """
    num_steps = num_batches / trainer.accumulate_grad_batches
    spacing = float(NUM_STEPS)
    if trainer.max_steps != -1:
        spacing = min(spacing, trainer.max_steps / NUM_VALIDATIONS)
    if trainer.max_epochs not in (None, -1):
        spacing = min(spacing, trainer.max_epochs * num_steps / NUM_VALIDATIONS)
    epochs = 1
    while 2 * epochs * num_steps <= spacing:
        epochs *= 2
    return epochs


def is_last_step(trainer: Trainer) -> bool:
    """Return whether the run ends after this step: at its limit, or because a callback stops it."""
    if trainer.should_stop or 0 <= trainer.max_steps <= trainer.global_step:
        return True
    # unlike `current_epoch`, it stays the same while an epoch ends
    epochs: Any = trainer.fit_loop.epoch_progress.current
    is_epoch_end = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
    return bool(is_epoch_end and epochs.started == trainer.max_epochs)


def ends_epoch(trainer: Trainer) -> bool:
    """Return whether an epoch, possibly cut short, ends after this step."""
    return trainer.fit_loop.epoch_loop.batch_progress.is_last_batch or is_last_step(trainer)


def is_report_due(trainer: Trainer) -> bool:
    """Return at the end of an epoch whether it is to be saved and reported on."""
    epochs = epochs_per_validation(trainer, trainer.num_training_batches)
    return (trainer.current_epoch + 1) % epochs == 0 or is_last_step(trainer)


class ValidationInterval(Callback):
    """Chooses after how many epochs a run is validated, and validates its last state.

    It has to come before the callbacks that read the interval in their `setup`.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Set the interval."""
        data = sequence_data(trainer)
        if stage != "fit" or data is None:
            return
        num_batches = len(data.train_dataloader())
        limit = trainer.limit_train_batches
        if isinstance(limit, float):  # a share
            limit = int(num_batches * limit)
        num_batches = min(num_batches, limit or 0)
        if num_batches > 0:
            trainer.check_val_every_n_epoch = epochs_per_validation(trainer, num_batches)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: object, **kwargs: object
    ) -> None:
        """Let Lightning validate the last state, which may lie within an epoch."""
        if is_last_step(trainer):
            trainer.check_val_every_n_epoch = 1
            trainer.should_stop = True
