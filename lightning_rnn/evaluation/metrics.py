"""Metrics of a whole evaluation, from the logits of all its sequences at once."""

import math
from typing import Any

import torch
import torchmetrics.functional.classification as tm
from torch import Tensor
from torch.nn.functional import one_hot

from lightning_rnn.evaluation.results import Evaluation
from lightning_rnn.models.decision import Decision
from lightning_rnn.models.losses import cross_entropies

CALIBRATION_BINS = 15


def evaluate(outcome: Evaluation, decision: Decision, *, full: bool) -> dict[str, Tensor]:
    """Compute the metrics of an evaluation.

    AUROC, F1, average precision and balanced accuracy are those of the second of two classes, or the mean over the
    classes (each against the rest). Those that a set of one class leaves undefined are left out.

    Args:
        outcome: With labels.
        decision: Makes probabilities and classes of the logits.
        full: Also the metrics of a final test.

    Returns:
        Scalars by name: loss, accuracy, auroc, f1, and in full average_precision, balanced_accuracy, brier,
        log_loss, ece (expected calibration error of the predicted class's probability, 15 bins).
    """
    y, logits = outcome.labels, outcome.logits
    table, decided = decision.class_probabilities(logits), decision.predict(logits)  # (N, K), (N,)
    num_classes = table.shape[1]
    task: dict[str, Any] = {
        "task": "binary" if logits.ndim == 1 else "multiclass",
        "num_classes": num_classes,
    }
    task |= {"average": "macro", "validate_args": False}
    present = y.bincount(minlength=num_classes) > 0
    result: dict[str, Any] = {
        "loss": outcome.losses.mean(),
        "accuracy": (decided == y).float().mean(),
    }
    # in [0, 1] as probabilities are, but those of confident logits tie
    scores = (
        0.5 + logits.double().atan() / math.pi if logits.ndim == 1 else logits.double().softmax(1)
    )
    if bool(present.all()):
        result["auroc"] = tm.auroc(scores, y, **task)
    if logits.ndim == 2 or bool(present[1]):
        result["f1"] = tm.f1_score(decided, y, **task)
    if full:
        if bool(present.all()):
            result["average_precision"] = tm.average_precision(scores, y, **task)
        recalls = torch.stack(
            [(decided[y == k] == k).float().mean() for k in present.nonzero().view(-1)]
        )
        result["balanced_accuracy"] = recalls.mean()
        squared = (table - one_hot(y, num_classes)).square().sum(1)
        result["brier"] = squared.mean() / (2 if num_classes == 2 else 1)
        result["log_loss"] = cross_entropies(logits / decision.temperature, y).mean()
        result["ece"] = tm.multiclass_calibration_error(
            table, y, num_classes=num_classes, n_bins=CALIBRATION_BINS, validate_args=False
        )
    return {name: value.float() for name, value in result.items()}
