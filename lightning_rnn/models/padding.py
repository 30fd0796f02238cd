"""Masking, reordering and cutting of padded batches."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

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
    last = padding.lengths[:, None, None] - 1
    return x.gather(1, last.expand(-1, 1, x.shape[2]))[:, 0]


@dataclass(frozen=True)
class Segment:
    """A range of steps of a sorted batch, without the sequences that ended before it.

    Attributes:
        start: First step.
        stop: Step after the last.
        count: Number of sequences longer than `start`; they are the first rows of the batch.
    """

    start: int
    stop: int
    count: int


def cut(padding: Padding, width: int, hidden_size: int) -> list[Segment]:
    """Cut a batch along time, so that recurrent layers compute fewer steps of padding.

    The cut with the lowest estimated cost is chosen: the number of values that a layer computes,
    plus a constant for each segment.

    Args:
        padding: Padding of the batch. It is only cut if the lengths are readable and descending.
        width: T.
        hidden_size: H of the recurrent layers.

    Returns:
        Consecutive segments that contain all valid steps. A single segment is the whole batch.
    """
    best = [Segment(0, width, padding.lengths.shape[0])]
    if padding.is_full or not padding.is_readable:
        return best
    lengths = padding.lengths.tolist()
    if lengths != sorted(lengths, reverse=True):
        return best
    lowest_cost = _cost(best, hidden_size)
    for number in SEGMENT_NUMBERS:
        segments = _equal_segments(lengths, number)
        cost = _cost(segments, hidden_size)
        if len(segments) > 1 and cost < lowest_cost:
            best = segments
            lowest_cost = cost
    return best


def _cost(segments: list[Segment], hidden_size: int) -> int:
    cost = SEGMENT_OVERHEAD * len(segments)
    for segment in segments:
        cost += (segment.stop - segment.start) * segment.count * hidden_size
    return cost


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


def join_segments(outputs: list[Tensor], segments: list[Segment], width: int) -> Tensor:
    """Join the outputs of all segments, each (count, stop - start, H).

    Returns:
        (B, T, H) with T = `width`, zero where no segment has a value.
    """
    if len(segments) == 1:
        return outputs[0]
    batch_size = segments[0].count
    padded = []
    for output, segment in zip(outputs, segments, strict=True):
        if segment.count < batch_size:
            output = pad(output, (0, 0, 0, 0, 0, batch_size - segment.count))
        padded.append(output)
    if segments[-1].stop < width:
        missing_steps = width - segments[-1].stop
        padded.append(outputs[0].new_zeros(batch_size, missing_steps, outputs[0].shape[2]))
    return torch.cat(padded, dim=1)


def last_step_of_segments(
    outputs: list[Tensor], segments: list[Segment], padding: Padding
) -> Tensor:
    """Return the last step (B, H) of each sequence, from the segment in which it ends.

    The arguments are the outputs of all segments, each (count, stop - start, H), the segments, and
    the padding of the batch.
    """
    if len(segments) == 1:
        return last_step(outputs[0], padding)
    last_steps = []
    next_count = 0
    for output, segment in zip(reversed(outputs), reversed(segments), strict=True):
        # Rows from next_count to count end in this segment. Indexing time first gives a gradient in
        # the memory order of recurrent layers.
        rows = torch.arange(next_count, segment.count)
        steps = padding.lengths[next_count : segment.count] - segment.start - 1
        last_steps.append(output.transpose(0, 1)[steps, rows])
        next_count = segment.count
    return torch.cat(last_steps)
