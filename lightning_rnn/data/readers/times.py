"""Times of steps: numbers, ISO 8601 dates, clock and elapsed times, or text in a given format."""

import re
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np

from lightning_rnn.categories import is_missing
from lightning_rnn.data.readers.class_names import known_text
from lightning_rnn.data.readers.contents import (
    MISSING_VALUE,
    ReadOptions,
    first_line,
    quote,
    unexpected,
)

if TYPE_CHECKING:
    import polars as pl

NUMBERS = "numbers"
DATES = "dates without an offset to UTC"
INSTANTS = "dates with an offset to UTC"
CLOCK_TIMES = "clock or elapsed times"

_MINUTES = r"(?P<minute>[0-5][0-9])(?::(?P<second>[0-5][0-9]|60)(?:[.,](?P<fraction>[0-9]{1,9}))?)?"
_DAY = r"(?P<day>[0-9]{4}-[0-9]{2}-[0-9]{2})"
_TIME_OF_DAY = rf"[Tt ](?P<hour>[01][0-9]|2[0-3]):{_MINUTES}"
_OFFSET = r" ?(?:[Zz]|UTC|(?P<sign>[+-])(?P<offset_hour>[0-9]{2}):?(?P<offset_minute>[0-9]{2})?)"
PATTERNS = {
    NUMBERS: r"^[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?$",
    DATES: rf"^{_DAY}(?:{_TIME_OF_DAY})?$",
    INSTANTS: rf"^{_DAY}{_TIME_OF_DAY}{_OFFSET}$",
    CLOCK_TIMES: rf"^(?P<sign>-?)(?P<hour>[0-9]{{1,9}}):{_MINUTES}$",
}
ANY_TIME = "a number, an ISO 8601 date, or H:MM[:SS[.f]]; for other times set time_format"


def time_keys(
    column: "pl.Series", kind: str | None, options: ReadOptions, place: Callable[[int], str]
) -> tuple[np.ndarray, str]:
    """Return (rows,) numbers that have the order of the times, and the kind of the times.

    The column (rows,) has text, or times as Parquet stores them, all of them of one kind; if it is
    None, of that of the first. `place` returns the description of a row for the error message.
    """
    import polars as pl

    cells = _cells(column, options)
    _check_each(cells.is_not_null(), column, place, "a time")
    if cells.dtype != pl.String:
        return cells.rank("dense").to_numpy(), _stored_kind(cells.dtype)
    time_format = options.time_format
    if time_format is not None:
        target = pl.Datetime("us") if options.has_date_format else pl.Time
        try:
            times = cells.str.strptime(target, time_format, strict=False)
        except pl.exceptions.ComputeError as error:
            got = f"{time_format!r} ({first_line(error)})"
            raise unexpected("time_format", "a format of polars", got) from error
        _check_each(times.is_not_null(), column, place, f"a time as {time_format!r}")
        return times.to_physical().to_numpy(), _stored_kind(times.dtype)
    if kind is None:
        kinds = [kind for kind, pattern in PATTERNS.items() if re.fullmatch(pattern, cells[0])]
        if not kinds:
            raise unexpected(place(0), ANY_TIME, quote(column[0]))
        kind = kinds[0]
    expected = f"{kind} as in the first row ({ANY_TIME})"
    _check_each(cells.str.contains(PATTERNS[kind]), column, place, expected)
    if kind == NUMBERS:
        return _number_keys(cells), kind
    parts = cells.str.extract_groups(PATTERNS[kind]).struct.unnest()
    if kind == CLOCK_TIMES:
        is_short = parts["second"].is_null()
        if not is_short.all():  # in columns such as 59:30, 1:00:15 the short times are minutes
            is_hour = parts["hour"].str.zfill(9) < "000000024"
            _check_each(~is_short | is_hour, column, place, "H:MM:SS as in other rows")
    else:
        days = parts["day"].str.to_date("%Y-%m-%d", strict=False)
        _check_each(days.is_not_null(), column, place, "a day of the calendar")
        parts = parts.with_columns(days)
    return _exact_keys(parts, kind), kind


def _stored_kind(dtype: "pl.DataType") -> str:
    import polars as pl

    if dtype in (pl.Date, pl.Datetime):
        has_offset = getattr(dtype, "time_zone", None) is not None
        return INSTANTS if has_offset else DATES
    return CLOCK_TIMES if dtype in (pl.Time, pl.Duration) else NUMBERS


def _cells(column: "pl.Series", options: ReadOptions) -> "pl.Series":
    """Return the times, null where they are missing."""
    import polars as pl

    if column.dtype in (pl.Categorical, pl.Enum):  # their own order is not that of time
        column = column.cast(pl.String)
    if column.dtype.is_float():
        return column.fill_nan(None)
    if column.dtype != pl.String:
        return column
    if options.decimal_comma and options.time_format is None:
        column = column.str.replace(",", ".", literal=True)
    return known_text(column)


def _check_each(
    is_valid: "pl.Series", column: "pl.Series", place: Callable[[int], str], expected: str
) -> None:
    refused = np.flatnonzero(~is_valid.to_numpy())
    if len(refused):
        row = int(refused[0])
        text = column[row]
        got = MISSING_VALUE if is_missing(str(text)) else quote(text)
        raise unexpected(place(row), expected, got)


def _number_keys(cells: "pl.Series") -> np.ndarray:
    import polars as pl

    integers = cells.cast(pl.Int64, strict=False)
    if not integers.null_count():
        return integers.to_numpy()
    # float64 tells numbers of up to 15 digits apart
    if not (cells.str.len_bytes() > 15).any() and not cells.str.contains("[eE]").any():
        return cells.cast(pl.Float64).to_numpy()
    values = [Decimal(cell) for cell in cells]
    ranks = {value: rank for rank, value in enumerate(sorted(set(values)))}
    return np.array([ranks[value] for value in values])


def _exact_keys(parts: "pl.DataFrame", kind: str) -> np.ndarray:
    """Return keys of nanosecond precision of the parts of clock times or dates."""
    seconds = 3600 * _integers(parts["hour"]) + 60 * _integers(parts["minute"])
    seconds += _integers(parts["second"])
    nanoseconds = _integers(parts["fraction"].str.pad_end(9, "0"))
    if "day" in parts.columns:
        seconds += 86400 * _integers(parts["day"])
    if "sign" in parts.columns:
        sign = np.where(parts["sign"] == "-", -1, 1)
        if kind == CLOCK_TIMES:
            seconds *= sign
            nanoseconds *= sign
        else:
            offset_minutes = _integers(parts["offset_minute"])
            offset_minutes += 60 * _integers(parts["offset_hour"])
            seconds -= 60 * sign * offset_minutes
    # the rank of the second, unlike the second, is small enough to be multiplied
    _, ranks = np.unique(seconds, return_inverse=True)
    return np.asarray(ranks * 2 * 10**9 + nanoseconds)


def _integers(cells: "pl.Series") -> np.ndarray:
    import polars as pl

    return cells.cast(pl.Int64).fill_null(0).to_numpy(writable=True)
