"""Reader of CSV and Parquet files with one row per time step or one row per sequence."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lightning_rnn.data.readers.class_names import MISSING_WORDS, NUMBER, class_name
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
from lightning_rnn.data.readers.times import find_time_kind, time_keys
from lightning_rnn.data.sequences import Sequences

if TYPE_CHECKING:
    import polars as pl


def read_table(path: Path, options: ReadOptions) -> FileContents:
    """Read one time step per row if there is an id column, else one sequence per row."""
    (rows,) = table_rows(path, options)
    return table_contents(rows, options)[0]


def table_contents(
    rows: Rows, options: ReadOptions, time_kind: str | None = None
) -> tuple[FileContents, np.ndarray]:
    """Form sequences from rows.

    Args:
        rows: All rows of some sequences.
        options: Roles of the columns.
        time_kind: Kind of all times of the file; if None, the first row's is used.

    Returns:
        The sequences in the order of their first rows, and the (N,) numbers of these rows.

    Raises:
        DataError: If a column is missing, or a cell is not as expected.
    """
    frame = rows.frame
    features = feature_columns(frame.columns, options)
    values = _feature_values(rows, features, options)  # (rows, F)
    labels = None
    if options.label_column in frame.columns:
        names = _class_column(frame[options.label_column], options)
        labels = complete_labels(names, rows.place, options, "a label in every row")
    groups = None
    if options.group_column is not None and options.group_column in frame.columns:
        groups = text_column(frame[options.group_column])
        check_complete(groups, "a group", rows.place)
    if options.id_column is None:
        all_rows = np.arange(frame.height)
        lengths = np.full(frame.height, len(features))
        steps = values.reshape(-1, 1)  # (N * T, 1)
        ids = row_ids(frame.height)
        sequences = Sequences(steps, lengths, groups=_pick(groups, all_rows), ids=ids)
        return FileContents(sequences, _pick(labels, all_rows), None), rows.numbers
    row_names = text_column(frame[options.id_column])
    check_complete(row_names, "an id", rows.place)
    owners = _first_rows_of_ids(row_names)
    for what, column in (("label", labels), ("group", groups)):
        if column is not None:
            _check_constant(column, what, owners, rows.place)
    order = np.argsort(owners, kind="stable")
    if options.time_column is not None:
        times = frame[options.time_column]
        time_kind = time_kind or find_time_kind(times, options)
        keys = parse_times(rows, options, time_kind)
        order = np.lexsort((keys, owners))
        is_repeated = (np.diff(owners[order]) == 0) & (np.diff(keys[order]) == 0)
        if is_repeated.any():
            first, second = order[is_repeated.argmax() :][:2].tolist()
            got = f"id {quote(row_names[second])} and time {quote(times[second])}"
            got += f" as in {rows.place(first)}"
            raise unexpected(rows.place(second), "one row for each id and time", got)
    first_rows, lengths = np.unique(owners, return_counts=True)
    ids = row_names[first_rows].to_numpy()
    sequences = Sequences(values[order], lengths, groups=_pick(groups, first_rows), ids=ids)
    contents = FileContents(sequences, _pick(labels, first_rows), features, time_kind)
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
            expected = f"one of the columns {join_names(columns)}"
            if any(re.search("[;|\t]", column) for column in columns):
                expected += " (set separator if it is not the comma)"
            raise unexpected(option, expected, quote(name))
    has_role = {options.label_column, options.group_column, *required.values()}
    available = [name for name in columns if name not in has_role]
    chosen = choose_features(available, options)
    if not available:
        expected = "at least one column of a feature"
        raise unexpected("", expected, f"only the columns {join_names(columns)}")
    return chosen


def _feature_values(rows: Rows, features: list[str], options: ReadOptions) -> np.ndarray:
    """Return (rows, F) float32, NaN where a cell is missing."""
    import polars as pl

    values = np.empty((rows.frame.height, len(features)), dtype=np.float32)
    for i, name in enumerate(features):
        column = rows.frame[name]
        cells = column
        if rows.is_text:
            cells = column.str.strip_chars()
            cells = cells.set(cells.str.to_lowercase().is_in(MISSING_WORDS), None)
            if options.decimal_comma:  # a point, as in 1.234,5, makes the cell invalid
                cells = cells.str.replace_all(".", "_", literal=True)
                cells = cells.str.replace(",", ".", literal=True)
        elif not (column.dtype.is_numeric() or column.dtype in (pl.Boolean, pl.Null)):
            raise unexpected(f"column {quote(name)}", "numbers or booleans", str(column.dtype))
        numbers = cells.cast(pl.Float64, strict=False).cast(pl.Float32)
        is_refused = cells.is_not_null() & (numbers.is_null() | numbers.is_infinite())
        if is_refused.any():
            row = int(is_refused.arg_true()[0])
            expected = FINITE_NUMBERS
            if rows.is_text and re.search("[0-9],[0-9]", column[row]):
                expected += "; for decimal commas set decimal_comma, and separator if it is ','"
            raise unexpected(
                f"{rows.place(row)}, column {quote(name)}", expected, quote(column[row])
            )
        values[:, i] = numbers.fill_null(math.nan).to_numpy()
    return values


def text_column(column: "pl.Series") -> "pl.Series":
    """Return stripped text, "" where it is missing; floats are spelt as classes are."""
    import polars as pl

    _check_not_nested(column)
    if column.dtype.is_float():
        return _class_column(column, ReadOptions())
    text = column.cast(pl.String).fill_null("").str.strip_chars()
    return text.set(text.str.to_lowercase().is_in(MISSING_WORDS), "")


def _class_column(column: "pl.Series", options: ReadOptions) -> "pl.Series":
    """Return canonical class names, "" where they are missing."""
    import polars as pl

    _check_not_nested(column)
    text = column.cast(pl.String).fill_null("").str.strip_chars()
    unique = text.unique()
    names = []
    for name in unique:
        with_point = name.replace(",", ".")
        is_number = options.decimal_comma and NUMBER.fullmatch(with_point)
        names.append(class_name(with_point if is_number else name))
    return text.replace_strict(unique, pl.Series(names, dtype=pl.String))


def _check_not_nested(column: "pl.Series") -> None:
    if column.dtype.is_nested() or str(column.dtype) in ("Binary", "Object"):
        raise unexpected(f"column {quote(column.name)}", "text or numbers", str(column.dtype))


def parse_times(rows: Rows, options: ReadOptions, kind: str | None) -> np.ndarray:
    """Return (rows,) sortable keys of the times, all of which must be of the given kind."""
    assert options.time_column is not None
    column = rows.frame[options.time_column]
    _check_not_nested(column)

    def place(row: int) -> str:
        return f"{rows.place(row)}, column {quote(column.name)}"

    return time_keys(column, kind, options, place)


def _first_rows_of_ids(ids: "pl.Series") -> np.ndarray:
    """Return (rows,) the first row that has the same id."""
    import polars as pl

    frame = pl.DataFrame({"id": ids, "row": np.arange(len(ids))})
    return frame.select(pl.col("row").min().over("id"))["row"].to_numpy()


def _check_constant(
    column: "pl.Series", what: str, owners: np.ndarray, place: Callable[[int], str]
) -> None:
    """Check that labels or groups are the same in all rows of a sequence."""
    is_different = (column != column[owners]).to_numpy()
    if is_different.any():
        row = int(is_different.argmax())
        first = int(owners[row])
        expected = f"{what} {quote(column[first])} as in {place(first)}, which has the same id"
        raise unexpected(place(row), expected, quote(column[row]))
