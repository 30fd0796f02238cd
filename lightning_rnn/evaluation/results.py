"""What a model computed for sequences, batch by batch and gathered from all ranks."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from lightning_rnn.distributed import is_distributed


class _Columns:
    """Base class of dataclasses whose fields are tensors with a row for each sequence."""

    def __init__(self, **columns: Any) -> None: ...

    def cpu(self) -> Self:
        """Return the rows on the CPU."""
        return self._map(Tensor.cpu)

    def select(self, rows: Tensor) -> Self:
        """Return some of the rows, given by an index or a mask."""
        return self._map(lambda column: column[rows])

    def _map(self, function: Callable[[Tensor], Tensor]) -> Self:
        return type(self)(**{name: function(column) for name, column in vars(self).items()})

    @classmethod
    def gather(cls, batches: list[Self]) -> Self:
        """Join the batches of all ranks; a collective call.

        Returns:
            All rows in the order of the data set, without filler rows: the same on every rank, and
            the same as in a single process.
        """
        columns = {}
        for name in vars(batches[0]):
            rows = torch.cat([getattr(batch, name) for batch in batches])
            if is_distributed():
                rows = torch.cat(gather_all_tensors(rows))  # ranks may have different lengths
            columns[name] = rows
        order = columns["index"].argsort(stable=True)
        is_filler = columns["index"][order] < 0
        return cls(**columns).select(order[~is_filler])


@dataclass(frozen=True)
class Evaluation(_Columns):
    """Logits and labels of N sequences."""

    index: Tensor  # (N,) int64, row of each sequence in its data set; -1 for a filler of a batch
    logits: Tensor  # (N,) for two classes, (N, K) for more, float32
    labels: Tensor  # (N,) int64 class codes
    losses: Tensor  # (N,) weighted as in training


@dataclass(eq=False)  # not frozen: Lightning moves the result of `predict_step` by setting fields
class Predictions(_Columns):
    """Probabilities, predicted classes and embeddings of N sequences.

    `Trainer.predict` returns batches of sequences of similar length; `Predictions.gather(batches)`
    joins them in the order of the data.
    """

    index: Tensor  # (N,) int64, row of each sequence in its data set; -1 for a filler of a batch
    probabilities: Tensor  # (N,) of the second of two classes, or (N, K), float32
    labels: Tensor  # (N,) int64, codes of the predicted classes
    embeddings: Tensor  # (N, D H) pooled states of the top layer, or (N, 0) if they are not wanted
