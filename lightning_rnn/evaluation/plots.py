"""Figures of an evaluation and of a network's memory.

matplotlib (`pip install 'lightning_rnn[figures]'`) is imported when the first one is drawn, and without pyplot, so that
there is neither a window nor anything to close.
"""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_rnn.atomic_files import atomic_write
from lightning_rnn.data.sequences import Sequences
from lightning_rnn.evaluation.gradient_flow import FADED, Memory, horizon
from lightning_rnn.evaluation.metrics import CALIBRATION_BINS
from lightning_rnn.evaluation.results import Evaluation
from lightning_rnn.models.decision import Decision

MOST_CURVES = 10  # classes with curves of their own
MOST_POINTS = 1000  # of a curve: more cannot be seen
MOST_LINES = 8  # features of a sequence
EXAMPLES = 6


def evaluation_figures(
    outcome: Evaluation, decision: Decision, sequences: Sequences, class_names: list[str]
) -> Iterator[tuple[str, Any]]:
    """Draw an evaluation.

    Args:
        outcome: With labels.
        decision: As fitted; figures show the probabilities before and after it.
        sequences: The data set that `outcome.index` speaks of.
        class_names: K names.

    Yields:
        Name and matplotlib figure: roc, precision_recall, confusion, reliability, scores, mistakes,
        accuracy_by_length.
    """
    outcome, decision = outcome.cpu(), copy.deepcopy(decision).cpu()
    table, before = (d.class_probabilities(outcome.logits).numpy() for d in (decision, Decision()))
    labels, decided = outcome.labels.numpy(), decision.predict(outcome.logits).numpy()
    right, is_binary = decided == labels, outcome.logits.ndim == 1
    threshold = float(decision.threshold) if is_binary else None
    yield "roc", roc(table, labels, class_names, threshold)
    yield "precision_recall", precision_recall(table, labels, class_names, threshold)
    yield "confusion", confusion(decided, labels, class_names)
    if is_binary:
        before, after, event = before[:, 1], table[:, 1], labels == 1
        named, share = f"probability of {class_names[1]}", f"share of {class_names[1]}"
        parts = {f"is {name}": after[labels == k] for k, name in enumerate(class_names)}
    else:
        before, after, event = before.max(1), table.max(1), right
        named, share = "probability of the decided class", "share of right ones"
        parts = {"right": after[right], "wrong": after[~right]}
    yield "reliability", reliability(before, after, event, named, share, decision)
    yield "scores", scores(parts, named, threshold)
    yield "mistakes", mistakes(table, decided, labels, sequences, outcome.index, class_names)
    yield "accuracy_by_length", accuracy_by_length(right, sequences.lengths[outcome.index].numpy())


def roc(
    table: np.ndarray, labels: np.ndarray, class_names: list[str], threshold: float | None
) -> Any:
    """Draw true against false positive rates; of more than two classes, each against the rest.

    Args:
        table: (N, K) probabilities.
        labels: (N,) codes.
        class_names: K names.
        threshold: Where two classes are decided; None for more.
    """
    figure, axes = _figure(
        "receiver operating characteristic", "false positive rate", "true positive rate"
    )
    axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
    for k in shown_classes(labels, len(class_names)):
        true, false, at = _cumulated(table[:, k], labels == k)
        x, y = (np.r_[0, counts / max(1, counts[-1])] for counts in (false, true))
        _curve(
            axes, x, y, f"{class_names[k]}  area {(np.diff(x) * (y[1:] + y[:-1])).sum() / 2:.3f}"
        )
        _mark(axes, x[1:], y[1:], at, threshold)
    axes.legend(loc="lower right", fontsize="small")
    return figure


def precision_recall(
    table: np.ndarray, labels: np.ndarray, class_names: list[str], threshold: float | None
) -> Any:
    """Draw precision against recall, as `roc` does."""
    figure, axes = _figure("precision and recall", "recall", "precision")
    for k in shown_classes(labels, len(class_names)):
        true, false, at = _cumulated(table[:, k], labels == k)
        x, y = true / max(1, true[-1]), true / (true + false)
        mean = float((np.diff(np.r_[0, x]) * y).sum())
        _curve(axes, x, y, f"{class_names[k]}  average precision {mean:.3f}", drawstyle="steps-pre")
        _mark(axes, x, y, at, threshold)
    axes.set_ylim(0, 1.03)
    axes.legend(loc="lower left", fontsize="small")
    return figure


def confusion(decided: np.ndarray, labels: np.ndarray, class_names: list[str]) -> Any:
    """Draw the confusion matrix: colour is the share of the true class, numbers are sequences."""
    k = len(class_names)
    counts = np.bincount(labels * k + decided, minlength=k * k).reshape(k, k)
    shares = counts / counts.sum(1, keepdims=True).clip(1)
    figure, axes = _figure(
        "confusion matrix", "decided", "true", size=max(4.8, min(10, 2.5 + 0.5 * k))
    )
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.grid(False)
    names = [name if len(name) <= 14 else name[:13] + "…" for name in class_names]
    axes.set_xticks(range(k), names, rotation=45 if k > 3 else 0, ha="right" if k > 3 else "center")
    axes.set_yticks(range(k), names)
    for i, j in np.argwhere(counts) if k <= 20 else ():
        axes.text(
            j,
            i,
            counts[i, j],
            ha="center",
            va="center",
            color="white" if shares[i, j] > 0.5 else "black",
        )
    return figure


def reliability(
    before: np.ndarray,
    after: np.ndarray,
    event: np.ndarray,
    xlabel: str,
    ylabel: str,
    decision: Decision,
) -> Any:
    """Draw how often what is given a probability comes true (Niculescu-Mizil and Caruana 2005).

    Args:
        before: (N,) probabilities at temperature 1.
        after: (N,) at the fitted temperature.
        event: (N,) bool.
        xlabel: What the probabilities are of.
        ylabel: What the event is.
        decision: Its temperature and threshold are shown.
    """
    figure, axes = _figure("reliability", xlabel, ylabel)
    axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
    fitted = decision.is_fitted
    for p, name, style in [(before, "before calibration", "o--")] * fitted + [
        (after, "calibrated" * fitted, "o-")
    ]:
        bins = np.minimum((p * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
        _, at, count = np.unique(bins, return_inverse=True, return_counts=True)
        mean, share = np.bincount(at, p) / count, np.bincount(at, event) / count
        gap = (count * np.abs(mean - share)).sum() / len(p)
        axes.plot(mean, share, style, markersize=4, label=f"{name}  mean gap {gap:.3f}".strip())
    if float(decision.threshold) != 0.5:
        axes.axvline(
            float(decision.threshold),
            color="0.4",
            linestyle=":",
            label=f"threshold {decision.threshold:.3g}",
        )
    axes.set_title(f"reliability at temperature {float(decision.temperature):.3g}", loc="left")
    axes.legend(loc="upper left", fontsize="small")
    return figure


def scores(parts: dict[str, np.ndarray], xlabel: str, threshold: float | None) -> Any:
    """Draw a histogram of the probabilities of each part, and the threshold where there is one."""
    figure, axes = _figure("how sure", xlabel, "sequences")
    low = (
        0.0
        if threshold is not None
        else 0.9 * min(float(part.min()) for part in parts.values() if len(part))
    )
    for name, part in parts.items():
        axes.hist(part, bins=40, range=(low, 1.0), alpha=0.6, label=f"{name} ({len(part)})")
    axes.set_yscale("symlog", linthresh=10)
    if threshold is not None:
        axes.axvline(threshold, color="0.3", linestyle=":", label=f"threshold {threshold:.3g}")
    axes.legend(loc="upper center", fontsize="small")
    return figure


def mistakes(
    table: np.ndarray,
    decided: np.ndarray,
    labels: np.ndarray,
    sequences: Sequences,
    index: Tensor,
    class_names: list[str],
) -> Any:
    """Draw the sequences of the most confident mistakes, and after them the least confident right ones."""
    figure = _blank(9.6, 5.4)
    right, confidence = decided == labels, table[np.arange(len(decided)), decided]
    order = np.lexsort((np.where(right, confidence, -confidence), right))[:EXAMPLES]
    for place, i in enumerate(order):
        axes = figure.add_subplot(2, 3, place + 1)
        row = int(index[i])
        x = sequences.batch(torch.tensor([row])).x[0, :, :MOST_LINES].numpy()
        axes.plot(x, linewidth=1, marker="." if len(x) < 30 else "")
        name = row if sequences.ids is None else sequences.ids[row]
        said = f"{class_names[decided[i]]} {confidence[i]:.3f}"
        verdict = f"right: {said}" if right[i] else f"{said}, is {class_names[labels[i]]}"
        axes.set_title(
            f"{name}: {verdict}",
            fontsize="small",
            color="black" if right[i] else "tab:red",
            loc="left",
        )
        axes.tick_params(labelsize="x-small")
    figure.supxlabel("step", fontsize="small")
    return figure


def accuracy_by_length(right: np.ndarray, lengths: np.ndarray) -> Any:
    """Draw the accuracy in up to eight ranges of lengths with as many sequences each."""
    figure, axes = _figure("accuracy by length", "steps", "accuracy")
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, 9), method="lower"))
    at = np.searchsorted(edges[1:-1], lengths, side="right")
    labels = []
    for place, part in enumerate(np.unique(at)):
        inside = at == part
        mean, n, low, high = (
            right[inside].mean(),
            int(inside.sum()),
            lengths[inside].min(),
            lengths[inside].max(),
        )
        axes.bar(
            place, mean, color="tab:blue", yerr=1.96 * (mean * (1 - mean) / n) ** 0.5, ecolor="0.5"
        )
        labels.append(f"{low}\nn={n}" if low == high else f"{low}-{high}\nn={n}")
    axes.set_xticks(range(len(labels)), labels, fontsize="small")
    axes.set_ylim(0, 1.03)
    return figure


def gradient_curves(memory: Memory) -> Any:
    """Draw the gradient norm of each layer and direction against the steps back, as shares of the largest."""
    title, ylabel = (
        "how the gradient fades through time",
        "gradient norm of the state, share of the largest",
    )
    figure, axes = _figure(title, "steps before the end", ylabel)
    for name, curve in memory.gradients.items():
        axes.plot(
            (curve / curve.max()).numpy(), label=f"{name}: horizon {horizon(curve)}", linewidth=1.5
        )
    axes.axhline(FADED, color="0.4", linestyle=":")
    axes.set_yscale("log")
    axes.set_ylim(1e-8, 2)  # below it, nothing is left in single precision
    axes.legend(loc="lower left", fontsize="small")
    return figure


def gradient_heat_map(epochs: list[int], curves: dict[str, Tensor]) -> Any:
    """Draw, for each layer and direction, the gradient norms (epochs, T) over the epochs."""
    figure = _blank(6.4, 1.2 + 2.4 * len(curves))
    for place, (name, norms) in enumerate(curves.items()):
        axes = figure.add_subplot(len(curves), 1, place + 1, ylabel="epoch", title=name)
        shares = (norms / norms.amax(1, keepdim=True)).clamp(min=1e-8).log10().numpy()
        image = axes.imshow(
            shares, aspect="auto", vmin=-8, vmax=0, cmap="viridis", interpolation="nearest"
        )
        axes.set_yticks(range(len(epochs)), [str(epoch) for epoch in epochs], fontsize="x-small")
        figure.colorbar(image, ax=axes, label="log10 of the share")
    axes.set_xlabel("steps before the end")
    return figure


def attribution(added: Tensor, sequences: Sequences, rows: list[int]) -> Any:
    """Draw sequences, and under each what its steps add to the decision, (rows, T) from `lightning_rnn.memory`."""
    figure = _blank(9.6, 4.8)
    for place, row in enumerate(rows):
        x = sequences.batch(torch.tensor([row])).x[0, :, :MOST_LINES].numpy()
        length = len(x)
        above, below = (figure.add_subplot(2, len(rows), place + 1 + len(rows) * i) for i in (0, 1))
        above.plot(x, linewidth=1)
        above.set_title(f"sequence {row}", fontsize="small", loc="left")
        values = added[place, :length].numpy()
        below.bar(
            range(length), values, width=1.0, color=np.where(values >= 0, "tab:blue", "tab:red")
        )
        for axes in (above, below):
            axes.set_xlim(-0.5, length - 0.5)
            axes.tick_params(labelsize="x-small")
    figure.suptitle("sequences, and what each step adds to the decision", fontsize="medium")
    figure.supxlabel("step", fontsize="small")
    return figure


def shown_classes(labels: np.ndarray, num_classes: int) -> list[int]:
    """Return the classes with curves of their own: the second of two, the ten most frequent of more."""
    counts = np.bincount(labels, minlength=num_classes)
    return (
        [1]
        if num_classes == 2
        else sorted(np.argsort(-counts, kind="stable")[:MOST_CURVES].tolist())
    )


def save(figure: Any, path: Path) -> None:
    """Write a figure as PNG."""
    with atomic_write(path) as beside:
        figure.savefig(beside, format="png")


def pixels(figure: Any) -> np.ndarray:
    """Return a figure as (height, width, 3) uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def _blank(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=100, layout="constrained")


def _figure(title: str, xlabel: str, ylabel: str, size: float = 4.8) -> tuple[Any, Any]:
    figure = _blank(size * 4 / 3, size)
    axes = figure.add_subplot(xlabel=xlabel, ylabel=ylabel)
    axes.set_title(title, loc="left")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _cumulated(score: np.ndarray, own: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return true and false positives at each distinct score, the highest first, and the scores."""
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.r_[np.diff(score[order]) != 0, True])
    true = np.cumsum(own[order])[ends].astype(float)
    return true, ends + 1 - true, score[order][ends]


def _curve(axes: Any, x: np.ndarray, y: np.ndarray, label: str, **style: str) -> None:
    keep = np.unique(np.linspace(0, len(x) - 1, min(len(x), MOST_POINTS)).astype(int))
    axes.plot(x[keep], y[keep], label=label, linewidth=1.5, **style)


def _mark(axes: Any, x: np.ndarray, y: np.ndarray, at: np.ndarray, threshold: float | None) -> None:
    """Show where the threshold lies on a curve."""
    above = 0 if threshold is None else int((at > threshold).sum())
    if above:
        axes.plot(
            x[above - 1], y[above - 1], "ko", markersize=5, label=f"threshold {threshold:.3g}"
        )
