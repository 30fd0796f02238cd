"""What a model said about sequences, batch by batch and gathered from all ranks."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from lightning_rnn.distributed import is_distributed


@dataclass(frozen=True)
class Evaluation:
    """Logits and labels of N sequences.

    Attributes:
        index: (N,) int64, row of each sequence in its data set; -1 for a filler of a batch.
        logits: (N,) for two classes, (N, K) for more, float32.
        labels: (N,) int64 class codes.
        losses: (N,) loss of each sequence, weighted as in training.
    """

    index: Tensor
    logits: Tensor
    labels: Tensor
    losses: Tensor

    def cpu(self) -> "Evaluation":
        """Return the evaluation on the CPU."""
        return Evaluation(
            index=self.index.cpu(),
            logits=self.logits.cpu(),
            labels=self.labels.cpu(),
            losses=self.losses.cpu(),
        )

    def select(self, rows: Tensor) -> "Evaluation":
        """Return the evaluation of some rows, an index or a mask."""
        return Evaluation(
            index=self.index[rows],
            logits=self.logits[rows],
            labels=self.labels[rows],
            losses=self.losses[rows],
        )


@dataclass(eq=False)
class Predictions:
    """Probabilities and predicted classes of N sequences.

    Not frozen, because Lightning moves the result of `predict_step` by setting its fields.

    Attributes:
        index: (N,) int64, row of each sequence in its data set; -1 for a filler of a batch.
        probabilities: (N,) of the second of two classes, or (N, K), float32.
        labels: (N,) int64, codes of the predicted classes.
    """

    index: Tensor
    probabilities: Tensor
    labels: Tensor

    def cpu(self) -> "Predictions":
        """Return the predictions on the CPU."""
        return Predictions(
            index=self.index.cpu(),
            probabilities=self.probabilities.cpu(),
            labels=self.labels.cpu(),
        )

    def select(self, rows: Tensor) -> "Predictions":
        """Return the predictions of some rows, an index or a mask."""
        return Predictions(
            index=self.index[rows],
            probabilities=self.probabilities[rows],
            labels=self.labels[rows],
        )


def gather_evaluations(batches: list[Evaluation]) -> Evaluation:
    """Join the batches of all ranks; a collective call.

    Returns:
        The evaluation in the order of the data set, without filler rows: the same on every rank,
        and the same as that of a single process.
    """
    joined = Evaluation(
        index=_gather_rows([batch.index for batch in batches]),
        logits=_gather_rows([batch.logits for batch in batches]),
        labels=_gather_rows([batch.labels for batch in batches]),
        losses=_gather_rows([batch.losses for batch in batches]),
    )
    return joined.select(_data_set_order(joined.index))


def gather_predictions(batches: list[Predictions]) -> Predictions:
    """Join the batches of all ranks; a collective call. See `gather_evaluations`."""
    joined = Predictions(
        index=_gather_rows([batch.index for batch in batches]),
        probabilities=_gather_rows([batch.probabilities for batch in batches]),
        labels=_gather_rows([batch.labels for batch in batches]),
    )
    return joined.select(_data_set_order(joined.index))


def _gather_rows(batches: list[Tensor]) -> Tensor:
    """Concatenate the batches of this rank, then those of all ranks, which may differ in length."""
    rows = torch.cat(batches)
    if not is_distributed():
        return rows
    return torch.cat(gather_all_tensors(rows))


def _data_set_order(index: Tensor) -> Tensor:
    """Return the positions of the rows of the data set, in its order; filler rows are left out."""
    order = index.argsort(stable=True)
    return order[index[order] >= 0]
