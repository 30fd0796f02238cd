"""95 % confidence intervals of test metrics.

Proportions have closed intervals that also hold for few sequences and for proportions of 0 and 1;
means of losses are bootstrapped, in resamples of all sequences or of whole groups; the standard
errors of other metrics come from the influence of each sequence.
`benchmarks/coverage.py` measures how often the intervals contain the true value.
"""

import copy
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lightning_rnn.evaluation.metrics import MEANS, RANK_METRICS, TEST_METRICS, Metrics
from lightning_rnn.evaluation.results import Evaluation
from lightning_rnn.models.decision import Decision

Z = 1.959964  # 97.5 % quantile of the standard normal distribution
MIN_RESAMPLES = 200
MAX_RESAMPLES = 1000
MAX_WORK = 20_000_000  # resamples times sequences
CHUNK_SIZE = 1 << 21  # resamples times sequences in memory at once
MAX_RANKED = 1 << 23  # logits that are sorted, in about 1.5 s
MIN_GROUPS = 4  # fewer do not show how groups vary
MANY_MISTAKES = 10  # resamples of fewer do not show how mistakes vary


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
    - average precision, and F1 and AUROC of more classes: normal interval of the logit (Boyd et al.
      2013), whose standard error is that of the mean influence of the sequences (infinitesimal
      jackknife, Efron 1982); Wilson interval of the rarest class at 0 and 1. Average precision
      and AUROC are left out for more than 2^23 logits.

    The calibration error has no interval: its estimate is biased upwards, and more so in resamples.

    Sequences of a group are resampled together. With fewer than 4 groups, only the first four kinds
    of intervals are given. By default there are 1,000 resamples, and down to 200 for many
    sequences.

    Returns:
        Intervals by metric, without those that the labels, or more than half of the resamples,
        leave undefined.
    """
    metrics = Metrics(evaluation.cpu(), copy.deepcopy(decision).cpu())
    units = torch.arange(len(metrics.labels))
    if groups is not None:
        units = torch.from_numpy(np.unique(groups.astype(str), return_inverse=True)[1]).long()
    if num_resamples is None:
        num_resamples = max(MIN_RESAMPLES, min(MAX_RESAMPLES, MAX_WORK // len(units)))
    names = [name for name in TEST_METRICS if metrics.is_defined(name)]
    if evaluation.logits.numel() > MAX_RANKED:
        names = [name for name in names if name not in RANK_METRICS]
    intervals: dict[str, Interval | None] = {}
    for name in names:
        intervals[name] = _closed_interval(metrics, name, units)
    others = [name for name in names if intervals[name] is None]
    if _count_units(units) < MIN_GROUPS:
        others = []
    losses = [name for name in others if name in MEANS]
    for name, statistics in _resample(metrics, losses, units, num_resamples, seed).items():
        intervals[name] = _bootstrap_interval(metrics, name, units, statistics)
    for name, influence in metrics.influences(others).items():
        intervals[name] = _influence_interval(metrics, name, units, influence)
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

    The variance is that of the influences (N,) of the sequences on the estimate. That of G groups
    is multiplied by G / (G - 3): by G / (G - 1), as in a sample variance, and by the variance of
    Student's t distribution. The factor is at most the one if the sequences of a group were copies.
    """
    sizes = units.bincount().double()
    of_copies = float(sizes.square().sum()) / len(units)
    num_groups = int(sizes.count_nonzero())
    independent = float(influence.square().sum())
    if num_groups == len(units):
        return 1.0
    if independent == 0 or num_groups < MIN_GROUPS:
        return of_copies
    grouped = float(_unit_sums(influence, units).square().sum())
    effect = grouped / independent * num_groups / (num_groups - 3)
    return min(max(1.0, effect), of_copies)


def _closed_interval(metrics: Metrics, name: str, units: Tensor) -> Interval | None:
    """Return the interval of a metric with a closed formula, None for the others."""
    is_correct = metrics.values("accuracy")
    if name == "accuracy":
        return _proportion_interval(is_correct, units)
    if name == "balanced_accuracy":
        return _balanced_accuracy_interval(metrics, is_correct, units)
    if name == "f1" and metrics.is_binary:
        is_counted = (metrics.labels == 1) | (metrics.predicted == 1)
        jaccard = _proportion_interval(is_correct[is_counted], units[is_counted])
        low = 2 * jaccard.low / (1 + jaccard.low)
        high = 2 * jaccard.high / (1 + jaccard.high)
        return Interval(low, high)
    if name == "auroc" and metrics.is_binary:
        effect = design_effect(metrics.influences(["auroc"])["auroc"], units)
        num_negatives, num_positives = (metrics.support / effect).tolist()
        return newcombe_interval(float(metrics.value("auroc")), num_positives, num_negatives)
    return None


def _proportion_interval(is_success: Tensor, units: Tensor) -> Interval:
    """Return the Wilson interval of the share of successes (N,) in groups."""
    share = float(is_success.mean())
    n = len(units) / design_effect(is_success - share, units)
    return Interval(*wilson_interval(share, n))


def _balanced_accuracy_interval(metrics: Metrics, is_correct: Tensor, units: Tensor) -> Interval:
    """Combine Wilson intervals of the recalls (Zou and Donner 2008, Statistics in Medicine 27)."""
    classes = metrics.support.nonzero().view(-1).tolist()
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


def _resample(
    metrics: Metrics, names: list[str], units: Tensor, num_resamples: int, seed: int
) -> dict[str, Tensor]:
    """Return (R,) t statistics of means in bootstrap resamples."""
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
            chunks[name].append(_t_statistics(metrics.values(name), units, counts))
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
    metrics: Metrics, name: str, units: Tensor, statistics: Tensor
) -> Interval | None:
    """Return the interval of a mean from its t statistics (R,); see `confidence_intervals`."""
    defined = statistics[statistics.isfinite()]
    num_undefined = len(statistics) - len(defined)
    if num_undefined > len(statistics) / 2:
        return None
    values = metrics.values(name)
    mean = float(values.mean())
    error = _standard_error((values - mean) / len(values), units)
    bounds = torch.tensor([0.025, 0.975], dtype=torch.float64)
    t_low, t_high = defined.quantile(bounds).tolist()
    low = max(0.0, mean - t_high * error)
    high = mean - t_low * error
    if (~metrics.is_correct).sum() < MANY_MISTAKES:
        limit = _limit_of_mistakes(metrics, name, units)
        high = limit if metrics.is_correct.all() else min(high, limit)
    return Interval(low, high, num_undefined)


def _influence_interval(metrics: Metrics, name: str, units: Tensor, influence: Tensor) -> Interval:
    """Return the interval of another metric from the influences (N,) of the sequences."""
    estimate = float(metrics.value(name))
    classes = metrics.support.nonzero().view(-1)
    rarest = min(_count_units(units[metrics.labels == k]) for k in classes)
    # as in a sample variance: the influences of a few sequences vary less than those of many
    error = _standard_error(influence, units) * math.sqrt(1 + 1 / max(1, rarest - 1))
    if 0 < estimate < 1 and error > 0:
        logit = math.log(estimate / (1 - estimate))
        margin = Z * error / (estimate * (1 - estimate))
        low, high = torch.tensor([logit - margin, logit + margin]).sigmoid().tolist()
        return Interval(low, high)
    return Interval(*wilson_interval(estimate, rarest))


def _standard_error(influence: Tensor, units: Tensor) -> float:
    """Return the standard error of a metric with influences (N,) of sequences in groups."""
    return float(_unit_sums(influence, units).square().sum().sqrt())


def _limit_of_mistakes(metrics: Metrics, name: str, units: Tensor) -> float:
    """Return the mean of a loss if mistakes were as frequent as Wilson's interval allows.

    Resamples cannot contain rare mistakes that the test set lacks, and their t statistics are huge
    where none of a few mistakes is drawn. The loss of a mistake is the observed mean, but at least
    the mean if every sequence was one.
    """
    values = metrics.values(name)
    is_correct = metrics.values("accuracy")
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
