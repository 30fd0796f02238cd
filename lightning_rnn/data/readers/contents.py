"""What the readers have in common: contents of a file, options, checks and wording of errors.

Lines are counted from 1, as in editors; rows, sequences and steps from 0, as in NumPy.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lightning_rnn.categories import Categories, class_name
from lightning_rnn.data.sequences import Sequences
from lightning_rnn.errors import DataError, OptionError, check

MISSING_VALUE = "a missing value (empty, ?, NA, N/A, #N/A, <NA>, NaN, -nan, null or None)"
FINITE_NUMBERS = "finite float32 numbers or a missing value (empty, NaN, NA, null or ?)"
FLOAT32_OVERFLOW = 2.0**128 - 2.0**103  # from here on, numbers are rounded to infinity
FILE_NAME = "file_name"  # columns that tables have by the names of their files and folders
FOLDER_NAME = "folder_name"
NAMES_OF_PATH = (FILE_NAME, FOLDER_NAME)
DIFFERENT_COLUMNS = (
    ("id_column", "label_column"),
    ("time_column", "label_column"),
    ("time_column", "id_column"),
    ("time_column", "group_column"),
)
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
        step_labels: (sum of T_i,) names of the class of each step, or None without windows.
        has_windows: Whether the sequences are windows.
        categories: Categories of features, whose values are 1, 2, ... for them, or 0 if unknown.
    """

    sequences: Sequences
    labels: np.ndarray | None
    feature_names: list[str] | None
    time_kind: str | None = None
    step_names: list[str] | None = None
    ignored: tuple[str, ...] = ()
    step_labels: np.ndarray | None = None
    has_windows: bool = False
    categories: Categories = field(default_factory=dict)


@dataclass(frozen=True)
class ReadOptions:
    """What to read from a file.

    A folder written by `pack` needs only the options on features, missing values and windows.

    Attributes:
        label_column: Column of class names (CSV, Parquet), or `folder_name` for the name of the
            file's folder.
        id_column: Column with the name of a row's sequence (CSV, Parquet); each row is one time
            step. If None, each row is one sequence of a single feature, and each column one step.
            With `file_name` a file is a sequence, also an array (T, F) of .npy, .npz, .h5.
        time_column: Column that orders the steps of a sequence: numbers, ISO 8601 dates with or
            without time and offset to UTC, clock or elapsed times H:MM[:SS[.f]], or Parquet's dates
            and times. If None, rows keep their order.
        group_column: Column of groups; of files of arrays, any name requests the array of groups.
        feature_columns: Features in order. If None, every column without another role.
        category_columns: Features that are categories, not numbers.
        token_column: A further one of the `category_columns`.
        categories: Categories of features, in the order of their codes 1, 2, ...; if not given,
            those in the file in sorted order.
        unknown_categories: Whether other categories have the code 0, rather than being an error.
        only_features: Whether a further column without a role is an error.
        model_names: Names of the features, or of the time steps of a wide table, that a trained
            model expects; they replace `feature_columns`.
        one_row_per_sequence: Whether a row is a whole sequence although there is an id column. None
            for yes, unless an id is repeated or there is a time column.
        require_labels: Whether missing labels or groups are an error.
        time_format: Format of other times, such as `%m/%d/%Y %H:%M:%S%.f`, with the directives of
            polars (https://docs.rs/chrono/latest/chrono/format/strftime).
        separator: Character between the cells of a CSV file. If None, it is a comma, or a
            semicolon or tab if the header has only that.
        decimal_comma: Whether numbers in a CSV file have a decimal comma.
        encoding: Encoding of a CSV file, such as `latin-1`; None for UTF-8.
        missing_values: Numbers that stand for missing values of features, compared in float32.
        labels_path: Table of the ids, in the column `id_column` or `id`, and the class of each, in
            `label_column`; None if the classes are in the file itself.
        window_length: Number of steps of the windows to cut each sequence into; None for none. The
            class may then change from row to row of a table, and a group is a sequence.
        window_stride: Number of steps from one window to the next; None for `window_length`.
        window_label: Class of a window: that of its last step, of the majority of its steps, or
            `positive_class` if any step has it.
        positive_class: Class that a window has if any step has it, for `window_label`.
        max_cells: Number of cells above which a file is refused before it is read, see
            docs/data.md: rows times columns of Parquet, 2,000 for each column of a table, and 4
            for each byte of a line of text.

    Raises:
        OptionError: If the time format, the separator, a missing value or the windows cannot be
            used, or two options name the same column.

    Example:
        >>> from lightning_rnn import ReadOptions
        >>> options = ReadOptions(id_column="person", time_column="time", separator=";")
    """

    label_column: str = "label"
    id_column: str | None = None
    time_column: str | None = None
    group_column: str | None = None
    feature_columns: list[str] | None = None
    category_columns: list[str] | None = None
    token_column: str | None = None
    categories: Categories | None = None
    unknown_categories: bool = False
    only_features: bool = False
    model_names: list[str] | None = None
    one_row_per_sequence: bool | None = None
    require_labels: bool = True
    time_format: str | None = None
    separator: str | None = None
    decimal_comma: bool = False
    encoding: str | None = None
    missing_values: list[float] | None = None
    labels_path: str | None = None
    window_length: int | None = None
    window_stride: int | None = None
    window_label: Literal["last", "majority", "any"] = "last"
    positive_class: str | None = None
    max_cells: int = 200_000_000

    def __post_init__(self) -> None:
        """Check the options of the format and of windows."""
        for name, other in DIFFERENT_COLUMNS:
            column = getattr(self, name)
            is_different = column is None or column != getattr(self, other)
            check(is_different, f"{name} and {other}", column, "different columns")
        for name in ("window_length", "window_stride", "max_cells"):
            value = getattr(self, name)
            check(value is None or value >= 1, name, value, "an integer of at least 1")
        if self.window_stride is not None and self.window_length is None:
            got = str(self.window_stride)
            raise OptionError(f"expected also a window_length, got {got}", name="window_stride")
        if self.window_label == "any" and self.positive_class is None:
            raise OptionError("expected also a positive_class, got any", name="window_label")
        labels = ("last", "majority", "any")
        check(self.window_label in labels, "window_label", self.window_label, ", ".join(labels))
        for value in self.missing_values or []:
            is_finite = isinstance(value, int | float) and abs(value) < FLOAT32_OVERFLOW
            check(is_finite, "missing_values", self.missing_values, "finite float32 numbers")
        for words in (self.categories or {}).values():
            for word, count in Counter(words).items():
                is_usable = word == class_name(word) != "" and count == 1
                check(is_usable, "categories", word, "each name once, as read (7, not 7.0)")
        if self.separator is not None:
            is_usable = re.fullmatch(r'[^"\n\r\x80-\U0010ffff]|\\t', self.separator) is not None
            check(is_usable, "separator", self.separator, "one ASCII character")
        if self.time_format is not None:
            # polars would take the digits for nanoseconds, and add a wrong year to partial dates
            has_fraction = "%f" in self.time_format
            check(not has_fraction, "time_format", self.time_format, "%.f for a fraction")
            has_zone_name = "%Z" in self.time_format  # polars reads it, and ignores it
            check(not has_zone_name, "time_format", self.time_format, "%z, an offset to UTC")
            is_complete = self.has_date_format or not re.search("%[mdbBhejUW]", self.time_format)
            check(is_complete, "time_format", self.time_format, "a year in a format with a date")

    @property
    def category_names(self) -> list[str]:
        """Names of the features that are categories."""
        tokens = [] if self.token_column is None else [self.token_column]
        return [*dict.fromkeys([*(self.category_columns or []), *tokens, *(self.categories or {})])]

    @property
    def has_labels_elsewhere(self) -> bool:
        """Whether the classes are not in the files."""
        return self.labels_path is not None or self.label_column == FOLDER_NAME

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

    Missing ones are accepted if options are given that do not require labels in the file.
    """
    missing = np.flatnonzero(names == "")
    is_required = options is None or (options.require_labels and not options.has_labels_elsewhere)
    if len(missing) > 0 and is_required:
        raise unexpected(place(int(missing[0])), expected, MISSING_VALUE)
    return names


def choose_features(
    available: list[str], options: ReadOptions
) -> tuple[list[str], tuple[str, ...]]:
    """Return the names of the features to read, in order, and those of the others."""
    requested = available
    if options.model_names is not None:
        requested = options.model_names
    elif options.feature_columns is not None:
        requested = options.feature_columns
    expected = f"the features {join_names(requested)}"
    known = set(available)
    absent = [name for name in requested if name not in known]
    if absent:
        raise unexpected("", expected, f"no feature {join_names(absent)}")
    known = set(requested)
    further = [name for name in available if name not in known]
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


@contextmanager
def errors_with_path(path: Path | str) -> Iterator[None]:
    """Convert every exception of the block to a DataError that begins with the path."""
    try:
        yield
    except OptionError:
        raise
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except BaseException as error:  # parsers raise anything for damaged bytes
        # polars raises PanicException, which is not an Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        kind = f"a {Path(path).suffix} file"
        raise DataError(f"{path}: damaged, or not {kind} ({first_line(error)})") from error


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
