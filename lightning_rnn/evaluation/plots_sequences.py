"""Figures of single sequences: a panel for each feature."""

from typing import Any

import torch
from torch import Tensor

from lightning_rnn.data.schema import Schema
from lightning_rnn.data.sequences import Sequences
from lightning_rnn.evaluation.figures import WIDTH, new_figure, short_names
from lightning_rnn.evaluation.metrics import WeightedMetrics

MAX_FEATURES = 6  # panels of a sequence
MAX_PANELS = 12  # of a figure, or those of two sequences
NUM_EXAMPLES = 6


def confident_mistakes_first(metrics: WeightedMetrics, count: int) -> list[tuple[int, float]]:
    """Return some of N sequences, each with the probability of the class that is predicted.

    The mistakes come first, the most probable one ahead, then the others, the least probable ahead.
    """
    confidence = metrics.probabilities.gather(1, metrics.predicted[:, None])[:, 0]
    order = torch.where(metrics.is_correct, 1 + confidence, -confidence).argsort(stable=True)
    return [(i, float(confidence[i])) for i in order[:count].tolist()]


def mistakes(metrics: WeightedMetrics, index: Tensor, sequences: Sequences, schema: Schema) -> Any:
    """Draw the most confident mistakes or, if there are few, also the least confident others.

    The metrics are those of the rows `index` (N,) of the data set `sequences`.
    """
    class_names = short_names(schema.class_names)
    num_examples = min(len(index), num_drawn(sequences, NUM_EXAMPLES))
    panels = SequencePanels(sequences, schema, num_examples)
    for i, confidence in confident_mistakes_first(metrics, num_examples):
        row = int(index[i])
        name = row if sequences.ids is None else sequences.ids[row]
        title = f"{short_names([str(name)])[0]}: {class_names[metrics.predicted[i]]}"
        title = f"{title} {confidence:.3f}"
        color = "black"
        if not metrics.is_correct[i]:
            title = f"{title}\ntrue: {class_names[metrics.labels[i]]}"
            color = "tab:red"
        panels.add(row, title, color)
    return panels.figure


def num_drawn(sequences: Sequences, wanted: int, num_more: int = 0) -> int:
    """Return how many sequences a figure shows, each with `num_more` panels below its features."""
    num_panels = min(sequences.num_features, MAX_FEATURES) + num_more
    return max(2, min(wanted, MAX_PANELS // num_panels))


class SequencePanels:
    """A figure of sequences in two columns, with a panel for each of the first features.

    Args:
        sequences: The data set.
        schema: Names of its features.
        num_sequences: Number of sequences that will be added.
        num_more: Number of further panels of each sequence.
    """

    def __init__(
        self, sequences: Sequences, schema: Schema, num_sequences: int, num_more: int = 0
    ) -> None:
        names = [f"feature {k}" for k in range(sequences.num_features)]
        if len(names) == 1:
            names = [""]
        self.names = short_names(schema.feature_names or names)[:MAX_FEATURES]
        self.sequences = sequences
        self.num_panels = len(self.names) + num_more
        num_rows = (num_sequences + 1) // 2
        height = 0.8 if self.num_panels > 1 else 1.1
        self.figure = new_figure(WIDTH, num_rows * (0.5 + height * self.num_panels) + 0.2)
        parts = self.figure.subfigures(num_rows, min(2, num_sequences), squeeze=False)
        self._parts = iter(parts.flat)
        note = "step"
        if sequences.num_features > MAX_FEATURES:
            note = f"step (the first {MAX_FEATURES} of {sequences.num_features} features)"
        self.figure.supxlabel(note, fontsize="small")

    def add(self, row: int, title: str, color: str = "black") -> list[Any]:
        """Draw a sequence; return the axes of its features and of the further panels."""
        x = self.sequences.batch(torch.tensor([row])).x[0].numpy()  # (T, F)
        part = next(self._parts)
        part.suptitle(title, fontsize="small", color=color, x=0.02, ha="left")
        panels: list[Any] = list(part.subplots(self.num_panels, 1, sharex=True, squeeze=False).flat)
        for axes in panels:
            axes.tick_params(labelsize="x-small")
            axes.locator_params(axis="x", integer=True)
            axes.locator_params(axis="y", nbins=3)
            axes.ticklabel_format(useOffset=False)
            axes.spines[["top", "right"]].set_visible(False)
        for k, name in enumerate(self.names):
            panels[k].plot(x[:, k], linewidth=1, marker="." if len(x) < 30 else "", color=f"C{k}")
            panels[k].set_title(name, fontsize="small", loc="left", pad=2)
        return panels
