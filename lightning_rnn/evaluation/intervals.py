"""How far a test's metrics would move on another sample of as many sequences: bootstrap intervals."""

import copy

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from lightning_rnn.evaluation.metrics import CALIBRATION_BINS
from lightning_rnn.evaluation.results import Evaluation
from lightning_rnn.models.decision import Decision
from lightning_rnn.models.losses import cross_entropies

FEWEST, MOST = 200, 1000  # resamples
WORK = 20_000_000  # resamples times sequences times rankings: what takes about 2 s
CHUNK = 1 << 21  # resamples times sequences held at once


def intervals(
    outcome: Evaluation,
    decision: Decision,
    groups: np.ndarray | None = None,
    *,
    resamples: int | None = None,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Compute 95 % percentile intervals (Efron and Tibshirani 1993, chapter 13) of the metrics of `evaluate`.

    Sequences are drawn with replacement inside each class; where there are groups, whole groups are, inside the class
    that most of their sequences have. A resample is a vector of counts, so that all of them are matrix products.

    Args:
        outcome: N sequences, with labels and losses.
        decision: Makes probabilities and classes of the logits.
        groups: (N,) names, or None.
        resamples: How many; when not given, from 1,000 down to 200 with more and more sequences.
        seed: Of the resamples.

    Returns:
        (low, high) by the names of `evaluate`, without what the sample leaves undefined.
    """
    units, strata = _units(outcome.labels.cpu(), groups)
    metrics = _Weighted(outcome.cpu(), decision)
    if resamples is None:
        resamples = max(FEWEST, min(MOST, WORK // (len(outcome.labels) * len(metrics.ranked))))
    generator = np.random.default_rng(seed)
    step = max(1, CHUNK // len(outcome.labels))
    parts = [
        metrics(_draw(units, strata, min(step, resamples - start), generator))
        for start in range(0, resamples, step)
    ]
    found = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    bounds = torch.tensor([0.025, 0.975], dtype=torch.float64)
    return {name: tuple(values.quantile(bounds).tolist()) for name, values in found.items()}


def _units(y: Tensor, groups: np.ndarray | None) -> tuple[Tensor, Tensor]:
    """Return (N,) the unit that each sequence is drawn with, and (units,) each unit's stratum."""
    if groups is None:
        return torch.arange(len(y)), y
    units = torch.from_numpy(np.unique(groups.astype(str), return_inverse=True)[1]).long()
    votes = torch.zeros(int(units.max()) + 1, int(y.max()) + 1).index_put_(
        (units, y), torch.ones(()), accumulate=True
    )
    return units, votes.argmax(1)


def _draw(units: Tensor, strata: Tensor, count: int, generator: np.random.Generator) -> Tensor:
    """Return (count, N) how often each resample has each sequence."""
    drawn = torch.zeros(count, len(strata), dtype=torch.float64)
    for stratum in torch.unique(strata):
        rows = (strata == stratum).nonzero().view(-1)
        picked = rows[torch.from_numpy(generator.integers(len(rows), size=(count, len(rows))))]
        drawn.scatter_add_(1, picked, torch.ones_like(picked, dtype=torch.float64))
    return drawn[:, units]


class _Weighted:
    """The metrics of `evaluate` for many vectors of weights at once."""

    def __init__(self, outcome: Evaluation, decision: Decision) -> None:
        logits, y, loss = outcome.logits, outcome.labels, outcome.losses
        decision = copy.deepcopy(decision).cpu()
        table = decision.class_probabilities(logits)  # (N, K)
        self.num_classes = table.shape[1]
        self.own, self.decided = (
            one_hot(codes, self.num_classes).double() for codes in (y, decision.predict(logits))
        )
        ranks = logits.double()[:, None] if logits.ndim == 1 else logits.double().softmax(1)
        orders = [column.argsort(descending=True, stable=True) for column in ranks.unbind(1)]
        self.ranked = [
            (order, _ends(column[order]))
            for order, column in zip(orders, ranks.unbind(1), strict=True)
        ]
        self.against = [self.own[:, 1]] if logits.ndim == 1 else [*self.own.unbind(1)]
        correct = (self.own * self.decided).sum(1)
        confidence, predicted = table.max(1)
        self.bins = one_hot(
            (confidence * CALIBRATION_BINS).long().clamp(max=CALIBRATION_BINS - 1), CALIBRATION_BINS
        )
        self.gap = (
            self.bins * (confidence.double() - (predicted == y).double())[:, None]
        )  # (N, bins)
        self.means = {
            "loss": loss.double(),
            "accuracy": correct,
            "brier": (table - self.own).square().sum(1) / (2 if self.num_classes == 2 else 1),
            "log_loss": cross_entropies(logits / decision.temperature, y).double(),
        }

    def __call__(self, w: Tensor) -> dict[str, Tensor]:
        """Return (R,) of each metric from weights (R, N)."""
        total = w.sum(1)
        found = {name: w @ values / total for name, values in self.means.items()}
        labelled, decided, right = (
            w @ self.own,
            w @ self.decided,
            w @ (self.own * self.decided),
        )  # (R, K)
        f1 = 2 * right / (labelled + decided).clamp(min=1)
        there = self.own.any(0)
        found["ece"] = (w @ self.gap).abs().sum(1) / total
        found["balanced_accuracy"] = (right / labelled.clamp(min=1))[:, there].mean(1)
        if self.num_classes == 2:
            if there[1]:
                found["f1"] = f1[:, 1]
        else:  # as torchmetrics: a class neither labelled nor decided does not count
            counts = (labelled + decided > 0).double()
            found["f1"] = (f1 * counts).sum(1) / counts.sum(1)
        if bool(there.all()):
            pairs = [
                _ranking(w, *ranked, own)
                for ranked, own in zip(self.ranked, self.against, strict=True)
            ]
            found["auroc"] = torch.stack([pair[0] for pair in pairs]).mean(0)
            found["average_precision"] = torch.stack([pair[1] for pair in pairs]).mean(0)
        return found


def _ends(values: Tensor) -> Tensor:
    """Return the places at which runs of equal values (N,) end."""
    return (
        torch.cat([values[1:] != values[:-1], torch.ones(1, dtype=torch.bool)]).nonzero().view(-1)
    )


def _ranking(w: Tensor, order: Tensor, ends: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """Return (R,) AUROC and average precision from weights (R, N) and membership `own` (N,) of the class.

    `order` (N,) has the rows from the highest score to the lowest, `ends` (V,) the places at which a score ends.
    """
    w = w.float()[:, order]  # whole numbers: exact
    true, every = (w * own[order].float()).cumsum(1)[:, ends], w.cumsum(1)[:, ends]  # (R, V)
    positive, total = (torch.diff(c, dim=1, prepend=c[:, :1] * 0) for c in (true, every))
    false, positives = every - true, true[:, -1:]
    below = false[:, -1:] - false + (total - positive) / 2  # ties count half
    auroc = (positive * below).sum(1, dtype=torch.float64) / (positives * false[:, -1:])[
        :, 0
    ].double()
    precision = true / every.clamp(min=1)
    return auroc, (positive * precision).sum(1, dtype=torch.float64) / positives[:, 0].double()
