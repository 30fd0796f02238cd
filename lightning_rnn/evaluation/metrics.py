"""Metrics of an evaluation as functions of the weights of its sequences.

Weights of one give the value of a metric, the counts of a bootstrap resample its value on that
resample, and derivatives with respect to the weights the influence of each sequence.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
import torchmetrics.functional.classification as functional
from torch import Tensor
from torch.nn.functional import one_hot

from lightning_rnn.evaluation.results import Evaluation
from lightning_rnn.models.decision import Decision
from lightning_rnn.models.losses import cross_entropies

EPOCH_METRICS = ("loss", "accuracy", "auroc", "f1")
TEST_METRICS = (*EPOCH_METRICS, "average_precision", "balanced_accuracy", "brier", "log_loss")
CALIBRATION_BINS = 15
CALIBRATED_METRICS = ("accuracy", "f1", "balanced_accuracy", "brier", "log_loss", "ece")


def evaluate(evaluation: Evaluation, decision: Decision, *, full: bool) -> dict[str, Tensor]:
    """Compute the metrics of an evaluation.

    For two classes, AUROC, F1 and average precision are those of the second class; for more, they
    are means over the classes, each against the rest. The Brier score of two classes is that of the
    second class alone (Brier 1950). Metrics that are undefined because a class has no sequences are
    left out.

    Args:
        evaluation: N sequences.
        decision: Converts logits to probabilities and classes.
        full: Whether to add the metrics of a final test.

    Returns:
        Float32 scalars by name: loss, accuracy, auroc and f1; if `full` also average_precision,
        balanced_accuracy, brier, log_loss and ece (expected calibration error of the most probable
        class, 15 bins; Guo et al. 2017, arXiv:1706.04599, section 2).

    Example:
        >>> evaluation = Evaluation(
        ...     index=torch.arange(3),
        ...     logits=torch.tensor([2.0, -1.0, 0.5]),
        ...     labels=torch.tensor([1, 0, 0]),
        ...     losses=torch.tensor([0.1, 0.3, 1.0]),
        ... )
        >>> metrics = evaluate(evaluation, Decision(), full=False)
        >>> {name: round(float(value), 3) for name, value in metrics.items()}
        {'loss': 0.467, 'accuracy': 0.667, 'auroc': 1.0, 'f1': 0.667}
    """
    metrics = WeightedMetrics(evaluation, decision)
    values = {}
    for name in TEST_METRICS if full else EPOCH_METRICS:
        if metrics.is_defined(name):
            values[name] = metrics.compute(name, metrics.ones)[0].float()
    if full:
        values["ece"] = functional.multiclass_calibration_error(
            metrics.probabilities,
            metrics.labels,
            num_classes=metrics.num_classes,
            n_bins=CALIBRATION_BINS,
            validate_args=False,
        )
    return values


def evaluate_test(evaluation: Evaluation, decision: Decision) -> dict[str, Tensor]:
    """Compute all metrics, and some without the temperature and threshold of a fitted decision.

    The names of the latter end with `_uncalibrated`; see `evaluate`.
    """
    metrics = evaluate(evaluation, decision, full=True)
    if decision.is_fitted:
        uncalibrated = evaluate(evaluation, Decision(), full=True)
        for name in CALIBRATED_METRICS:
            if name in uncalibrated:
                metrics[f"{name}_uncalibrated"] = uncalibrated[name]
    return metrics


@dataclass(frozen=True)
class ClassMetrics:
    """How well one class is recognized; None where a metric is undefined."""

    precision: float | None  # share of the sequences predicted as this class that are of it
    recall: float | None  # share of the sequences of this class that are predicted as it
    f1: float | None  # harmonic mean of both
    support: int  # number of sequences of this class
    predicted_as: dict[str, int]  # number of sequences of this class by predicted class


def evaluate_classes(
    evaluation: Evaluation, decision: Decision, class_names: list[str]
) -> dict[str, ClassMetrics]:
    """Compute the metrics of each of the K classes against the rest.

    Example:
        >>> labels = torch.tensor([1, 0, 0])
        >>> logits = torch.tensor([2.0, -1.0, 0.5])
        >>> evaluation = Evaluation(torch.arange(3), logits, labels, losses=torch.zeros(3))
        >>> classes = evaluate_classes(evaluation, Decision(), ["no", "yes"])
        >>> classes["no"].recall, classes["no"].predicted_as
        (0.5, {'no': 1, 'yes': 1})
    """
    num_classes = len(class_names)
    codes = evaluation.labels * num_classes + decision.predict(evaluation.logits)
    counts = codes.bincount(minlength=num_classes**2).view(num_classes, num_classes)
    metrics = {}
    for k, name in enumerate(class_names):
        correct = int(counts[k, k])
        support = int(counts[k].sum())
        predicted = int(counts[:, k].sum())
        metrics[name] = ClassMetrics(
            precision=_ratio(correct, predicted),
            recall=_ratio(correct, support),
            f1=_ratio(2 * correct, support + predicted),
            support=support,
            predicted_as=dict(zip(class_names, counts[k].tolist(), strict=True)),
        )
    return metrics


def _ratio(numerator: int, denominator: int) -> float | None:
    return numerator / denominator if denominator else None


class WeightedMetrics:
    """The metrics of an evaluation of N sequences for any number of weight vectors at once.

    Attributes:
        ones: (1, N) float64 weights of the evaluation itself.
        means: (N,) float64 values of the sequences for each metric that is a mean of such values.
    """

    def __init__(self, evaluation: Evaluation, decision: Decision) -> None:
        self.logits = evaluation.logits
        self.labels = evaluation.labels
        self.is_binary = evaluation.logits.ndim == 1
        self.probabilities = decision.class_probabilities(self.logits)  # (N, K)
        self.num_classes = self.probabilities.shape[1]
        self.predicted = decision.predict(self.logits)
        self.is_correct = self.predicted == self.labels
        self.is_label = one_hot(self.labels, self.num_classes).double()  # (N, K)
        self.is_predicted = one_hot(self.predicted, self.num_classes).double()  # (N, K)
        self.has_sequences = self.is_label.any(0)  # (K,)
        self.ones = torch.ones_like(self.labels, dtype=torch.float64)[None]
        squares = (self.probabilities - self.is_label).square()  # (N, K)
        self.means = {
            "loss": evaluation.losses.double(),
            "accuracy": self.is_correct.double(),
            "log_loss": cross_entropies(self.logits / decision.temperature, self.labels).double(),
            "brier": squares[:, 1] if self.is_binary else squares.sum(1),
        }
        self._temperature = decision.temperature

    @cached_property
    def losses_if_wrong(self) -> dict[str, float]:
        """For each of the losses, its mean if every sequence was of another class.

        That of the Brier score is the largest possible one.
        """
        raw = cross_entropies(self.logits, self.labels).double()
        weight = float(self.means["loss"].sum() / raw.sum().clamp(min=1e-300))
        calibrated = self.logits / self._temperature
        return {
            "loss": weight * self._cross_entropy_if_wrong(self.logits, raw),
            "log_loss": self._cross_entropy_if_wrong(calibrated, self.means["log_loss"]),
            "brier": 1.0 if self.is_binary else 2.0,
        }

    def _cross_entropy_if_wrong(self, logits: Tensor, losses: Tensor) -> float:
        """Return the mean cross entropy over the sequences and the classes that are not theirs."""
        of_all = cross_entropies(logits, self.labels, label_smoothing=1.0).double()  # means over K
        return float((self.num_classes * of_all - losses).mean()) / (self.num_classes - 1)

    def is_defined(self, name: str) -> bool:
        """Return whether the labels of the evaluation define a metric."""
        if name in ("auroc", "average_precision"):
            return bool(self.has_sequences.all())
        if name == "f1" and self.is_binary:
            return bool(self.has_sequences[1])
        return True

    def compute(self, name: str, weights: Tensor) -> Tensor:
        """Compute one metric.

        Args:
            name: One of `TEST_METRICS`.
            weights: (R, N) float64, not negative.

        Returns:
            (R,) float64; NaN where the weights leave the metric undefined.
        """
        if name in self.means:
            return weights @ self.means[name] / weights.sum(1)
        if name in ("f1", "balanced_accuracy"):
            return self._from_counts(name, weights)
        columns = [getattr(ranking, name)(weights) for ranking in self.rankings.values()]
        return torch.stack(columns, dim=1).mean(1)

    def _from_counts(self, name: str, weights: Tensor) -> Tensor:
        labelled = weights @ self.is_label  # (R, K)
        predicted = weights @ self.is_predicted
        correct = weights @ (self.is_label * self.is_predicted)
        if name == "balanced_accuracy":
            recall = correct / labelled
            return recall[:, self.has_sequences].mean(1)
        f1 = 2 * correct / (labelled + predicted)  # 0 / 0 if a class does not occur
        if self.is_binary:
            return torch.where(labelled[:, 1] > 0, f1[:, 1], torch.nan)
        return f1.nanmean(1)

    @cached_property
    def rankings(self) -> dict[int, "Ranking"]:
        """Rankings by class code: of the second of two classes, of each of more."""
        if self.is_binary:
            return {1: Ranking(self.logits.double(), self.is_label[:, 1])}
        scores = self.logits.double().softmax(1)
        return {k: Ranking(scores[:, k], self.is_label[:, k]) for k in range(self.num_classes)}


class Ranking:
    """Sequences in descending order of their scores (N,), for one class against the rest.

    `is_positive` (N,) is 1 for sequences of the class and 0 for the others, float64.
    """

    def __init__(self, scores: Tensor, is_positive: Tensor) -> None:
        self._order = scores.argsort(descending=True, stable=True)
        self._is_positive = is_positive[self._order]
        ordered = scores[self._order]
        is_last = torch.ones_like(ordered, dtype=torch.bool)  # of the sequences with its score
        is_last[:-1] = ordered[1:] != ordered[:-1]
        self._last = is_last.nonzero().view(-1)  # (V,)

    def auroc(self, weights: Tensor) -> Tensor:
        """Return (R,) probabilities that a positive scores above a negative; ties count half."""
        true, false = self._cumulated(weights)
        positives = _differences(true)
        negatives_below = false[:, -1:] - false + _differences(false) / 2
        pairs = true[:, -1] * false[:, -1]
        return (positives * negatives_below).sum(1) / pairs

    def average_precision(self, weights: Tensor) -> Tensor:
        """Return (R,) precisions at each distinct score, weighted by the increase in recall."""
        true, false = self._cumulated(weights)
        retrieved = true + false
        precision = true / torch.where(retrieved > 0, retrieved, 1.0)
        return (_differences(true) * precision).sum(1) / true[:, -1]

    def _cumulated(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return (R, V) true and false positives at each distinct score, the highest first."""
        ordered = weights[:, self._order]
        true = (ordered * self._is_positive).cumsum(1)[:, self._last]
        retrieved = ordered.cumsum(1)[:, self._last]
        return true, retrieved - true


def _differences(cumulated: Tensor) -> Tensor:
    """Undo a cumulative sum along the second axis."""
    return torch.diff(cumulated, dim=1, prepend=torch.zeros_like(cumulated[:, :1]))
