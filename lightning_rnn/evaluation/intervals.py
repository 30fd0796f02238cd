"""95 % confidence intervals of test metrics.

Proportions have closed intervals that also hold for few sequences and for proportions of 0 and 1;
the other metrics are bootstrapped, in resamples of all sequences or of whole groups.
`benchmarks/coverage.py` measures how often the intervals contain the true value.
"""

import copy
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lightning_rnn.evaluation.metrics import TEST_METRICS, WeightedMetrics
from lightning_rnn.evaluation.results import Evaluation
from lightning_rnn.models.decision import Decision

Z = 1.959964  # 97.5 % quantile of the standard normal distribution
MIN_RESAMPLES = 200
MAX_RESAMPLES = 1000
MAX_WORK = 20_000_000  # resamples times sequences times rankings, about 2 s
CHUNK_SIZE = 1 << 21  # resamples times sequences in memory at once
MANY_MISTAKES = 10  # from here on, resamples show how mistakes vary


@dataclass(frozen=True)
class Interval:
    """A 95 % confidence interval."""

    low: float
    high: float
    num_undefined: int | None = None  # resamples that are left out; None without resampling


def confidence_intervals(
    evaluation: Evaluation,
    decision: Decision,
    groups: np.ndarray | None = None,
    *,
    num_resamples: int | None = None,
    seed: int = 0,
) -> dict[str, Interval]:
    """Compute confidence intervals of the metrics of `evaluate`.

    - accuracy: Wilson 1927. Sequences in groups count as fewer independent ones: their number is
      divided by the design effect (Kish 1965), and likewise below.
    - balanced accuracy: Wilson intervals of the recalls, combined as in Zou and Donner 2008.
    - F1 of two classes: Wilson interval of TP / (TP + FP + FN), of which F1 is a function.
    - AUROC of two classes: Newcombe 2006, method 5.
    - loss, log loss and Brier score: bootstrap-t (Efron and Tibshirani 1993, section 12.5); with
      fewer than 10 mistakes at most, and without mistakes exactly, up to `_limit_of_mistakes`.
    - average precision, and F1 and AUROC of more classes: normal interval of the logit with the
      bootstrap standard error; Wilson interval of the rarest class at 0 and 1 (Boyd et al. 2013).

    The calibration error has no interval: its estimate is biased upwards, and more so in resamples.

    Sequences of a group are resampled together. By default there are 1,000 resamples, and down to
    200 for many sequences.

    Returns:
        Intervals by metric, without those that the labels, or more than half of the resamples,
        leave undefined.
    """
    metrics = WeightedMetrics(evaluation.cpu(), copy.deepcopy(decision).cpu())
    units = torch.arange(len(metrics.labels))
    if groups is not None:
        units = torch.from_numpy(np.unique(groups.astype(str), return_inverse=True)[1]).long()
    if num_resamples is None:
        work = len(units) * len(metrics.rankings)
        num_resamples = max(MIN_RESAMPLES, min(MAX_RESAMPLES, MAX_WORK // work))
    intervals: dict[str, Interval | None] = {}
    for name in TEST_METRICS:
        if metrics.is_defined(name):
            intervals[name] = _closed_interval(metrics, name, units)
    bootstrapped = [name for name, interval in intervals.items() if interval is None]
    resamples = _resample(metrics, bootstrapped, units, num_resamples, seed)
    for name in bootstrapped:
        intervals[name] = _bootstrap_interval(metrics, name, units, resamples[name])
    return {name: interval for name, interval in intervals.items() if interval is not None}


def wilson_interval(share: float, n: float) -> tuple[float, float]:
    """Return the score interval of an observed share of n trials (Wilson 1927).

    Example:
        >>> low, high = wilson_interval(1.0, 30)  # 30 of 30
        >>> round(low, 3), round(high, 3)
        (0.886, 1.0)
    """
    centre = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    margin = Z / (1 + Z**2 / n) * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    low = max(0.0, min(centre - margin, share))  # rounding must not exclude a share of 0 or 1
    high = min(1.0, max(centre + margin, share))
    return low, high


def newcombe_interval(auroc: float, num_positives: float, num_negatives: float) -> Interval:
    """Return the score interval of an AUROC (Newcombe 2006, Statistics in Medicine 25, method 5).

    The bounds A solve |auroc - A| = Z sqrt(V(A)), where h = (P + N) / 2 - 1 and

        V(A) = A (1 - A) (1 + h (1 - A) / (2 - A) + h A / (1 + A)) / (P N)
    """
    h = (num_positives + num_negatives) / 2 - 1
    bounds = []
    for outside in (0.0, 1.0):  # bisection
        inside = auroc
        for _ in range(50):
            a = (inside + outside) / 2
            factor = 1 + h * (1 - a) / (2 - a) + h * a / (1 + a)
            variance = a * (1 - a) * factor / (num_positives * num_negatives)
            if abs(auroc - a) <= Z * math.sqrt(variance):
                inside = a
            else:
                outside = a
        bounds.append(inside)
    return Interval(low=bounds[0], high=bounds[1])


def design_effect(influence: Tensor, units: Tensor) -> float:
    """Return the factor by which groups (N,) increase the variance of an estimate, at least 1.

    The variance is that of the influences (N,) of the sequences on the estimate.
    """
    independent = float(influence.square().sum())
    if independent == 0:
        return len(units) / _count_units(units)  # as if the sequences of a group were copies
    grouped = float(_unit_sums(influence, units).square().sum())
    return max(1.0, grouped / independent)


def _closed_interval(metrics: WeightedMetrics, name: str, units: Tensor) -> Interval | None:
    """Return the interval of a metric with a closed formula, None for the others."""
    is_correct = metrics.means["accuracy"]
    if name == "accuracy":
        return _proportion_interval(is_correct, units)
    if name == "balanced_accuracy":
        return _balanced_accuracy_interval(metrics, is_correct, units)
    if name == "f1" and metrics.is_binary:
        is_counted = (metrics.is_label + metrics.is_predicted)[:, 1] > 0
        jaccard = _proportion_interval(is_correct[is_counted], units[is_counted])
        low = 2 * jaccard.low / (1 + jaccard.low)
        high = 2 * jaccard.high / (1 + jaccard.high)
        return Interval(low, high)
    if name == "auroc" and metrics.is_binary:
        auroc = metrics.compute("auroc", metrics.ones).item()
        effect = design_effect(_auroc_influence(metrics, auroc), units)
        num_negatives, num_positives = (metrics.is_label.sum(0) / effect).tolist()
        return newcombe_interval(auroc, num_positives, num_negatives)
    return None


def _proportion_interval(is_success: Tensor, units: Tensor) -> Interval:
    """Return the Wilson interval of the share of successes (N,) in groups."""
    share = float(is_success.mean())
    n = len(units) / design_effect(is_success - share, units)
    return Interval(*wilson_interval(share, n))


def _balanced_accuracy_interval(
    metrics: WeightedMetrics, is_correct: Tensor, units: Tensor
) -> Interval:
    """Combine Wilson intervals of the recalls (Zou and Donner 2008, Statistics in Medicine 27)."""
    classes = metrics.has_sequences.nonzero().view(-1).tolist()
    mean = 0.0
    squares_below = 0.0
    squares_above = 0.0
    for k in classes:
        is_class = metrics.labels == k
        recall = float(is_correct[is_class].mean())
        interval = _proportion_interval(is_correct[is_class], units[is_class])
        mean += recall / len(classes)
        squares_below += (recall - interval.low) ** 2
        squares_above += (interval.high - recall) ** 2
    low = mean - math.sqrt(squares_below) / len(classes)
    high = mean + math.sqrt(squares_above) / len(classes)
    return Interval(max(0.0, low), min(1.0, high))


def _auroc_influence(metrics: WeightedMetrics, auroc: float) -> Tensor:
    """Return (N,) influences of the sequences on the AUROC (DeLong et al. 1988, Biometrics 44)."""
    is_positive = metrics.labels == 1
    positives = metrics.logits[is_positive]
    negatives = metrics.logits[~is_positive]
    influence = torch.empty(len(is_positive), dtype=torch.float64)
    share_below = _share_below(positives, negatives)
    influence[is_positive] = (share_below - auroc) / len(positives)
    share_above = 1 - _share_below(negatives, positives)
    influence[~is_positive] = (share_above - auroc) / len(negatives)
    return influence


def _share_below(scores: Tensor, others: Tensor) -> Tensor:
    """Return for each score the share of other scores below it; ties count half."""
    ordered = others.sort().values
    num_below = torch.searchsorted(ordered, scores)
    num_not_above = torch.searchsorted(ordered, scores, right=True)
    return (num_below + num_not_above).double() / (2 * len(others))


def _resample(
    metrics: WeightedMetrics, names: list[str], units: Tensor, num_resamples: int, seed: int
) -> dict[str, Tensor]:
    """Return (R,) t statistics of means, and values of other metrics, in bootstrap resamples."""
    generator = np.random.default_rng(seed)
    num_units = int(units.max()) + 1
    chunks: dict[str, list[Tensor]] = {name: [] for name in names}
    remaining = num_resamples
    while remaining > 0:
        size = min(remaining, max(1, CHUNK_SIZE // len(units)))
        remaining -= size
        drawn = torch.from_numpy(generator.integers(num_units, size=(size, num_units)))
        counts = torch.zeros(size, num_units, dtype=torch.float64)
        counts.scatter_add_(1, drawn, torch.ones_like(counts))
        for name in names:
            if name in metrics.means:
                chunks[name].append(_t_statistics(metrics.means[name], units, counts))
            else:
                chunks[name].append(metrics.compute(name, counts[:, units]))
    return {name: torch.cat(parts) for name, parts in chunks.items()}


def _t_statistics(values: Tensor, units: Tensor, counts: Tensor) -> Tensor:
    """Return (R,) deviations of the mean of values (N,), divided by their standard errors.

    In resample r, group g of the groups `units` (N,) was drawn counts[r, g] times.
    """
    deviations = _unit_sums(values - values.mean(), units)  # (G,)
    sizes = _unit_sums(torch.ones_like(values), units)
    total = counts @ sizes  # (R,)
    shift = counts @ deviations / total
    squares = counts @ deviations.square()
    # sum of counts * (deviations - shift * sizes) ** 2, multiplied out
    residuals = squares - 2 * shift * (counts @ (deviations * sizes))
    residuals = residuals + shift.square() * (counts @ sizes.square())
    is_positive = residuals > 1e-9 * squares  # less is rounding
    return torch.where(is_positive, shift * total / residuals.clamp(min=0).sqrt(), torch.nan)


def _bootstrap_interval(
    metrics: WeightedMetrics, name: str, units: Tensor, resamples: Tensor
) -> Interval | None:
    """Return the interval of a metric from its resamples (R,); see `confidence_intervals`."""
    defined = resamples[resamples.isfinite()]
    num_undefined = len(resamples) - len(defined)
    if num_undefined > len(resamples) / 2:
        return None
    if name in metrics.means:
        values = metrics.means[name]
        mean = float(values.mean())
        error = float(_unit_sums(values - mean, units).square().sum().sqrt()) / len(values)
        bounds = torch.tensor([0.025, 0.975], dtype=torch.float64)
        t_low, t_high = defined.quantile(bounds).tolist()
        low, high = max(0.0, mean - t_high * error), mean - t_low * error
        if (~metrics.is_correct).sum() < MANY_MISTAKES:
            limit = _limit_of_mistakes(metrics, name, units)
            high = limit if metrics.is_correct.all() else min(high, limit)
        return Interval(low, high, num_undefined)
    estimate = float(metrics.compute(name, metrics.ones))
    error = float(defined.std())
    if 0 < estimate < 1 and error > 0:
        logit = math.log(estimate / (1 - estimate))
        margin = Z * error / (estimate * (1 - estimate))
        low, high = torch.tensor([logit - margin, logit + margin]).sigmoid().tolist()
    else:
        classes = metrics.has_sequences.nonzero().view(-1)
        rarest = min(_count_units(units[metrics.labels == k]) for k in classes)
        low, high = wilson_interval(estimate, rarest)
    return Interval(low, high, num_undefined)


def _limit_of_mistakes(metrics: WeightedMetrics, name: str, units: Tensor) -> float:
    """Return the mean of a loss if mistakes were as frequent as Wilson's interval allows.

    Resamples cannot contain rare mistakes that the test set lacks, and their t statistics are huge
    where none of a few mistakes is drawn. The loss of a mistake is the observed mean, but at least
    the mean if every sequence was one.
    """
    values = metrics.means[name]
    is_correct = metrics.means["accuracy"]
    is_wrong = 1 - is_correct
    share = _proportion_interval(is_wrong, units).high
    if_correct = float(values @ is_correct / is_correct.sum().clamp(min=1))
    if_wrong = float(values @ is_wrong / is_wrong.sum().clamp(min=1))
    return (1 - share) * if_correct + share * max(if_wrong, metrics.losses_if_wrong[name])


def _count_units(units: Tensor) -> int:
    return int(units.bincount().count_nonzero())


def _unit_sums(values: Tensor, units: Tensor) -> Tensor:
    """Return (G,) sums of values (N,) over the sequences of each group."""
    return torch.bincount(units, weights=values)
