"""Figures of an evaluation."""

import copy
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torchmetrics.functional.classification as functional
from torch import Tensor

from lightning_rnn.data.sequences import Sequences
from lightning_rnn.evaluation.drawing import (
    add_legend,
    new_axes,
    new_figure,
    plot_curve,
    plot_sequence,
    shorten,
)
from lightning_rnn.evaluation.intervals import wilson_interval
from lightning_rnn.evaluation.metrics import CALIBRATION_BINS, WeightedMetrics
from lightning_rnn.evaluation.results import Evaluation
from lightning_rnn.models.decision import Decision

MAX_CURVES = 10  # classes with curves of their own
MAX_NUMBERED_CLASSES = 20  # of a confusion matrix with numbers
MAX_LINEAR_COUNT = 1000  # sequences of a histogram with a linear scale
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
    labels = evaluation.labels
    predicted = decision.predict(evaluation.logits)
    is_correct = predicted == labels
    yield "roc", _roc(metrics, predicted, class_names)
    yield "precision_recall", _precision_recall(metrics, predicted, class_names)
    yield "confusion", _confusion(predicted, labels, class_names)

    uncalibrated = Decision().class_probabilities(evaluation.logits)  # (N, K)
    calibrated = metrics.probabilities
    if metrics.is_binary:
        event = labels == 1
        axis_labels = (f"probability of {class_names[1]}", f"share of {class_names[1]}")
        before = uncalibrated[:, 1]
        after = calibrated[:, 1]
        subsets = {f"true {name}": after[labels == k] for k, name in enumerate(class_names)}
    else:
        event = is_correct
        axis_labels = ("probability of the predicted class", "accuracy")
        before = uncalibrated.amax(1)
        after = calibrated.amax(1)
        subsets = {"correct": after[is_correct], "wrong": after[~is_correct]}
    curves = {"uncalibrated": before}
    if decision.is_fitted:
        curves["calibrated"] = after
    yield "reliability", _reliability(curves, event, axis_labels)
    threshold = float(decision.threshold) if metrics.is_binary else None
    yield "scores", _scores(subsets, axis_labels[0], threshold)
    confidence = calibrated.gather(1, predicted[:, None])[:, 0]
    order = _most_confident_mistakes(confidence, is_correct)[:NUM_EXAMPLES]
    examples = evaluation.select(order)
    figure = _mistakes(examples, predicted[order], confidence[order], sequences, class_names)
    yield "mistakes", figure
    lengths = sequences.lengths[evaluation.index]
    yield "accuracy_by_length", _accuracy_by_length(is_correct.numpy(), lengths.numpy())


def _roc(metrics: WeightedMetrics, predicted: Tensor, class_names: list[str]) -> Any:
    """Draw ROC curves: of the second of two classes, or of each of more."""
    figure, axes = new_axes("ROC curve", "false positive rate", "true positive rate")
    axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
    for k in curve_classes(metrics.labels, metrics.num_classes):
        is_class = metrics.labels == k
        if is_class.all() or not is_class.any():
            continue
        fpr, tpr, _ = functional.binary_roc(metrics.probabilities[:, k], is_class.long())
        area = metrics.rankings[k].auroc(_ones(metrics)).item()
        label = f"{class_names[k]}  area {area:.3f}"
        plot_curve(axes, fpr, tpr, label)
        if metrics.is_binary:
            is_predicted = predicted == k
            point = (is_predicted[~is_class].float().mean(), is_predicted[is_class].float().mean())
            axes.plot(*point, "ko", markersize=5, label="threshold")
    add_legend(axes, "lower right")
    return figure


def _precision_recall(metrics: WeightedMetrics, predicted: Tensor, class_names: list[str]) -> Any:
    """Draw precision over recall; see `_roc`."""
    figure, axes = new_axes("precision and recall", "recall", "precision")
    for k in curve_classes(metrics.labels, metrics.num_classes):
        is_class = metrics.labels == k
        if not is_class.any():
            continue
        precision, recall, _ = functional.binary_precision_recall_curve(
            metrics.probabilities[:, k], is_class.long()
        )
        average = metrics.rankings[k].average_precision(_ones(metrics)).item()
        label = f"{class_names[k]}  average precision {average:.3f}"
        plot_curve(axes, recall.flip(0), precision.flip(0), label, drawstyle="steps-pre")
        is_predicted = predicted == k
        if metrics.is_binary and is_predicted.any():
            point = (is_predicted[is_class].float().mean(), is_class[is_predicted].float().mean())
            axes.plot(*point, "ko", markersize=5, label="threshold")
    axes.set_ylim(0, 1.03)
    add_legend(axes, "best")
    return figure


def _confusion(predicted: Tensor, labels: Tensor, class_names: list[str]) -> Any:
    """Draw the confusion matrix: numbers of sequences, coloured by share of the true class."""
    k = len(class_names)
    matrix = functional.multiclass_confusion_matrix(predicted, labels, num_classes=k)
    counts = matrix.numpy()
    shares = counts / counts.sum(1, keepdims=True).clip(1)
    size = min(10.0, max(4.8, 2.5 + 0.5 * k))
    figure, axes = new_axes("confusion matrix", "predicted class", "true class", height=size)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.grid(False)
    names = [shorten(name) for name in class_names]
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


def _reliability(curves: dict[str, Tensor], event: Tensor, axis_labels: tuple[str, str]) -> Any:
    """Draw how often an event (N,) occurs over its probability, for curves (N,) by name.

    Source: Niculescu-Mizil and Caruana 2005.
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


def _scores(subsets: dict[str, Tensor], xlabel: str, threshold: float | None) -> Any:
    """Draw histograms of probabilities by name, and the threshold if there is one."""
    figure, axes = new_axes("predicted probabilities", xlabel, "sequences")
    low = 0.0
    if threshold is None:
        low = 0.9 * float(torch.cat(list(subsets.values())).min())
    for name, probabilities in subsets.items():
        label = f"{name} ({len(probabilities)})"
        axes.hist(probabilities.numpy(), bins=40, range=(low, 1.0), alpha=0.6, label=label)
    if len(torch.cat(list(subsets.values()))) > MAX_LINEAR_COUNT:
        axes.set_yscale("symlog", linthresh=10)
    if threshold is not None:
        axes.axvline(threshold, color="0.3", linestyle=":", label=f"threshold {threshold:.3g}")
    add_legend(axes, "best")
    return figure


def _most_confident_mistakes(confidence: Tensor, is_correct: Tensor) -> Tensor:
    """Return (N,) rows: the most confident mistakes first, then the least confident others."""
    mistakes_first = torch.where(is_correct, 1 + confidence, -confidence)
    return mistakes_first.argsort(stable=True)


def _mistakes(
    examples: Evaluation,
    predicted: Tensor,
    confidence: Tensor,
    sequences: Sequences,
    class_names: list[str],
) -> Any:
    """Draw sequences with their predicted and true classes."""
    num_columns = min(3, len(predicted))
    num_rows = math.ceil(len(predicted) / num_columns)
    figure = new_figure(9.6, 2.7 * num_rows)
    for place, row in enumerate(examples.index.tolist()):
        axes = figure.add_subplot(num_rows, num_columns, place + 1)
        plot_sequence(axes, sequences, row)
        name = row if sequences.ids is None else sequences.ids[row]
        title = f"{shorten(str(name))}: {shorten(class_names[predicted[place]])}"
        title = f"{title} {float(confidence[place]):.3f}"
        color = "black"
        if predicted[place] != examples.labels[place]:
            title = f"{title}\ntrue: {shorten(class_names[examples.labels[place]])}"
            color = "tab:red"
        axes.set_title(title, fontsize="small", color=color, loc="left")
    figure.supxlabel("step", fontsize="small")
    return figure


def _accuracy_by_length(is_correct: np.ndarray, lengths: np.ndarray) -> Any:
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
        errors = [[accuracy - low], [high - accuracy]]
        axes.bar(place, accuracy, color="tab:blue", yerr=errors, ecolor="0.5")
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


def _ones(metrics: WeightedMetrics) -> Tensor:
    return torch.ones(1, len(metrics.labels), dtype=torch.float64)
