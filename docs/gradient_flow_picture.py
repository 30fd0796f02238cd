"""Draw docs/gradient_flow.png: gradient norm by time step of RNN, LSTM and GRU on delayed_recall.

    python docs/gradient_flow_picture.py

Takes about 3 minutes.
"""

import tempfile
from contextlib import chdir
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lightning_rnn import SequenceClassifier, SyntheticDataModule
from lightning_rnn.__main__ import main as run_command_line
from lightning_rnn.evaluation.gradient_flow import VANISHED, measure_gradient_flow

CELLS = ("rnn", "lstm", "gru")
LENGTHS = (10, 50, 200)
EPOCHS = 20


def train(cell: str, length: int) -> tuple[torch.Tensor, int, float]:
    """Return the gradient curve, its horizon and the validation accuracy of the best epoch."""
    options = {
        "model.cell": cell,
        "data.task": "delayed_recall",
        "data.length": length,
        "trainer.max_epochs": EPOCHS,
        "trainer.enable_progress_bar": "false",
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        if run_command_line(["fit", *flags]) != 0:
            raise SystemExit("fit failed")
        path = Path("lightning_logs/version_0/checkpoints/best.ckpt")
        accuracy = torch.load(path, weights_only=True)["metrics"]["val/accuracy"]
        network = SequenceClassifier.load_from_checkpoint(path, map_location="cpu").network
    sequences = SyntheticDataModule(task="delayed_recall", length=length).split("val")
    flow = measure_gradient_flow(network, sequences.batch(torch.arange(64)))
    return flow.gradients["layer0"], flow.horizons()["layer0"], accuracy


def draw(axes: Axes, length: int) -> None:
    """Train all cells for one length and draw their curves."""
    for cell in CELLS:
        curve, horizon, accuracy = train(cell, length)
        print(f"| {length} | {cell} | {horizon} of {len(curve)} | {accuracy:.3f} |")
        label = f"{cell}: horizon {horizon}, accuracy {accuracy:.2f}"
        axes.plot((curve / curve.max()).numpy(), label=label)
    axes.axhline(VANISHED, color="0.4", linestyle=":")
    axes.set_yscale("log")
    axes.set_ylim(1e-8, 2)
    axes.set_xlabel("steps before the end")
    axes.set_title(f"{length} steps after the decisive one", loc="left", fontsize="medium")
    axes.legend(loc="lower left", fontsize="small")


def main() -> None:
    """Draw one panel per length."""
    figure = Figure(figsize=(12, 3.6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    for number, length in enumerate(LENGTHS, start=1):
        draw(figure.add_subplot(1, len(LENGTHS), number), length)
    figure.axes[0].set_ylabel("gradient norm of the state,\nrelative to the maximum")
    figure.savefig(Path(__file__).with_name("gradient_flow.png"))


if __name__ == "__main__":
    main()
