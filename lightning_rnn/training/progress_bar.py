"""The progress bar of the command line."""

import sys
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm


class RunProgressBar(TQDMProgressBar):
    """Shows training in one line: epoch, steps, the time that remains and the latest metrics.

    Epochs are counted from 1. The line is updated every `refresh_rate` steps.
    """

    def __init__(self, refresh_rate: int) -> None:
        super().__init__(refresh_rate)
        self.train_progress_bar = Tqdm(disable=True)  # hidden until training starts

    def init_validation_tqdm(self) -> Any:
        """Return the line of a validation, which is hidden within training."""
        if self.trainer.state.fn == "fit":
            return Tqdm(disable=True)
        return super().init_validation_tqdm()

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return the metrics to show, without the version of the run."""
        return dict(trainer.progress_bar_metrics)

    def on_train_start(self, trainer: Trainer, *args: Any) -> None:
        """Show the line."""
        self.train_progress_bar = Tqdm(
            total=trainer.estimated_stepping_batches,  # tqdm takes infinity for unknown
            initial=trainer.global_step,
            disable=self.is_disabled,
            file=sys.stdout,
            dynamic_ncols=True,
            unit=" steps",
        )

    def on_train_epoch_start(self, trainer: Trainer, *args: Any) -> None:
        """Name the epoch, at once if it is the first one."""
        text = f"epoch {trainer.current_epoch + 1}"
        if trainer.max_epochs not in (None, -1):
            text += f"/{trainer.max_epochs}"
        is_up_to_date = self.train_progress_bar.n == trainer.global_step
        self.train_progress_bar.set_description(text, refresh=is_up_to_date)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Update the line."""
        if trainer.global_step % self.refresh_rate == 0:
            metrics = self.get_metrics(trainer, pl_module)
            self.train_progress_bar.set_postfix(metrics, refresh=False)
            self.train_progress_bar.update(trainer.global_step - self.train_progress_bar.n)

    def on_train_epoch_end(self, *args: Any) -> None:
        """Do nothing: a short epoch takes less time than an update."""

    def on_train_end(self, trainer: Trainer, *args: Any) -> None:
        """Leave the last state of the line."""
        self.train_progress_bar.update(trainer.global_step - self.train_progress_bar.n)
        self.train_progress_bar.close()

    def on_exception(self, trainer: Trainer, *args: Any) -> None:
        """End the line before the message of the error."""
        self.on_train_end(trainer)
