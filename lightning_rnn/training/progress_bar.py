"""The progress bar of `fit`."""

import sys
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm  # type: ignore[import-untyped]


class RunProgressBar(ProgressBar):
    """One line for a whole run: epoch, steps, the time that remains and the latest metrics.

    Epochs are counted from 1. The line is updated every `refresh_rate` steps.
    """

    def __init__(self, refresh_rate: int) -> None:
        super().__init__()
        self._refresh_rate = refresh_rate
        self._is_enabled = True
        self._bar: Any = None  # a tqdm

    def enable(self) -> None:
        """Show the line."""
        self._is_enabled = True

    def disable(self) -> None:
        """Show nothing."""
        self._is_enabled = False

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print above the line."""
        tqdm.write(" ".join(map(str, args)))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the line."""
        self._bar = tqdm(
            total=trainer.estimated_stepping_batches,  # tqdm takes infinity for unknown
            initial=trainer.global_step,
            disable=not self._is_enabled,
            file=sys.stdout,
            dynamic_ncols=True,
            unit=" steps",
        )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Name the epoch."""
        text = f"epoch {trainer.current_epoch + 1}"
        if trainer.max_epochs not in (None, -1):
            text += f"/{trainer.max_epochs}"
        if self._bar is not None:
            self._bar.set_description(text, refresh=self._bar.n == self._bar.initial)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Update the line."""
        if self._bar is None or trainer.global_step % self._refresh_rate != 0:
            return
        self._bar.set_postfix(trainer.progress_bar_metrics, refresh=False)
        self._bar.update(trainer.global_step - self._bar.n)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the last state of the line."""
        if self._bar is not None:
            self._bar.update(trainer.global_step - self._bar.n)
            self._bar.close()
        self._bar = None

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        """End the line before the message of the error."""
        self.on_train_end(trainer, pl_module)
