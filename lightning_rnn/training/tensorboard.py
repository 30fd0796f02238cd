"""Figures and precision-recall curves for TensorBoard, and throughput."""

import time
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from lightning_rnn.errors import check
from lightning_rnn.evaluation.drawing import pixels, save_png
from lightning_rnn.evaluation.plots import curve_classes, evaluation_figures
from lightning_rnn.training.classifier import SequenceClassifier
from lightning_rnn.training.data_statistics import sequence_data
from lightning_rnn.training.logs import write_to_loggers
from lightning_rnn.training.watching import (
    FIRST_FIGURES,
    Watcher,
    can_draw,
    is_due,
    last_step,
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

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show a validation: a separate one, or one at the end of an epoch that is due."""
        if trainer.state.fn != "fit":
            self._show(trainer, pl_module, "val", None, with_figures=True)
            return
        is_epoch_end = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        if trainer.sanity_checking or not is_epoch_end:
            return
        epoch = trainer.current_epoch + 1
        if is_due(epoch, self.every_n_epochs, last=trainer.max_epochs):
            with_figures = is_due(epoch, self.every_n_epochs, first=FIRST_FIGURES)
            step = last_step(trainer)
            self._show(trainer, pl_module, "val", step, with_figures=with_figures)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the test."""
        self._show(trainer, pl_module, "test", None, with_figures=True)

    def _show(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        split: str,
        step: int | None,
        *,
        with_figures: bool,
    ) -> None:
        """Show the last evaluation, at the step of the checkpoint if no step is given."""
        if not self.is_enabled or not trainer.is_global_zero or sequence_data(trainer) is None:
            return
        assert isinstance(pl_module, SequenceClassifier)
        if step is None:
            step = pl_module.checkpoint_step
        with self.contain_failure():
            writer = tensorboard_writer(trainer)
            if writer is not None:
                _add_curves(writer, pl_module, split, step)
            if with_figures and (writer is not None or self.folder is not None) and can_draw():
                self._draw(trainer, pl_module, split, step)

    def _draw(
        self, trainer: Trainer, classifier: SequenceClassifier, split: str, step: int
    ) -> None:
        data = sequence_data(trainer)
        writer = tensorboard_writer(trainer)
        sequences = None if data is None else data.split(split)
        if sequences is None or classifier.evaluation is None:
            return
        decision = classifier.network.decision
        names = classifier.schema.class_names
        for name, figure in evaluation_figures(classifier.evaluation, decision, sequences, names):
            image = pixels(figure)
            if writer is not None:
                writer.add_image(f"{split}/{name}", image, step, dataformats="HWC")
            if self.folder is not None:
                save_png(image, self.folder / f"{split}_{name}.png")
        if self.folder is not None:
            print(f"figures written to {self.folder}")


def _add_curves(writer: Any, classifier: SequenceClassifier, split: str, step: int) -> None:
    evaluation = classifier.evaluation
    if evaluation is None:
        return
    probabilities = classifier.network.decision.class_probabilities(evaluation.logits).cpu()
    labels = evaluation.labels.cpu()
    names = classifier.schema.class_names
    for k in curve_classes(labels, len(names)):
        tag = f"{split}/pr_curve"
        if len(names) > 2:
            tag = f"{tag}/{names[k]}"
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
        if not self.is_enabled or not count:
            return
        with self.contain_failure():
            seconds = max(1e-9, time.monotonic() - self._start)
            rate = count * trainer.world_size / seconds
            write_to_loggers(
                trainer.loggers, {"train/sequences_per_second": rate}, last_step(trainer)
            )
