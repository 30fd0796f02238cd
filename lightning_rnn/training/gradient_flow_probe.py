"""Gradient flow in TensorBoard, epoch by epoch."""

from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lightning_rnn.data.sequences import Sequences
from lightning_rnn.errors import check
from lightning_rnn.evaluation import plots_gradient_flow as plots
from lightning_rnn.evaluation.drawing import pixels
from lightning_rnn.evaluation.gradient_flow import attribute, horizon, measure_gradient_flow
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
