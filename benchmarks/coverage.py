"""How often do the 95 % intervals of a test contain the true value of a metric?

Test sets of n sequences are drawn from a known distribution: a share of them is positive, and a
score x is normal with mean d for positives and 0 for negatives. The logits of the good classifier
are the true ones for d = 2 (AUROC 0.92), those of the excellent one for d = 5 (AUROC 0.9998), and
those of the useless one are noise. In groups, sequences share the label and half of the variance of
the score. The true values are those of two million sequences.

    python -m benchmarks.coverage                    # 1,000 test sets for each of 34 settings
    python -m benchmarks.coverage --repetitions 400
"""

import math
from typing import Any

import numpy as np
import torch

from benchmarks.harness import parser_of, save
from lightning_rnn.evaluation.intervals import confidence_intervals
from lightning_rnn.evaluation.metrics import TEST_METRICS, evaluate
from lightning_rnn.evaluation.results import Evaluation
from lightning_rnn.models.decision import Decision
from lightning_rnn.models.losses import cross_entropies

METRICS = [name for name in TEST_METRICS if name != "loss"]  # which equals log_loss here
CLASSIFIERS = ("good", "useless", "excellent")
SIZES = (100, 200, 400)
SHARES = (0.5, 0.2, 0.1, 0.05)
# sizes, shares and sizes of groups that are also measured in groups
GROUPED = ((200, 0.5, 4), (400, 0.2, 4), (50, 0.5, 10), (100, 0.5, 10))
RARE_MISTAKES = ((30, 0.5), (100, 0.1))  # sizes and shares measured with the excellent classifier
SEPARATIONS = {"good": 2.0, "excellent": 5.0}
LARGE = 2_000_000


def draw(
    classifier: str, n: int, share: float, generator: np.random.Generator, group_size: int = 1
) -> Evaluation:
    """Draw a test set of n sequences, in groups of adjacent ones."""
    num_groups = n // group_size
    labels = (generator.random(num_groups) < share).repeat(group_size)
    noise = generator.normal(size=n)
    if group_size > 1:
        of_group = generator.normal(size=num_groups).repeat(group_size)
        noise = (noise + of_group) / math.sqrt(2)
    logits = noise
    if classifier in SEPARATIONS:
        d = SEPARATIONS[classifier]
        logits = d * (noise + d * labels) - d**2 / 2 + math.log(share / (1 - share))
    logits = torch.from_numpy(logits).float()
    labels = torch.from_numpy(labels).long()
    losses = cross_entropies(logits, labels)
    return Evaluation(torch.arange(n), logits, labels, losses)


def measure_coverage(
    classifier: str,
    n: int,
    share: float,
    repetitions: int,
    *,
    group_size: int = 1,
) -> list[dict[str, Any]]:
    """Return one row a metric: the share of test sets whose interval contains the true value."""
    generator = np.random.default_rng([CLASSIFIERS.index(classifier), n, int(1000 * share)])
    large = draw(classifier, LARGE, share, generator)
    truth = evaluate(large, Decision(), TEST_METRICS)
    widths = {name: [] for name in METRICS}
    hits = dict.fromkeys(METRICS, 0)
    below = dict.fromkeys(METRICS, 0)
    for _ in range(repetitions):
        evaluation = draw(classifier, n, share, generator, group_size)
        groups = None if group_size == 1 else np.arange(n) // group_size
        intervals = confidence_intervals(evaluation, Decision(), groups)
        for name in METRICS:
            if name in intervals:
                interval = intervals[name]
                widths[name].append(interval.high - interval.low)
                hits[name] += interval.low <= float(truth[name]) <= interval.high
                below[name] += interval.high < float(truth[name])
    rows = []
    for name in METRICS:
        intervals = max(1, len(widths[name]))
        rows.append({
            "classifier": classifier,
            "n": n,
            "positives": share,
            "group_size": group_size,
            "metric": name,
            "true_value": f"{float(truth[name]):.4f}",
            "coverage": f"{hits[name] / intervals:.3f}",
            "too_low": f"{below[name] / intervals:.3f}",
            "mean_width": f"{np.mean(widths[name]):.3f}",
            "without_interval": repetitions - len(widths[name]),
            "repetitions": repetitions,
        })  # fmt: skip
    return rows


def main(repetitions: int) -> None:
    torch.set_num_threads(1)
    rows = []
    for classifier in ("good", "useless"):
        for n in SIZES:
            for share in SHARES:
                rows.extend(measure_coverage(classifier, n, share, repetitions))
        for n, share, group_size in GROUPED:
            rows.extend(measure_coverage(classifier, n, share, repetitions, group_size=group_size))
    for n, share in RARE_MISTAKES:
        rows.extend(measure_coverage("excellent", n, share, repetitions))
    save("coverage", rows)


if __name__ == "__main__":
    parser = parser_of(__doc__)
    parser.add_argument("--repetitions", type=int, default=1000)
    main(parser.parse_args().repetitions)
