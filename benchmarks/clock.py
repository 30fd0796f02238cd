"""The clock inside `fit`, and the time outside it."""

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from benchmarks.common import CLOCK, SKIPPED
from benchmarks.turns import Turns


class EpochClock(Callback):
    """Notes when each epoch begins and when training ends; all that happens in between counts."""

    def __init__(self) -> None:
        """Set up."""
        self.times: list[float] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the time."""
        self.times.append(now())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the times down."""
        self.times.append(now())
        if trainer.is_global_zero:
            Path(os.environ[CLOCK]).write_text(json.dumps(self.times))


class InTurns(Callback):
    """Waits for the turn of `fit`; see `Turns`."""

    def __init__(self) -> None:
        """Set up."""
        self.turns = Turns()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait, or begin to count."""
        self.turns.before(trainer.current_epoch)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell of the last turn."""
        self.turns.after(trainer.current_epoch)


def now() -> float:
    """Return seconds, once the accelerator has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class BatchTimes(Callback):
    """Prints the median seconds, and those of the processor, from one training batch's end to the next's."""

    def on_train_start(self, *_: Any) -> None:
        """Forget."""
        self.ends: list[tuple[float, float]] = []

    def on_train_batch_end(self, *_: Any) -> None:
        """Take the time."""
        self.ends.append((time.perf_counter(), time.process_time()))

    def on_train_end(self, *_: Any) -> None:
        """Print."""
        wall, cpu = np.median(np.diff(self.ends[SKIPPED:], axis=0), axis=0)
        print(f"batch median {wall:.9f} {cpu:.9f}")
