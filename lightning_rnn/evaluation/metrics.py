"""Metrics of an evaluation, and the influence of each sequence on them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lightning_rnn.evaluation.ranking import Ranking
from lightning_rnn.evaluation.results import Evaluation
from lightning_rnn.models.decision import Decision
from lightning_rnn.models.losses import cross_entropies

EPOCH_METRICS = ("loss", "accuracy", "auroc", "f1")
TEST_METRICS = (*EPOCH_METRICS, "average_precision", "balanced_accuracy", "brier", "log_loss")
CALIBRATION_BINS = 15
MEANS = ("loss", "accuracy", "brier", "log_loss")  # of a value of each sequence
RANK_METRICS = ("auroc", "average_precision")
BLOCK_CELLS = 1 << 20  # logits in float64 at once
# those that a fitted decision changes; for more than two classes, also RANK_METRICS
CALIBRATED_METRICS = ("accuracy", "f1", "balanced_accuracy", "brier", "log_loss", "ece")


def evaluate(
    evaluation: Evaluation, decision: Decision, names: Sequence[str] = EPOCH_METRICS
) -> dict[str, Tensor]:
    """Compute some metrics of an evaluation.

    For two classes, AUROC, F1 and average precision are those of the second class; for more, they
    are means over the classes, each against the rest. The Brier score of two classes is that of the
    second class alone (Brier 1950). Metrics that are undefined because a class has no sequences are
    left out.

    Args:
        evaluation: N sequences.
        decision: Converts logits to probabilities and classes.
        names: Some of loss, accuracy, auroc, f1, average_precision, balanced_accuracy, brier,
            log_loss and ece (expected calibration error of the most probable class, 15 bins; Guo et
            al. 2017, arXiv:1706.04599, section 2).

    Returns:
        Float32 scalars by name.

    Example:
        >>> evaluation = Evaluation(
        ...     index=torch.arange(3),
        ...     logits=torch.tensor([2.0, -1.0, 0.5]),
        ...     labels=torch.tensor([1, 0, 0]),
        ...     losses=torch.tensor([0.1, 0.3, 1.0]),
        ... )
        >>> metrics = evaluate(evaluation, Decision())
        >>> {name: round(float(value), 3) for name, value in metrics.items()}
        {'loss': 0.467, 'accuracy': 0.667, 'auroc': 1.0, 'f1': 0.667}
    """
    metrics = Metrics(evaluation, decision)
    return {name: metrics.value(name).float() for name in names if metrics.is_defined(name)}


def evaluate_test(evaluation: Evaluation, decision: Decision) -> dict[str, Tensor]:
    """Compute all metrics, and some without the temperature and threshold of a fitted decision.

    The names of the latter end with `_uncalibrated`; see `evaluate`.
    """
    metrics = evaluate(evaluation, decision, (*TEST_METRICS, "ece"))
    if decision.is_fitted:
        names: tuple[str, ...] = CALIBRATED_METRICS
        if evaluation.logits.ndim == 2:
            names += RANK_METRICS
        uncalibrated = evaluate(evaluation, Decision(), names)
        for name, value in uncalibrated.items():
            metrics[f"{name}_uncalibrated"] = value
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


class Metrics:
    """The metrics of an evaluation of N sequences, each computed when it is asked for."""

    def __init__(self, evaluation: Evaluation, decision: Decision) -> None:
        self.logits = evaluation.logits
        self.labels = evaluation.labels
        self.is_binary = evaluation.logits.ndim == 1
        self.num_classes = 2 if self.is_binary else self.logits.shape[1]
        self.predicted = decision.predict(self.logits)
        self.is_correct = self.predicted == self.labels
        self.support = self._count(self.labels)  # (K,) float64
        self._losses = evaluation.losses
        self._decision = decision

    @cached_property
    def probabilities(self) -> Tensor:
        """(N, K) probabilities of the classes."""
        return self._decision.class_probabilities(self.logits)

    def is_defined(self, name: str) -> bool:
        """Return whether the labels of the evaluation define a metric."""
        if name in RANK_METRICS:
            return bool(self.support.all())
        if name == "f1" and self.is_binary:
            return bool(self.support[1])
        return True

    def value(self, name: str) -> Tensor:
        """Compute one of `TEST_METRICS` or ece, a scalar."""
        if name in MEANS:
            return self.values(name).mean()
        if name == "f1":
            return self.class_f1.nanmean()
        if name == "balanced_accuracy":
            recall = self._count(self.labels[self.is_correct]) / self.support
            return recall[self.support > 0].mean()
        if name in RANK_METRICS:
            return self._areas[name]
        return self._calibration_error()

    def _calibration_error(self) -> Tensor:
        # torchmetrics adds up float32, which is off by 0.001 for 300,000 sequences
        confidence, most_probable = self.probabilities.max(1)
        bins = (confidence * CALIBRATION_BINS).long().clamp(max=CALIBRATION_BINS - 1)
        excess = confidence.double() - (most_probable == self.labels).double()
        return torch.bincount(bins, excess).abs().sum() / len(self.labels)

    @cached_property
    def _areas(self) -> dict[str, Tensor]:
        """Means over the classes, from one sort of each."""
        of_classes = [ranking.areas for ranking in self._rankings()]
        means = {}
        for name in RANK_METRICS:
            means[name] = torch.stack([areas[name] for areas in of_classes]).mean()
        return means

    def influences(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Return the (N,) derivatives of F1 and `RANK_METRICS` by the weight of each sequence."""
        found: dict[str, Tensor] = {}
        if "f1" in names:
            found["f1"] = self._f1_influence()
        rank_names = [name for name in names if name in RANK_METRICS]
        if not rank_names:
            return found
        for name in rank_names:
            found[name] = torch.zeros_like(self.labels, dtype=torch.float64)
        for ranking in self._rankings():
            for name in rank_names:
                found[name] += ranking.influence(name) / len(self._ranked_classes)
        return found

    def values(self, name: str) -> Tensor:
        """Return the (N,) float64 values of the sequences whose mean is one of `MEANS`."""
        if name == "loss":
            return self._losses.double()
        if name == "accuracy":
            return self.is_correct.double()
        return self._scores[name]

    @cached_property
    def _scores(self) -> dict[str, Tensor]:
        """Log losses and Brier scores of the sequences."""
        log_losses: list[Tensor] = []
        brier_scores: list[Tensor] = []
        block_rows = max(1, BLOCK_CELLS // self.num_classes)
        logit_blocks = torch.split(self.logits, block_rows)
        label_blocks = torch.split(self.labels, block_rows)
        for logits, labels in zip(logit_blocks, label_blocks, strict=True):
            log_losses.append(cross_entropies(logits / self._decision.temperature, labels))
            errors = self._decision.class_probabilities(logits).double()  # (rows, K)
            errors.scatter_add_(1, labels[:, None], errors.new_full((len(labels), 1), -1.0))
            squares = errors.square()
            brier_scores.append(squares[:, 1] if self.is_binary else squares.sum(1))
        return {"log_loss": torch.cat(log_losses).double(), "brier": torch.cat(brier_scores)}

    @cached_property
    def losses_if_wrong(self) -> dict[str, float]:
        """For each of the losses, its mean if every sequence was of another class.

        That of the Brier score is the largest possible one.
        """
        raw = cross_entropies(self.logits, self.labels).double()
        weight = float(self.values("loss").sum() / raw.sum().clamp(min=1e-300))
        calibrated = self.logits / self._decision.temperature
        return {
            "loss": weight * self._cross_entropy_if_wrong(self.logits, raw),
            "log_loss": self._cross_entropy_if_wrong(calibrated, self.values("log_loss")),
            "brier": 1.0 if self.is_binary else 2.0,
        }

    def _cross_entropy_if_wrong(self, logits: Tensor, losses: Tensor) -> float:
        """Return the mean cross entropy over the sequences and the classes that are not theirs."""
        of_all = cross_entropies(logits, self.labels, label_smoothing=1.0).double()  # means over K
        return float((self.num_classes * of_all - losses).mean()) / (self.num_classes - 1)

    @cached_property
    def class_f1(self) -> Tensor:
        """(K,) F1 of the classes, NaN of those that do not occur; only of the second of two."""
        correct = self._count(self.labels[self.is_correct])
        f1 = 2 * correct / self._labelled_or_predicted  # 0 / 0 if a class does not occur
        if self.is_binary:
            f1[0] = torch.nan
        return f1

    @cached_property
    def _labelled_or_predicted(self) -> Tensor:
        """(K,) sequences labelled and sequences predicted as each class, together."""
        return self.support + self._count(self.predicted)

    def _f1_influence(self) -> Tensor:
        # of class k: (2 - f1 - f1) / total for a correct one, -f1 / total for others of label k or
        # prediction k
        per_sequence = 1 / self._labelled_or_predicted  # (K,)
        loss = (self.class_f1 * per_sequence).nan_to_num(0.0)
        gain = (2 * per_sequence).masked_fill(self.class_f1.isnan(), 0.0)
        influence = self.is_correct * gain[self.labels] - loss[self.labels] - loss[self.predicted]
        return influence / (~self.class_f1.isnan()).sum()

    def _count(self, codes: Tensor) -> Tensor:
        return codes.bincount(minlength=self.num_classes).double()

    @cached_property
    def _class_scores(self) -> Tensor:
        """(N, K) probabilities in float64, as float32 does not tell confident ones apart."""
        return (self.logits.double() / self._decision.temperature).softmax(1)

    def ranking(self, k: int) -> Ranking:
        """Return the ranking of the sequences by class k; of two classes, only the second has one.

        For two classes, the logits are the scores, as their probabilities may be equal.
        """
        scores = self.logits if self.is_binary else self._class_scores[:, k]
        return Ranking(scores, self.labels == k)

    @property
    def _ranked_classes(self) -> list[int]:
        return [1] if self.is_binary else list(range(self.num_classes))

    def _rankings(self) -> Iterator[Ranking]:
        for k in self._ranked_classes:
            yield self.ranking(k)
