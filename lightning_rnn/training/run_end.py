"""Which rule has ended a run, as part of its checkpoint, so that a finished run stays finished."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, Timer

from lightning_rnn.atomic_files import atomic_write
from lightning_rnn.training.validation_interval import is_last_step

ENTRY = "ending"  # of a checkpoint
MARKER = "finished.txt"  # in the run folder


class RunEnd(Callback):
    """Stores which rule has ended a run; a run that has ended does not train on when it is resumed.

    It also keeps `max_steps` from Lightning while a checkpoint is loaded: with a limit on the
    steps, Lightning takes an epoch that has ended for an unfinished one and enters it again. It has
    to be the first callback, because others read the limit in their `on_train_start`.

    `rules` are the settings, as a text, of all rules except `max_epochs` and `max_steps`.
    """

    def __init__(self, rules: str) -> None:
        self.rules = rules
        self._max_steps: int | None = None

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Store the rule if the last epoch has ended."""
        epochs: Any = trainer.fit_loop.epoch_progress.current
        if is_last_step(trainer) and epochs.started == epochs.processed:
            ending = {"reason": ending_of(trainer), "rules": self.rules}
            checkpoint[ENTRY] = ending | {"num_epochs": epochs.processed}

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Stop before the first step if the run has ended; else remove the limit on the steps."""
        limits = {"max_steps": trainer.max_steps, "max_epochs": trainer.max_epochs}
        if reason_to_stop(checkpoint, limits, self.rules) is not None:
            trainer.should_stop = True
            return
        self._max_steps = trainer.max_steps
        trainer.fit_loop.epoch_loop.max_steps = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the limit."""
        if self._max_steps is not None:
            trainer.fit_loop.epoch_loop.max_steps = self._max_steps


def ending_of(trainer: Trainer) -> str:
    """Return which rule has ended a run, in words."""
    if 0 <= trainer.max_steps <= trainer.global_step:
        return f"ended by max_steps: {trainer.max_steps}"
    epochs: Any = trainer.fit_loop.epoch_progress.current
    if epochs.processed == trainer.max_epochs:
        return f"ended by max_epochs: {trainer.max_epochs}"
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # undeclared
        if isinstance(callback, EarlyStopping) and callback.stopping_reason_message:
            reason = callback.stopping_reason_message.partition(" Signaling")[0]
            return f"ended by EarlyStopping: {reason}"
        if isinstance(callback, Timer) and (callback.time_remaining() or 1) <= 0:
            return f"ended by max_time: {callback.time_elapsed():.0f} s of training"
    return "ended by a callback"


def reason_to_stop(checkpoint: dict[str, Any], limits: dict[str, Any], rules: str) -> str | None:
    """Return why a run with these settings ends at a checkpoint, in words; None if it trains on.

    `limits` are `max_steps` and `max_epochs`. If the `rules`, the settings of all others, differ
    from those of the checkpoint, the rule that ended the run holds no longer.
    """
    ending = checkpoint.get(ENTRY)
    if not isinstance(ending, dict):
        return None
    max_steps = limits["max_steps"]
    if 0 <= max_steps <= checkpoint["global_step"]:
        return f"ended by max_steps: {max_steps}"
    max_epochs = limits["max_epochs"]
    if max_epochs is not None and 0 <= max_epochs <= ending["num_epochs"]:
        return f"ended by max_epochs: {max_epochs}"
    was_limit = ending["reason"].startswith(("ended by max_steps", "ended by max_epochs"))
    if was_limit or ending["rules"] != rules:
        return None
    return str(ending["reason"])


def mark_finished(trainer: Trainer) -> None:
    """Note that a run has done all that follows training, such as calibration."""
    folder = trainer.log_dir  # a collective call
    if folder is not None and trainer.is_global_zero:
        with atomic_write(Path(folder) / MARKER) as temporary:
            temporary.write_text(f"step {trainer.global_step}\n", encoding="utf-8")


def is_finished(run_folder: Path, step: int) -> bool:
    """Return whether nothing is left to do after training at so many steps."""
    marker = run_folder / MARKER
    return marker.is_file() and marker.read_text(encoding="utf-8") == f"step {step}\n"
