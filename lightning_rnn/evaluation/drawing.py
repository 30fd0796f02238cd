"""Shared by all figures.

matplotlib (`pip install 'lightning_rnn[figures]'`) is imported when the first figure is drawn, and
without pyplot, so that no window is opened and no figure has to be closed.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from lightning_rnn.atomic_files import atomic_write
from lightning_rnn.data.sequences import Sequences

MAX_FEATURES = 8  # lines of a sequence


def new_figure(width: float, height: float) -> Any:
    """Return an empty figure; sizes in inches of 100 pixels."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=100, layout="constrained")


def new_axes(title: str, xlabel: str, ylabel: str, *, height: float = 4.8) -> tuple[Any, Any]:
    """Return a figure with a single plot, and the plot's axes."""
    figure = new_figure(height * 4 / 3, height)
    axes = figure.add_subplot(xlabel=xlabel, ylabel=ylabel)
    axes.set_title(title, loc="left")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def plot_sequence(axes: Any, sequences: Sequences, row: int) -> None:
    """Plot the first features of a sequence over its steps."""
    x = sequences.batch(torch.tensor([row])).x[0, :, :MAX_FEATURES].numpy()  # (T, F)
    axes.plot(x, linewidth=1, marker="." if len(x) < 30 else "")
    axes.tick_params(labelsize="x-small")


def add_legend(axes: Any, location: str) -> None:
    """Add a legend if there is something to explain."""
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc=location, fontsize="small")


def save_png(figure: Any, path: Path) -> None:
    """Write a figure to a PNG file."""
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png")


def pixels(figure: Any) -> np.ndarray:
    """Return a figure as an array (height, width, 3) of uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]
