"""Conversion and checks of the arrays that `Sequences` stores."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_rnn.data.disk_rows import DiskRows
from lightning_rnn.errors import DataError, as_array

CHUNK_VALUES = 1 << 22  # numbers processed at once, so that data larger than memory can be read
CACHED_VALUES = 1 << 16  # numbers of which several copies fit into a processor's cache
MAX_CHANGE = 0.01  # when numbers are rounded to float32, in standard deviations
WIDE_DTYPES = (torch.float64, torch.int64, torch.int32)  # with more digits than float32


def as_tensor(data: Any, name: str, dtype: torch.dtype | None = None) -> Tensor:
    """Convert to a CPU tensor of int64, or else of float32 if it holds all digits, or float64."""
    is_integer = dtype == torch.int64
    expected = "integers" if is_integer else "real numbers"
    if isinstance(data, Tensor):
        if data.is_complex() or (is_integer and data.is_floating_point()):
            raise DataError(f"{name}: expected {expected}, got dtype {data.dtype}")
        real = torch.float64 if data.dtype in WIDE_DTYPES else torch.float32
        return data.detach().cpu().to(dtype or real)
    array = as_array(data, name)
    if array.dtype.kind not in ("biu" if is_integer else "biuf"):
        raise DataError(f"{name}: expected {expected}, got dtype {array.dtype}")
    real_dtype = np.float32 if np.can_cast(array.dtype, np.float32) else np.float64
    array = np.asarray(array, dtype=np.int64 if is_integer else real_dtype)
    is_readable = array.flags.writeable and min(array.strides, default=0) >= 0  # by torch
    return torch.from_numpy(array if is_readable else array.copy())


def as_values(exact: Tensor, missing_values: list[float] | None) -> Tensor:
    """Convert to (rows, F) float32, with NaN in place of `missing_values`."""
    values = exact.float()  # numbers too large become infinite
    if values.ndim != 2 or values.shape[1] == 0:
        raise DataError(f"values: expected shape (steps, features), got {tuple(values.shape)}")
    if missing_values:
        marks = torch.tensor(missing_values, dtype=torch.float32)
        return values.masked_fill(torch.isin(values, marks), torch.nan)
    return values


def rounding_of(data: Any, missing_values: list[float] | None) -> Tensor:
    """Return the `rounding` of `Sequences` for numbers in a (rows, F) array or tensor."""
    rounding = torch.full((5, data.shape[1]), -torch.inf, dtype=torch.float64)
    chunk_rows = max(1, CACHED_VALUES // data.shape[1])
    for start in range(0, len(data), chunk_rows):
        chunk = as_tensor(data[start : start + chunk_rows], "values")
        if chunk.dtype == torch.float32:
            break
        rounded = as_values(chunk, missing_values).double()
        numbers = chunk.masked_fill(rounded.isnan(), torch.nan)
        columns = [-numbers, numbers, (rounded - numbers).abs()]
        found = [each.nan_to_num(-torch.inf, torch.inf).amax(0) for each in columns]
        if (torch.stack(found[:2]) >= 2**53).any():
            remainder = _remainders(data[start : start + chunk_rows], chunk) + 0 * numbers
            found += [(-remainder).nan_to_num(-torch.inf).amax(0)]
            found += [remainder.nan_to_num(-torch.inf).amax(0)]
        rounding[: len(found)] = torch.maximum(rounding[: len(found)], torch.stack(found))
    return rounding


def check_integers(data: Any, name: str) -> None:
    """Check that float64 holds the integers of a sequence; others could become equal."""
    array = data.detach().cpu().numpy() if isinstance(data, Tensor) else np.asarray(data)
    if array.dtype.kind in "iu":
        for value in array[np.abs(array.astype(np.float64)) >= 2**53].tolist():
            if value != int(float(value)):
                raise DataError(f"{name}: expected integers that float64 holds, got {value}")


def _remainders(data: Any, rounded: Tensor) -> Tensor:
    """Return what is lost of (rows, F) numbers when they are rounded to float64."""
    array = data.detach().cpu().numpy() if isinstance(data, Tensor) else np.asarray(data)
    if array.dtype.kind not in "iu":
        return torch.zeros_like(rounded)
    high = (array >> 32).astype(np.float64) * 2.0**32
    low = (array & (2**32 - 1)).astype(np.float64)
    return torch.from_numpy(high) - rounded + torch.from_numpy(low)


def check_rounding(rounding: Tensor, std: Tensor, names: list[str] | None) -> None:
    """Check that float32 tells the numbers of each feature apart; see `Sequences.moments`.

    A `std` is NaN if it is 0 but for rounding. Differences in the last digits of float64, which
    calculations leave behind, may be lost.
    """
    low, high = -rounding[0], rounding[1]
    lost_by_float64 = rounding[3] + rounding[4]
    change = torch.maximum(rounding[2], lost_by_float64)
    noise = (1e-14 * torch.maximum(low.abs(), high.abs())).clamp(max=0.5)
    spread = torch.where(std.isnan(), high - low, std)
    is_rounded_away = (change > MAX_CHANGE * spread) & (high - low > noise)
    lost = is_rounded_away | ((high == low) & (lost_by_float64 > 0))
    if lost.any():
        found = lost.nonzero().flatten().tolist()
        named = ", ".join(str(i) if names is None else repr(names[i]) for i in found)
        i = found[0]
        expected = "values that float32 tells apart (subtract a constant or leave the feature out)"
        got = f"{low[i]:.17g} to {high[i]:.17g}, rounded by up to {change[i]:.2g}"
        raise DataError(f"feature {named}: expected {expected}, got {got}")


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
    chunk_rows = max(1, CACHED_VALUES // values.shape[1])
    for start in range(0, len(values), chunk_rows):
        chunk = values[start : start + chunk_rows]
        is_infinite = chunk.isinf()
        if not is_infinite.any():
            continue
        row = int(is_infinite.any(1).nonzero()[0])
        feature = int(is_infinite[row].nonzero()[0])
        sequence = int(torch.searchsorted(offsets, start + row, right=True)) - 1
        step = start + row - int(offsets[sequence])
        name = sequence if ids is None else repr(ids[sequence])
        where = f"sequence {name}, step {step}, feature {feature}"
        expected = "a finite float32 number, or NaN for a missing value"
        raise DataError(f"{where}: expected {expected}, got {float(chunk[row, feature])}")


def lengths_without_trailing_nan(
    values: Tensor | DiskRows, offsets: Tensor, lengths: Tensor
) -> Tensor:
    """Return the lengths up to the last step that has a value, but at least 1."""
    lengths = lengths.clone()
    chunk_rows = max(1, CACHED_VALUES // values.shape[1])
    chunk_of = (lengths.cumsum(0) - 1) // chunk_rows
    sizes = np.unique(chunk_of.numpy(), return_counts=True)[1].tolist()
    parts = zip(torch.split(offsets, sizes), torch.split(lengths, sizes), strict=True)
    for first_rows, part in parts:
        if not values.index_select(0, first_rows + part - 1).isnan().all(1).any():
            continue
        ends = part.cumsum(0)
        has_value = ~rows_of(values, first_rows, part).isnan().all(1)
        numbers = torch.arange(1, len(has_value) + 1) * has_value  # 0 where all is missing
        last = np.maximum.reduceat(numbers.numpy(), (ends - part).numpy())
        part += (torch.from_numpy(last) - ends).clamp(min=1 - part)  # a view of `lengths`
    return lengths


def rows_of(values: Tensor | DiskRows, offsets: Tensor, lengths: Tensor) -> Tensor:
    """Return the rows of some sequences one after the other, a view if they follow each other."""
    ends = offsets + lengths
    if isinstance(values, Tensor) and torch.equal(offsets[1:], ends[:-1]):
        return values[int(offsets[0]) : int(ends[-1])]
    shift = offsets - (lengths.cumsum(0) - lengths)
    rows = torch.arange(int(lengths.sum())) + shift.repeat_interleave(lengths)
    return values.index_select(0, rows)
