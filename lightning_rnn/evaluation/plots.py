"""Figures of an evaluation."""

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torchmetrics.functional.classification as functional
from torch import Tensor

from lightning_rnn.data.schema import Schema
from lightning_rnn.data.sequences import Sequences
from lightning_rnn.evaluation.figures import (
    WIDTH,
    add_legend,
    new_axes,
    new_figure,
    remove_frame,
    short_names,
)
from lightning_rnn.evaluation.intervals import wilson_interval
from lightning_rnn.evaluation.metrics import CALIBRATION_BINS, Metrics
from lightning_rnn.evaluation.plots_sequences import mistakes
from lightning_rnn.evaluation.results import Evaluation
from lightning_rnn.models.decision import Decision

MAX_CURVES = 10  # classes with curves of their own
MAX_NUMBERED_CLASSES = 20  # of a confusion matrix with numbers
MAX_SHARED_CLASSES = 10  # of a confusion matrix with shares as numbers
MAX_TICK_TEXT = 30  # characters below an axis, unless they are rotated
MAX_LINEAR_COUNT = 1000  # sequences of a histogram with a linear scale
NUM_LENGTH_RANGES = 6


def evaluation_figures(
    evaluation: Evaluation, decision: Decision, sequences: Sequences, schema: Schema
) -> Iterator[tuple[str, Any]]:
    """Draw an evaluation.

    Args:
        evaluation: N sequences.
        decision: Fitted or not; the reliability is drawn before and after it.
        sequences: The data set of `evaluation.index`.
        schema: Names of the K classes and F features.

    Yields:
        Name and matplotlib figure: roc, precision_recall, confusion, reliability, scores, mistakes
        and, unless all lengths are equal, accuracy_by_length.
    """
    evaluation = evaluation.cpu()
    decision = copy.deepcopy(decision).cpu()
    metrics = Metrics(evaluation, decision)
    class_names = short_names(schema.class_names)
    is_correct = metrics.is_correct
    yield "roc", roc(metrics, class_names)
    yield "precision_recall", precision_recall(metrics, class_names)
    yield "confusion", confusion(metrics, class_names)

    curves = {"uncalibrated": Decision().probabilities(evaluation.logits)}  # (N,) or (N, K)
    if decision.is_fitted:
        curves["calibrated"] = decision.probabilities(evaluation.logits)
    threshold = None
    if metrics.is_binary:
        threshold = float(decision.threshold)
        event = metrics.labels == 1
        axis_labels = (f"probability of {class_names[1]}", f"share of {class_names[1]}")
        groups = {f"true {class_names[0]}": ~event, f"true {class_names[1]}": event}
    else:
        event = is_correct
        curves = {name: probabilities.amax(1) for name, probabilities in curves.items()}
        axis_labels = ("probability of the predicted class", "accuracy")
        groups = {"correct": is_correct, "wrong": ~is_correct}
    yield "reliability", reliability(curves, event, axis_labels)
    final = list(curves.values())[-1]
    subsets = {name: final[is_inside] for name, is_inside in groups.items()}
    yield "scores", scores(subsets, axis_labels[0], threshold)
    yield "mistakes", mistakes(metrics, evaluation.index, sequences, schema)
    lengths = sequences.lengths[evaluation.index]
    if lengths.min() < lengths.max():
        yield "accuracy_by_length", accuracy_by_length(is_correct.numpy(), lengths.numpy())


def roc(metrics: Metrics, class_names: list[str]) -> Any:
    """Draw receiver operating characteristics: of the second of two classes, or each of more."""
    figure, axes = new_axes("ROC curve", "false positive rate", "true positive rate")
    axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
    for k in curve_classes(metrics.labels, metrics.num_classes):
        is_class = metrics.labels == k
        if is_class.all() or not is_class.any():
            continue
        fpr, tpr, _ = functional.binary_roc(metrics.probabilities[:, k], is_class.long())
        area = float(metrics.ranking(k).areas["auroc"])
        axes.plot(fpr, tpr, label=f"area {area:.3f}  {class_names[k]}", linewidth=1.5)
        if metrics.is_binary:
            is_predicted = metrics.predicted == k
            point = (is_predicted[~is_class].float().mean(), is_predicted[is_class].float().mean())
            axes.plot(*point, "ko", markersize=5, label="threshold")
    add_legend(axes, "lower right")
    return figure


def precision_recall(metrics: Metrics, class_names: list[str]) -> Any:
    """Draw precision over recall; see `roc`."""
    figure, axes = new_axes("precision and recall", "recall", "precision")
    for k in curve_classes(metrics.labels, metrics.num_classes):
        is_class = metrics.labels == k
        if not is_class.any():
            continue
        precision, recall, _ = functional.binary_precision_recall_curve(
            metrics.probabilities[:, k], is_class.long()
        )
        average = float(metrics.ranking(k).areas["average_precision"])
        label = f"average {average:.3f}  {class_names[k]}"
        axes.step(recall.flip(0), precision.flip(0), label=label, linewidth=1.5)
        is_predicted = metrics.predicted == k
        if metrics.is_binary and is_predicted.any():
            point = (is_predicted[is_class].float().mean(), is_class[is_predicted].float().mean())
            axes.plot(*point, "ko", markersize=5, label="threshold")
    axes.set_ylim(0, 1.03)
    add_legend(axes, "best")
    return figure


def confusion(metrics: Metrics, class_names: list[str]) -> Any:
    """Draw numbers of sequences, and their share of the true class."""
    k = len(class_names)
    matrix = functional.multiclass_confusion_matrix(metrics.predicted, metrics.labels, k)
    counts = matrix.numpy()
    shares = counts / counts.sum(1, keepdims=True).clip(1)
    size = min(8.0, max(WIDTH, 2.0 + 0.4 * k))
    figure, axes = new_axes(
        "confusion matrix", "predicted class", "true class", width=size, height=0.85 * size
    )
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.grid(False)
    if sum(map(len, class_names)) > MAX_TICK_TEXT:
        axes.set_xticks(range(k), class_names, rotation=45, ha="right")
    else:
        axes.set_xticks(range(k), class_names)
    axes.set_yticks(range(k), class_names)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.7)
    if k > MAX_NUMBERED_CLASSES:
        return figure
    for i, j in np.argwhere(counts):
        color = "white" if shares[i, j] > 0.5 else "black"
        text = str(counts[i, j])
        if k <= MAX_SHARED_CLASSES:
            text += f"\n{shares[i, j]:.0%}"
        fontsize = "small" if k > 3 else "medium"
        axes.text(j, i, text, ha="center", va="center", color=color, fontsize=fontsize)
    return figure


def reliability(curves: dict[str, Tensor], event: Tensor, axis_labels: tuple[str, str]) -> Any:
    """Draw how often an event (N,) occurs over its probability (Niculescu-Mizil and Caruana 2005).

    There may be several curves of probabilities (N,), by name. Below, the numbers of sequences that
    the points of the last curve rest on; its bars are 95 % intervals (Wilson 1927).
    """
    figure = new_figure(WIDTH, 0.95 * WIDTH)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    axes.set_title("reliability", loc="left")
    axes.set_ylabel(axis_labels[1])
    axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
    for i, (name, probabilities) in enumerate(curves.items()):
        bins = (probabilities * CALIBRATION_BINS).long().clamp(max=CALIBRATION_BINS - 1)
        count = bins.bincount(minlength=CALIBRATION_BINS)
        is_used = count > 0
        mean = (bins.bincount(probabilities.double(), CALIBRATION_BINS) / count)[is_used]
        frequency = (bins.bincount(event.double(), CALIBRATION_BINS) / count)[is_used]
        gap = float(((mean - frequency).abs() * count[is_used]).sum()) / len(event)
        style = "o-" if name == "calibrated" else "o--"
        color = f"C{i}"
        label = f"{name}: mean gap {gap:.3f}"
        axes.plot(mean, frequency, style, markersize=4, label=label, color=color)
    counts = count[is_used].tolist()
    intervals = np.array(list(map(wilson_interval, frequency.tolist(), counts)))  # (bins, 2)
    axes.vlines(mean, intervals[:, 0], intervals[:, 1], color=color, alpha=0.5)
    bars = below.bar(mean, counts, width=0.6 / CALIBRATION_BINS, color=color, alpha=0.5)
    below.bar_label(bars, fontsize="x-small", rotation=90, padding=2)
    below.set_yscale("symlog", linthresh=10)
    below.set_ylim(0, 30 * max(counts))  # room for the numbers
    below.tick_params(axis="y", which="both", left=False, labelleft=False)
    below.spines[["top", "right"]].set_visible(False)
    below.set_ylabel("sequences")
    axes.set_ylim(-0.03, 1.03)
    remove_frame(axes)
    below.set_xlabel(axis_labels[0])
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


def accuracy_by_length(is_correct: np.ndarray, lengths: np.ndarray) -> Any:
    """Draw the accuracy in up to six ranges of lengths with about as many sequences each."""
    figure, axes = new_axes("accuracy by length", "steps", "accuracy")
    quantiles = np.arange(1, NUM_LENGTH_RANGES) / NUM_LENGTH_RANGES
    edges = np.unique(np.quantile(lengths, quantiles, method="lower"))
    position = np.searchsorted(edges, lengths, side="right")
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
    axes.set_xticks(range(len(names)), names, fontsize="x-small")
    axes.set_ylim(0, 1.03)
    return figure


def curve_classes(labels: Tensor, num_classes: int) -> list[int]:
    """Return the classes with curves: the second of two, the ten most frequent of more."""
    if num_classes == 2:
        return [1]
    counts = labels.bincount(minlength=num_classes)
    most_frequent = counts.argsort(descending=True, stable=True)[:MAX_CURVES]
    return sorted(most_frequent.tolist())
