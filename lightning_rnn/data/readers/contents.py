"""What the readers have in common: contents of a file, options, checks and wording of errors.

Lines are counted from 1, as in editors; rows, sequences and steps from 0, as in NumPy.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lightning_rnn.data.sequences import Sequences
from lightning_rnn.errors import DataError, check

MISSING_VALUE = "a missing value (empty, ?, NA, N/A, #N/A, <NA>, NaN, null or None)"
FINITE_NUMBERS = "finite float32 numbers or a missing value (empty, NaN, NA, null or ?)"
UTF8 = "UTF-8 text (for a CSV file of another encoding set encoding)"
FLOAT32_OVERFLOW = 2.0**128 - 2.0**103  # from here on, numbers are rounded to infinity
MAX_NAMES = 20  # names that a message lists
MAX_CHARACTERS = 60  # of a quoted value


@dataclass(frozen=True)
class FileContents:
    """Contents of a sequence file.

    Attributes:
        sequences: N sequences without labels, with the ids of the file or row numbers.
        labels: (N,) object array of class names (see `class_name`), "" where the label is missing,
            or None if the file has none.
        feature_names: F names, or None for a format without them (all but long CSV and Parquet).
        step_names: Names of the columns that hold the time steps, or None for all but wide tables.
        ignored: Names of the columns that were not read.
        time_kind: Kind of the times that order the steps, as errors name it, or None without times.
    """

    sequences: Sequences
    labels: np.ndarray | None
    feature_names: list[str] | None
    time_kind: str | None = None
    step_names: list[str] | None = None
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReadOptions:
    """What to read from a file. A folder written by `pack` needs only the options on features.

    Attributes:
        label_column: Column of class names (CSV, Parquet).
        id_column: Column with the name of a row's sequence (CSV, Parquet); each row is one time
            step. If None, each row is one sequence of a single feature, and each column one step.
        time_column: Column that orders the steps of a sequence: numbers, ISO 8601 dates with or
            without time and offset to UTC, clock or elapsed times H:MM[:SS[.f]], or Parquet's dates
            and times. If None, rows keep their order.
        group_column: Column of groups; for .npz and .npy any name requests the array of groups.
        feature_columns: Features in order. If None, every column without another role.
        only_features: Whether a further column without a role is an error.
        model_names: Names of the features, or of the time steps of a wide table, that a trained
            model expects; they replace `feature_columns`.
        one_row_per_sequence: Whether a row is a whole sequence although there is an id column. If
            None, it is if no id is repeated and there is no time column.
        require_labels: Whether missing labels or groups are an error.
        time_format: Format of other times, such as `%m/%d/%Y %H:%M:%S%.f`, with the directives of
            polars (https://docs.rs/chrono/latest/chrono/format/strftime).
        separator: Character between the cells of a CSV file. If None, it is a comma, or a
            semicolon or tab if the header has only that.
        decimal_comma: Whether numbers in a CSV file have a decimal comma.
        encoding: Encoding of a CSV file, such as `latin-1`; None for UTF-8.
        missing_values: Numbers that stand for missing values of features, compared in float32.

    Raises:
        OptionError: If the time format, the separator or a missing value cannot be used.

    Example:
        >>> from lightning_rnn import ReadOptions
        >>> options = ReadOptions(id_column="person", time_column="time", separator=";")
    """

    label_column: str = "label"
    id_column: str | None = None
    time_column: str | None = None
    group_column: str | None = None
    feature_columns: list[str] | None = None
    only_features: bool = False
    model_names: list[str] | None = None
    one_row_per_sequence: bool | None = None
    require_labels: bool = True
    time_format: str | None = None
    separator: str | None = None
    decimal_comma: bool = False
    encoding: str | None = None
    missing_values: list[float] | None = None

    def __post_init__(self) -> None:
        """Check the options of the format."""
        is_finite = all(abs(value) < FLOAT32_OVERFLOW for value in self.missing_values or [])
        check(is_finite, "missing_values", self.missing_values, "finite float32 numbers")
        if self.separator is not None:
            is_usable = re.fullmatch(r'[^"\n\r\x80-\U0010ffff]|\\t', self.separator) is not None
            check(is_usable, "separator", self.separator, "one ASCII character")
        if self.time_format is not None:
            # polars would take the digits for nanoseconds, and add a wrong year to partial dates
            has_fraction = "%f" in self.time_format
            check(not has_fraction, "time_format", self.time_format, "%.f for a fraction")
            is_complete = self.has_date_format or not re.search("%[mdbBhejUW]", self.time_format)
            check(is_complete, "time_format", self.time_format, "a year in a format with a date")

    @property
    def has_date_format(self) -> bool:
        """Whether `time_format` contains a year."""
        return re.search("%[-_0]?[YyCGgFDxcsv+]", self.time_format or "") is not None


def row_ids(count: int) -> np.ndarray:
    """Return the ids "0", "1", ... of sequences that the file does not name."""
    return np.arange(count).astype(str).astype(object)


def complete(
    names: Any, expected: str, place: Callable[[int], str], options: ReadOptions | None = None
) -> Any:
    """Return (rows,) names, none of which may be missing, that is, "".

    Missing ones are accepted if options are given that do not require labels.
    """
    missing = np.flatnonzero(names == "")
    if len(missing) > 0 and (options is None or options.require_labels):
        raise unexpected(place(int(missing[0])), expected, MISSING_VALUE)
    return names


def choose_features(
    available: list[str], options: ReadOptions
) -> tuple[list[str], tuple[str, ...]]:
    """Return the names of the features to read, in order, and those of the others.

    Raises:
        DataError: If a feature is missing or requested twice, or others are not accepted.
    """
    requested = available
    if options.model_names is not None:
        requested = options.model_names
    elif options.feature_columns is not None:
        requested = options.feature_columns
    expected = f"the features {join_names(requested)}"
    absent = [name for name in requested if name not in set(available)]
    if absent:
        raise unexpected("", expected, f"no feature {join_names(absent)}")
    further = [name for name in available if name not in set(requested)]
    if further and options.only_features:
        raise unexpected("", expected, f"also {join_names(further)}")
    if options.only_features and options.one_row_per_sequence and requested != available:
        raise unexpected(
            "", f"time steps in the order {join_names(requested)}", join_names(available)
        )
    repeated = [name for name, count in Counter(requested).items() if count > 1]
    if repeated:
        raise unexpected("feature_columns", "each feature once", f"{join_names(repeated)} twice")
    return requested, tuple(further)


def utf8_lines(
    lines: Iterable[bytes], comments: tuple[bytes, ...] = ()
) -> Iterator[tuple[int, str]]:
    """Yield number and text of each line but the comments, which may be in any encoding."""
    for number, line in enumerate(lines, start=1):
        if line.lstrip().startswith(comments):
            continue
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            got = f"byte {line[error.start : error.start + 1]!r}"
            raise unexpected(f"line {number}", UTF8, got) from error
        yield number, text.removeprefix("\ufeff")  # the byte order mark


def unexpected(where: str, expected: str, got: str) -> DataError:
    """Return the error `<where>: expected <expected>, got <got>`; `where` is empty for the file."""
    message = f"expected {expected}, got {got}"
    return DataError(f"{where}: {message}" if where else message)


def quote(value: object) -> str:
    """Return a value in quotes, shortened if it is long."""
    text = repr(str(value))
    if len(text) <= MAX_CHARACTERS:
        return text
    return text[: MAX_CHARACTERS - 3] + "..."


def join_names(names: Iterable[object]) -> str:
    """Return quoted names separated by commas, at most 20 of them."""
    quoted = [quote(name) for name in names]
    text = ", ".join(quoted[:MAX_NAMES])
    if len(quoted) > MAX_NAMES:
        text += f" and {len(quoted) - MAX_NAMES} more"
    return text


def first_line(error: BaseException) -> str:
    """Return the first line of another library's error message."""
    lines = str(error).splitlines()
    if not lines or not lines[0]:
        return type(error).__name__
    return lines[0][:200]
