"""Synthetic tasks: pure functions from lengths and a random generator to ragged sequences and labels.

Each takes `lengths` (N,) int64, the number of features F and a generator, and returns `values`
(sum of T_i, F) float32 and `labels` (N,) int64. `TASKS` names them all.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor

TaskName = Literal[
    "sum_sign", "adding", "parity", "delayed_recall", "temporal_order", "temporal_order_6b"
]


class Task(NamedTuple):
    """A task and what it asks of its settings.

    Attributes:
        generate: The function.
        class_names: Names of the K classes, in the order of their codes.
        num_features: F, or None where any number will do.
        min_length: Fewest steps the task is defined for.
        extra_steps: Steps that the task adds to the length asked for.
    """

    generate: Callable[[Tensor, int, Generator], tuple[Tensor, Tensor]]
    class_names: tuple[str, ...]
    num_features: int | None
    min_length: int = 1
    extra_steps: int = 0


def sum_sign(lengths: Tensor, num_features: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Values from N(0, 1); label 1 if all values of a sequence add up to more than 0."""
    values = torch.randn(int(lengths.sum()), num_features, generator=generator)
    return values, (_segment_sum(values.double().sum(1), lengths) > 0).long()


def adding(lengths: Tensor, num_features: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Feature 0 from U(0, 1), feature 1 marks one step of each half; label 1 if the marked values exceed 1 together.

    The adding problem (Hochreiter and Schmidhuber 1997, experiment 4), in the form of Le, Jaitly and Hinton 2015
    (arXiv:1504.00941), its target cut at the mean to give two classes.
    """
    start = lengths.cumsum(0) - lengths
    values = torch.zeros(int(lengths.sum()), num_features)
    values[:, 0] = torch.rand(len(values), generator=generator)
    half = lengths // 2
    first = start + _integers(torch.zeros_like(half), half, generator)
    second = start + _integers(half, lengths, generator)
    values[first, 1] = values[second, 1] = 1.0
    return values, (values[first, 0] + values[second, 0] > 1).long()


def parity(lengths: Tensor, num_features: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Fair bits, 0 or 1; label 1 if the number of ones is odd (Hochreiter and Schmidhuber 1997, section 5)."""
    bits = torch.randint(0, 2, (int(lengths.sum()),), generator=generator)
    return bits[:, None].float(), _segment_sum(bits, lengths) % 2


def delayed_recall(
    lengths: Tensor, num_features: int, generator: Generator
) -> tuple[Tensor, Tensor]:
    """The first step is +1 or -1 and decides (label 1 for +1); after it come steps of N(0, 0.2) noise.

    The two-sequence problem of Bengio, Simard and Frasconi 1994, as in Hochreiter and Schmidhuber 1997
    (experiment 3a), with one informative step. A sequence asked for with length L has L + 1 steps; noise fills
    every feature but the first step's symbol, which stands in all of them.
    """
    labels = torch.randint(0, 2, (len(lengths),), generator=generator)
    values = torch.randn(int(lengths.sum()), num_features, generator=generator) * 0.2**0.5
    values[lengths.cumsum(0) - lengths] = (2.0 * labels - 1.0)[:, None]
    return values, labels


def temporal_order(
    lengths: Tensor, num_features: int, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Which of X and Y came first and second? Four classes (Hochreiter and Schmidhuber 1997, experiment 6a).

    One-hot symbols, in the order E, B, a, b, c, d, X, Y. A sequence begins with E, ends with B and is drawn from
    a, b, c, d between, except for an X or a Y at one step of [L/10, L/5] and one of [L/2, 3L/5]. Lengths of 100 to
    110 give the published task.
    """
    return _temporal_order(lengths, num_features, generator, [(0.1, 0.2), (0.5, 0.6)])


def temporal_order_6b(
    lengths: Tensor, num_features: int, generator: Generator
) -> tuple[Tensor, Tensor]:
    """As `temporal_order` with three decisive symbols and eight classes (experiment 6b).

    They stand at one step each of [L/10, L/5], [33L/100, 43L/100] and [66L/100, 76L/100].
    """
    return _temporal_order(
        lengths, num_features, generator, [(0.1, 0.2), (0.33, 0.43), (0.66, 0.76)]
    )


def _temporal_order(
    lengths: Tensor, num_features: int, generator: Generator, windows: list[tuple[float, float]]
) -> tuple[Tensor, Tensor]:
    start = lengths.cumsum(0) - lengths
    symbols = torch.randint(2, 6, (int(lengths.sum()),), generator=generator)
    symbols[start], symbols[start + lengths - 1] = 0, 1
    labels = torch.zeros_like(lengths)
    for low, high in windows:
        low_step, high_step = (
            (lengths * low).round().long().clamp(min=1),
            (lengths * high).round().long(),
        )
        choice = torch.randint(0, 2, (len(lengths),), generator=generator)
        symbols[start + _integers(low_step, high_step + 1, generator)] = 6 + choice
        labels = 2 * labels + choice
    return torch.nn.functional.one_hot(symbols, num_features).float(), labels


def _integers(low: Tensor, high: Tensor, generator: Generator) -> Tensor:
    """Draw one integer from [low, high) for each pair of bounds."""
    span = torch.rand(len(low), generator=generator, dtype=torch.float64) * (high - low)
    return low + span.long()


def _segment_sum(values: Tensor, lengths: Tensor) -> Tensor:
    """Sum the values of each sequence: (sum of T_i,) to (N,)."""
    owner = torch.arange(len(lengths)).repeat_interleave(lengths)
    return torch.zeros(len(lengths), dtype=values.dtype).index_add_(0, owner, values)


TASKS: dict[str, Task] = {
    "sum_sign": Task(sum_sign, ("negative", "positive"), None),
    "adding": Task(adding, ("at most 1", "above 1"), 2, min_length=2),
    "parity": Task(parity, ("even", "odd"), 1),
    "delayed_recall": Task(delayed_recall, ("minus", "plus"), None, extra_steps=1),
    "temporal_order": Task(temporal_order, ("XX", "XY", "YX", "YY"), 8, min_length=10),
    "temporal_order_6b": Task(
        temporal_order_6b,
        ("XXX", "XXY", "XYX", "XYY", "YXX", "YXY", "YYX", "YYY"),
        8,
        min_length=10,
    ),
}
