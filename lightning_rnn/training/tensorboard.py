"""Figures and precision-recall curves for TensorBoard, and throughput."""

import time
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from lightning_rnn.data.sequences import Sequences
from lightning_rnn.errors import check
from lightning_rnn.evaluation.drawing import pixels, save_png
from lightning_rnn.evaluation.plots import curve_classes, evaluation_figures
from lightning_rnn.training.classifier import SequenceClassifier
from lightning_rnn.training.data_statistics import sequence_data
from lightning_rnn.training.logs import last_step, write_to_loggers
from lightning_rnn.training.watching import (
    FIRST_FIGURES,
    Watcher,
    can_draw,
    is_due,
    tensorboard_writer,
)


class Figures(Watcher):
    """Adds precision-recall curves and figures of evaluations to TensorBoard.

    Args:
        every_n_epochs: Interval in epochs. By default, curves are added in epochs 1, 2, 4, 8 and so
            on and in the last, figures in epochs 16, 32, 64 and so on; drawing them takes 2 to 3 s.
            Every separate validation or test is shown.

    Attributes:
        folder: If not None, figures are also written there as PNG files.

    Raises:
        OptionError: If `every_n_epochs` is below 1.
    """

    def __init__(self, *, every_n_epochs: int | None = None) -> None:
        is_valid = every_n_epochs is None or every_n_epochs >= 1
        check(is_valid, "Figures.every_n_epochs", every_n_epochs, "an integer of at least 1")
        self.every_n_epochs = every_n_epochs
        self.folder: Path | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Show a validation: a separate one, or one at the end of an epoch that is due."""
        if trainer.state.fn != "fit":
            self._show(trainer, pl_module, "val", pl_module.checkpoint_step)
            return
        is_epoch_end = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        if trainer.sanity_checking or not is_epoch_end:
            return
        epoch = trainer.current_epoch + 1
        if is_due(epoch, self.every_n_epochs, last=trainer.max_epochs):
            with_figures = is_due(epoch, self.every_n_epochs, first=FIRST_FIGURES)
            self._show(trainer, pl_module, "val", last_step(trainer), with_figures=with_figures)

    def on_test_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Show the test."""
        self._show(trainer, pl_module, "test", pl_module.checkpoint_step)

    def _show(
        self,
        trainer: Trainer,
        classifier: SequenceClassifier,
        split: str,
        step: int,
        *,
        with_figures: bool = True,
    ) -> None:
        data = sequence_data(trainer)
        if not self.is_enabled or not trainer.is_global_zero or data is None:
            return
        with self.contain_failure():
            writer = tensorboard_writer(trainer)
            if writer is not None:
                _add_curves(writer, classifier, split, step)
            sequences = data.split(split)
            has_place = writer is not None or self.folder is not None
            if with_figures and has_place and sequences is not None and can_draw():
                self._draw(writer, classifier, sequences, split, step)

    def _draw(
        self,
        writer: Any | None,
        classifier: SequenceClassifier,
        sequences: Sequences,
        split: str,
        step: int,
    ) -> None:
        assert classifier.evaluation is not None
        decision = classifier.network.decision
        names = classifier.class_names
        for name, figure in evaluation_figures(classifier.evaluation, decision, sequences, names):
            if writer is not None:
                writer.add_image(f"{split}/{name}", pixels(figure), step, dataformats="HWC")
            if self.folder is not None:
                save_png(figure, self.folder / f"{split}_{name}.png")
        if self.folder is not None:
            print(f"figures written to {self.folder}")


def _add_curves(writer: Any, classifier: SequenceClassifier, split: str, step: int) -> None:
    assert classifier.evaluation is not None
    logits = classifier.evaluation.logits
    probabilities = classifier.network.decision.class_probabilities(logits).cpu()
    labels = classifier.evaluation.labels.cpu()
    names = classifier.class_names
    for k in curve_classes(labels, len(names)):
        tag = f"{split}/pr_curve" if len(names) == 2 else f"{split}/pr_curve/{names[k]}"
        writer.add_pr_curve(tag, labels == k, probabilities[:, k], step)


class Throughput(Watcher):
    """Logs at the end of each epoch how many sequences a second are trained on by all ranks.

    Validation is not counted.
    """

    def __init__(self) -> None:
        self._start = 0.0
        self._validation_start = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock; a resumed run may begin inside an epoch."""
        self._start = time.monotonic()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._start = time.monotonic()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._validation_start = time.monotonic()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Continue the clock."""
        self._start += time.monotonic() - self._validation_start

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the throughput; loaders of other packages do not count their sequences."""
        count = getattr(trainer.train_dataloader, "count", 0)
        if self.is_enabled and count:
            with self.contain_failure():
                seconds = max(1e-9, time.monotonic() - self._start)
                rate = count * trainer.world_size / seconds
                write_to_loggers(trainer, {"train/sequences_per_second": rate})
