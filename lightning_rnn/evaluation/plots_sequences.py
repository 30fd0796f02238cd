"""Figures of single sequences: a panel for each feature."""

from typing import Any

import torch
from torch import Tensor

from lightning_rnn.data.schema import Schema
from lightning_rnn.data.sequences import Sequences
from lightning_rnn.evaluation.figures import WIDTH, new_figure, short_names
from lightning_rnn.evaluation.metrics import Metrics

MAX_FEATURES = 6  # panels of a sequence
MAX_PANELS = 12  # of a figure, if two sequences have no more
NUM_EXAMPLES = 6


def mistakes(metrics: Metrics, index: Tensor, sequences: Sequences, schema: Schema) -> Any:
    """Draw the most confident mistakes or, if there are few, also the least confident others.

    The metrics are those of the rows `index` (N,) of the data set `sequences`.
    """
    confidence = metrics.probabilities.gather(1, metrics.predicted[:, None])[:, 0]
    mistakes_first = torch.where(metrics.is_correct, 1 + confidence, -confidence)
    order = mistakes_first.argsort(stable=True)[: num_drawn(sequences, NUM_EXAMPLES)]
    class_names = short_names(schema.class_names)
    titles = []
    for i in order.tolist():
        row = int(index[i])
        name = row if sequences.ids is None else sequences.ids[row]
        title = f"{short_names([str(name)])[0]}: {class_names[metrics.predicted[i]]}"
        title = f"{title} {float(confidence[i]):.3f}"
        if not metrics.is_correct[i]:
            title = f"{title}\ntrue: {class_names[metrics.labels[i]]}"
        titles.append(title)
    figure, _ = sequence_panels(sequences, schema, index[order].tolist(), titles)
    for part, i in zip(figure.subfigs, order, strict=False):  # one may be empty
        part.texts[0].set_color("black" if metrics.is_correct[i] else "tab:red")
    return figure


def num_drawn(sequences: Sequences, wanted: int, num_more: int = 0) -> int:
    """Return how many sequences a figure shows, each with `num_more` panels below its features."""
    num_panels = min(sequences.num_features, MAX_FEATURES) + num_more
    return max(2, min(wanted, MAX_PANELS // num_panels))


def sequence_panels(
    sequences: Sequences, schema: Schema, rows: list[int], titles: list[str], num_more: int = 0
) -> tuple[Any, list[list[Any]]]:
    """Draw sequences in two columns, with a panel for each of the first six features.

    Returns:
        The figure, and for each sequence the axes of `num_more` panels below its features.
    """
    names = schema.feature_names
    if names is None:
        names = [f"feature {k}" for k in range(sequences.num_features)]
    names = short_names(names)[:MAX_FEATURES]
    num_panels = len(names) + num_more
    num_rows = (len(rows) + 1) // 2
    figure = new_figure(WIDTH, num_rows * (0.6 + 0.8 * num_panels) + 0.2)
    parts = figure.subfigures(num_rows, min(2, len(rows)), squeeze=False).flat
    others = []
    for row, title, part in zip(rows, titles, parts, strict=False):
        x = sequences.batch(torch.tensor([row])).x[0].numpy()  # (T, F)
        part.suptitle(title, fontsize="small", x=0.02, ha="left")
        panels = part.subplots(num_panels, 1, sharex=True, squeeze=False)[:, 0].tolist()
        for axes in panels:
            axes.tick_params(labelsize="x-small")
            axes.locator_params(axis="x", integer=True)
            axes.locator_params(axis="y", nbins=3)
            axes.ticklabel_format(useOffset=False)
            axes.spines[["top", "right"]].set_visible(False)
        for k, name in enumerate(names):
            panels[k].plot(x[:, k], linewidth=1, marker="." if len(x) < 30 else "", color=f"C{k}")
            panels[k].set_title(name, fontsize="small", loc="left", pad=2)
        others.append(panels[len(names) :])
    text = f"step; features: {len(names)} of {sequences.num_features}"
    figure.supxlabel(text, fontsize="small")
    return figure, others
