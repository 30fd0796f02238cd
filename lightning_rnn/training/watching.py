"""Shared by callbacks that observe a run."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec

import numpy as np
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger, WandbLogger

DRAWING_SHARE = 0.05  # of the time of a run, for the figures of each of two callbacks
FIRST_DRAWING = 1.5  # seconds that the first figures are expected to take
IMAGE_LOGGERS = (TensorBoardLogger, WandbLogger, MLFlowLogger)


class Watcher(Callback):
    """Base class of callbacks that observe a run and must never end it."""

    is_enabled = True  # until a failure

    @contextmanager
    def contain_failure(self) -> Iterator[None]:
        """Run a block; if it raises an `Exception`, report it and disable the callback.

        Signals and `KeyboardInterrupt` pass through.
        """
        try:
            yield
        except Exception as error:
            self.is_enabled = False
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            message = f"{type(self).__name__} failed and is disabled, the run goes on: {reason}"
            print(message, file=sys.stderr, flush=True)


def is_due(epoch: int, every_n_epochs: int | None, *, is_last: bool = False) -> bool:
    """Return whether to look at an epoch, counted from 1.

    Without an interval, these are the powers of two, so that the cost grows only with the logarithm
    of the length of the run, and the last one.
    """
    if every_n_epochs is not None:
        return epoch % every_n_epochs == 0
    is_power_of_two = epoch & (epoch - 1) == 0
    return is_last or is_power_of_two


class DrawingTime:
    """Limits the time that figures take to a share of the time of the run so far.

    The time of the last figures of a run is kept free.
    """

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._total = 0.0
        self._latest = FIRST_DRAWING

    def suffices(self, *, is_last: bool) -> bool:
        """Return whether there is time to draw once more."""
        num_drawings = 1 if is_last else 2
        planned = self._total + num_drawings * self._latest
        return planned <= DRAWING_SHARE * (time.monotonic() - self._start)

    @contextmanager
    def measure(self) -> Iterator[None]:
        """Measure a block that draws."""
        start = time.monotonic()
        yield
        self._latest = time.monotonic() - start
        self._total += self._latest


@cache
def can_draw() -> bool:
    """Return whether matplotlib is installed; if not, the first call prints how to install it."""
    if find_spec("matplotlib") is not None:
        return True
    print("figures skipped: matplotlib is not installed; run: pip install 'lightning_rnn[figures]'")
    return False


def shows_images(trainer: Trainer) -> bool:
    """Return whether a run has a logger that shows images."""
    return any(isinstance(logger, IMAGE_LOGGERS) for logger in trainer.loggers)


def show_image(trainer: Trainer, tag: str, image: np.ndarray, step: int) -> None:
    """Add an image (height, width, 3) to each logger that shows images."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(tag, image, step, dataformats="HWC")
        elif isinstance(logger, WandbLogger):
            logger.log_image(tag, [image], step)
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_image(logger.run_id, image, key=tag, step=step)
