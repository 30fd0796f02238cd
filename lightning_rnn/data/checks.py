"""Conversion and checks of the arrays that `Sequences` stores."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_rnn.data.disk_rows import DiskRows
from lightning_rnn.errors import DataError, as_array

CHUNK_VALUES = 1 << 22  # numbers processed at once, so that data larger than memory can be read


def as_tensor(data: Any, name: str, dtype: torch.dtype) -> Tensor:
    """Convert to a CPU tensor of float32 or int64, without copying if possible."""
    is_integer = dtype == torch.int64
    expected = "integers" if is_integer else "real numbers"
    if isinstance(data, Tensor):
        if data.is_complex() or (is_integer and data.is_floating_point()):
            raise DataError(f"{name}: expected {expected}, got dtype {data.dtype}")
        return data.detach().cpu().to(dtype)
    array = as_array(data, name)
    if array.dtype.kind not in ("biu" if is_integer else "biuf"):
        raise DataError(f"{name}: expected {expected}, got dtype {array.dtype}")
    with np.errstate(over="ignore"):  # numbers too large for float32 become infinite
        array = np.asarray(array, dtype=np.int64 if is_integer else np.float32)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def as_values(data: Any) -> Tensor | DiskRows:
    """Convert to (rows, F) float32."""
    values: Tensor | DiskRows = data
    if not isinstance(data, DiskRows):
        values = as_tensor(data, "values", torch.float32)
    if values.ndim != 2 or values.shape[1] == 0:
        raise DataError(f"values: expected shape (steps, features), got {tuple(values.shape)}")
    return values


def as_lengths(data: Any, num_rows: int) -> Tensor:
    """Convert to (N,) int64 lengths of at least 1 that add up to `num_rows`."""
    lengths = as_tensor(data, "lengths", torch.int64)
    if lengths.ndim != 1 or len(lengths) == 0:
        expected = "shape (N,) with at least one sequence"
        raise DataError(f"lengths: expected {expected}, got {tuple(lengths.shape)}")
    if int(lengths.min()) < 1:
        at = int(lengths.argmin())
        raise DataError(f"lengths: expected at least 1, got {int(lengths[at])} for sequence {at}")
    total = int(lengths.double().sum())  # does not overflow
    if total != num_rows:
        expected = f"a sum of {num_rows}, the number of rows of values"
        raise DataError(f"lengths: expected {expected}, got a sum of {total}")
    return lengths


def check_finite(values: Tensor | DiskRows, offsets: Tensor, ids: np.ndarray | None) -> None:
    """Raise a DataError with the place of the first infinite value, if there is one."""
    chunk_rows = max(1, CHUNK_VALUES // values.shape[1])
    for start in range(0, len(values), chunk_rows):
        chunk = values[start : start + chunk_rows]
        infinite_rows = chunk.isinf().any(1).nonzero()
        if len(infinite_rows) == 0:
            continue
        row = int(infinite_rows[0])
        feature = int(chunk[row].isinf().nonzero()[0])
        sequence = int(torch.searchsorted(offsets, start + row, right=True)) - 1
        step = start + row - int(offsets[sequence])
        name = sequence if ids is None else repr(ids[sequence])
        where = f"sequence {name}, step {step}, feature {feature}"
        expected = "a finite float32 number, or NaN for a missing value"
        raise DataError(f"{where}: expected {expected}, got {float(chunk[row, feature])}")


def lengths_without_trailing_nan(
    values: Tensor | DiskRows, offsets: Tensor, lengths: Tensor
) -> Tensor:
    """Return the lengths up to the last step that has a value, but at least 1.

    Each round shortens all sequences whose last step is missing by one step.
    """
    lengths = lengths.clone()
    chunk_size = max(1, CHUNK_VALUES // values.shape[1])
    for candidates in torch.split(torch.arange(len(lengths)), chunk_size):
        while len(candidates):
            last_rows = offsets[candidates] + lengths[candidates] - 1
            is_missing = values.index_select(0, last_rows).isnan().all(1)
            candidates = candidates[is_missing & (lengths[candidates] > 1)]
            lengths[candidates] -= 1
    return lengths
