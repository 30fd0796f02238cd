"""Writes `best.ckpt` and `last.ckpt`, each as a whole and with all that is needed to resume."""

import math
import os
import shutil
import time
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from lightning_rnn.atomic_files import atomic_write, remove_drafts
from lightning_rnn.errors import CheckpointError, DataError, check
from lightning_rnn.training.checkpoint_archive import is_intact
from lightning_rnn.training.validation_interval import ends_epoch, is_report_due

Monitor = Literal["val/loss", "val/accuracy", "val/auroc", "val/f1"]


class Checkpoints(Checkpoint):
    """Saves the latest and the best state of a run in its folder `checkpoints/`.

    `last.ckpt` is the latest state, `previous.ckpt` the one before it, `best.ckpt` the one with the
    best validation metric. They are saved at the end of an epoch; epochs of few steps share a save,
    see `epochs_per_validation`. Unlike Lightning's `ModelCheckpoint`, it keeps `last.ckpt` up to
    date when the metric does not improve, and never takes NaN for a best value.

    Args:
        monitor: Validation metric that decides which state is the best: that with the lowest loss,
            or with the highest other metric. Without validation data, the last state is the best.
        every_n_steps: Number of steps after which to save, in addition to the end of an epoch (of
            several, if they are short).
        every_n_minutes: Number of minutes after which to save; checked when a step is logged.

    Raises:
        OptionError: If an interval is not above 0.
    """

    def __init__(
        self,
        *,
        monitor: Monitor = "val/loss",
        every_n_steps: int | None = None,
        every_n_minutes: float | None = None,
    ) -> None:
        for name, value in (("every_n_steps", every_n_steps), ("every_n_minutes", every_n_minutes)):
            check(value is None or value > 0, f"Checkpoints.{name}", value, "a number above 0")
        self.monitor = monitor
        self.every_n_steps = every_n_steps
        self.every_n_minutes = every_n_minutes
        self.folder: Path | None = None
        self._sign = -1.0 if monitor == "val/loss" else 1.0
        self._best_score = -math.inf  # highest value of the metric times the sign
        self._is_best = False  # whether the last state that was saved is the best
        self._has_validated = False
        self._has_improved = False  # since the last save
        self._is_due = False
        self._saved_step = 0
        self._saved_time = 0.0

    @property
    def rule(self) -> str:
        """What makes a state the best, in words."""
        if not self._has_validated:
            return "the last state, as there is no validation"
        return "lowest val/loss" if self.monitor == "val/loss" else f"highest {self.monitor}"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Determine the folder; a collective call."""
        log_dir = trainer.log_dir
        if stage == "fit" and log_dir is not None:
            self.folder = Path(log_dir) / "checkpoints"

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Note the step of the checkpoint."""
        self._saved_step = checkpoint["global_step"]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Repair what a killed process may have left between two files."""
        self._saved_time = time.monotonic()
        if self.folder is None or not trainer.is_global_zero:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_drafts(self.folder, "*.ckpt")
        remove_drafts(self.folder.parent, "*")
        for name in ("last.ckpt", "previous.ckpt", "best.ckpt"):
            if (self.folder / name).is_dir():
                path = self.folder / name
                raise CheckpointError(f"{path}: expected a file that can be replaced, got a folder")
        if trainer.ckpt_path is None or not self._is_best:
            return
        resumed = Path(trainer.ckpt_path)
        if resumed.parent.resolve() == self.folder.resolve():
            replace_by_link(resumed, self.folder / "best.ckpt")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if an interval has passed; after the next step if a validation follows."""
        has_interval = self.every_n_steps is not None or self.every_n_minutes is not None
        is_new_step = trainer.global_step != self._saved_step  # False while gradients accumulate
        if self.folder is None or not has_interval or not is_new_step:
            return
        self._is_due = self._is_due or self._interval_has_passed(trainer)
        interval = trainer.val_check_batch
        num_batches = batch_idx + 1
        if trainer.check_val_every_n_epoch is None:  # the interval spans epochs
            num_batches = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        validates_next = interval is not None and num_batches % interval == 0
        if self._is_due and not ends_epoch(trainer) and not validates_next:
            self.save_last(trainer)

    def _interval_has_passed(self, trainer: Trainer) -> bool:
        step = trainer.global_step
        if self.every_n_steps is not None and step % self.every_n_steps == 0:
            return True
        log_interval: int = trainer.log_every_n_steps or 1  # type: ignore[attr-defined]
        if self.every_n_minutes is None or step % log_interval != 0:
            return False
        is_late = time.monotonic() - self._saved_time >= 60 * self.every_n_minutes
        return trainer.strategy.reduce_boolean_decision(is_late, all=False)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare the monitored metric; inside an epoch, save a best state at once."""
        if self.folder is None or trainer.sanity_checking:
            return
        if self.monitor not in trainer.callback_metrics:
            raise DataError(
                f"monitor: {self.monitor} is undefined because the validation split lacks a class; "
                "use val/loss, or a split with all classes"
            )
        self._has_validated = True
        score = self._sign * float(trainer.callback_metrics[self.monitor])
        if math.isfinite(score) and score > self._best_score:
            self._best_score = score
            self._has_improved = True
        if self._has_improved and not ends_epoch(trainer):
            self._save(trainer, "best.ckpt")
            self._has_improved = False

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the last state, which is also the best one if validation says so."""
        is_due = self._has_improved or self._is_due or is_report_due(trainer)
        if self.folder is None or not is_due:
            return
        is_best = self._has_improved or not self._has_validated
        self.save_last(trainer, is_best=is_best)
        if is_best and trainer.is_global_zero:
            replace_by_link(self.folder / "last.ckpt", self.folder / "best.ckpt")
        self._has_improved = False

    def has_saved_epoch(self, trainer: Trainer) -> bool:
        """Return whether an epoch has just ended and `last.ckpt` is its state."""
        return ends_epoch(trainer) and self._saved_step == trainer.global_step

    def save_last(self, trainer: Trainer, *, is_best: bool = False) -> None:
        """Save `last.ckpt`; the one before it becomes `previous.ckpt`."""
        if self.folder is None:
            return
        self._is_best = is_best
        last = self.folder / "last.ckpt"
        if trainer.is_global_zero and is_intact(last):
            replace_by_link(last, self.folder / "previous.ckpt")
        self._save(trainer, "last.ckpt")
        self._is_due = False
        self._saved_step = trainer.global_step
        self._saved_time = time.monotonic()

    def _save(self, trainer: Trainer, name: str) -> None:
        assert self.folder is not None
        for logger in trainer.loggers:  # the history must not be older than the checkpoint
            logger.save()
        if trainer.is_global_zero and not self.folder.is_dir():
            raise CheckpointError(f"{self.folder}: expected the folder of this run, got none")
        trainer.save_checkpoint(self.folder / name, weights_only=False)

    def state_dict(self) -> dict[str, Any]:
        """Return the best value so far."""
        return {
            "monitor": self.monitor,
            "best": self._best_score,
            "is_best": self._is_best,
            "validated": self._has_validated,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from the best value so far, unless it is that of another metric."""
        if state_dict["monitor"] == self.monitor:
            self._best_score = float(state_dict["best"])
        self._is_best = bool(state_dict["is_best"])
        self._has_validated = bool(state_dict["validated"])


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints atomically, so that a killed process leaves the previous file intact."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            OSError: If the file cannot be written, as on a full disk.
        """
        with atomic_write(Path(path), durable=True) as temporary, temporary.open("wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:  # of closing the archive, after that of writing
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise


def replace_by_link(source: Path, target: Path) -> None:
    """Make `target` a hard link to `source`, or a copy if links are not supported; atomically."""
    if target.exists() and target.samefile(source):
        return
    with atomic_write(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
