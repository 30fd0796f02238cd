"""Times of steps: numbers, ISO 8601 dates, clock and elapsed times, or text in a given format."""

import re
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np

from lightning_rnn.data.readers.class_names import MISSING_WORDS
from lightning_rnn.data.readers.contents import ReadOptions
from lightning_rnn.data.readers.messages import MISSING_VALUE, first_line, quote, unexpected

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


def find_time_kind(column: "pl.Series", options: ReadOptions) -> str | None:
    """Return the kind of times in a column, or None if its first time is of no known kind.

    Args:
        column: (rows,) text, or times as Parquet stores them.
        options: May have a `time_format`, which decides about text.
    """
    import polars as pl

    column = _decode(column)
    if column.dtype != pl.String:
        return _stored_kind(column.dtype)
    if options.time_format is not None:
        if not options.has_date_format:
            return CLOCK_TIMES
        if re.search("%[:#]*z", options.time_format):
            return INSTANTS
        return DATES
    for cell in _cells(column, options).drop_nulls().head(1):
        for kind, pattern in PATTERNS.items():
            if re.fullmatch(pattern, cell):
                return kind
    return None


def _stored_kind(dtype: "pl.DataType") -> str:
    import polars as pl

    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        return INSTANTS
    if dtype in (pl.Date, pl.Datetime):
        return DATES
    if dtype in (pl.Time, pl.Duration):
        return CLOCK_TIMES
    return NUMBERS


def time_keys(
    column: "pl.Series", kind: str | None, options: ReadOptions, place: Callable[[int], str]
) -> np.ndarray:
    """Return (rows,) numbers that have the order of the times, equal for equal times.

    Args:
        column: (rows,) text, or times as Parquet stores them.
        kind: Kind of all the times, from `find_time_kind`.
        options: May have a `time_format`.
        place: Returns the description of a row for the error message.

    Raises:
        DataError: If a time is missing, or is not of the kind.
    """
    import polars as pl

    column = _decode(column)
    cells = column
    if column.dtype == pl.String:
        cells = _cells(column, options)
    elif column.dtype.is_float():
        cells = column.fill_nan(None)
    _check_each(cells.is_not_null(), column, place, "a time")
    if column.dtype != pl.String:
        return cells.rank("dense").to_numpy()
    if options.time_format is not None:
        target = pl.Datetime("us") if options.has_date_format else pl.Time
        try:
            times = cells.str.strptime(target, options.time_format, strict=False)
        except pl.exceptions.ComputeError as error:
            got = f"{options.time_format!r} ({first_line(error)})"
            raise unexpected("time_format", "a format of polars", got) from error
        _check_each(times.is_not_null(), column, place, f"a time as {options.time_format!r}")
        return times.to_physical().to_numpy()
    if kind is None:
        raise unexpected(place(0), ANY_TIME, quote(column[0]))
    expected = f"{kind} as in the first row ({ANY_TIME})"
    _check_each(cells.str.contains(PATTERNS[kind]), column, place, expected)
    if kind == NUMBERS:
        return _number_keys(cells)
    parts = cells.str.extract_groups(PATTERNS[kind]).struct.unnest()
    if kind == CLOCK_TIMES:
        _check_clock_times(parts, column, place)
        return _clock_keys(parts)
    days = parts["day"].str.to_date("%Y-%m-%d", strict=False)
    _check_each(days.is_not_null(), column, place, "a day of the calendar")
    return _date_keys(parts, days)


def _decode(column: "pl.Series") -> "pl.Series":
    """Return the text of categories, whose own order is not that of time."""
    import polars as pl

    if column.dtype in (pl.Categorical, pl.Enum):
        return column.cast(pl.String)
    return column


def _cells(column: "pl.Series", options: ReadOptions) -> "pl.Series":
    """Return the text of the times, null where it is missing."""
    cells = column.str.strip_chars()
    if options.decimal_comma and options.time_format is None:
        cells = cells.str.replace(",", ".", literal=True)
    return cells.set(cells.str.to_lowercase().is_in(MISSING_WORDS), None)


def _check_each(
    is_valid: "pl.Series", column: "pl.Series", place: Callable[[int], str], expected: str
) -> None:
    refused = np.flatnonzero(~is_valid.to_numpy())
    if len(refused):
        row = int(refused[0])
        text = column[row]
        is_missing = text is None or str(text).strip().lower() in MISSING_WORDS
        raise unexpected(place(row), expected, MISSING_VALUE if is_missing else quote(text))


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


def _check_clock_times(
    parts: "pl.DataFrame", column: "pl.Series", place: Callable[[int], str]
) -> None:
    """Refuse columns such as 59:30, 1:00:15, whose short times are minutes and seconds."""
    is_short = parts["second"].is_null()
    if not is_short.all():
        is_refused = is_short & (parts["hour"].str.len_bytes() > 2)
        is_refused |= is_short & (parts["hour"].str.zfill(2) >= "24")
        _check_each(~is_refused, column, place, "H:MM:SS as in other rows")


def _clock_keys(parts: "pl.DataFrame") -> np.ndarray:
    sign = np.where(parts["sign"] == "-", -1, 1)
    return _join_keys(sign * _seconds(parts), sign * _nanoseconds(parts))


def _date_keys(parts: "pl.DataFrame", days: "pl.Series") -> np.ndarray:
    seconds = _integers(days) * 86400 + _seconds(parts)
    if "sign" in parts.columns:
        sign = np.where(parts["sign"] == "-", -1, 1)
        offset_minutes = 60 * _integers(parts["offset_hour"]) + _integers(parts["offset_minute"])
        seconds = seconds - sign * offset_minutes * 60
    return _join_keys(seconds, _nanoseconds(parts))


def _integers(cells: "pl.Series") -> np.ndarray:
    import polars as pl

    return cells.cast(pl.Int64).fill_null(0).to_numpy()


def _seconds(parts: "pl.DataFrame") -> np.ndarray:
    minutes = 60 * _integers(parts["hour"]) + _integers(parts["minute"])
    return np.asarray(60 * minutes + _integers(parts["second"]))


def _nanoseconds(parts: "pl.DataFrame") -> np.ndarray:
    return _integers(parts["fraction"].str.pad_end(9, "0"))


def _join_keys(seconds: np.ndarray, nanoseconds: np.ndarray) -> np.ndarray:
    """Return one integer per time; the rank of the second is small enough to be multiplied."""
    _, ranks = np.unique(seconds, return_inverse=True)
    return np.asarray(ranks * 2 * 10**9 + nanoseconds)
