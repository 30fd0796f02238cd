"""Fitting the temperature and the threshold of a `Decision` on validation sequences."""

import math
import re
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from lightning_rnn.errors import OptionError, counted
from lightning_rnn.evaluation.ranking import sums_to_the_end
from lightning_rnn.evaluation.results import Evaluation
from lightning_rnn.models.decision import Decision

MIN_SEQUENCES = 100
MIN_SEQUENCES_PER_CLASS = 20
LOG_TEMPERATURE_BOUND = 5.0
MAX_STEPS = 60
MAX_LAST_STEP = 1e-7  # relative
BLOCK_CELLS = 1 << 16  # logits in float64 at once, which fit into the cache
COUNTERPARTS = {"precision": "recall", "recall": "precision"}


@dataclass(frozen=True)
class Objective:
    """What the threshold between two classes optimises.

    The rate `name` is maximised, if it is accuracy, f1 or youden. If it is precision or recall, it
    must reach a minimum, and the other of the two is maximised.
    """

    name: str
    minimum: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "Objective":
        """Read one of accuracy, f1, youden, precision>=P and recall>=R.

        Raises:
            OptionError: If `text` is none of these.

        Example:
            >>> Objective.parse("precision>=0.9")
            Objective(name='precision', minimum=0.9)
        """
        match = re.fullmatch(r"(precision|recall)\s*>=\s*(0?\.\d+|[01](\.0*)?)", text.strip())
        if text.strip() in ("accuracy", "f1", "youden"):
            return cls(text.strip())
        if match is None:
            expected = "accuracy, f1, youden, precision>=P or recall>=R with P and R from 0 to 1"
            raise OptionError(f"expected {expected}, got {text!r}", name="Calibrate.objective")
        return cls(match[1], float(match[2]))


@dataclass(frozen=True)
class Threshold:
    """Probability above which the second of two classes is predicted, and the rates with it."""

    value: float
    rates: dict[str, float]
    is_reached: bool = True  # the required precision or recall


@dataclass(frozen=True)
class Calibration:
    """Fitted values for a `Decision`, and the number of sequences they were fitted on."""

    temperature: float
    num_sequences: int
    threshold: Threshold | None = None  # 0.5 for more than two classes or without an objective
    objective: Objective | None = None

    def apply(self, decision: Decision) -> None:
        """Set the temperature and the threshold of a decision."""
        threshold = 0.5 if self.threshold is None else self.threshold.value
        decision.set(self.temperature, threshold)

    def describe(self) -> str:
        """Return the values in words."""
        temperature = f"temperature {self.temperature:.3g}"
        sequences = counted(self.num_sequences, "validation sequence")
        if self.threshold is None or self.objective is None:
            return f"{temperature} from {sequences}"
        names = [self.objective.name]
        if self.objective.name in COUNTERPARTS:
            names = ["precision", "recall"]
        rates = ", ".join(f"{name} {self.threshold.rates[name]:.3f}" for name in names)
        details = f"{rates} on {sequences}"
        if not self.threshold.is_reached:
            minimum = f"{self.objective.name}>={self.objective.minimum:g}"
            details = f"{details}; no threshold reaches {minimum}"
        return f"{temperature}, threshold {self.threshold.value:.3g} ({details})"


def calibrate(evaluation: Evaluation, objective: Objective | None) -> Calibration:
    """Fit a temperature and, for two classes, a threshold on sequences that were not trained on.

    Without an objective the threshold is 0.5, the most accurate one for calibrated probabilities.
    """
    labels = evaluation.labels
    temperature = fit_temperature(evaluation.logits, labels)
    if evaluation.logits.ndim == 2 or objective is None:
        return Calibration(temperature, len(labels))
    scaled = Decision()
    scaled.set(temperature)
    threshold = fit_threshold(scaled.probabilities(evaluation.logits), labels, objective)
    return Calibration(temperature, len(labels), threshold, objective)


def shortage(labels: Tensor, num_classes: int) -> str | None:
    """Describe what is missing for a calibration with labels (N,), or return None if nothing is."""
    rarest = int(labels.bincount(minlength=num_classes).min())
    if len(labels) >= MIN_SEQUENCES and rarest >= MIN_SEQUENCES_PER_CLASS:
        return None
    return (
        f"it needs at least {MIN_SEQUENCES} validation sequences and {MIN_SEQUENCES_PER_CLASS} of "
        f"each class; there are {len(labels)}, and {rarest} of the rarest class"
    )


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Find the temperature with the lowest cross entropy (Guo et al. 2017, section 4.2).

    To the total cross entropy of the logits, (N,) or (N, K), and labels (N,), it adds b - log(b)
    with b = 1 / temperature. This gamma prior with its mode at 1 keeps the optimum finite if all
    sequences are classified correctly; otherwise it matters for few sequences only. The sum is
    convex in b, so Newton's method finds it, with bisection where a step leaves the bracket.
    """
    if logits.ndim == 1:
        logits = torch.stack([torch.zeros_like(logits), logits], dim=1)  # (N, 2)
    low = math.exp(-LOG_TEMPERATURE_BOUND)
    high = math.exp(LOG_TEMPERATURE_BOUND)
    inverse = 1.0  # of the temperature
    for _ in range(MAX_STEPS):
        slope, curvature = _derivatives(logits, labels, inverse)
        if slope > 0:
            high = inverse
        else:
            low = inverse
        before = inverse
        inverse = before - slope / max(curvature, 1e-300)
        if not low < inverse < high:
            inverse = math.sqrt(low * high)
        if abs(inverse - before) < MAX_LAST_STEP * before:
            break  # the error is about the square of the last step
    return 1 / inverse


def _derivatives(logits: Tensor, labels: Tensor, inverse: float) -> tuple[float, float]:
    """Return slope and curvature of what `fit_temperature` minimises by 1 / temperature."""
    slope = 1 - 1 / inverse
    curvature = 1 / inverse**2
    block_rows = max(1, BLOCK_CELLS // logits.shape[1])
    for z, y in zip(torch.split(logits, block_rows), torch.split(labels, block_rows), strict=True):
        z = z.double()
        z = z - z.gather(1, y[:, None])
        weighted = (z * inverse).softmax(1).mul_(z)
        mean = weighted.sum(1)
        slope += float(mean.sum())
        curvature += float((weighted.mul_(z).sum(1) - mean.square()).sum())
    return slope, curvature


def fit_threshold(scores: Tensor, labels: Tensor, objective: Objective) -> Threshold:
    """Find the best threshold among all that differ in a prediction.

    The candidates are 0 and the midpoints between adjacent distinct scores. With TP and FP positive
    and negative sequences above the threshold, out of P and N, the rates are

        accuracy  = (TP + N - FP) / (P + N)
        f1        = 2 TP / (TP + FP + P)
        youden    = TP / P - FP / N        (Youden 1950, "Index for rating diagnostic tests")
        precision = TP / (TP + FP)
        recall    = TP / P

    Of several equally good thresholds the one closest to 0.5 is returned, and 0.5 if none reaches
    the minimum of the objective. The scores (N,) are float32 probabilities of the second class.
    """
    values, position = torch.unique(scores, return_inverse=True)  # (V,) ascending, (N,)
    positives_at = torch.bincount(position, weights=labels.double(), minlength=len(values))
    sequences_at = torch.bincount(position, minlength=len(values)).double()
    # (V + 1,) TP, and sequences predicted as positive, if these are all from values[v] on
    true = sums_to_the_end(pad(positives_at, (0, 1)))
    predicted = sums_to_the_end(pad(sequences_at, (0, 1)))
    false = predicted - true
    num_positives = positives_at.sum()
    num_negatives = len(labels) - num_positives
    recall = true / num_positives.clamp(min=1)
    rates = {
        "accuracy": (true + num_negatives - false) / len(labels),
        "f1": 2 * true / (predicted + num_positives).clamp(min=1),
        "youden": recall - false / num_negatives.clamp(min=1),
        "precision": true / predicted.clamp(min=1),
        "recall": recall,
    }

    below = torch.cat([values.new_zeros(1), values])
    above = torch.cat([values, values.new_ones(1)])
    midpoints = (below + above) / 2
    thresholds = torch.where(midpoints < above, midpoints, below)  # rounding may reach `above`

    is_allowed = thresholds < above  # no threshold lies below a score of 0
    if objective.name != "accuracy":
        is_allowed &= predicted > 0
    goal = objective.name
    if objective.name in COUNTERPARTS:
        is_allowed &= rates[objective.name] >= objective.minimum
        goal = COUNTERPARTS[objective.name]
    is_reached = bool(is_allowed.any())
    if is_reached:
        quality = rates[goal].masked_fill(~is_allowed, -torch.inf)
        best = (quality == quality.max()).nonzero().view(-1)
        chosen = int(best[(thresholds[best] - 0.5).abs().argmin()])
        value = float(thresholds[chosen])
    else:
        chosen = int((values <= 0.5).sum())
        value = 0.5
    return Threshold(value, {name: float(rate[chosen]) for name, rate in rates.items()}, is_reached)
