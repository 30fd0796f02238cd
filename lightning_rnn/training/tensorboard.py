"""Figures, precision-recall curves, gradient flow and throughput for TensorBoard."""

import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from lightning_rnn.data.sequences import Sequences
from lightning_rnn.errors import check
from lightning_rnn.evaluation import plots_gradient_flow as plots
from lightning_rnn.evaluation.figures import pixels, save_png
from lightning_rnn.evaluation.gradient_flow import (
    GradientFlow,
    attribute,
    horizon,
    measure_gradient_flow,
)
from lightning_rnn.evaluation.plots import curve_classes, evaluation_figures
from lightning_rnn.training.data_statistics import sequence_data
from lightning_rnn.training.logs import last_step, write_to_loggers
from lightning_rnn.training.validation_interval import is_last_step
from lightning_rnn.training.watching import (
    DrawingTime,
    Watcher,
    can_draw,
    is_due,
    show_image,
    shows_images,
)

NUM_MEASURED = 32  # sequences of a measurement of gradient flow
NUM_ATTRIBUTED = 4
MAX_STEPS = 2000  # of sequences measured by default


class Figures(Watcher):
    """Adds precision-recall curves and figures of evaluations to TensorBoard.

    Args:
        every_n_epochs: Interval in epochs, of which those with a validation are shown. By default,
            these are the epochs 1, 2, 4, 8 and so on and the last, and figures are left out where
            drawing them, in about 1 s, would take more than 5 % of the time of the run. Every
            separate validation or test is shown.

    Raises:
        OptionError: If `every_n_epochs` is below 1.
    """

    def __init__(self, *, every_n_epochs: int | None = None) -> None:
        is_valid = every_n_epochs is None or every_n_epochs >= 1
        check(is_valid, "Figures.every_n_epochs", every_n_epochs, "an integer of at least 1")
        self.every_n_epochs = every_n_epochs
        self.folder: Path | None = None  # for PNG files of the figures
        self.saved: list[Path] = []  # of the last evaluation
        self._drawing_time = DrawingTime()
        self._last_shown = -1  # step of the last validation that was shown
        self._last_validated = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start to measure the time of the run."""
        self._drawing_time = DrawingTime()

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Show a validation: a separate one, or one at the end of an epoch that is due."""
        if trainer.state.fn != "fit":
            self._show(trainer, pl_module, "val", pl_module.checkpoint_step, with_figures=True)
            return
        if trainer.sanity_checking:
            return
        self._last_validated = last_step(trainer)
        is_epoch_end = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        if is_epoch_end and is_due(trainer.current_epoch + 1, self.every_n_epochs):
            self._show_validation(trainer, pl_module, is_last=False)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Show the last validation, unless there is an interval."""
        if self.every_n_epochs is None and self._last_validated != self._last_shown:
            self._show_validation(trainer, pl_module, is_last=True)

    def _show_validation(self, trainer: Trainer, pl_module: Any, *, is_last: bool) -> None:
        has_interval = self.every_n_epochs is not None
        with_figures = has_interval or self._drawing_time.suffices(is_last=is_last)
        self._last_shown = self._last_validated
        self._show(trainer, pl_module, "val", self._last_validated, with_figures=with_figures)

    def on_test_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Show the test."""
        self._show(trainer, pl_module, "test", pl_module.checkpoint_step, with_figures=True)

    def _show(
        self, trainer: Trainer, classifier: Any, split: str, step: int, *, with_figures: bool
    ) -> None:
        data = sequence_data(trainer)
        if not self.is_enabled or not trainer.is_global_zero or data is None:
            return
        self.saved = []
        with self.contain_failure():
            evaluation = classifier.evaluation
            decision = classifier.network.decision
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    _add_curves(logger.experiment, classifier, split, step)
            schema = classifier.schema
            sequences = data.split(split)
            has_place = shows_images(trainer) or self.folder is not None
            if not with_figures or not has_place or sequences is None or not can_draw():
                return
            with self._drawing_time.measure():
                for name, figure in evaluation_figures(evaluation, decision, sequences, schema):
                    image = pixels(figure)
                    show_image(trainer, f"{split}/{name}", image, step)
                    if self.folder is not None:
                        self.saved.append(self.folder / f"{split}_{name}.png")
                        save_png(image, self.saved[-1])
            if self.folder is not None:
                print(f"figures written to {self.folder}")


def _add_curves(writer: Any, classifier: Any, split: str, step: int) -> None:
    logits = classifier.evaluation.logits
    probabilities = classifier.network.decision.class_probabilities(logits).cpu()
    labels = classifier.evaluation.labels.cpu()
    names = classifier.class_names
    for k in curve_classes(labels, len(names)):
        tag = f"{split}/pr_curve" if len(names) == 2 else f"{split}/pr_curve/{names[k]}"
        writer.add_pr_curve(tag, labels == k, probabilities[:, k], step)


class GradientFlowProbe(Watcher):
    """Adds the gradient flow and the saturation of gates to TensorBoard.

    Args:
        every_n_epochs: Interval in epochs. By default, the epochs 1, 2, 4, 8 and so on and the
            last, and not for sequences of more than 2,000 steps. A measurement takes about 0.5 ms a
            step and layer. By default, its figures are left out where drawing them, in about 1 s,
            would take more than 5 % of the time of the run.

    Raises:
        OptionError: If `every_n_epochs` is below 1.
    """

    def __init__(self, *, every_n_epochs: int | None = None) -> None:
        is_valid = every_n_epochs is None or every_n_epochs >= 1
        name = "GradientFlowProbe.every_n_epochs"
        check(is_valid, name, every_n_epochs, "an integer of at least 1")
        self.every_n_epochs = every_n_epochs
        self.epochs: list[int] = []
        self.curves: dict[str, list[Tensor]] = {}
        self._drawing_time = DrawingTime()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start to measure the time of the run."""
        self._drawing_time = DrawingTime()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Measure the first sequences of the validation split, or else of the training split."""
        data = sequence_data(trainer)
        epoch = trainer.current_epoch + 1
        if not self.is_enabled or not trainer.is_global_zero or data is None:
            return
        if pl_module.network.encoder is not None:  # there is no state to follow
            return
        if not is_due(epoch, self.every_n_epochs, is_last=is_last_step(trainer)):
            return
        with self.contain_failure():
            sequences = data.split("val") or data.split("train")
            if trainer.loggers and sequences is not None:
                self._measure(trainer, pl_module, sequences)

    def _measure(self, trainer: Trainer, classifier: Any, sequences: Sequences) -> None:
        network = classifier.network
        rows = torch.arange(min(NUM_MEASURED, len(sequences)))
        device = network.head.weight.device
        batch = sequences.batch(rows).to(device)
        if self.every_n_epochs is None and batch.x.shape[1] > MAX_STEPS:
            return
        flow = measure_gradient_flow(network, batch)
        epoch = trainer.current_epoch + 1
        self.epochs.append(epoch)
        scalars: dict[str, float] = {}
        for name, curve in flow.gradients.items():
            self.curves.setdefault(name, []).append(curve)
            scalars[f"gradient_flow/horizon/{name}"] = horizon(curve)
        for name, share in flow.saturation.items():
            scalars[f"gradient_flow/saturation/{name}"] = share
        write_to_loggers(trainer, scalars)
        suffices = self._drawing_time.suffices(is_last=is_last_step(trainer))
        has_time = self.every_n_epochs is not None or suffices
        if not has_time or not shows_images(trainer) or not can_draw():
            return
        with self._drawing_time.measure():
            for name, figure in self._draw(classifier, sequences, flow).items():
                step = last_step(trainer)
                show_image(trainer, f"gradient_flow/{name}", pixels(figure), step)

    def _draw(self, classifier: Any, sequences: Sequences, flow: GradientFlow) -> dict[str, Any]:
        """Return the figures of a measurement by name."""
        network = classifier.network
        rows = torch.arange(min(NUM_ATTRIBUTED, len(sequences)))
        device = network.head.weight.device
        contributions = attribute(network, sequences.batch(rows).to(device))
        history = {name: torch.stack(curves) for name, curves in self.curves.items()}
        return {
            "gradient": plots.gradient_curves(flow),
            "gradient_by_epoch": plots.gradient_heat_map(self.epochs, history),
            "attribution": plots.attribution(
                contributions, sequences, rows.tolist(), classifier.schema
            ),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the measurements of past epochs."""
        return {"epochs": self.epochs, "curves": self.curves}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the measurements of past epochs."""
        self.epochs = list(state_dict["epochs"])
        self.curves = {name: list(curves) for name, curves in state_dict["curves"].items()}


class Throughput(Watcher):
    """Logs at the end of each epoch how many sequences a second are trained on by all ranks.

    Neither validation nor drawing and saving, which follow it, are counted.
    """

    def __init__(self) -> None:
        self._start: float | None = None  # None while the clock stands still
        self._seconds = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock; a resumed run may begin inside an epoch."""
        self._start = time.monotonic()
        self._seconds = 0.0

    on_train_epoch_start = on_train_start

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._stop()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Continue after a validation."""
        if self._start is None:
            self._start = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the throughput; loaders of other packages do not count their sequences."""
        self._stop()
        count = getattr(trainer.train_dataloader, "count", 0)
        if self.is_enabled and count:
            with self.contain_failure():
                rate = count * trainer.world_size / max(1e-9, self._seconds)
                write_to_loggers(trainer, {"train/sequences_per_second": rate})

    def _stop(self) -> None:
        if self._start is not None:
            self._seconds += time.monotonic() - self._start
        self._start = None
