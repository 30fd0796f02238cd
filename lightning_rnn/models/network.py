"""The network: preprocessing, stem, recurrent layers, pooling, head and decision."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from lightning_rnn.errors import check, check_types
from lightning_rnn.models.decision import Decision
from lightning_rnn.models.inception import InceptionStem
from lightning_rnn.models.initialization import (
    UNKNOWN_SPAN,
    Initialization,
    are_gates_spread,
    initialize,
    spread_gates,
)
from lightning_rnn.models.padding import last_step, valid_steps
from lightning_rnn.models.preprocess import Preprocess
from lightning_rnn.models.recurrent import CellName, RecurrentStack
from lightning_rnn.models.stem import ConvStem, StemOutput, output_lengths
from lightning_rnn.padding import Padding

Pooling = Literal["last", "mean", "max"]
Stem = Literal["none", "conv", "inception"]
HEADS = ("head", "summary_head")  # parts that depend on the classes


@dataclass(frozen=True)
class NetworkOptions:
    """Architecture of a `SequenceNetwork`; the arguments of `SequenceClassifier` with these names.

    Raises:
        OptionError: If a value has another type or is out of range.
    """

    cell: CellName = "rnn"
    hidden_size: int = 32
    num_layers: int = 1
    bidirectional: bool = False
    dropout: float = 0.0
    pooling: Pooling = "last"
    stem: Stem = "none"
    initialization: Initialization = "chrono"
    memory_span: int | None = None
    embedding_size: int = 32

    @classmethod
    def select(cls, settings: Mapping[str, Any]) -> "NetworkOptions":
        """Create options from those of the settings that have the name of one."""
        return cls(**{field.name: settings[field.name] for field in fields(cls)})

    def __post_init__(self) -> None:  # noqa: D105  # documented in the class docstring
        check_types(NetworkOptions, vars(self))
        for name in ("hidden_size", "num_layers", "memory_span", "embedding_size"):
            value = getattr(self, name)
            check(value is None or value >= 1, name, value, "an integer of at least 1")
        check(0 <= self.dropout < 1, "dropout", self.dropout, "a number of at least 0 and below 1")


class SequenceNetwork(nn.Module):
    """Network that classifies sequences of raw values; its output does not depend on padding.

    Hand-written backward passes of rnn, gru (both on a CPU) and mingru are differentiable once; for
    double backward and `torch.func`, see `lightning_rnn.models.cpu_kernels.use_kernels`.

    Args:
        input_size: Number of features F per step.
        num_classes: Number of classes K, at least 2.
        options: Architecture; `NetworkOptions()` by default.
        category_sizes: Number of categories of each feature, 0 for numbers; None if all are. The
            categories of a feature have the codes 1, 2, ..., and unknown ones the code 0.
        make_encoder: Function from the number of inputs per step to the module that replaces the
            recurrent layers, or to None; see `SequenceClassifier.make_encoder`.

    Attributes:
        preprocess: Standardisation, filling of missing values and encoding of categories.
        stem: Convolutions, or None.
        recurrent: Recurrent layers; none of them if there is an encoder.
        encoder: The module that replaces the recurrent layers, or None.
        head: Linear layer from pooled outputs to logits.
        decision: Conversion of logits to probabilities and classes.
        is_frozen: Whether only the heads can be trained; see `freeze`.

    Raises:
        OptionError: If a size is out of range.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> options = NetworkOptions(cell="gru", hidden_size=8)
        >>> network = SequenceNetwork(input_size=2, num_classes=3, options=options)
        >>> x = torch.randn(4, 10, 2)
        >>> lengths = torch.tensor([10, 7, 3, 1])
        >>> logits = network(x, lengths)
        >>> logits.shape
        torch.Size([4, 3])
        >>> network.decision.predict(logits).shape
        torch.Size([4])
    """

    def __init__(
        self,
        *,
        input_size: int,
        num_classes: int,
        options: NetworkOptions | None = None,
        category_sizes: list[int] | None = None,
        make_encoder: Callable[[int], nn.Module | None] | None = None,
    ) -> None:
        super().__init__()
        check(input_size >= 1, "input_size", input_size, "an integer of at least 1")
        check(num_classes >= 2, "num_classes", num_classes, "an integer of at least 2")
        options = options or NetworkOptions()
        self.input_size = input_size
        self.num_classes = num_classes
        self.options = options
        self.preprocess = Preprocess(input_size, category_sizes, options.embedding_size)
        self.stem: ConvStem | InceptionStem | None = None
        recurrent_input_size = self.preprocess.output_size
        summary_size = 0
        if options.stem == "conv":
            self.stem = ConvStem(recurrent_input_size)
        elif options.stem == "inception":
            causal = not options.bidirectional
            self.stem = InceptionStem(recurrent_input_size, causal=causal)
        if self.stem is not None:
            recurrent_input_size = self.stem.output_size
            summary_size = self.stem.summary_size
        self.encoder: nn.Module | None = None
        if make_encoder is not None:
            self.encoder = make_encoder(recurrent_input_size)
        self.recurrent = RecurrentStack(
            options.cell,
            recurrent_input_size,
            options.hidden_size,
            num_layers=options.num_layers if self.encoder is None else 0,
            bidirectional=options.bidirectional,
            dropout=options.dropout,
        )
        num_outputs = 1 if num_classes == 2 else num_classes
        self.pooled_size = _output_size(self.encoder or self.recurrent)
        self.head = nn.Linear(self.pooled_size, num_outputs)
        self.summary_head: nn.Linear | None = None
        if summary_size > 0:
            self.summary_head = nn.Linear(summary_size, num_outputs)
        self.decision = Decision()
        self.is_frozen = False
        if options.initialization == "chrono":
            initialize(self.recurrent, self.head, self._recurrent_span())

    def set_memory_span(self, span: int) -> None:
        """Set the number of input steps that the initialization makes the network remember.

        Weights that the initialization has not set, such as trained ones, are not changed.
        """
        is_new = are_gates_spread(self.recurrent, self._recurrent_span())
        self.options = replace(self.options, memory_span=span)
        if self.options.initialization == "chrono" and is_new:
            spread_gates(self.recurrent, self._recurrent_span())

    def _recurrent_span(self) -> int:
        """Return the memory span in steps of the recurrent layers."""
        span = self.options.memory_span or UNKNOWN_SPAN
        return span if self.stem is None else output_lengths(span)

    def freeze(self) -> None:
        """Let training change nothing but the heads: neither other weights nor statistics.

        From the next call of `train`, the other parts stay in evaluation mode.
        """
        self.is_frozen = True
        for name, module in self.named_children():
            if name not in HEADS:
                module.requires_grad_(False)

    def train(self, mode: bool = True) -> "SequenceNetwork":
        """Set the mode; frozen parts stay in evaluation mode."""
        super().train(mode)
        if self.is_frozen:
            for name, module in self.named_children():
                module.train(mode and name in HEADS)
        return self

    def forward(self, x: Tensor, lengths: Tensor | Padding) -> Tensor:
        """Compute logits: the mean over the heads.

        Args:
            x: (B, T, F) raw values, NaN where missing; values in padding are ignored.
            lengths: (B,) int64, from 1 to T; or the `Padding` of `x`, which avoids computing it.

        Returns:
            Logits: (B,) of the second class for two classes, (B, K) for more.
        """
        return self.logits(self.embed(x, lengths))

    def embed(self, x: Tensor, lengths: Tensor | Padding) -> Tensor:
        """Return the features of whole sequences that the heads read; arguments as in `forward`.

        These are the pooled states of the top layer and the summary of the stem, (B, D H + S).
        """
        padding = lengths if isinstance(lengths, Padding) else Padding.of(lengths, x.shape[1])
        x = self.preprocess(x, padding)
        if self.stem is None:
            return self._pool_sorted(x, padding)
        output: StemOutput = self.stem(x, padding)
        pooled = self._pool_sorted(output.x, output.padding)
        return torch.cat([pooled, output.summary], dim=1)

    def logits(self, embeddings: Tensor) -> Tensor:
        """Compute logits, (B,) or (B, K), from the features of `embed`: the mean over the heads."""
        return self.head_logits(embeddings).mean(0)

    def head_logits(self, embeddings: Tensor) -> Tensor:
        """Compute the logits of each head, (M, B) or (M, B, K), from the features of `embed`.

        There is a head for the recurrent layers, and one for the summary of a stem that has one.
        Each of them is trained with a loss of its own.
        """
        width = self.pooled_size
        logits = [self.head(self._drop(embeddings[:, :width]))]
        if self.summary_head is not None:
            logits.append(self.summary_head(self._drop(embeddings[:, width:])))
        stacked = torch.stack(logits)  # (M, B, 1) or (M, B, K)
        if self.num_classes == 2:
            return stacked.squeeze(2)
        return stacked

    def _drop(self, features: Tensor) -> Tensor:
        return dropout(features, self.options.dropout, self.training)

    def _pool_sorted(self, x: Tensor, padding: Padding) -> Tensor:
        """Return what `pool` returns, from rows sorted by length, so that `cut` can be used."""
        if padding.is_full or not padding.is_readable or self.encoder is not None:
            return self.pool(x, padding)
        order = padding.lengths.argsort(descending=True, stable=True)
        pooled = self.pool(x.index_select(0, order), Padding(padding.lengths[order]))
        return pooled.index_select(0, order.argsort())

    def pool(self, x: Tensor, padding: Padding) -> Tensor:
        """Run the recurrent layers on (B, T, F) and pool their outputs over time to (B, D H)."""
        if self.encoder is not None:
            features: Tensor = self.encoder(x, padding.lengths)
            return features
        pooled = [self._pool_outputs(outputs, padding) for outputs in self.recurrent(x, padding)]
        return torch.cat(pooled, dim=1)

    def _pool_outputs(self, outputs: Tensor, padding: Padding) -> Tensor:
        """Return the last, mean or maximum (B, H) of outputs (B, T, H) over time."""
        if self.options.pooling == "last":
            return last_step(outputs, padding)
        mask = valid_steps(padding.lengths, outputs.shape[1])[..., None]
        if self.options.pooling == "max":
            return outputs.masked_fill(~mask, -torch.inf).amax(1)
        return outputs.masked_fill(~mask, 0.0).sum(1) / padding.lengths[:, None]


def _output_size(encoder: nn.Module) -> int:
    size = getattr(encoder, "output_size", None)
    is_size = isinstance(size, int) and size >= 1
    expected = "a module whose attribute output_size is the number of its outputs"
    check(is_size, "make_encoder", encoder, expected)
    return int(size or 0)
