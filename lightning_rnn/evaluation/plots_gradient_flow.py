"""Figures of gradient flow and attribution; see `lightning_rnn.evaluation.plots`."""

from typing import Any

import numpy as np
from torch import Tensor

from lightning_rnn.data.schema import Schema
from lightning_rnn.data.sequences import Sequences
from lightning_rnn.evaluation.figures import WIDTH, new_axes, new_figure
from lightning_rnn.evaluation.gradient_flow import VANISHED, GradientFlow, horizon
from lightning_rnn.evaluation.plots_sequences import num_drawn, sequence_panels

MIN_SHARE = 1e-8  # smaller ones are lost in single precision


def gradient_curves(flow: GradientFlow) -> Any:
    """Draw gradient norms of each layer and direction, as shares of the largest."""
    ylabel = "gradient norm of the state, share of the largest"
    figure, axes = new_axes("gradient flow through time", "steps before the end", ylabel)
    for name, curve in flow.gradients.items():
        label = f"{name}: horizon {horizon(curve)}"
        axes.plot((curve / curve.max()).numpy(), label=label, linewidth=1.5)
    axes.axhline(VANISHED, color="0.4", linestyle=":")
    axes.set_yscale("log")
    axes.set_ylim(MIN_SHARE, 2)
    axes.legend(loc="lower left", fontsize="small")
    return figure


def gradient_heat_map(epochs: list[int], curves: dict[str, Tensor]) -> Any:
    """Draw gradient norms (E, T) of each layer and direction over E epochs."""
    figure = new_figure(WIDTH, 1.0 + 1.8 * len(curves))
    for place, (name, norms) in enumerate(curves.items()):
        axes = figure.add_subplot(len(curves), 1, place + 1, ylabel="epoch", title=name)
        shares = norms / norms.amax(1, keepdim=True)
        logarithms = shares.clamp(min=MIN_SHARE).log10().numpy()
        image = axes.imshow(logarithms, aspect="auto", vmin=-8, vmax=0, interpolation="nearest")
        axes.set_yticks(range(len(epochs)), [str(epoch) for epoch in epochs], fontsize="x-small")
        figure.colorbar(image, ax=axes, label="log10 of the share")
    axes.set_xlabel("steps before the end")
    return figure


def attribution(
    contributions: Tensor, sequences: Sequences, rows: list[int], schema: Schema
) -> Any:
    """Draw R rows of a data set, and below them the contributions (R, T) from `attribute`."""
    rows = rows[: num_drawn(sequences, len(rows), num_more=1)]
    titles = [f"sequence {row}" for row in rows]
    figure, panels = sequence_panels(sequences, schema, rows, titles, num_more=1)
    for place, (row, (below,)) in enumerate(zip(rows, panels, strict=True)):
        length = int(sequences.lengths[row])
        values = contributions[place, :length].numpy()
        colors = np.where(values >= 0, "tab:blue", "tab:red")
        below.bar(range(length), values, width=1.0, color=colors)
        below.set_title("contribution", fontsize="small", loc="left", pad=2)
        below.set_xlim(-0.5, length - 0.5)
    return figure
