"""Fitting a `Decision`: temperature and threshold, from sequences that trained nothing."""

import re
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from lightning_rnn.errors import check
from lightning_rnn.evaluation.results import Evaluation
from lightning_rnn.models.decision import Decision

ACCEPTED = "accuracy, f1, youden, precision>=P or recall>=R with a number from 0 to 1"
ENOUGH, ENOUGH_OF_EACH = 100, 20


class Aim(NamedTuple):
    """What a threshold is chosen for.

    Attributes:
        name: accuracy, f1, youden, precision or recall.
        least: The least precision or recall; 0 for the others.
    """

    name: str
    least: float

    @classmethod
    def parse(cls, text: str) -> "Aim":
        """Read an aim as it is typed.

        Raises:
            OptionError: Another text.
        """
        match = re.fullmatch(
            r"(accuracy|f1|youden)|(precision|recall)\s*>=\s*(0?\.\d+|[01](?:\.0*)?)", text.strip()
        )
        check(match is not None, "Calibrate.aim", text, ACCEPTED)
        assert match is not None
        return cls(match[1] or match[2], float(match[3] or 0))


def too_few(y: Tensor, num_classes: int) -> str | None:
    """Say what is missing to fit a decision on labels (N,); None where they are enough."""
    rarest = int(y.bincount(minlength=num_classes).min())
    if len(y) >= ENOUGH and rarest >= ENOUGH_OF_EACH:
        return None
    return f"{len(y)} validation sequences, {rarest} of the rarest class; wanted are {ENOUGH} and {ENOUGH_OF_EACH}"


def fit_decision(decision: Decision, outcome: Evaluation, aim: Aim | None) -> str:
    """Set a decision's temperature and, for two classes, its threshold.

    Args:
        decision: To be set.
        outcome: Of the validation part, with labels.
        aim: What the threshold is chosen for; None leaves it at 0.5, which is what accuracy asks of calibrated
            probabilities.

    Returns:
        What was set and what it reaches on these sequences, in words. A precision that no threshold reaches leaves
        the threshold at 0.5.
    """
    logits, y = outcome.logits, outcome.labels
    decision.set(fit_temperature(logits, y))
    text = f"temperature {float(decision.temperature):.3g}"
    if logits.ndim == 2 or aim is None:
        return f"{text} from {len(y)} validation sequences"
    scores = decision.probabilities(logits)
    found = fit_threshold(scores, y, aim)
    if found is not None:
        decision.threshold.copy_(found)
    reached = ", ".join(
        f"{name} {value:.3f}" for name, value in rates(scores > decision.threshold, y, aim).items()
    )
    missed = "" if found is not None else f"; no threshold reaches {aim.name}>={aim.least:g}"
    return f"{text}, threshold {float(decision.threshold):.3g} ({reached} on {len(y)} validation sequences{missed})"


def fit_temperature(logits: Tensor, y: Tensor) -> float:
    """Return the temperature of the lowest cross entropy on labels (N,).

    The labels are softened as in Platt 1999 ("Probabilistic outputs for support vector machines", section 2.2): the
    labelled class of n sequences counts (n + 1) / (n + 2). So the optimum is finite, also where all are right.

    Args:
        logits: (N,) or (N, K).
        y: (N,).
    """
    z = logits.double()
    z = torch.stack([torch.zeros_like(z), z], dim=1) if z.ndim == 1 else z  # (N, K)
    num_classes = z.shape[1]
    count = y.bincount(minlength=num_classes)[y].double()[:, None]
    own = one_hot(y, num_classes).double()
    target = own * (count + 1) / (count + 2) + (1 - own) / (count + 2) / (num_classes - 1)
    low, high = -5.0, 5.0  # of the temperature's logarithm; the loss is convex in 1 / temperature
    for _ in range(50):
        middle = (low + high) / 2
        slope = ((z * torch.e**-middle).softmax(1) - target).mul(z).sum()  # by 1 / temperature
        low, high = (middle, high) if slope > 0 else (low, middle)
    return float(torch.e ** ((low + high) / 2))


def fit_threshold(scores: Tensor, y: Tensor, aim: Aim) -> Tensor | None:
    """Choose a threshold among all that differ in what they decide.

    Args:
        scores: (N,) float32 probabilities of the second class.
        y: (N,).
        aim: What to reach. For a least precision the one of highest recall, and the other way round.

    Returns:
        (), half way between two scores, and of equally good ones the nearest to 0.5; None where the aim is not
        reached by any.
    """
    values, inverse = torch.unique(scores, return_inverse=True)  # ascending
    positive = torch.zeros(len(values), dtype=torch.float64, device=scores.device).index_add_(
        0, inverse, y.double()
    )
    total = torch.zeros_like(positive).index_add_(
        0, inverse, torch.ones_like(y, dtype=torch.float64)
    )
    above = (
        torch.stack([total, positive]).flip(1).cumsum(1).flip(1)
    )  # (2, V): with at least each value
    above = torch.cat([above, above.new_zeros(2, 1)], dim=1)
    lower = torch.cat([values.new_zeros(1), values])
    upper = torch.cat([values, values.new_ones(1)])
    thresholds = (lower + upper) / 2
    thresholds = torch.where(thresholds < upper, thresholds, lower)  # half way may round up
    decided, true = above
    quality = _rates(true, decided - true, positive.sum(), float(len(y)) - positive.sum())
    if aim.name in ("precision", "recall"):
        reached = (quality[aim.name] >= aim.least) & (decided > 0)
        goal = quality["recall" if aim.name == "precision" else "precision"].masked_fill(
            ~reached, -1
        )
    else:
        goal = quality[aim.name]
    goal = goal.masked_fill(thresholds >= upper, -1)  # a score of 0 is above no threshold
    goal[-1] = goal[-1] if aim.name == "accuracy" else -1  # nothing decided as the second class
    if goal.max() < 0:
        return None
    best = (goal == goal.max()).nonzero().view(-1)
    return thresholds[best[(thresholds[best] - 0.5).abs().argmin()]]


def rates(decided: Tensor, y: Tensor, aim: Aim) -> dict[str, float]:
    """Return what the aim speaks of, and its counterpart, for decisions (N,) on labels (N,)."""
    true, false = (decided & (y == 1)).sum().double(), (decided & (y == 0)).sum().double()
    found = _rates(true, false, (y == 1).sum().double(), (y == 0).sum().double())
    names = ("precision", "recall") if aim.name in ("precision", "recall") else (aim.name,)
    return {name: float(found[name]) for name in names}


def _rates(true: Tensor, false: Tensor, positives: Tensor, negatives: Tensor) -> dict[str, Tensor]:
    """Return rates from the numbers of right and wrong decisions for the second class; 0 / 0 is 0."""
    recall = true / positives.clamp(min=1)
    return {
        "accuracy": (true + negatives - false) / (positives + negatives),
        "f1": 2 * true / (true + false + positives).clamp(min=1),
        "youden": recall
        - false / negatives.clamp(min=1),  # Youden 1950, "Index for rating diagnostic tests"
        "precision": true / (true + false).clamp(min=1),
        "recall": recall,
    }
