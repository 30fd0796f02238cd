"""Draw docs/gradient_flow.png: gradient norm by time step with torch's starting weights and ours.

    python docs/gradient_flow_picture.py

Takes about a minute.
"""

import logging
import warnings
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lightning_rnn import SequenceClassifier, SyntheticDataModule
from lightning_rnn.evaluation.gradient_flow import (
    VANISHED,
    GradientFlow,
    horizon,
    measure_gradient_flow,
)

CELLS = ("rnn", "lstm", "gru", "mingru")
STARTS = {"torch": "torch's starting weights", "chrono": "our starting weights"}
LENGTH = 50


class FirstFlow(Callback):
    """Measures the gradient flow before the first step."""

    def on_train_start(self, trainer: Trainer, pl_module: SequenceClassifier) -> None:
        """Measure."""
        self.flow = flow_of(pl_module)


def flow_of(model: SequenceClassifier) -> GradientFlow:
    """Return the gradient flow for 64 validation sequences."""
    sequences = SyntheticDataModule(task="delayed_recall", length=LENGTH).split("val")
    return measure_gradient_flow(model.network, sequences.batch(torch.arange(64)))


def train(cell: str, start: str) -> tuple[GradientFlow, GradientFlow, float]:
    """Return the gradient flow before and after training, and the accuracy."""
    seed_everything(0)
    model = SequenceClassifier(cell=cell, initialization=start)
    data = SyntheticDataModule(task="delayed_recall", length=LENGTH, num_train=4000)
    first_flow = FirstFlow()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=10,
        gradient_clip_val=1.0,
        callbacks=[first_flow],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(model, data)
    accuracy = trainer.test(model, data, verbose=False)[0]["test/accuracy"]
    return first_flow.flow, flow_of(model), accuracy


def draw(axes: Axes, flow: GradientFlow, label: str) -> None:
    """Draw one curve."""
    curve = flow.gradients["layer0"]
    axes.plot((curve / curve.max()).numpy(), label=f"{label}horizon {horizon(curve)}")
    axes.axhline(VANISHED, color="0.4", linestyle=":")
    axes.set_yscale("log")
    axes.set_ylim(1e-8, 2)
    axes.legend(loc="lower left", fontsize="small")


def main() -> None:
    """Draw the curves before training above those after it."""
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    figure = Figure(figsize=(9, 7), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    plots = figure.subplots(2, len(STARTS), sharex=True, sharey=True)
    for column, (start, title) in enumerate(STARTS.items()):
        plots[0, column].set_title(f"{title}, before training", loc="left", fontsize="medium")
        plots[1, column].set_title(f"{title}, after training", loc="left", fontsize="medium")
        for cell in CELLS:
            before, after, accuracy = train(cell, start)
            draw(plots[0, column], before, f"{cell}: ")
            draw(plots[1, column], after, f"{cell}: accuracy {accuracy:.3f}, ")
            curves = (before.gradients["layer0"], after.gradients["layer0"])
            horizons = " | ".join(str(horizon(curve)) for curve in curves)
            print(f"| {start} | {cell} | {horizons} | {accuracy:.3f} |", flush=True)
        plots[1, column].set_xlabel("steps before the end")
    figure.supylabel("gradient norm of the state, relative to the maximum", fontsize="medium")
    figure.savefig(Path(__file__).with_name("gradient_flow.png"))


if __name__ == "__main__":
    main()
