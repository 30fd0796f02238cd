"""The network: preprocess, stem, recurrent layers, pooling, head, decision."""

from typing import Literal

import torch
from torch import Tensor, nn

from lightning_rnn.errors import check
from lightning_rnn.models.decision import Decision
from lightning_rnn.models.padding import longest_first, unless_full, valid_steps
from lightning_rnn.models.preprocess import Preprocess
from lightning_rnn.models.recurrent import CELLS, CellName, RecurrentStack
from lightning_rnn.models.stem import ConvStem

Pooling = Literal["last", "mean", "max"]
Stem = Literal["none", "conv"]


class SequenceNetwork(nn.Module):
    """Logits from raw sequences; padding never changes them. `decision` makes probabilities and classes of them."""

    def __init__(
        self,
        *,
        input_size: int,
        num_classes: int,
        cell: CellName = "rnn",
        hidden_size: int = 32,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        pooling: Pooling = "last",
        stem: Stem = "none",
    ) -> None:
        """Set up.

        Args:
            input_size: Features F per step.
            num_classes: Classes K, at least 2.
            cell: rnn (tanh), lstm, gru or mingru.
            hidden_size: H of each layer and direction.
            num_layers: Recurrent layers.
            bidirectional: Read each sequence backwards as well.
            dropout: Probability of dropping an input of a higher layer or of the head.
            pooling: What the head sees of the top layer: each direction's last state, the mean or the maximum over
                time.
            stem: conv puts two strided convolutions in front.

        Raises:
            OptionError: A value outside its range.
        """
        super().__init__()
        check(input_size >= 1, "input_size", input_size, "an integer of at least 1")
        check(num_classes >= 2, "num_classes", num_classes, "an integer of at least 2")
        check(cell in CELLS, "cell", cell, f"one of {', '.join(CELLS)}")
        check(hidden_size >= 1, "hidden_size", hidden_size, "an integer of at least 1")
        check(num_layers >= 1, "num_layers", num_layers, "an integer of at least 1")
        check(0 <= dropout < 1, "dropout", dropout, "a number from 0 to below 1")
        check(pooling in ("last", "mean", "max"), "pooling", pooling, "one of last, mean, max")
        check(stem in ("none", "conv"), "stem", stem, "one of none, conv")
        self.num_classes, self.pooling, self.dropout = num_classes, pooling, dropout
        self.preprocess = Preprocess(input_size)
        self.stem = ConvStem(input_size) if stem == "conv" else None
        self.recurrent = RecurrentStack(
            cell,
            64 if stem == "conv" else input_size,
            hidden_size,
            num_layers=num_layers,
            bidirectional=bidirectional,
            dropout=dropout,
        )
        self.head = nn.Linear(self.recurrent.output_size, 1 if num_classes == 2 else num_classes)
        self.decision = Decision()

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Classify.

        Args:
            x: (B, T, F) raw values, NaN where missing; what stands after a sequence's end is ignored.
            lengths: (B,) int64, from 1 to T.

        Returns:
            Logits: (B,) for two classes, that of the second; (B, K) for more.
        """
        ragged = unless_full(lengths, x.shape[1])
        x = self.preprocess(x, ragged)
        if self.stem is not None:
            x, lengths = self.stem(x, lengths)
            ragged = None if ragged is None else lengths
        order = longest_first(ragged)
        if order is not None:  # less time is lost to padding, see `cut`
            x, ragged = x.index_select(0, order), lengths[order]
        pooled = self.pool(x, ragged)  # (B, D H)
        pooled = pooled if order is None else pooled.index_select(0, order.argsort())
        if self.training and self.dropout > 0:
            pooled = nn.functional.dropout(pooled, self.dropout)
        logits: Tensor = self.head(pooled)  # (B, 1) or (B, K)
        return logits.squeeze(1) if self.num_classes == 2 else logits

    def pool(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """Return (B, D H), what the head sees of D directions, from the recurrent layers' input (B, T, F)."""
        if self.pooling == "last":
            pooled = self.recurrent.last(x, lengths)
        else:
            pooled = [self._over_time(states, lengths) for states in self.recurrent(x, lengths)]
        return pooled[0] if len(pooled) == 1 else torch.cat(pooled, dim=1)

    def _over_time(self, states: Tensor, lengths: Tensor | None) -> Tensor:
        if lengths is None:
            return states.amax(1) if self.pooling == "max" else states.mean(1)
        mask = valid_steps(lengths, states.shape[1])[..., None]
        if self.pooling == "max":
            return states.masked_fill(~mask, -torch.inf).amax(1)
        return states.masked_fill(~mask, 0.0).sum(1) / lengths[:, None]
