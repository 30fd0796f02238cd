"""Metrics of a whole evaluation, from the logits of all its sequences at once."""

import math
from typing import Any, NamedTuple

import torch
import torchmetrics.functional.classification as tm
from torch import Tensor
from torch.nn.functional import one_hot
from torchmetrics.utilities.distributed import gather_all_tensors

from lightning_rnn.distributed import is_distributed
from lightning_rnn.models.decision import Decision
from lightning_rnn.models.losses import cross_entropies

CALIBRATION_BINS = 15


class Outcome(NamedTuple):
    """What a model said of N sequences, in the order of the data set.

    Attributes:
        index: (N,) int64, row in the data set.
        logits: (N,) or (N, K) float32.
        y: (N,) int64, or None.
        loss: (N,) each sequence's loss as weighted in training, or None.
    """

    index: Tensor  # type: ignore[assignment]  # not the tuple's method, which nobody needs
    logits: Tensor
    y: Tensor | None
    loss: Tensor | None

    def cpu(self) -> "Outcome":
        """Return the outcome in the processor's memory."""
        return Outcome._make(None if column is None else column.cpu() for column in self)


def gather_outcomes(parts: list[Outcome]) -> Outcome:
    """Join the batches of all ranks into the outcome that one process would have had.

    Rows with a negative index, which only fill an empty rank, are dropped.
    """
    columns = [
        None if column[0] is None else torch.cat(column) for column in zip(*parts, strict=True)
    ]
    if is_distributed():
        columns = _gather_rows(columns)
    index = columns[0]
    assert index is not None
    order = index.argsort(stable=True)[int((index < 0).sum()) :]
    return Outcome._make(None if column is None else column[order] for column in columns)


def _gather_rows(columns: list[Tensor | None]) -> list[Tensor | None]:
    """Concatenate columns of all ranks, whose numbers of rows may differ, as one table; a collective call."""
    flat = [
        None if c is None else c.double().reshape(len(c), -1) for c in columns
    ]  # holds rows and float32 exactly
    whole = torch.cat(gather_all_tensors(torch.cat([c for c in flat if c is not None], dim=1)))
    pieces = iter(torch.split(whole, [c.shape[1] for c in flat if c is not None], dim=1))
    return [
        None if c is None else next(pieces).reshape(-1, *c.shape[1:]).to(c.dtype) for c in columns
    ]


def evaluate(outcome: Outcome, decision: Decision, *, full: bool) -> dict[str, Tensor]:
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
    y, logits = outcome.y, outcome.logits
    assert y is not None and outcome.loss is not None
    table, decided = decision.table(logits), decision.decide(logits)  # (N, K), (N,)
    num_classes = table.shape[1]
    task: dict[str, Any] = {
        "task": "binary" if logits.ndim == 1 else "multiclass",
        "num_classes": num_classes,
    }
    task |= {"average": "macro", "validate_args": False}
    present = y.bincount(minlength=num_classes) > 0
    result: dict[str, Any] = {
        "loss": outcome.loss.mean(),
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
