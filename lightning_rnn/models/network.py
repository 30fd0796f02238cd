"""The network: preprocess, stem, recurrent layers, pooling, head, decision."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from lightning_rnn.errors import check
from lightning_rnn.models.decision import Decision
from lightning_rnn.models.padding import valid_steps
from lightning_rnn.models.preprocess import Preprocess
from lightning_rnn.models.recurrent import CELLS, CellName, RecurrentStack
from lightning_rnn.models.stem import ConvStem
from lightning_rnn.padding import Padding

Pooling = Literal["last", "mean", "max"]
Stem = Literal["none", "conv"]
POOLINGS = get_args(Pooling)
STEMS = get_args(Stem)


@dataclass(frozen=True)
class NetworkOptions:
    """Architecture of a `SequenceNetwork`, apart from the sizes that the data decide.

    Attributes:
        cell: Recurrent cell: rnn (tanh), lstm, gru, or mingru, which is fast over thousands of steps.
        hidden_size: Width H of the state, per layer and direction.
        num_layers: Number of recurrent layers.
        bidirectional: Whether each sequence is also read backwards.
        dropout: Probability of dropping an input of a higher layer or of the head.
        pooling: What the head receives from the top layer: the last state of each direction, or the
            mean or maximum over time.
        stem: conv puts two strided convolutions in front of the recurrent layers.

    Raises:
        OptionError: If a value is out of range.
    """

    cell: CellName = "rnn"
    hidden_size: int = 32
    num_layers: int = 1
    bidirectional: bool = False
    dropout: float = 0.0
    pooling: Pooling = "last"
    stem: Stem = "none"

    def __post_init__(self) -> None:
        check(self.cell in CELLS, "cell", self.cell, f"one of {', '.join(CELLS)}")
        check(self.hidden_size >= 1, "hidden_size", self.hidden_size, "an integer of at least 1")
        check(self.num_layers >= 1, "num_layers", self.num_layers, "an integer of at least 1")
        check(0 <= self.dropout < 1, "dropout", self.dropout, "a number of at least 0 and below 1")
        check(self.pooling in POOLINGS, "pooling", self.pooling, f"one of {', '.join(POOLINGS)}")
        check(self.stem in STEMS, "stem", self.stem, f"one of {', '.join(STEMS)}")


class SequenceNetwork(nn.Module):
    """Network from raw sequences to logits, whose output never depends on padding.

    `decision` turns logits into probabilities and classes.

    Args:
        input_size: Number of features F per step.
        num_classes: Number of classes K, at least 2.
        options: Architecture.

    Raises:
        OptionError: If a size is out of range.
    """

    def __init__(
        self, *, input_size: int, num_classes: int, options: NetworkOptions | None = None
    ) -> None:
        super().__init__()
        check(input_size >= 1, "input_size", input_size, "an integer of at least 1")
        check(num_classes >= 2, "num_classes", num_classes, "an integer of at least 2")
        if options is None:
            options = NetworkOptions()
        self.num_classes = num_classes
        self.options = options
        self.preprocess = Preprocess(input_size)
        self.stem = ConvStem(input_size) if options.stem == "conv" else None
        self.recurrent = RecurrentStack(
            options.cell,
            64 if options.stem == "conv" else input_size,
            options.hidden_size,
            num_layers=options.num_layers,
            bidirectional=options.bidirectional,
            dropout=options.dropout,
        )
        self.head = nn.Linear(self.recurrent.output_size, 1 if num_classes == 2 else num_classes)
        self.decision = Decision()

    def forward(self, x: Tensor, lengths: Tensor | Padding) -> Tensor:
        """Compute logits.

        Args:
            x: (B, T, F) raw values, NaN where missing; values after the end of a sequence are ignored.
            lengths: (B,) int64, from 1 to T; or the `Padding` of the batch, which spares reading them.

        Returns:
            Logits: (B,) of the second class for two classes, (B, K) for more.
        """
        padding = lengths if isinstance(lengths, Padding) else Padding.of(lengths, x.shape[1])
        x = self.preprocess(x, padding)
        if self.stem is not None:
            x, padding = self.stem(x, padding)
        pooled = self._pool_longest_first(x, padding)  # (B, D H)
        if self.training and self.options.dropout > 0:
            pooled = nn.functional.dropout(pooled, self.options.dropout)
        logits: Tensor = self.head(pooled)  # (B, 1) or (B, K)
        return logits.squeeze(1) if self.num_classes == 2 else logits

    def _pool_longest_first(self, x: Tensor, padding: Padding) -> Tensor:
        """Return what `pool` returns; on a CPU sorted rows waste less time on padding, see `cut`."""
        if padding.is_full or not padding.is_readable:
            return self.pool(x, padding)
        order = padding.lengths.argsort(descending=True, stable=True)
        pooled = self.pool(x.index_select(0, order), Padding(padding.lengths[order]))
        return pooled.index_select(0, order.argsort())

    def pool(self, x: Tensor, padding: Padding) -> Tensor:
        """Return (B, D H), the input of the head, from the recurrent layers' input (B, T, F)."""
        if self.options.pooling == "last":
            pooled = self.recurrent.last(x, padding)
        else:
            pooled = [self._over_time(states, padding) for states in self.recurrent(x, padding)]
        return pooled[0] if len(pooled) == 1 else torch.cat(pooled, dim=1)

    def _over_time(self, states: Tensor, padding: Padding) -> Tensor:
        if padding.is_full:
            return states.amax(1) if self.options.pooling == "max" else states.mean(1)
        mask = valid_steps(padding.lengths, states.shape[1])[..., None]
        if self.options.pooling == "max":
            return states.masked_fill(~mask, -torch.inf).amax(1)
        return states.masked_fill(~mask, 0.0).sum(1) / padding.lengths[:, None]
