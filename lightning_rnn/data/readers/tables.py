"""Readers of CSV and Parquet files, one row a time step or one row a sequence."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_rnn.data.readers.contents import (
    MISSING,
    NUMBERS_ACCEPTED,
    FileContents,
    ReadOptions,
    choose_features,
    class_name,
    complete,
    listing,
    row_ids,
    show,
)
from lightning_rnn.data.readers.table_rows import Rows, tables
from lightning_rnn.data.sequences import Sequences
from lightning_rnn.errors import DataError

if TYPE_CHECKING:
    import polars as pl

TIME_KINDS: tuple[str, ...] = (
    "Int64",
    "Float64",
    "String",
)  # what text is read as, if all of it can be


def read_table(path: Path, wanted: ReadOptions) -> FileContents:
    """Read long form, one row a time step, where there is an id column; else wide form, one row a sequence."""
    return contents_of(next(tables(path)), wanted)[0]


def contents_of(
    rows: Rows, wanted: ReadOptions, time_kinds: tuple[str, ...] = TIME_KINDS
) -> tuple[FileContents, np.ndarray]:
    """Make sequences of rows.

    Args:
        rows: All rows of some sequences.
        wanted: Which columns are what.
        time_kinds: What text may be read as, see `read_times`.

    Returns:
        The sequences, in the order of their first rows, and the numbers (N,) of these.

    Raises:
        DataError: A column is missing, or a cell cannot be used.
    """
    frame, place, is_text = rows.frame, rows.place, rows.unit == "line"
    features = features_of(frame.columns, wanted)
    values = _feature_values(frame.select(features), is_text, place)  # (rows, F)
    labels = groups = None
    if wanted.label_column in frame.columns:
        names = text_column(frame[wanted.label_column], is_class=True)
        labels = complete(names, "label", place, wanted.require_labels)
    if wanted.group_column in frame.columns:
        groups = complete(text_column(frame[wanted.group_column]), "group", place)
    if wanted.id_column is None:
        ids, at, lengths = (
            row_ids(frame.height),
            np.arange(frame.height),
            np.full(frame.height, len(features)),
        )
        values = values.reshape(-1, 1)  # (N * T, 1)
    else:
        named = complete(text_column(frame[wanted.id_column]), "id", place)
        times = (
            None
            if wanted.time_column is None
            else read_times(frame[wanted.time_column], time_kinds)[0]
        )
        owner, order = _steps(named, times, place)
        for what, column in (("label", labels), ("group", groups)):
            if column is not None:
                _check_constant(column, what, named, owner, place)
        at, lengths = np.unique(owner, return_counts=True)
        ids, values = named[at].to_numpy(), values[order]
    labels, groups = (
        None if column is None else column[at].to_numpy() for column in (labels, groups)
    )
    sequences = Sequences(values, lengths, groups=groups, ids=ids)
    return FileContents(
        sequences, labels, None if wanted.id_column is None else features
    ), rows.numbers[at]


def features_of(columns: list[str], wanted: ReadOptions) -> list[str]:
    """Return the features in order, once every column that was asked for is there, and no other."""
    roles = {
        "label_column": wanted.label_column if wanted.require_labels else None,
        "id_column": wanted.id_column,
        "time_column": wanted.time_column,
        "group_column": wanted.group_column if wanted.require_labels else None,
    }
    for option, name in roles.items():
        if name is not None and name not in columns:
            raise DataError(
                f"{option}: found no column {show(name)}, accepted are {listing(columns)}"
            )
    taken = {wanted.label_column, wanted.group_column, *roles.values()}
    left = [name for name in columns if name not in taken]
    chosen = choose_features(left, wanted)
    if not left:
        raise DataError(
            f"found no feature columns besides {listing(columns)}, accepted is at least one"
        )
    return chosen


def _feature_values(
    frame: "pl.DataFrame", is_text: bool, place: Callable[[int], str]
) -> np.ndarray:
    """Return (rows, F) float32, NaN where a cell is missing."""
    import polars as pl

    values = np.empty(frame.shape, dtype=np.float32)
    for j, column in enumerate(frame.iter_columns()):
        if is_text:
            cells = column.str.strip_chars()
            cells = cells.set(cells.is_in(MISSING), None)
        elif column.dtype.is_numeric() or column.dtype in (pl.Boolean, pl.Null):
            cells = column
        else:
            raise DataError(
                f"column {show(column.name)}: found {column.dtype}, accepted are numbers and booleans"
            )
        numbers = cells.cast(pl.Float64, strict=False).cast(pl.Float32)
        bad = (cells.is_not_null() & (numbers.is_null() | numbers.is_infinite())).arg_true()
        if len(bad):
            where = f"{place(bad[0])}, column {show(column.name)}"
            raise DataError(f"{where}: found {show(column[bad[0]])}, {NUMBERS_ACCEPTED}")
        values[:, j] = numbers.fill_null(math.nan).to_numpy()
    return values


def text_column(column: "pl.Series", is_class: bool = False) -> "pl.Series":
    """Return stripped text, "" where there is none; classes, and any floats, in their canonical spelling."""
    import polars as pl

    _refuse_nested(column)
    text = column.cast(pl.String).fill_null("").str.strip_chars()
    if not is_class and not column.dtype.is_float():
        return text
    unique = text.unique()
    return text.replace_strict(
        unique, pl.Series([class_name(name) for name in unique], dtype=pl.String)
    )


def _refuse_nested(column: "pl.Series") -> None:
    if column.dtype.is_nested() or str(column.dtype) in ("Binary", "Object"):
        raise DataError(
            f"column {show(column.name)}: found {column.dtype}, accepted are text and numbers"
        )


def read_times(
    column: "pl.Series", kinds: tuple[str, ...] = TIME_KINDS
) -> tuple["pl.Series", tuple[str, ...]]:
    """Read text as the first of the kinds that fits all of it; other times stay as they are.

    Returns:
        The times, null where they are missing, and the kinds from the one that fits.
    """
    import polars as pl

    _refuse_nested(column)
    if column.dtype != pl.String:
        return column, kinds
    text = column.str.strip_chars()
    text = text.set(text == "", None)
    while (
        times := text.cast(getattr(pl, kinds[0]), strict=False)
    ).null_count() > text.null_count():
        kinds = kinds[1:]
    return times, kinds


def _steps(
    ids: "pl.Series", times: "pl.Series | None", place: Callable[[int], str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return (rows,) each row's sequence, as the first row of it, and (rows,) the rows by sequence, then by time."""
    import polars as pl

    rows = pl.DataFrame({"id": ids, "row": np.arange(len(ids))})
    owner = rows.select(pl.col("row").min().over("id"))["row"].to_numpy()
    if times is None:
        return owner, np.argsort(owner, kind="stable")
    missing = (times.fill_nan(None) if times.dtype.is_float() else times).is_null().arg_true()
    if len(missing):
        raise DataError(f"{place(missing[0])}: found no time, accepted is a number, a date or text")
    rank = times.rank("dense").to_numpy()
    order = np.lexsort((rank, owner))
    twice = np.flatnonzero((np.diff(owner[order]) == 0) & (np.diff(rank[order]) == 0))
    if len(twice):
        first, second = order[twice[0] : twice[0] + 2].tolist()
        what = f"id {show(ids[second])} and time {show(times[second])}"
        raise DataError(
            f"{place(second)}: found {what} as in {place(first)}, accepted is one row for each time"
        )
    return owner, order


def _check_constant(
    column: Any, what: str, ids: Any, owner: np.ndarray, place: Callable[[int], str]
) -> None:
    differs = np.flatnonzero(column != column[owner])
    if len(differs):
        row, first = int(differs[0]), int(owner[differs[0]])
        found, accepted = f"{what} {show(column[row])} in id {show(ids[row])}", show(column[first])
        raise DataError(f"{place(row)}: found {found}, accepted is {accepted} as in {place(first)}")
