"""best.ckpt and last.ckpt: written whole or not at all, enough to continue as if nothing had happened."""

import math
import os
import random
import shutil
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from lightning_rnn.atomic_files import atomic_write
from lightning_rnn.distributed import gather_objects
from lightning_rnn.errors import DataError, check

Monitor = Literal["val/loss", "val/accuracy", "val/auroc", "val/f1"]


class Checkpoints(Checkpoint):
    """Keeps the newest states in `last.ckpt` and `previous.ckpt` and the best one in `best.ckpt`, in `checkpoints/`.

    Lightning's own callback writes its `last.ckpt` only when a best one was saved, and takes NaN for a best value.
    """

    def __init__(
        self,
        *,
        monitor: Monitor = "val/loss",
        mode: Literal["auto", "min", "max"] = "auto",
        every_n_steps: int | None = None,
        every_n_minutes: float | None = None,
    ) -> None:
        """Set up.

        Args:
            monitor: Validation metric that makes a checkpoint the best. Without validation data the last is the best.
            mode: Whether the lowest (min) or the highest (max) value is best; auto knows.
            every_n_steps: Save after so many steps, besides at each epoch's end.
            every_n_minutes: Save when so much time has passed, looked at when metrics are logged.

        Raises:
            OptionError: An interval that is not above 0.
        """
        check(
            every_n_steps is None or every_n_steps > 0,
            "Checkpoints.every_n_steps",
            every_n_steps,
            "above 0",
        )
        in_minutes = every_n_minutes is None or every_n_minutes > 0
        check(in_minutes, "Checkpoints.every_n_minutes", every_n_minutes, "above 0")
        self.monitor, self.every_n_steps, self.every_n_minutes = (
            monitor,
            every_n_steps,
            every_n_minutes,
        )
        self.sign = -1.0 if mode == "min" or (mode == "auto" and monitor == "val/loss") else 1.0
        self.best = -math.inf  # best value so far, times the sign
        self.best_step = 0  # steps done at the best end of an epoch
        self.validated = False  # whether validation has ever spoken
        self.folder: Path | None = None
        self._improved = self._due = False
        self._saved_step, self._saved_at = 0, 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Ask all ranks for the run folder."""
        log_dir = trainer.log_dir  # a collective call
        if stage == "fit" and log_dir is not None:
            self.folder = Path(log_dir) / "checkpoints"

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put right what a kill between two files has left."""
        self._saved_step, self._saved_at = trainer.global_step, time.monotonic()
        if self.folder is None or not trainer.is_global_zero:
            return
        for stale in self.folder.glob(".*.ckpt.*"):
            stale.unlink()
        resumed = trainer.ckpt_path
        if (
            resumed is not None
            and trainer.global_step == self.best_step
            and Path(resumed).parent == self.folder
        ):
            replace_by_link(Path(resumed), self.folder / "best.ckpt")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save where an interval is over, unless validation comes first: it belongs to the state."""
        if self.folder is None or (self.every_n_steps is None and self.every_n_minutes is None):
            return
        step = trainer.global_step
        if step == self._saved_step:  # gradients are being accumulated
            return
        if self.every_n_steps is not None and step % self.every_n_steps == 0:
            self._due = True
        interval: int = trainer.log_every_n_steps or 1  # type: ignore[attr-defined]  # Lightning does not declare it
        if self.every_n_minutes is not None and step % interval == 0:
            late = time.monotonic() - self._saved_at >= 60 * self.every_n_minutes
            self._due |= trainer.strategy.reduce_boolean_decision(late, all=False)
        progress, check = trainer.fit_loop.epoch_loop.batch_progress, trainer.val_check_batch
        validates = check is not None and (batch_idx + 1) % check == 0
        if self._due and not progress.is_last_batch and not validates:
            self.save_last(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare the monitored metric; inside an epoch save at once, at its end together with the last one."""
        if self.folder is None or trainer.sanity_checking:
            return
        if self.monitor not in trainer.callback_metrics:
            raise DataError(
                f"{self.monitor} is not defined on this validation part; accepted is one with all classes"
            )
        self.validated = True
        value = self.sign * float(trainer.callback_metrics[self.monitor])
        if value > self.best and math.isfinite(value):  # never true of NaN
            self.best, self._improved = value, True
        if self._improved and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._save(trainer, "best.ckpt")
            self._improved = False

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the last state; it is also the best where validation said so or there is none."""
        if self.folder is None:
            return
        is_best = self._improved or not self.validated
        if is_best:
            self.best_step = trainer.global_step
        self.save_last(trainer)
        if is_best and trainer.is_global_zero:
            replace_by_link(self.folder / "last.ckpt", self.folder / "best.ckpt")
        self._improved = False

    def save_last(self, trainer: Trainer) -> None:
        """Save the state; what was the last becomes the previous one."""
        assert self.folder is not None
        last = self.folder / "last.ckpt"
        if trainer.is_global_zero and last.exists():
            replace_by_link(last, self.folder / "previous.ckpt")
        self._save(trainer, "last.ckpt")
        self._due, self._saved_step, self._saved_at = False, trainer.global_step, time.monotonic()

    def _save(self, trainer: Trainer, name: str) -> None:
        assert self.folder is not None
        for (
            logger
        ) in trainer.loggers:  # what was logged before the checkpoint must not be lost after it
            flush = getattr(getattr(logger, "experiment", None), "flush", None)
            if callable(flush):
                flush()
        trainer.save_checkpoint(self.folder / name, weights_only=False)

    def state_dict(self) -> dict[str, Any]:
        """Return what is known of the best."""
        return {"best": self.best, "best_step": self.best_step, "validated": self.validated}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what is known of the best."""
        self.best, self.best_step = float(state_dict["best"]), int(state_dict["best_step"])
        self.validated = bool(state_dict["validated"])


class RandomStates(Callback):
    """Carries the random states of all ranks in the checkpoint."""

    def __init__(self) -> None:
        """Set up."""
        self._loaded: list[dict[str, Any]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore this rank's states; in a new run give each rank dropout of its own."""
        if trainer.global_rank < len(self._loaded):
            _set_random_state(self._loaded[trainer.global_rank])
        elif trainer.global_rank > 0:
            torch.manual_seed(torch.initial_seed() + trainer.global_rank)

    def state_dict(self) -> dict[str, Any]:
        """Return the states, one a rank; a collective call, as saving is."""
        return {"ranks": gather_objects(_random_state())}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the states until training starts: what comes before draws random numbers, too."""
        self._loaded = state_dict["ranks"]


def _random_state() -> dict[str, Any]:
    version, numbers, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state()
    state = {
        "torch": torch.get_rng_state(),
        "python": [version, torch.tensor(numbers), gauss],
        "numpy": [
            torch.from_numpy(np.asarray(keys, dtype=np.int64)),
            int(position),
            int(has_gauss),
            float(cached),
        ],
    }
    return state | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers.tolist()), gauss))
    keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint whole or not at all, so that a kill leaves the previous file as it was."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint."""
        with atomic_write(Path(path), durable=True) as beside, beside.open("wb") as file:
            torch.save(checkpoint, file)


def replace_by_link(source: Path, target: Path) -> None:
    """Make `target` the file that `source` is now, atomically; a copy where the file system has no links."""
    if target.exists() and target.samefile(source):
        return
    with atomic_write(target) as beside:
        try:
            os.link(source, beside)
        except OSError:
            shutil.copyfile(source, beside)
