"""95 % confidence intervals of test metrics.

Proportions have closed intervals that also hold for few sequences and for proportions of 0 and 1;
the intervals of mean losses are corrected for their skewness; the standard errors of other metrics
come from the influence of each sequence. `benchmarks/coverage.py` measures how often the intervals
contain the true value.
"""

import copy
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_rnn.evaluation.metrics import MEANS, RANK_METRICS, TEST_METRICS, Metrics
from lightning_rnn.evaluation.results import Evaluation
from lightning_rnn.models.decision import Decision

Z = 1.959964  # 97.5 % quantile of the standard normal distribution
MAX_RANKED = 1 << 23  # logits that are sorted, in about 1.5 s
MIN_GROUPS = 4  # fewer do not show how groups vary
MANY_MISTAKES = 10  # fewer do not show how mistakes vary


class Interval(NamedTuple):
    """A 95 % confidence interval."""

    low: float
    high: float


def confidence_intervals(
    evaluation: Evaluation, decision: Decision, groups: np.ndarray | None = None
) -> dict[str, Interval]:
    """Compute confidence intervals of the metrics of `evaluate`.

    - accuracy: Wilson 1927. Sequences in groups count as fewer independent ones: their number is
      divided by the design effect (Kish 1965), and likewise below.
    - balanced accuracy: Wilson intervals of the recalls, combined as in Zou and Donner 2008.
    - F1 of two classes: Wilson interval of TP / (TP + FP + FN), of which F1 is a function.
    - AUROC of two classes: Newcombe 2006, method 5.
    - loss, log loss and Brier score: a t interval, corrected for the skewness of the losses (Hall
      1992, Journal of the Royal Statistical Society B 54, the cubic transformation g); with fewer
      than 10 mistakes at most, and without mistakes exactly, up to `_limit_of_mistakes`.
    - average precision, and F1 and AUROC of more classes: normal interval of the logit (Boyd et al.
      2013), whose standard error is that of the mean influence of the sequences (infinitesimal
      jackknife, Efron 1982); Wilson interval of the rarest class at 0 and 1. Average precision
      and AUROC are left out for more than 2^23 logits.

    The calibration error has no interval: its estimate is biased upwards. With fewer than 4 groups,
    only the first four kinds of intervals are given.

    Returns:
        Intervals by metric, without those that the labels leave undefined.
    """
    metrics = Metrics(evaluation.cpu(), copy.deepcopy(decision).cpu())
    units = torch.arange(len(metrics.labels))
    if groups is not None:
        units = torch.from_numpy(np.unique(groups.astype(str), return_inverse=True)[1]).long()
    names = [name for name in TEST_METRICS if metrics.is_defined(name)]
    if evaluation.logits.numel() > MAX_RANKED:
        names = [name for name in names if name not in RANK_METRICS]
    intervals: dict[str, Interval] = {}
    for name in names:
        interval = _score_interval(metrics, name, units)
        if interval is not None:
            intervals[name] = interval
    if _count_units(units) < MIN_GROUPS:
        return intervals
    others = [name for name in names if name not in intervals]
    for name in [name for name in others if name in MEANS]:
        intervals[name] = _loss_interval(metrics, name, units)
    for name, influence in metrics.influences(others).items():
        intervals[name] = _influence_interval(metrics, name, units, influence)
    return intervals


def wilson_interval(share: float, n: float) -> Interval:
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
    return Interval(low, high)


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
    return Interval(*bounds)


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


def _score_interval(metrics: Metrics, name: str, units: Tensor) -> Interval | None:
    """Return the interval of a metric that has a score interval, None for the others."""
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
    return wilson_interval(share, n)


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


def _loss_interval(metrics: Metrics, name: str, units: Tensor) -> Interval:
    """Return the interval of the mean of one of the losses; see `confidence_intervals`."""
    values = metrics.values(name)
    mean = float(values.mean())
    low, high = skewed_interval(mean, _unit_sums(values - mean, units) / len(values))
    low = max(0.0, low)
    if (~metrics.is_correct).sum() < MANY_MISTAKES:
        limit = _limit_of_mistakes(metrics, name, units)
        high = limit if metrics.is_correct.all() else min(high, limit)
    return Interval(low, high)


def skewed_interval(mean: float, deviations: Tensor) -> Interval:
    """Return the interval of a mean to which G > 3 independent groups contribute deviations (G,).

    With the skewness s of the deviations' sum, t = (mean - true mean) / error is about as
    frequent as the normal quantile g(t) = t + s / 3 t^2 + s^2 / 27 t^3 + s / 6 (Hall 1992). The
    bounds are those of g(t) = Z and g(t) = -Z. The squared error is multiplied by G / (G - 3), as
    in `design_effect`.
    """
    num_groups = len(deviations)
    variance = float(deviations.square().sum())
    if variance == 0:
        return Interval(mean, mean)
    skewness = float(deviations.pow(3).sum()) / variance**1.5
    error = math.sqrt(variance * num_groups / (num_groups - 3))
    bounds = []
    for quantile in (Z, -Z):
        t = quantile
        if abs(skewness) > 1e-9:  # less would be lost in rounding
            cube = 1 + skewness * (quantile - skewness / 6)
            t = 3 / skewness * (math.cbrt(cube) - 1)
        bounds.append(mean - t * error)
    return Interval(*bounds)


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
    return wilson_interval(estimate, rarest)


def _standard_error(influence: Tensor, units: Tensor) -> float:
    """Return the standard error of a metric with influences (N,) of sequences in groups."""
    return float(_unit_sums(influence, units).square().sum().sqrt())


def _limit_of_mistakes(metrics: Metrics, name: str, units: Tensor) -> float:
    """Return the mean of a loss if mistakes were as frequent as Wilson's interval allows.

    A few mistakes, or none, do not show how frequent mistakes are. The loss of a mistake is the
    observed mean, but at least the mean if every sequence was one.
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
