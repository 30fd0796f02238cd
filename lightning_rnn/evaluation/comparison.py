"""Test results of several models, each trained with several seeds: intervals, table and figure."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lightning_rnn.evaluation.figures import new_axes
from lightning_rnn.evaluation.intervals import Interval

MAX_EXACT = 1000  # sum of absolute differences up to which a test is exact
# 97.5 % quantiles of Student's t distribution for 1 to 9 degrees of freedom; the last one for more
T_QUANTILES = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


@dataclass(frozen=True)
class Summary:
    """Test results of one model, trained with several seeds."""

    name: str
    accuracies: tuple[float, ...]  # of each seed
    interval: Interval  # of the mean accuracy, see `mean_interval`
    log_loss: float  # mean
    parameters: int
    seconds: float  # of training, mean

    @property
    def accuracy(self) -> float:
        """Mean test accuracy."""
        return statistics.mean(self.accuracies)


def summarize(name: str, results: Sequence[Mapping[str, Any]]) -> Summary:
    """Summarize runs that differ in their seeds, from the results of `fit_and_test`."""
    accuracies = [result["test/accuracy"] for result in results]
    lows = [result["test/accuracy_low"] for result in results]
    highs = [result["test/accuracy_high"] for result in results]
    return Summary(
        name=name,
        accuracies=tuple(accuracies),
        interval=mean_interval(accuracies, lows, highs),
        log_loss=statistics.mean(result["test/log_loss"] for result in results),
        parameters=results[0]["parameters"],
        seconds=statistics.mean(result["seconds"] for result in results),
    )


def mean_interval(
    values: Sequence[float], lows: Sequence[float], highs: Sequence[float]
) -> Interval:
    """Return a 95 % interval of the mean of a metric over seeds.

    The distance of each bound to the mean is sqrt(a^2 + b^2) (Zou and Donner 2008), where a is that
    of Student's t interval over the seeds, and b the mean distance in the intervals of the single
    tests, from `lows` to `highs`. As the seeds may share their test sequences, b does not shrink
    with their number.

    Example:
        >>> mean_interval([0.8], [0.7], [0.85])
        Interval(low=0.7, high=0.85)
    """
    n = len(values)
    mean = statistics.mean(values)
    over_seeds = 0.0
    if n > 1:
        quantile = T_QUANTILES[min(n - 1, len(T_QUANTILES)) - 1]
        over_seeds = quantile * statistics.stdev(values) / math.sqrt(n)
    below = math.hypot(over_seeds, mean - statistics.mean(lows))
    above = math.hypot(over_seeds, statistics.mean(highs) - mean)
    return Interval(max(0.0, round(mean - below, 12)), min(1.0, round(mean + above, 12)))


def paired_p_value(differences: Sequence[int]) -> float:
    """Return the two-sided p-value of a sign-flip test of paired differences (N,).

    A difference is the number of correct predictions of one model minus that of the other, for one
    sequence (McNemar's exact test) or group. Beyond a sum of absolute differences of 1,000, the
    normal approximation is used.

    Example:
        >>> paired_p_value([1, 1, 1, 0, 1, 1])  # 2 / 2 ** 5
        0.0625
    """
    sizes = [abs(difference) for difference in differences if difference != 0]
    total = abs(sum(differences))
    if sum(sizes) > MAX_EXACT:
        return math.erfc(total / math.sqrt(2 * sum(size**2 for size in sizes)))
    probabilities = np.ones(1)  # of the sums from -S to S
    for size in sizes:
        lower = np.pad(probabilities, (0, 2 * size))
        probabilities = (lower + np.roll(lower, 2 * size)) / 2
    sums = np.arange(len(probabilities)) - sum(sizes)
    return min(1.0, float(probabilities[abs(sums) >= total].sum()))


def comparison_table(summaries: Sequence[Summary]) -> list[str]:
    """Return the lines of a table with a row for each model."""
    lines = [
        f"{'':8}{'accuracy':>9}  {'95 % interval':16}{'log loss':>9}{'parameters':>12}{'s':>8}"
    ]
    for summary in summaries:
        interval = f"{summary.interval.low:.3f} to {summary.interval.high:.3f}"
        lines.append(
            f"{summary.name:8}{summary.accuracy:9.3f}  {interval:16}{summary.log_loss:9.3f}"
            f"{summary.parameters:12,}{summary.seconds:8.1f}"
        )
    return lines


def comparison_figure(summaries: Sequence[Summary]) -> Any:
    """Draw accuracy over time of training: mean and interval of each model, a point per seed."""
    figure, axes = new_axes("comparison", "seconds of training", "test accuracy")
    for i, summary in enumerate(summaries):
        color = f"C{i}"
        bounds = [
            [summary.accuracy - summary.interval.low],
            [summary.interval.high - summary.accuracy],
        ]
        label = f"{summary.name}: {summary.accuracy:.3f}"
        position = (summary.seconds, summary.accuracy)
        axes.errorbar(*position, yerr=bounds, fmt="o", capsize=4, color=color, label=label)
        seconds = [summary.seconds] * len(summary.accuracies)
        axes.plot(seconds, summary.accuracies, "_", markersize=8, color=color)
    axes.legend(fontsize="small")
    return figure
