"""Reader of CSV and Parquet files with one row per time step or one row per sequence."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lightning_rnn.data.readers.class_names import MISSING, class_name
from lightning_rnn.data.readers.contents import (
    FileContents,
    ReadOptions,
    check_complete,
    choose_features,
    complete_labels,
    row_ids,
)
from lightning_rnn.data.readers.messages import FINITE_NUMBERS, join_names, quote, unexpected
from lightning_rnn.data.readers.table_rows import Rows, table_rows
from lightning_rnn.data.sequences import Sequences

if TYPE_CHECKING:
    import polars as pl

# polars types that times in text are read as, the first one that fits
TIME_TYPES: tuple[str, ...] = ("Int64", "Float64", "String")


def read_table(path: Path, options: ReadOptions) -> FileContents:
    """Read one time step per row if there is an id column, else one sequence per row."""
    (rows,) = table_rows(path)
    return table_contents(rows, options)[0]


def table_contents(
    rows: Rows, options: ReadOptions, time_types: tuple[str, ...] = TIME_TYPES
) -> tuple[FileContents, np.ndarray]:
    """Form sequences from rows.

    Args:
        rows: All rows of some sequences.
        options: Roles of the columns.
        time_types: Types that times may be read as, see `read_times`.

    Returns:
        The sequences in the order of their first rows, and the (N,) numbers of these rows.

    Raises:
        DataError: If a column is missing, or a cell is not as expected.
    """
    frame = rows.frame
    features = feature_columns(frame.columns, options)
    values = _feature_values(rows, features)  # (rows, F)
    labels = None
    if options.label_column in frame.columns:
        names = text_column(frame[options.label_column], is_class=True)
        labels = complete_labels(names, rows.place, options)
    groups = None
    if options.group_column is not None and options.group_column in frame.columns:
        groups = text_column(frame[options.group_column])
        check_complete(groups, "group", rows.place)
    if options.id_column is None:
        first_rows = np.arange(frame.height)
        ids = row_ids(frame.height)
        values = values.reshape(-1, 1)  # (N * T, 1)
        lengths = np.full(frame.height, len(features))
        feature_names = None
    else:
        row_names = text_column(frame[options.id_column])
        check_complete(row_names, "id", rows.place)
        owners = _first_rows_of_ids(row_names)
        for what, column in (("label", labels), ("group", groups)):
            if column is not None:
                _check_constant(column, what, row_names, owners, rows.place)
        order = _step_order(rows, row_names, owners, options, time_types)
        first_rows, lengths = np.unique(owners, return_counts=True)
        ids = row_names[first_rows].to_numpy()
        values = values[order]
        feature_names = features
    sequences = Sequences(values, lengths, groups=_pick(groups, first_rows), ids=ids)
    contents = FileContents(sequences, _pick(labels, first_rows), feature_names)
    return contents, rows.numbers[first_rows]


def _pick(column: "pl.Series | None", rows: np.ndarray) -> np.ndarray | None:
    return None if column is None else column[rows].to_numpy()


def feature_columns(columns: list[str], options: ReadOptions) -> list[str]:
    """Return the names of the features in order.

    Raises:
        DataError: If a column that the options name is missing, or there is no feature.
    """
    required = {"id_column": options.id_column, "time_column": options.time_column}
    if options.require_labels:
        required["label_column"] = options.label_column
        required["group_column"] = options.group_column
    for option, name in required.items():
        if name is not None and name not in columns:
            raise unexpected(option, f"one of the columns {join_names(columns)}", quote(name))
    has_role = {options.label_column, options.group_column, *required.values()}
    available = [name for name in columns if name not in has_role]
    chosen = choose_features(available, options)
    if not available:
        expected = "at least one column of a feature"
        raise unexpected("", expected, f"only the columns {join_names(columns)}")
    return chosen


def _feature_values(rows: Rows, features: list[str]) -> np.ndarray:
    """Return (rows, F) float32, NaN where a cell is missing."""
    import polars as pl

    values = np.empty((rows.frame.height, len(features)), dtype=np.float32)
    for i, name in enumerate(features):
        column = rows.frame[name]
        cells = column
        if rows.is_text:
            text = column.str.strip_chars()
            cells = text.set(text.is_in(MISSING), None)
        elif not (column.dtype.is_numeric() or column.dtype in (pl.Boolean, pl.Null)):
            raise unexpected(f"column {quote(name)}", "numbers or booleans", str(column.dtype))
        numbers = cells.cast(pl.Float64, strict=False).cast(pl.Float32)
        is_refused = cells.is_not_null() & (numbers.is_null() | numbers.is_infinite())
        if is_refused.any():
            row = int(is_refused.arg_true()[0])
            where = f"{rows.place(row)}, column {quote(name)}"
            raise unexpected(where, FINITE_NUMBERS, quote(column[row]))
        values[:, i] = numbers.fill_null(math.nan).to_numpy()
    return values


def text_column(column: "pl.Series", *, is_class: bool = False) -> "pl.Series":
    """Return stripped text, "" where it is missing; classes and floats in canonical spelling."""
    import polars as pl

    _check_not_nested(column)
    text = column.cast(pl.String).fill_null("").str.strip_chars()
    if not is_class and not column.dtype.is_float():
        return text
    unique = text.unique()
    names = pl.Series([class_name(name) for name in unique], dtype=pl.String)
    return text.replace_strict(unique, names)


def _check_not_nested(column: "pl.Series") -> None:
    if column.dtype.is_nested() or str(column.dtype) in ("Binary", "Object"):
        raise unexpected(f"column {quote(column.name)}", "text or numbers", str(column.dtype))


def read_times(
    column: "pl.Series", types: tuple[str, ...] = TIME_TYPES
) -> tuple["pl.Series", tuple[str, ...]]:
    """Parse times that are text; return others as they are.

    Args:
        column: (rows,) times.
        types: Types that text may be read as; the first one that fits all of it is used.

    Returns:
        The times, null where they are missing, and the types from the one that fits.
    """
    import polars as pl

    _check_not_nested(column)
    if column.dtype != pl.String:
        return column, types
    text = column.str.strip_chars()
    text = text.set(text == "", None)
    times = text.cast(getattr(pl, types[0]), strict=False)
    if times.null_count() > text.null_count():
        return read_times(column, types[1:])
    return times, types


def _first_rows_of_ids(ids: "pl.Series") -> np.ndarray:
    """Return (rows,) the first row that has the same id."""
    import polars as pl

    frame = pl.DataFrame({"id": ids, "row": np.arange(len(ids))})
    return frame.select(pl.col("row").min().over("id"))["row"].to_numpy()


def _step_order(
    rows: Rows,
    ids: "pl.Series",
    owners: np.ndarray,
    options: ReadOptions,
    time_types: tuple[str, ...],
) -> np.ndarray:
    """Return (rows,) the rows sorted by sequence, then by time or place in the file."""
    if options.time_column is None:
        return np.argsort(owners, kind="stable")
    times, _ = read_times(rows.frame[options.time_column], time_types)
    if times.dtype.is_float():
        times = times.fill_nan(None)
    if times.null_count():
        where = rows.place(times.is_null().arg_true()[0])
        raise unexpected(where, "a number, a date or text as time", "a missing value")
    ranks = times.rank("dense").to_numpy()
    order = np.lexsort((ranks, owners))
    is_repeated = (np.diff(owners[order]) == 0) & (np.diff(ranks[order]) == 0)
    if is_repeated.any():
        first, second = order[is_repeated.argmax() :][:2].tolist()
        got = f"id {quote(ids[second])} and time {quote(times[second])} as in {rows.place(first)}"
        raise unexpected(rows.place(second), "one row for each id and time", got)
    return order


def _check_constant(
    column: "pl.Series",
    what: str,
    ids: "pl.Series",
    owners: np.ndarray,
    place: Callable[[int], str],
) -> None:
    """Check that labels or groups are the same in all rows of a sequence."""
    is_different = (column != column[owners]).to_numpy()
    if is_different.any():
        row = int(is_different.argmax())
        first = int(owners[row])
        expected = f"{what} {quote(column[first])} as in {place(first)}, which has the same id"
        raise unexpected(place(row), expected, quote(column[row]))
