"""Masking, reordering and cutting of padded batches."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_rnn.padding import Padding

SEGMENT_NUMBERS = (2, 4, 8, 16)  # numbers of segments that `cut` considers
SEGMENT_OVERHEAD = 1 << 14  # cost of starting a segment, in values of a layer's output


def valid_steps(lengths: Tensor, width: int) -> Tensor:
    """Return the mask (B, T) that is true inside sequences of `lengths` (B,), with T = `width`."""
    return torch.arange(width, device=lengths.device) < lengths[:, None]


def flip_sequences(x: Tensor, padding: Padding) -> Tensor:
    """Reverse each sequence of (B, T, H) along time, leaving its padding in place.

    Step t of a sequence of length L becomes step L - 1 - t.
    """
    if padding.is_full:
        return x.flip(1)
    steps = torch.arange(x.shape[1], device=x.device)
    mirrored = padding.lengths[:, None] - 1 - steps  # (B, T), negative in padding
    sources = torch.where(mirrored >= 0, mirrored, steps)
    first_rows = x.shape[1] * torch.arange(x.shape[0], device=x.device)
    rows = sources + first_rows[:, None]  # of the (B T, H) steps; faster than gather on a CPU
    return x.flatten(0, 1).index_select(0, rows.flatten()).view_as(x)


def last_step(x: Tensor, padding: Padding) -> Tensor:
    """Return the last step of each sequence, (B, H) of (B, T, H)."""
    if padding.is_full:
        return x[:, -1]
    last = padding.lengths[None, :, None] - 1
    # with time first, the gradient has the memory order of recurrent layers
    return x.transpose(0, 1).gather(0, last.expand(1, -1, x.shape[2]))[0]


@dataclass(frozen=True)
class Segment:
    """Steps `start` to `stop` - 1 of a sorted batch."""

    start: int
    stop: int
    count: int  # sequences longer than `start`, which are the first rows of the batch


def cut(padding: Padding, width: int, hidden_size: int) -> list[Segment]:
    """Cut a batch of width T along time, so that recurrent layers compute fewer steps of padding.

    A batch is only cut if its lengths are readable and descending. The cut with the lowest
    estimated cost is chosen: the number of values that a layer computes, plus a constant for each
    segment. Returns consecutive segments that contain all valid steps; one is the whole batch.
    """

    def cost(segments: list[Segment]) -> int:
        steps = sum((segment.stop - segment.start) * segment.count for segment in segments)
        return steps * hidden_size + SEGMENT_OVERHEAD * len(segments)

    whole = [Segment(0, width, padding.lengths.shape[0])]
    if padding.is_full or not padding.is_readable:
        return whole
    lengths = padding.lengths.tolist()
    if lengths != sorted(lengths, reverse=True):
        return whole
    cuts = [_equal_segments(lengths, number) for number in SEGMENT_NUMBERS]
    several = [segments for segments in cuts if len(segments) > 1]
    return min([whole, *several], key=cost)


def _equal_segments(lengths: list[int], number: int) -> list[Segment]:
    """Cut so that about equally many sequences end in each segment.

    With B descending lengths l_0, ..., l_(B-1) and k = ceil(B / number), segments end at the steps
    l_0, l_k, l_2k, ...; equal ones count once.
    """
    sequences_per_segment = math.ceil(len(lengths) / number)
    segments = []
    start = 0
    count = len(lengths)
    for stop in sorted(set(lengths[::sequences_per_segment])):
        while lengths[count - 1] <= start:
            count -= 1
        segments.append(Segment(start, stop, count))
        start = stop
    return segments
