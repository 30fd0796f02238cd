"""Draw docs/memory.png: how the gradient fades in RNN, LSTM and GRU on delayed_recall; about 3 minutes.

python docs/memory_picture.py
"""

import tempfile
from contextlib import chdir
from pathlib import Path

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lightning_rnn import SequenceClassifier, SyntheticDataModule
from lightning_rnn.__main__ import main
from lightning_rnn.evaluation.gradient_flow import VANISHED, measure_gradient_flow

CELLS, LENGTHS, EPOCHS = ("rnn", "lstm", "gru"), (10, 50, 200), 20


def trained(cell: str, length: int) -> tuple[torch.Tensor, int, float]:
    """Train and return the gradient curve, its horizon and the validation accuracy of the best epoch."""
    options = {
        "model.cell": cell,
        "data.task": "delayed_recall",
        "data.length": length,
        "trainer.max_epochs": EPOCHS,
    }
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        if main(
            [
                "fit",
                "--trainer.enable_progress_bar",
                "false",
                *(f"--{k}={v}" for k, v in options.items()),
            ]
        ):
            raise SystemExit("fit failed")
        path = Path("lightning_logs/version_0/checkpoints/best.ckpt")
        accuracy = torch.load(path, weights_only=True)["metrics"]["val/accuracy"]
        network = SequenceClassifier.load_from_checkpoint(path, map_location="cpu").network
    part = SyntheticDataModule(task="delayed_recall", length=length).part("val")
    assert part is not None
    memory = measure_gradient_flow(network, part.batch(torch.arange(64)))
    return memory.gradients["layer0"], memory.horizons()["layer0"], accuracy


if __name__ == "__main__":
    figure = Figure(figsize=(12, 3.6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    rows = []
    for place, length in enumerate(LENGTHS):
        axes = figure.add_subplot(1, 3, place + 1)
        for cell in CELLS:
            curve, horizon, accuracy = trained(cell, length)
            rows.append(f"| {length} | {cell} | {horizon} of {len(curve)} | {accuracy:.3f} |")
            axes.plot(
                (curve / curve.max()).numpy(),
                label=f"{cell}: horizon {horizon}, accuracy {accuracy:.2f}",
            )
        axes.axhline(VANISHED, color="0.4", linestyle=":")
        axes.set_yscale("log")
        axes.set_ylim(1e-8, 2)
        axes.set_xlabel("steps before the end")
        axes.set_title(f"{length} steps after the one that decides", loc="left", fontsize="medium")
        axes.legend(loc="lower left", fontsize="small")
    figure.axes[0].set_ylabel("gradient norm of the state,\nshare of the largest")
    figure.savefig(Path(__file__).with_name("memory.png"))
    print("\n".join(rows))
