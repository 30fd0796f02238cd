"""Ragged storage of labelled sequences and the padded batches made from it."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_rnn.data.disk_rows import DiskRows
from lightning_rnn.errors import DataError, as_array
from lightning_rnn.padding import Padding

CHUNK_VALUES = (
    1 << 22
)  # numbers looked at together, so that what is larger than memory is never there whole
SAMPLE_BITS = 26  # log2 of the numbers that statistics are taken from, where there are more


@dataclass(eq=False)
class SequenceBatch:
    """A padded batch, the input of a model.

    Treat it as immutable. It is not frozen because Lightning converts the precision of a batch
    (`Trainer(precision="64-true")`) by setting the fields of a copy.

    Attributes:
        x: (B, T, F) float32, zero after the end of each sequence, NaN where a value is missing.
        padding: Number of steps of each sequence.
        y: (B,) int64 class codes, or None for sequences without labels.
        index: (B,) int64, row of each sequence in its data set; -1 marks a row that was added only
            because its rank would otherwise have no batch.
    """

    x: Tensor
    padding: Padding
    y: Tensor | None
    index: Tensor

    @property
    def lengths(self) -> Tensor:
        """(B,) int64, number of steps of each sequence, at least 1."""
        return self.padding.lengths

    def __len__(self) -> int:
        """Return B."""
        return len(self.x)

    def to(self, device: torch.device, *, non_blocking: bool = False) -> "SequenceBatch":
        """Return the batch on a device; Lightning calls this to transfer it."""
        return SequenceBatch(
            x=self.x.to(device, non_blocking=non_blocking),
            padding=self.padding.to(device, non_blocking=non_blocking),
            y=None if self.y is None else self.y.to(device, non_blocking=non_blocking),
            index=self.index.to(device, non_blocking=non_blocking),
        )


class Sequences:
    """N sequences without padding; selecting and batching are cheap indexing on shared values.

    Trailing steps in which every feature is NaN shorten a sequence (to one step at least); any other NaN is a
    missing value and stays.

    Attributes:
        values: (sum of T_i, F) float32, in memory or, as `DiskRows`, in a file; steps of one sequence are adjacent.
        offsets: (N,) int64, row of `values` at which each sequence begins.
        lengths: (N,) int64, time steps of each sequence.
        labels: (N,) int64 class codes, or None.
        groups: (N,) strings, or None.
        ids: (N,) strings, or None where the row number identifies a sequence.
    """

    def __init__(
        self,
        values: Any,
        lengths: Any,
        labels: Any = None,
        *,
        groups: np.ndarray | None = None,
        ids: np.ndarray | None = None,
        checked: bool = False,
    ) -> None:
        """Check and store.

        Args:
            values: (sum of T_i, F) numbers, a tensor, `DiskRows` or anything NumPy takes.
            lengths: (N,) integers, each at least 1.
            labels: (N,) integers, or None.
            groups: (N,) group of each sequence, or None.
            ids: (N,) name of each sequence, or None.
            checked: Take it that no value is infinite and no sequence ends in NaN, without reading them all.

        Raises:
            DataError: No sequence; a wrong shape or dtype; a length below 1; lengths that do not add up to the
                rows of `values`; an infinite value; labels, groups or ids of another number than the lengths.
        """
        stored = isinstance(values, DiskRows)
        self.values: Tensor | DiskRows = (
            values if stored else _as_tensor(values, "values", torch.float32)
        )
        self.lengths = _as_tensor(lengths, "lengths", torch.int64)
        if self.values.ndim != 2 or self.values.shape[1] == 0:
            raise DataError(
                f"values: found shape {tuple(self.values.shape)}, accepted is (steps, features)"
            )
        if self.lengths.ndim != 1 or len(self.lengths) == 0:
            raise DataError(
                f"lengths: found shape {tuple(self.lengths.shape)}, accepted is (sequences,), at least one"
            )
        if int(self.lengths.min()) < 1:
            at = int(self.lengths.argmin())
            raise DataError(
                f"lengths: sequence {at} has {int(self.lengths[at])} steps, accepted is at least 1"
            )
        if int(self.lengths.sum()) != len(self.values):
            raise DataError(
                f"lengths: they add up to {int(self.lengths.sum())} steps, accepted is the number of rows of values, "
                f"{len(self.values)}"
            )
        self.labels = None if labels is None else _as_tensor(labels, "labels", torch.int64)
        self.groups, self.ids = groups, ids
        for name, column in (("labels", self.labels), ("groups", groups), ("ids", ids)):
            if column is not None and column.shape != (len(self.lengths),):
                raise DataError(
                    f"{name}: found shape {tuple(column.shape)}, accepted is ({len(self.lengths)},), one a sequence"
                )
        self.offsets = self.lengths.cumsum(0) - self.lengths
        if not checked:
            self._check_finite()
            self._trim()

    @classmethod
    def from_arrays(cls, arrays: Any, labels: Any = None) -> "Sequences":
        """Store arrays as they come.

        Args:
            arrays: One (N, T, F) array, one (T, F) array, or a list of (T_i, F) arrays; a list may hold (T_i,)
                arrays of one feature.
            labels: (N,) integers, or None.

        Returns:
            The sequences, in order.

        Raises:
            DataError: As for the constructor, or arrays of different widths.
        """
        if isinstance(arrays, np.ndarray | Tensor):
            if arrays.ndim not in (2, 3):
                raise DataError(
                    f"x: found shape {tuple(arrays.shape)}, accepted is (N, T, F), (T, F) or a list"
                )
            block = _as_tensor(arrays, "x", torch.float32)
            block = block if block.ndim == 3 else block[None]
            return cls(block.flatten(0, 1), torch.full((len(block),), block.shape[1]), labels)
        if not isinstance(arrays, list | tuple) or not arrays:
            raise DataError(
                f"x: found {type(arrays).__name__}, accepted is an array or a list with at least one array"
            )
        parts = [_as_tensor(a, f"x[{i}]", torch.float32) for i, a in enumerate(arrays)]
        parts = [p[:, None] if p.ndim == 1 else p for p in parts]
        for i, part in enumerate(parts):
            if part.ndim != 2 or part.shape[1] != parts[0].shape[1]:
                accepted = f"(T, {parts[0].shape[1]}) as in x[0]" if i else "(T, F) or (T,)"
                raise DataError(f"x[{i}]: found shape {tuple(part.shape)}, accepted is {accepted}")
        return cls(torch.cat(parts), torch.tensor([len(p) for p in parts]), labels)

    def __len__(self) -> int:
        """Return N."""
        return len(self.lengths)

    @property
    def num_features(self) -> int:
        """F."""
        return self.values.shape[1]

    def select(self, index: Tensor) -> "Sequences":
        """Return the sequences at `index` (M,), in that order; the values are shared."""
        chosen = object.__new__(Sequences)
        chosen.values = self.values
        chosen.offsets, chosen.lengths = self.offsets[index], self.lengths[index]
        chosen.labels = None if self.labels is None else self.labels[index]
        chosen.groups = None if self.groups is None else self.groups[index.numpy()]
        chosen.ids = None if self.ids is None else self.ids[index.numpy()]
        return chosen

    def batch(self, index: Tensor) -> SequenceBatch:
        """Assemble one padded batch by a single gather.

        Args:
            index: (B,) int64 rows.

        Returns:
            The batch, as wide as its longest sequence.
        """
        lengths = self.lengths[index]
        width, shortest = (
            int(lengths.max()),
            int(lengths.min()),
        )  # before anything is on a device that it would stop
        y = None if self.labels is None else self.labels[index].to(self.device, non_blocking=True)
        columns = (
            column.to(self.device, non_blocking=True)
            for column in (self.offsets[index], lengths, index)
        )
        first, lengths, index = columns
        steps = torch.arange(width, device=self.device)
        rows = first[:, None] + (
            steps if shortest == width else torch.minimum(steps, lengths[:, None] - 1)
        )  # (B, T)
        x = self.values.index_select(0, rows.view(-1)).view(len(index), width, -1)  # (B, T, F)
        if shortest < width:
            x.masked_fill_((steps >= lengths[:, None])[..., None], 0.0)
        return SequenceBatch(x, Padding(lengths, is_full=shortest == width), y, index)

    def batches(self, indices: list[Tensor]) -> list[SequenceBatch]:
        """Assemble several batches, where all sequences are of one length by a single gather."""
        if not self.fixed_length:
            return [self.batch(index) for index in indices]
        merged = self.batch(torch.cat(indices))
        batches = []
        start = 0
        for index in indices:
            rows = slice(start, start + len(index))
            start = rows.stop
            batch = SequenceBatch(
                x=merged.x[rows],
                padding=Padding(merged.lengths[rows], is_full=True),
                y=None if merged.y is None else merged.y[rows],
                index=merged.index[rows],
            )
            batches.append(batch)
        return batches

    @cached_property
    def fixed_length(self) -> bool:
        """Whether all sequences have the same number of steps."""
        return bool((self.lengths == self.lengths[0]).all())

    @property
    def device(self) -> torch.device:
        """Where the values are."""
        return self.values.device if isinstance(self.values, Tensor) else torch.device("cpu")

    def to(self, device: torch.device) -> "Sequences":
        """Return the sequences with their values, and no others, on a device; what they are found by stays here."""
        moved = self.select(torch.arange(len(self)))
        moved.values = torch.cat([values.to(device) for values in self.chunks()])
        moved.offsets = self.lengths.cumsum(0) - self.lengths
        return moved

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the values that are there, of a sample beyond 512 MB.

        Returns:
            Two (F,) float32 tensors. A feature without any value has mean 0; one without spread has deviation 1.
        """
        count = torch.zeros(self.num_features, dtype=torch.float64)
        total, squares, shift = torch.zeros_like(count), torch.zeros_like(count), None
        for values in self._sample().chunks():
            chunk = values.double()
            if shift is None:  # squares about a value near the mean lose no digits
                shift = chunk.nanmean(0).nan_to_num(0.0)
            centred = chunk - shift
            count += (~centred.isnan()).sum(0)
            total += centred.nansum(0)
            squares += centred.square().nansum(0)
        assert shift is not None
        mean = total / count.clamp(min=1)
        variance = (squares / count.clamp(min=1) - mean.square()).clamp(min=0)
        std = variance.sqrt()
        flat = (
            std <= 1e-6 * (shift + mean).abs()
        )  # what float32 rounding alone leaves of a constant
        std[flat | (std == 0)] = 1.0
        return torch.where(count > 0, shift + mean, 0.0).float(), std.float()

    def fingerprint(self) -> str:
        """Return a hash of sizes, labels and values (of a sample beyond 512 MB)."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(repr((len(self), self.num_features)).encode())
        digest.update(self.lengths.numpy().tobytes())
        if self.labels is not None:
            digest.update(self.labels.numpy().tobytes())
        for values in self._sample().chunks():
            digest.update(values.numpy().tobytes())
        return digest.hexdigest()

    def chunks(self) -> Iterator[Tensor]:
        """Yield all values, (rows, F) for some whole sequences at a time."""
        chunk_rows = CHUNK_VALUES // self.num_features
        ends = self.lengths.cumsum(0)
        start = 0
        while start < len(self):
            done = int(ends[start - 1]) if start else 0
            stop = max(start + 1, int(torch.searchsorted(ends, done + chunk_rows)))
            lengths = self.lengths[start:stop]
            within = torch.arange(int(lengths.sum())) - (
                lengths.cumsum(0) - lengths
            ).repeat_interleave(lengths)
            yield self.values.index_select(
                0, self.offsets[start:stop].repeat_interleave(lengths) + within
            )
            start = stop

    def _sample(self) -> "Sequences":
        """Return one sequence out of every k, with k such that a large set need not be read whole; all of a small."""
        stride = max(1, int(self.lengths.sum()) * self.num_features >> SAMPLE_BITS)
        index = torch.arange(0, len(self), stride)
        # not every k-th: data sets repeat themselves at regular intervals
        index += torch.randint(stride, index.shape, generator=torch.Generator().manual_seed(0))
        return self.select(index.clamp(max=len(self) - 1))

    def _check_finite(self) -> None:
        chunk_rows = max(1, CHUNK_VALUES // self.num_features)
        for start in range(0, len(self.values), chunk_rows):
            infinite = self.values[start : start + chunk_rows].isinf().any(1)
            if bool(infinite.any()):
                self._refuse_infinite(start + int(infinite.nonzero()[0]))

    def _trim(self) -> None:
        lengths = self.lengths.clone()
        for at in torch.split(torch.arange(len(self)), max(1, CHUNK_VALUES // self.num_features)):
            while len(
                at
            ):  # one round for each step of the longest trailing gap, over the sequences still open
                last = self.values.index_select(0, self.offsets[at] + lengths[at] - 1)
                at = at[last.isnan().all(1) & (lengths[at] > 1)]
                lengths[at] -= 1
        self.lengths = lengths

    def _refuse_infinite(self, row: int) -> None:
        owner = int(torch.searchsorted(self.offsets, row, right=True)) - 1
        name = f"sequence {owner}" if self.ids is None else f"sequence {self.ids[owner]!r}"
        values = self.values[row : row + 1][0]
        feature = int(values.isinf().nonzero()[0])
        raise DataError(
            f"{name}, step {row - int(self.offsets[owner])}, feature {feature}: found "
            f"{float(values[feature])}, accepted are finite float32 numbers, or NaN for a missing value"
        )


def _as_tensor(data: Any, name: str, dtype: torch.dtype) -> Tensor:
    """Convert without copying where nothing changes; refuse what is not numbers."""
    if not isinstance(data, Tensor):
        array = as_array(data, name)
        if array.dtype.kind not in "biuf" or (dtype == torch.int64 and array.dtype.kind == "f"):
            kind = "integers" if dtype == torch.int64 else "numbers"
            raise DataError(f"{name}: found dtype {array.dtype}, accepted are {kind}")
        with np.errstate(
            over="ignore"
        ):  # what float32 cannot hold becomes infinite and is refused by place
            array = np.asarray(array, dtype=np.float32 if dtype == torch.float32 else np.int64)
        data = torch.from_numpy(array if array.flags.writeable else array.copy())
    elif data.is_complex() or (dtype == torch.int64 and data.is_floating_point()):
        raise DataError(f"{name}: found dtype {data.dtype}, accepted are real numbers")
    tensor: Tensor = data.detach().cpu().to(dtype)
    return tensor
