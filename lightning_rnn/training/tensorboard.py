"""Figures, precision-recall curves, gradient flow and throughput for TensorBoard."""

import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_rnn.data.sequences import Sequences
from lightning_rnn.errors import check
from lightning_rnn.evaluation import plots_gradient_flow as plots
from lightning_rnn.evaluation.gradient_flow import attribute, horizon, measure_gradient_flow
from lightning_rnn.evaluation.plots import curve_classes, evaluation_figures, pixels, save_png
from lightning_rnn.models.network import SequenceNetwork
from lightning_rnn.training.data_statistics import sequence_data
from lightning_rnn.training.logs import last_step, write_to_loggers
from lightning_rnn.training.watching import (
    FIRST_FIGURES,
    Watcher,
    can_draw,
    is_due,
    tensorboard_writer,
)

NUM_MEASURED = 32  # sequences of a measurement of gradient flow
NUM_ATTRIBUTED = 4
MAX_STEPS = 2000  # of sequences measured by default


class Figures(Watcher):
    """Adds precision-recall curves and figures of evaluations to TensorBoard.

    Args:
        every_n_epochs: Interval in epochs. By default, curves are added in epochs 1, 2, 4, 8 and so
            on and in the last, figures in epochs 16, 32, 64 and so on; drawing them takes 2 to 3 s.
            Every separate validation or test is shown.

    Raises:
        OptionError: If `every_n_epochs` is below 1.
    """

    def __init__(self, *, every_n_epochs: int | None = None) -> None:
        is_valid = every_n_epochs is None or every_n_epochs >= 1
        check(is_valid, "Figures.every_n_epochs", every_n_epochs, "an integer of at least 1")
        self.every_n_epochs = every_n_epochs
        self.folder: Path | None = None  # for PNG files of the figures

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Show a validation: a separate one, or one at the end of an epoch that is due."""
        if trainer.state.fn != "fit":
            self._show(trainer, pl_module, "val", pl_module.checkpoint_step, with_figures=True)
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
        self._show(trainer, pl_module, "test", pl_module.checkpoint_step, with_figures=True)

    def _show(
        self, trainer: Trainer, classifier: Any, split: str, step: int, *, with_figures: bool
    ) -> None:
        data = sequence_data(trainer)
        if not self.is_enabled or not trainer.is_global_zero or data is None:
            return
        with self.contain_failure():
            writer = tensorboard_writer(trainer)
            evaluation = classifier.evaluation
            decision = classifier.network.decision
            names = classifier.class_names
            if writer is not None:
                _add_curves(writer, classifier, split, step)
            sequences = data.split(split)
            has_place = writer is not None or self.folder is not None
            if not with_figures or not has_place or sequences is None or not can_draw():
                return
            for name, figure in evaluation_figures(evaluation, decision, sequences, names):
                image = pixels(figure)
                if writer is not None:
                    writer.add_image(f"{split}/{name}", image, step, dataformats="HWC")
                if self.folder is not None:
                    save_png(image, self.folder / f"{split}_{name}.png")
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
            last, with figures from epoch 16 on, and not for sequences of more than 2,000 steps. A
            measurement takes about 0.5 ms a step and layer, its figures 1 s.

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

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Measure the first sequences of the validation split, or else of the training split."""
        data = sequence_data(trainer)
        epoch = trainer.current_epoch + 1
        if not self.is_enabled or not trainer.is_global_zero or data is None:
            return
        if not is_due(epoch, self.every_n_epochs, last=trainer.max_epochs):
            return
        with self.contain_failure():
            writer = tensorboard_writer(trainer)
            sequences = data.split("val") or data.split("train")
            if writer is not None and sequences is not None:
                self._measure(trainer, writer, pl_module.network, sequences)

    def _measure(
        self, trainer: Trainer, writer: Any, network: SequenceNetwork, sequences: Sequences
    ) -> None:
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
        if not is_due(epoch, self.every_n_epochs, first=FIRST_FIGURES) or not can_draw():
            return
        history = {name: torch.stack(curves) for name, curves in self.curves.items()}
        rows = rows[:NUM_ATTRIBUTED]
        contributions = attribute(network, sequences.batch(rows).to(device))
        figures = {
            "gradient": plots.gradient_curves(flow),
            "gradient_by_epoch": plots.gradient_heat_map(self.epochs, history),
            "attribution": plots.attribution(contributions, sequences, rows.tolist()),
        }
        for name, figure in figures.items():
            tag = f"gradient_flow/{name}"
            writer.add_image(tag, pixels(figure), last_step(trainer), dataformats="HWC")

    def state_dict(self) -> dict[str, Any]:
        """Return the measurements of past epochs."""
        return {"epochs": self.epochs, "curves": self.curves}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the measurements of past epochs."""
        self.epochs = list(state_dict["epochs"])
        self.curves = {name: list(curves) for name, curves in state_dict["curves"].items()}


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

    on_train_epoch_start = on_train_start

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
