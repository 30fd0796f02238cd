"""What TensorBoard shows besides scalars, and throughput."""

import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_rnn.data.base_module import SequenceDataModule
from lightning_rnn.errors import check
from lightning_rnn.evaluation.plots import evaluation_figures, pixels, save, shown_classes
from lightning_rnn.training.classifier import SequenceClassifier

FIRST = 16  # epoch of the first figures, so that a short run does not pay for them


def is_due(
    epoch: int, every_n_epochs: int | None, *, first: int = 1, last: int | None = None
) -> bool:
    """Tell whether an epoch, counted from 1, is one to look at.

    When not asked for, these are 1, 2, 4, 8, 16 and so on from `first`, and `last`: what they cost together grows with
    the logarithm of a run's length.
    """
    if every_n_epochs is not None:
        return epoch % every_n_epochs == 0
    return epoch == last or (epoch >= first and epoch & (epoch - 1) == 0)


def can_draw() -> bool:
    """Tell whether matplotlib is there; say once what to install where it is not."""
    if find_spec("matplotlib") is not None:
        return True
    if not _told:
        print(
            "figures: left out, they need matplotlib: pip install 'lightning_rnn[figures]'",
            flush=True,
        )
        _told.append(True)
    return False


_told: list[bool] = []


def writer_of(trainer: Trainer) -> Any | None:
    """Return TensorBoard's writer of the run, or None."""
    return trainer.logger.experiment if isinstance(trainer.logger, TensorBoardLogger) else None


class Figures(Callback):
    """Shows evaluations: precision-recall curves and figures, of a few validations and of each test."""

    def __init__(self, *, every_n_epochs: int | None = None) -> None:
        """Set up.

        Args:
            every_n_epochs: Epochs from one look to the next. When not given, curves at the epochs 1, 2, 4, 8 and so on
                and the last, figures at 16, 32, 64 and so on: drawing them takes 2 to 3 s.

        Raises:
            OptionError: Less than one epoch.
        """
        wanted = "an integer of at least 1"
        check(
            every_n_epochs is None or every_n_epochs >= 1,
            "Figures.every_n_epochs",
            every_n_epochs,
            wanted,
        )
        self.every_n_epochs = every_n_epochs
        self.folder: Path | None = None  # where they also go, as PNG

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the validation at an epoch's end."""
        if trainer.state.fn != "fit":
            self._show(trainer, pl_module, "val", None, draws=True)
        elif (
            not trainer.sanity_checking and trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        ):
            epoch, step = trainer.current_epoch + 1, max(0, trainer.global_step - 1)
            if is_due(epoch, self.every_n_epochs, last=trainer.max_epochs):
                self._show(
                    trainer,
                    pl_module,
                    "val",
                    step,
                    draws=is_due(epoch, self.every_n_epochs, first=FIRST),
                )

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the test."""
        self._show(trainer, pl_module, "test", None, draws=True)

    def _show(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        part: str,
        step: int | None,
        *,
        draws: bool,
    ) -> None:
        data, writer = trainer.datamodule, writer_of(trainer)  # type: ignore[attr-defined]  # set by fit and test
        if not trainer.is_global_zero or not isinstance(data, SequenceDataModule):
            return
        assert isinstance(pl_module, SequenceClassifier)
        step = pl_module.stored_step if step is None else step
        outcome, decision, names = (
            pl_module.outcome,
            pl_module.network.decision,
            pl_module.schema.class_names,
        )
        assert outcome is not None
        if writer is not None:
            table, labels = decision.class_probabilities(outcome.logits).cpu(), outcome.labels.cpu()
            for k in shown_classes(labels.numpy(), len(names)):
                tag = f"{part}/pr_curve" if len(names) == 2 else f"{part}/pr_curve/{names[k]}"
                writer.add_pr_curve(tag, labels == k, table[:, k], step)
        sequences = data.split(part)
        if (
            not draws
            or sequences is None
            or (writer is None and self.folder is None)
            or not can_draw()
        ):
            return
        for name, figure in evaluation_figures(outcome, decision, sequences, names):
            if writer is not None:
                writer.add_image(f"{part}/{name}", pixels(figure), step, dataformats="HWC")
            if self.folder is not None:
                save(figure, self.folder / f"{part}_{name}.png")
        if self.folder is not None:
            print(f"figures written to {self.folder}")


class Throughput(Callback):
    """Logs how many sequences a second all ranks train on, validation left out, at each epoch's end."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, where a resumed run begins inside an epoch."""
        self._start, self._paused = time.monotonic(), 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self.on_train_start(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._paused = time.monotonic()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the clock go on."""
        self._start += time.monotonic() - self._paused

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log."""
        count = getattr(trainer.train_dataloader, "count", 0)  # a user's own loader does not count
        rate = count * trainer.world_size / max(1e-9, time.monotonic() - self._start)
        for logger in trainer.loggers if count else ():
            logger.log_metrics(
                {"train/sequences_per_second": rate}, max(0, trainer.global_step - 1)
            )
