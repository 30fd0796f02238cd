"""A padded batch cut along time into parts, each without the sequences that have ended."""

from bisect import bisect_left
from itertools import pairwise
from operator import neg
from typing import Any

import torch
from torch import Tensor

from lightning_rnn.padding import Padding

Parts = list[
    tuple[int, int, int]
]  # of a batch: first step, step after the last, number of sequences
NUMBERS = (2, 4, 8, 16)  # of parts
WORTH_CUTTING = (
    1 << 14
)  # values of a direction's states that a further part must spare: beginning one has its price


def cut(padding: Padding, width: int, hidden_size: int) -> Parts | None:
    """Cut a batch in descending order of length into parts without the sequences that have ended.

    Args:
        padding: Number of steps of each sequence.
        width: T.
        hidden_size: H.

    Returns:
        The parts; None where that spares little or Python cannot ask for lengths.
    """
    if padding.is_full or not padding.is_readable:
        return None
    known = padding.lengths.tolist()
    if any(before < after for before, after in pairwise(known)):
        return None

    def cost(parts: Parts) -> int:
        computed = sum((stop - start) * count for start, stop, count in parts)
        return computed * hidden_size + WORTH_CUTTING * len(parts)

    best = min((_equal_parts(known, number) for number in NUMBERS), key=cost)
    return best if cost(best) < cost([(0, width, len(known))]) else None


def _equal_parts(lengths: list[int], number: int) -> Parts:
    """Cut so that each part loses as many of the sequences, in descending order of length."""
    ends = sorted({*lengths[:: -(-len(lengths) // number)]})
    starts = [0, *ends[:-1]]
    counts = [bisect_left(lengths, -start, key=neg) for start in starts]  # longer than that
    return [*zip(starts, ends, counts, strict=True)]


def assemble(outputs: list[Tensor], parts: Parts | None, shape: torch.Size) -> Tensor:
    """Return outputs (B, T, H), zero where no part has any."""
    whole: Tensor = outputs[0] if parts is None else Assembled.apply(shape, parts, *outputs)  # type: ignore[no-untyped-call]  # torch's has no types
    return whole


class Assembled(torch.autograd.Function):
    """What parts of a batch give, in one tensor; going back, each gets its piece without a copy."""

    @staticmethod
    def forward(ctx: Any, shape: torch.Size, parts: Parts, *outputs: Tensor) -> Tensor:
        """Return outputs (B, T, H), zero where no part has any, from those of each part."""
        ctx.parts = parts
        whole = outputs[0].new_zeros(*shape, outputs[0].shape[2])
        for (start, stop, count), output in zip(parts, outputs, strict=True):
            whole[:count, start:stop] = output
        return whole

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the parts' outputs."""
        return None, None, *(grad[:count, start:stop] for start, stop, count in ctx.parts)


class Ends(torch.autograd.Function):
    """Each sequence's last output, from the part in which it ends."""

    @staticmethod
    def forward(ctx: Any, lengths: Tensor, parts: Parts, *outputs: Tensor) -> Tensor:
        """Return (B, H) from lengths (B,) in descending order and the outputs of each part."""
        ctx.parts = parts
        ctx.ended = []  # rows that end in a part, and at which of its steps
        for (start, _, count), (_, _, longer) in zip(parts, [*parts[1:], (0, 0, 0)], strict=True):
            ctx.ended.append((torch.arange(longer, count), lengths[longer:count] - start - 1))
        last = [output[ended] for output, ended in zip(outputs, ctx.ended, strict=True)]
        return torch.cat(last[::-1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the parts' outputs."""
        gradients = []
        for (start, stop, count), (rows, steps) in zip(ctx.parts, ctx.ended, strict=True):
            gradient = grad.new_zeros(
                stop - start, count, grad.shape[1]
            )  # laid out as the layers want it
            gradient[steps, rows] = grad[rows]
            gradients.append(gradient.transpose(0, 1))
        return None, None, *gradients
