"""Gradient flow in TensorBoard, epoch by epoch."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_rnn.data.base_module import SequenceDataModule
from lightning_rnn.data.sequences import Sequences
from lightning_rnn.errors import check
from lightning_rnn.evaluation.drawing import pixels
from lightning_rnn.evaluation.gradient_flow import GradientFlow, attribute, measure_gradient_flow
from lightning_rnn.evaluation.plots_gradient_flow import (
    attribution,
    gradient_curves,
    gradient_heat_map,
)
from lightning_rnn.models.network import SequenceNetwork
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

NUM_MEASURED = 32  # sequences
NUM_ATTRIBUTED = 4
MAX_STEPS = 2000  # of sequences measured by default


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

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the first sequences of the validation split, or else of the training split."""
        data = sequence_data(trainer)
        epoch = trainer.current_epoch + 1
        if not self.is_enabled or not trainer.is_global_zero or data is None:
            return
        if not is_due(epoch, self.every_n_epochs, last=trainer.max_epochs):
            return
        assert isinstance(pl_module, SequenceClassifier)
        with self.contain_failure():
            if tensorboard_writer(trainer) is not None:
                self._measure(trainer, pl_module.network, data, epoch)

    def _measure(
        self, trainer: Trainer, network: SequenceNetwork, data: SequenceDataModule, epoch: int
    ) -> None:
        sequences = data.split("val") or data.split("train")
        assert sequences is not None
        rows = list(range(min(NUM_MEASURED, len(sequences))))
        batch = sequences.batch(torch.tensor(rows))
        if self.every_n_epochs is None and batch.x.shape[1] > MAX_STEPS:
            return
        flow = measure_gradient_flow(network, batch.to(network.head.weight.device))
        self.epochs.append(epoch)
        for name, curve in flow.gradients.items():
            self.curves.setdefault(name, []).append(curve)
        scalars: dict[str, float] = {}
        for name, steps in flow.horizons().items():
            scalars[f"gradient_flow/horizon/{name}"] = float(steps)
        for name, share in flow.saturation.items():
            scalars[f"gradient_flow/saturation/{name}"] = share
        write_to_loggers(trainer.loggers, scalars, last_step(trainer))
        with_figures = is_due(epoch, self.every_n_epochs, first=FIRST_FIGURES)
        if with_figures and can_draw():
            self._draw(trainer, network, flow, sequences, rows[:NUM_ATTRIBUTED])

    def _draw(
        self,
        trainer: Trainer,
        network: SequenceNetwork,
        flow: GradientFlow,
        sequences: Sequences,
        rows: list[int],
    ) -> None:
        batch = sequences.batch(torch.tensor(rows)).to(network.head.weight.device)
        history = {name: torch.stack(curves) for name, curves in self.curves.items()}
        figures = {
            "gradient": gradient_curves(flow),
            "gradient_by_epoch": gradient_heat_map(self.epochs, history),
            "attribution": attribution(attribute(network, batch), sequences, rows),
        }
        writer = tensorboard_writer(trainer)
        assert writer is not None
        step = last_step(trainer)
        for name, figure in figures.items():
            writer.add_image(f"gradient_flow/{name}", pixels(figure), step, dataformats="HWC")

    def state_dict(self) -> dict[str, Any]:
        """Return the measurements of past epochs."""
        return {"epochs": self.epochs, "curves": self.curves}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the measurements of past epochs."""
        self.epochs = list(state_dict["epochs"])
        self.curves = {}
        for name, curves in state_dict["curves"].items():
            self.curves[name] = list(curves)
