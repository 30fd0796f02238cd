"""best.ckpt and last.ckpt, written whole or not at all."""

import math
import os
import shutil
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from lightning_rnn.errors import DataError

Monitor = Literal["val/loss", "val/accuracy", "val/auroc", "val/f1"]


class Checkpoints(Checkpoint):
    """Keeps the newest state in `last.ckpt` and the best one in `best.ckpt`, in the run's `checkpoints` folder.

    Lightning's own callback writes its `last.ckpt` only when a best one was saved, and takes NaN for a best value.
    """

    def __init__(self, *, monitor: Monitor = "val/loss", mode: Literal["auto", "min", "max"] = "auto") -> None:
        """Set up.

        Args:
            monitor: Validation metric that makes a checkpoint the best. Without validation data the last is the best.
            mode: Whether the lowest (min) or the highest (max) value is best; auto knows.
        """
        self.monitor = monitor
        self.sign = -1.0 if mode == "min" or (mode == "auto" and monitor == "val/loss") else 1.0
        self.best = -math.inf  # best value so far, times the sign
        self.folder: Path | None = None
        self.validated = False  # whether validation has ever spoken
        self._improved = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Ask all ranks for the run folder."""
        log_dir = trainer.log_dir  # a collective call
        if stage == "fit" and log_dir is not None:
            self.folder = Path(log_dir) / "checkpoints"

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare the monitored metric; inside an epoch save at once, at its end together with the last one."""
        if self.folder is None or trainer.sanity_checking:
            return
        if self.monitor not in trainer.callback_metrics:
            raise DataError(f"{self.monitor} is not defined on this validation part; accepted is one with all classes")
        self.validated = True
        value = self.sign * float(trainer.callback_metrics[self.monitor])
        if value > self.best:  # never true of NaN
            self.best, self._improved = value, math.isfinite(value)
        if self._improved and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            trainer.save_checkpoint(self.folder / "best.ckpt", weights_only=False)
            self._improved = False

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the last state; it is also the best where validation said so or there is none."""
        if self.folder is None:
            return
        trainer.save_checkpoint(self.folder / "last.ckpt", weights_only=False)
        if trainer.is_global_zero and (self._improved or not self.validated):
            replace_by_link(self.folder / "last.ckpt", self.folder / "best.ckpt")
        self._improved = False

    def state_dict(self) -> dict[str, Any]:
        """Return the best value so far."""
        return {"best": self.best, "validated": self.validated}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the best value so far."""
        self.best, self.validated = float(state_dict["best"]), bool(state_dict["validated"])


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, synchronises and renames, so that a kill leaves the previous file whole."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with beside.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)


def replace_by_link(source: Path, target: Path) -> None:
    """Make `target` the file that `source` is now, atomically; a copy where the file system has no links."""
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)
    try:
        os.link(source, beside)
    except OSError:
        shutil.copyfile(source, beside)
    os.replace(beside, target)
