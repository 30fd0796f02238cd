"""Shared by callbacks that observe a run."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

FIRST_FIGURES = 16  # epoch of the first figures by default; a short run spends no time on them


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


def is_due(
    epoch: int, every_n_epochs: int | None, *, first: int = 1, last: int | None = None
) -> bool:
    """Return whether to look at an epoch, counted from 1.

    Without an interval, these are the powers of two from `first` on, so that the cost grows only
    with the logarithm of the length of the run, and `last`.
    """
    if every_n_epochs is not None:
        return epoch % every_n_epochs == 0
    is_power_of_two = epoch & (epoch - 1) == 0
    return epoch == last or (epoch >= first and is_power_of_two)


@cache
def can_draw() -> bool:
    """Return whether matplotlib is installed; if not, the first call prints how to install it."""
    if find_spec("matplotlib") is not None:
        return True
    print("figures skipped: matplotlib is not installed; run: pip install 'lightning_rnn[figures]'")
    return False


def tensorboard_writer(trainer: Trainer) -> Any | None:
    """Return the TensorBoard writer of a run, if it has one."""
    if isinstance(trainer.logger, TensorBoardLogger):
        return trainer.logger.experiment
    return None
