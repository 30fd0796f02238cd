"""Synthetic tasks: functions from lengths and a random generator to sequences and labels.

Each function takes `lengths` (N,) int64, the number of features F and a generator, and returns
`values` (sum of T_i, F) float32 and `labels` (N,) int64. Sources: Hochreiter and Schmidhuber 1997
(LSTM); Bengio, Simard and Frasconi 1994; Le, Jaitly and Hinton 2015 (arXiv:1504.00941).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Generator, Tensor
from torch.nn.functional import one_hot

TaskName = Literal[
    "sum_sign", "adding", "parity", "delayed_recall", "temporal_order", "temporal_order_6b"
]


@dataclass(frozen=True)
class Task:
    """A task and the arguments that it allows."""

    generate: Callable[[Tensor, int, Generator], tuple[Tensor, Tensor]]
    class_names: tuple[str, ...]  # in the order of their codes
    num_features: int | None  # None if it is free
    min_length: int = 1
    extra_steps: int = 0  # that the task adds to the requested length


def sum_sign(lengths: Tensor, num_features: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Values from N(0, 1); label 1 if the sum of all values of the sequence is above 0."""
    values = torch.randn(int(lengths.sum()), num_features, generator=generator)
    sums = _sum_per_sequence(values.double().sum(1), lengths)
    return values, (sums > 0).long()


def adding(lengths: Tensor, num_features: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Feature 0 from U(0, 1); label 1 if the two values that feature 1 marks add up to above 1.

    One step of each half is marked: the adding problem (1997, experiment 4) in the form of 2015,
    with the target cut at its mean into two classes.
    """
    values = torch.zeros(int(lengths.sum()), num_features)
    values[:, 0] = torch.rand(len(values), generator=generator)
    start = lengths.cumsum(0) - lengths
    half = lengths // 2
    first = start + _random_integers(torch.zeros_like(half), half, generator)
    second = start + _random_integers(half, lengths, generator)
    values[first, 1] = 1.0
    values[second, 1] = 1.0
    return values, (values[first, 0] + values[second, 0] > 1).long()


def parity(lengths: Tensor, num_features: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Random bits; label 1 if the number of ones is odd (1997, section 5)."""
    bits = torch.randint(0, 2, (int(lengths.sum()),), generator=generator)
    return bits[:, None].float(), _sum_per_sequence(bits, lengths) % 2


def delayed_recall(
    lengths: Tensor, num_features: int, generator: Generator
) -> tuple[Tensor, Tensor]:
    """First step +1 (label 1) or -1 (label 0) in all features, then noise from N(0, 0.2).

    The two-sequence problem of 1994, as in 1997 (experiment 3a), with one informative step.
    """
    labels = torch.randint(0, 2, (len(lengths),), generator=generator)
    values = torch.randn(int(lengths.sum()), num_features, generator=generator) * 0.2**0.5
    start = lengths.cumsum(0) - lengths
    values[start] = (2.0 * labels - 1.0)[:, None]
    return values, labels


def temporal_order(
    lengths: Tensor, num_features: int, generator: Generator, windows: list[tuple[float, float]]
) -> tuple[Tensor, Tensor]:
    """Classes: which of X and Y came in the first window, which in the second, and so on.

    One-hot symbols in the order E, B, a, b, c, d, X, Y. A sequence starts with E and ends with B;
    the steps between are random among a, b, c, d, except for an X or Y at one step of each window.
    Windows are fractions of the length. `TWO_WINDOWS` are those of experiment 6a of 1997,
    `THREE_WINDOWS` of 6b; lengths from 100 to 110 give the published tasks.
    """
    start = lengths.cumsum(0) - lengths
    symbols = torch.randint(2, 6, (int(lengths.sum()),), generator=generator)  # a, b, c or d
    symbols[start] = 0  # E
    symbols[start + lengths - 1] = 1  # B
    labels = torch.zeros_like(lengths)
    for low, high in windows:
        low_step = (lengths * low).round().long().clamp(min=1)
        high_step = (lengths * high).round().long()
        choice = torch.randint(0, 2, (len(lengths),), generator=generator)
        symbols[start + _random_integers(low_step, high_step + 1, generator)] = 6 + choice  # X or Y
        labels = 2 * labels + choice
    return one_hot(symbols, num_features).float(), labels


def _random_integers(low: Tensor, high: Tensor, generator: Generator) -> Tensor:
    """Draw one integer from [low, high) for each pair of bounds."""
    span = torch.rand(len(low), generator=generator, dtype=torch.float64) * (high - low)
    return low + span.long()


def _sum_per_sequence(values: Tensor, lengths: Tensor) -> Tensor:
    """Sum the values (sum of T_i,) of each sequence, to (N,)."""
    owner = torch.arange(len(lengths)).repeat_interleave(lengths)
    return torch.zeros(len(lengths), dtype=values.dtype).index_add_(0, owner, values)


TWO_WINDOWS = [(0.1, 0.2), (0.5, 0.6)]
THREE_WINDOWS = [(0.1, 0.2), (0.33, 0.43), (0.66, 0.76)]
TWO_SYMBOLS = ("XX", "XY", "YX", "YY")
THREE_SYMBOLS = ("XXX", "XXY", "XYX", "XYY", "YXX", "YXY", "YYX", "YYY")
TASKS: dict[str, Task] = {
    "sum_sign": Task(sum_sign, ("negative", "positive"), None),
    "adding": Task(adding, ("at most 1", "above 1"), 2, min_length=2),
    "parity": Task(parity, ("even", "odd"), 1),
    "delayed_recall": Task(delayed_recall, ("minus", "plus"), None, extra_steps=1),
    "temporal_order": Task(
        partial(temporal_order, windows=TWO_WINDOWS), TWO_SYMBOLS, 8, min_length=10
    ),
    "temporal_order_6b": Task(
        partial(temporal_order, windows=THREE_WINDOWS), THREE_SYMBOLS, 8, min_length=10
    ),
}
