"""Storage of labelled sequences without padding, and the padded batches assembled from it."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_rnn.data import checks
from lightning_rnn.data.disk_rows import DiskRows
from lightning_rnn.errors import DataError, as_array
from lightning_rnn.padding import Padding

SAMPLE_BITS = 26  # log2 of the number of values above which statistics come from a sample


@dataclass(eq=False)
class SequenceBatch:
    """A padded batch, the input of a model.

    Treat it as immutable. It is not frozen, since `Trainer(precision="64-true")` sets the fields of
    a copy.

    Attributes:
        x: (B, T, F) float32; zero after the end of each sequence, NaN for missing values.
        padding: Number of steps of each sequence.
        y: (B,) int64 class codes, or None for sequences without labels.
        index: (B,) int64, position of each sequence in its data set; -1 for a sequence that only
            fills up the batch of a rank that would otherwise have none.

    Example:
        >>> import torch
        >>> from lightning_rnn import Sequences
        >>> sequences = Sequences.from_arrays([[0.5, 1.0, 2.0], [4.0]], labels=[1, 0])
        >>> batch = sequences.batch(torch.tensor([0, 1]))
        >>> batch.x.shape, batch.lengths, batch.y
        (torch.Size([2, 3, 1]), tensor([3, 1]), tensor([1, 0]))
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
    """N sequences of different lengths, stored without padding.

    Trailing steps whose features are all NaN are cut off, except for the first step of a sequence;
    any other NaN is a missing value. Selected sequences share the memory of all `values`.

    Args:
        values: (sum of T_i, F) real numbers, all sequences one after the other: a tensor,
            `DiskRows`, or anything NumPy converts.
        lengths: (N,) integers of at least 1, number of steps of each sequence.
        labels: (N,) integer class codes, or None.
        groups: (N,) group of each sequence, or None.
        ids: (N,) name of each sequence, or None if they are identified by their position.
        offsets: (N,) int64, row of `values` at which each sequence starts, to share the values of
            other `Sequences`; None if the sequences follow each other.
        rounding: (5, F) float64: minus the lowest number, the highest, and the largest change when
            the numbers of a feature were rounded to float32; minus the lowest and the highest
            remainder when they were rounded to float64; None to take it from `values`.
        missing_values: Numbers in `values` that stand for missing values, compared in float32.
        checked: Whether values are known to be finite and without steps to cut off.

    Raises:
        DataError: If there is no sequence, a shape or dtype is wrong, a length is below 1, the
            lengths do not add up to the rows of `values`, or a value is infinite.

    Example:
        >>> from lightning_rnn import Sequences
        >>> sequences = Sequences([[1.0], [2.0], [3.0]], lengths=[1, 2], labels=[0, 1])
        >>> len(sequences), sequences.num_features, sequences.offsets
        (2, 1, tensor([0, 1]))
    """

    def __init__(
        self,
        values: Any,
        lengths: Any,
        labels: Any = None,
        *,
        groups: np.ndarray | None = None,
        ids: np.ndarray | None = None,
        offsets: Tensor | None = None,
        rounding: Any = None,
        missing_values: list[float] | None = None,
        checked: bool = False,
    ) -> None:
        if offsets is None:
            given = values
            if not isinstance(values, DiskRows | Tensor):
                given = as_array(values, "values")
            if not isinstance(values, DiskRows):
                values = checks.as_values(checks.as_tensor(given, "values"), missing_values)
            if rounding is None:
                rounding = checks.rounding_of(given, missing_values)
            lengths = checks.as_lengths(lengths, num_rows=len(values))
            offsets = lengths.cumsum(0) - lengths
        self.values: Tensor | DiskRows = values
        self.lengths: Tensor = lengths
        self.offsets = offsets
        self.labels = None if labels is None else checks.as_tensor(labels, "labels", torch.int64)
        self.groups = groups
        self.ids = ids
        self.rounding = rounding
        for name, column in (("labels", self.labels), ("groups", groups), ("ids", ids)):
            if column is not None and column.shape != (len(self),):
                expected = f"shape ({len(self)},), one per sequence"
                raise DataError(f"{name}: expected {expected}, got {tuple(column.shape)}")
        if not checked:
            checks.check_finite(values, offsets, ids)
            self.lengths = checks.lengths_without_trailing_nan(values, offsets, lengths)

    @classmethod
    def from_arrays(
        cls, arrays: Any, labels: Any = None, *, missing_values: list[float] | None = None
    ) -> "Sequences":
        """Store one array per sequence.

        Args:
            arrays: (N, T, F) array, (T, F) array for one sequence, or list or object array
                of (T_i, F) arrays, or of (T_i,) arrays of a single feature.
            labels: (N,) integers, or None.
            missing_values: Numbers that stand for missing values, compared in float32.
        """
        if isinstance(arrays, np.ndarray) and arrays.dtype == object:
            arrays = list(arrays)
        if isinstance(arrays, np.ndarray | Tensor):
            if arrays.ndim == 2:
                arrays = arrays[None]  # (1, T, F)
            if arrays.ndim != 3:
                got = f"shape {tuple(arrays.shape)}"
                raise DataError(f"x: expected shape (N, T, F) or (T, F), or a list, got {got}")
            checks.as_tensor(arrays[:0], "x")  # raises an error for a wrong dtype
            n, t, f = arrays.shape
            lengths = torch.full((n,), t)
            return cls(arrays.reshape(n * t, f), lengths, labels, missing_values=missing_values)
        if not isinstance(arrays, list | tuple) or not arrays:
            got = "an empty list" if arrays == [] else type(arrays).__name__
            raise DataError(f"x: expected an array or a list of at least one array, got {got}")
        parts: list[Tensor] = []
        for i, array in enumerate(arrays):
            part = checks.as_tensor(array, f"x[{i}]")
            checks.check_integers(array, f"x[{i}]")
            if part.ndim == 1:
                part = part[:, None]  # (T_i, 1)
            expected = f"(T, {parts[0].shape[1]}) as x[0]" if parts else "(T, F) or (T,)"
            if part.ndim != 2 or (parts and part.shape[1] != parts[0].shape[1]):
                raise DataError(f"x[{i}]: expected shape {expected}, got {tuple(part.shape)}")
            parts.append(part)
        return cls(torch.cat(parts), [*map(len, parts)], labels, missing_values=missing_values)

    def __len__(self) -> int:
        """Return N."""
        return len(self.lengths)

    @property
    def num_features(self) -> int:
        """Number of features per step, F."""
        return self.values.shape[1]

    @property
    def device(self) -> torch.device:
        """Device of the values; all other tensors are on the CPU."""
        return self.values.device if isinstance(self.values, Tensor) else torch.device("cpu")

    @property
    def required_labels(self) -> Tensor:
        """The labels; raises a DataError if there are none."""
        if self.labels is None:
            raise DataError("data: expected labels, got sequences without labels")
        return self.labels

    def replaced(self, **changes: Any) -> "Sequences":
        """Return the sequences with other arguments of the constructor, which are not checked."""
        return Sequences(**(vars(self) | changes), checked=True)

    def select(self, index: Tensor) -> "Sequences":
        """Return the sequences at positions `index` (M,) int64, in that order."""
        rows = index.numpy()
        return self.replaced(
            lengths=self.lengths[index],
            labels=_take(self.labels, index),
            groups=_take(self.groups, rows),
            ids=_take(self.ids, rows),
            offsets=self.offsets[index],
        )

    def to(self, device: torch.device) -> "Sequences":
        """Return the sequences with a copy of their values on a device."""
        values = torch.cat([chunk.to(device) for chunk in self.chunks()])
        return self.replaced(values=values, offsets=self.lengths.cumsum(0) - self.lengths)

    def batch(self, index: Tensor) -> SequenceBatch:
        """Assemble a padded batch of the sequences at positions `index` (B,) int64.

        It is on the device of the values, and T steps wide as its longest sequence. The steps
        t >= T_i of a shorter sequence repeat its last row when gathered, then become 0.
        """
        lengths = self.lengths[index]
        width = int(lengths.max())  # before the lengths are on an accelerator, which would wait
        is_full = int(lengths.min()) == width
        y = None if self.labels is None else self.labels[index].to(self.device, non_blocking=True)
        first_rows = self.offsets[index].to(self.device, non_blocking=True)
        lengths = lengths.to(self.device, non_blocking=True)
        index = index.to(self.device, non_blocking=True)
        steps = torch.arange(width, device=self.device)
        if is_full:
            rows = first_rows[:, None] + steps  # (B, T)
        else:
            rows = first_rows[:, None] + torch.minimum(steps, lengths[:, None] - 1)
        x = self.values.index_select(0, rows.view(-1)).view(len(index), width, -1)  # (B, T, F)
        if not is_full:
            x.masked_fill_((steps >= lengths[:, None])[..., None], 0.0)
        return SequenceBatch(x, Padding(lengths, is_full=is_full), y, index)

    def chunks(self, num_values: int | None = None) -> Iterator[Tensor]:
        """Yield all values, some whole sequences as (rows, F) at a time."""
        chunk_rows = (num_values or checks.CHUNK_VALUES) // self.num_features
        ends = self.lengths.cumsum(0)
        start = 0
        while start < len(self):
            rows_before = int(ends[start] - self.lengths[start])
            stop = max(start + 1, int(torch.searchsorted(ends, rows_before + chunk_rows)))
            yield checks.rows_of(self.values, self.offsets[start:stop], self.lengths[start:stop])
            start = stop

    def moments(self, names: list[str] | None = None) -> tuple[Tensor, Tensor]:
        """Return (F,) mean and standard deviation of the values that are not missing.

        Beyond 2^26 values they are those of a random sample of the sequences. A feature without
        values has mean 0; one that is constant up to float32 rounding has deviation 1. If rounding
        changed a feature by more than 1 % of its deviation, a DataError names it by its `names`.
        """
        count = torch.zeros(self.num_features, dtype=torch.float64)
        mean = torch.zeros_like(count)
        squares = torch.zeros_like(count)  # of deviations from the mean
        for part in self._sample().chunks(checks.CACHED_VALUES):  # Chan et al. 1979
            values = part.double()
            part_count = (~values.isnan()).sum(0)
            part_mean = values.nanmean(0).nan_to_num(0.0)
            squares += (values - part_mean).square().nansum(0)
            count += part_count
            share = part_count / count.clamp(min=1)
            squares += (part_mean - mean).square() * share * (count - part_count)
            mean += (part_mean - mean) * share
        std = (squares / count.clamp(min=1)).sqrt()
        rounding = torch.finfo(torch.float32).eps * mean.abs()
        is_constant = (std <= rounding) | (std == 0)
        checks.check_rounding(self.rounding, torch.where(is_constant, torch.nan, std), names)
        std[is_constant] = 1.0
        return mean.float(), std.float()

    def fingerprint(self) -> str:
        """Return a hash of sizes, labels and values; beyond 2^26 values, of a random sample."""
        sizes = repr((len(self), self.num_features)).encode()
        digest = hashlib.blake2b(sizes, digest_size=16)
        digest.update(self.lengths.numpy().tobytes())
        if self.labels is not None:
            digest.update(self.labels.numpy().tobytes())
        for values in self._sample().chunks():
            digest.update(values.numpy().tobytes())
        return digest.hexdigest()

    def _sample(self) -> "Sequences":
        """Return a random one of every k successive sequences, with k = 1 for small data."""
        stride = max(1, int(self.lengths.sum()) * self.num_features >> SAMPLE_BITS)
        index = torch.arange(0, len(self), stride)
        index += torch.randint(stride, index.shape, generator=torch.Generator().manual_seed(0))
        return self.select(index.clamp(max=len(self) - 1))


def _take(column: Any, index: Any) -> Any:
    return None if column is None else column[index]
