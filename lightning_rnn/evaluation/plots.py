"""Figures of an evaluation.

matplotlib (`pip install 'lightning_rnn[figures]'`) is imported when the first figure is drawn, and
without pyplot, so that no window is opened and no figure has to be closed.
"""

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchmetrics.functional.classification as functional
from torch import Tensor

from lightning_rnn.atomic_files import atomic_write
from lightning_rnn.data.sequences import Sequences
from lightning_rnn.evaluation.intervals import wilson_interval
from lightning_rnn.evaluation.metrics import CALIBRATION_BINS, WeightedMetrics
from lightning_rnn.evaluation.results import Evaluation
from lightning_rnn.models.decision import Decision

MAX_CURVES = 10  # classes with curves of their own
MAX_NUMBERED_CLASSES = 20  # of a confusion matrix with numbers
MAX_LINEAR_COUNT = 1000  # sequences of a histogram with a linear scale
MAX_FEATURES = 8  # lines of a sequence
MAX_NAME_LENGTH = 14
NUM_EXAMPLES = 6
NUM_LENGTH_RANGES = 8


def evaluation_figures(
    evaluation: Evaluation, decision: Decision, sequences: Sequences, class_names: list[str]
) -> Iterator[tuple[str, Any]]:
    """Draw an evaluation.

    Args:
        evaluation: N sequences.
        decision: Fitted or not; the reliability is drawn before and after it.
        sequences: The data set of `evaluation.index`.
        class_names: K names.

    Yields:
        Name and matplotlib figure: roc, precision_recall, confusion, reliability, scores, mistakes
        and accuracy_by_length.
    """
    evaluation = evaluation.cpu()
    decision = copy.deepcopy(decision).cpu()
    metrics = WeightedMetrics(evaluation, decision)
    is_correct = metrics.is_correct
    yield "roc", roc(metrics, class_names)
    yield "precision_recall", precision_recall(metrics, class_names)
    yield "confusion", confusion(metrics, class_names)

    probabilities = {"uncalibrated": Decision().class_probabilities(evaluation.logits)}  # (N, K)
    if decision.is_fitted:
        probabilities["calibrated"] = metrics.probabilities
    if metrics.is_binary:
        event = metrics.labels == 1
        curves = {name: table[:, 1] for name, table in probabilities.items()}
        axis_labels = (f"probability of {class_names[1]}", f"share of {class_names[1]}")
        groups = {f"true {name}": metrics.labels == k for k, name in enumerate(class_names)}
    else:
        event = is_correct
        curves = {name: table.amax(1) for name, table in probabilities.items()}
        axis_labels = ("probability of the predicted class", "accuracy")
        groups = {"correct": is_correct, "wrong": ~is_correct}
    yield "reliability", reliability(curves, event, axis_labels)
    final = curves["calibrated" if decision.is_fitted else "uncalibrated"]
    subsets = {name: final[is_inside] for name, is_inside in groups.items()}
    threshold = float(decision.threshold) if metrics.is_binary else None
    yield "scores", scores(subsets, axis_labels[0], threshold)
    yield "mistakes", mistakes(metrics, evaluation.index, sequences, class_names)
    lengths = sequences.lengths[evaluation.index]
    yield "accuracy_by_length", accuracy_by_length(is_correct.numpy(), lengths.numpy())


def roc(metrics: WeightedMetrics, class_names: list[str]) -> Any:
    """Draw receiver operating characteristics: of the second of two classes, or each of more."""
    figure, axes = new_axes("ROC curve", "false positive rate", "true positive rate")
    axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
    for k in curve_classes(metrics.labels, metrics.num_classes):
        is_class = metrics.labels == k
        if is_class.all() or not is_class.any():
            continue
        fpr, tpr, _ = functional.binary_roc(metrics.probabilities[:, k], is_class.long())
        area = metrics.rankings[k].auroc(metrics.ones).item()
        axes.plot(fpr, tpr, label=f"{class_names[k]}  area {area:.3f}", linewidth=1.5)
        if metrics.is_binary:
            is_predicted = metrics.predicted == k
            point = (is_predicted[~is_class].float().mean(), is_predicted[is_class].float().mean())
            axes.plot(*point, "ko", markersize=5, label="threshold")
    add_legend(axes, "lower right")
    return figure


def precision_recall(metrics: WeightedMetrics, class_names: list[str]) -> Any:
    """Draw precision over recall; see `roc`."""
    figure, axes = new_axes("precision and recall", "recall", "precision")
    for k in curve_classes(metrics.labels, metrics.num_classes):
        is_class = metrics.labels == k
        if not is_class.any():
            continue
        precision, recall, _ = functional.binary_precision_recall_curve(
            metrics.probabilities[:, k], is_class.long()
        )
        average = metrics.rankings[k].average_precision(metrics.ones).item()
        label = f"{class_names[k]}  average precision {average:.3f}"
        axes.step(recall.flip(0), precision.flip(0), label=label, linewidth=1.5)
        is_predicted = metrics.predicted == k
        if metrics.is_binary and is_predicted.any():
            point = (is_predicted[is_class].float().mean(), is_class[is_predicted].float().mean())
            axes.plot(*point, "ko", markersize=5, label="threshold")
    axes.set_ylim(0, 1.03)
    add_legend(axes, "best")
    return figure


def confusion(metrics: WeightedMetrics, class_names: list[str]) -> Any:
    """Draw numbers of sequences, coloured by their share of the true class."""
    k = len(class_names)
    matrix = functional.multiclass_confusion_matrix(metrics.predicted, metrics.labels, k)
    counts = matrix.numpy()
    shares = counts / counts.sum(1, keepdims=True).clip(1)
    size = min(10.0, max(4.8, 2.5 + 0.5 * k))
    figure, axes = new_axes("confusion matrix", "predicted class", "true class", height=size)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.grid(False)
    names = [_shorten(name) for name in class_names]
    if k > 3:
        axes.set_xticks(range(k), names, rotation=45, ha="right")
    else:
        axes.set_xticks(range(k), names)
    axes.set_yticks(range(k), names)
    if k <= MAX_NUMBERED_CLASSES:
        for i, j in np.argwhere(counts):
            color = "white" if shares[i, j] > 0.5 else "black"
            axes.text(j, i, counts[i, j], ha="center", va="center", color=color)
    return figure


def reliability(curves: dict[str, Tensor], event: Tensor, axis_labels: tuple[str, str]) -> Any:
    """Draw how often an event (N,) occurs over its probability (Niculescu-Mizil and Caruana 2005).

    There may be several curves of probabilities (N,), by name.
    """
    figure, axes = new_axes("reliability", *axis_labels)
    axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
    for name, probabilities in curves.items():
        bins = (probabilities * CALIBRATION_BINS).long().clamp(max=CALIBRATION_BINS - 1)
        count = bins.bincount(minlength=CALIBRATION_BINS)
        is_used = count > 0
        mean = (bins.bincount(probabilities, CALIBRATION_BINS) / count)[is_used]
        frequency = (bins.bincount(event.double(), CALIBRATION_BINS) / count)[is_used]
        gap = float(((mean - frequency).abs() * count[is_used]).sum()) / len(event)
        style = "o-" if name == "calibrated" else "o--"
        axes.plot(mean, frequency, style, markersize=4, label=f"{name}: mean gap {gap:.3f}")
    add_legend(axes, "upper left")
    return figure


def scores(subsets: dict[str, Tensor], xlabel: str, threshold: float | None) -> Any:
    """Draw histograms of probabilities by name, and the threshold between two classes if given."""
    figure, axes = new_axes("predicted probabilities", xlabel, "sequences")
    everything = torch.cat(list(subsets.values()))
    low = 0.0
    if threshold is None:
        low = 0.9 * float(everything.min())
    for name, probabilities in subsets.items():
        label = f"{name} ({len(probabilities)})"
        axes.hist(probabilities.numpy(), bins=40, range=(low, 1.0), alpha=0.6, label=label)
    if len(everything) > MAX_LINEAR_COUNT:
        axes.set_yscale("symlog", linthresh=10)
    if threshold is not None:
        axes.axvline(threshold, color="0.3", linestyle=":", label=f"threshold {threshold:.3g}")
    add_legend(axes, "best")
    return figure


def mistakes(
    metrics: WeightedMetrics, index: Tensor, sequences: Sequences, class_names: list[str]
) -> Any:
    """Draw the most confident mistakes or, if there are few, also the least confident others.

    The metrics are those of the rows `index` (N,) of the data set `sequences`.
    """
    confidence = metrics.probabilities.gather(1, metrics.predicted[:, None])[:, 0]
    mistakes_first = torch.where(metrics.is_correct, 1 + confidence, -confidence)
    order = mistakes_first.argsort(stable=True)[:NUM_EXAMPLES]
    num_columns = min(3, len(order))
    num_rows = math.ceil(len(order) / num_columns)
    figure = new_figure(9.6, 2.7 * num_rows)
    for place, i in enumerate(order.tolist()):
        axes = figure.add_subplot(num_rows, num_columns, place + 1)
        row = int(index[i])
        plot_sequence(axes, sequences, row)
        name = row if sequences.ids is None else sequences.ids[row]
        title = f"{_shorten(str(name))}: {_shorten(class_names[metrics.predicted[i]])}"
        title = f"{title} {float(confidence[i]):.3f}"
        color = "black"
        if not metrics.is_correct[i]:
            title = f"{title}\ntrue: {_shorten(class_names[metrics.labels[i]])}"
            color = "tab:red"
        axes.set_title(title, fontsize="small", color=color, loc="left")
    figure.supxlabel("step", fontsize="small")
    return figure


def accuracy_by_length(is_correct: np.ndarray, lengths: np.ndarray) -> Any:
    """Draw the accuracy in up to eight ranges of lengths with about as many sequences each."""
    figure, axes = new_axes("accuracy by length", "steps", "accuracy")
    quantiles = np.linspace(0, 1, NUM_LENGTH_RANGES + 1)
    edges = np.unique(np.quantile(lengths, quantiles, method="lower"))
    position = np.searchsorted(edges[1:-1], lengths, side="right")
    names = []
    for place, k in enumerate(np.unique(position)):
        is_inside = position == k
        n = int(is_inside.sum())
        accuracy = float(is_correct[is_inside].mean())
        low, high = wilson_interval(accuracy, n)
        error = [[accuracy - low], [high - accuracy]]
        axes.bar(place, accuracy, color="tab:blue", yerr=error, ecolor="0.5")
        shortest = lengths[is_inside].min()
        longest = lengths[is_inside].max()
        steps = f"{shortest}" if shortest == longest else f"{shortest}-{longest}"
        names.append(f"{steps}\nn={n}")
    axes.set_xticks(range(len(names)), names, fontsize="small")
    axes.set_ylim(0, 1.03)
    return figure


def curve_classes(labels: Tensor, num_classes: int) -> list[int]:
    """Return the classes with curves: the second of two, the ten most frequent of more."""
    if num_classes == 2:
        return [1]
    counts = labels.bincount(minlength=num_classes)
    most_frequent = counts.argsort(descending=True, stable=True)[:MAX_CURVES]
    return sorted(most_frequent.tolist())


def _shorten(name: str) -> str:
    if len(name) <= MAX_NAME_LENGTH:
        return name
    return name[: MAX_NAME_LENGTH - 1] + "…"


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


def save_png(image: np.ndarray, path: Path) -> None:
    """Write an image (height, width, 3) of uint8 to a PNG file."""
    from matplotlib.image import imsave

    with atomic_write(path) as temporary:
        imsave(temporary, image, format="png")


def pixels(figure: Any) -> np.ndarray:
    """Return a figure as an array (height, width, 3) of uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]
