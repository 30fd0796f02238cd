"""Readers of CSV and Parquet files, one row a time step or one row a sequence."""

import csv
import io
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_rnn.data.contents import (
    BOM,
    MISSING,
    NUMBERS_ACCEPTED,
    FileContents,
    Wanted,
    class_name,
    complete,
    listing,
    row_ids,
    show,
)
from lightning_rnn.data.sequences import Sequences
from lightning_rnn.errors import DataError

if TYPE_CHECKING:
    import polars as pl


def _read_csv(path: Path) -> tuple["pl.DataFrame", Callable[[int], str]]:
    """Return every column as text, without blank lines, and what names a row's line."""
    import polars as pl

    raw = path.read_bytes().removeprefix(BOM)
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        line, byte = raw[: error.start].count(b"\n") + 1, raw[error.start : error.start + 1]
        raise DataError(f"line {line}: found byte {byte!r}, accepted is UTF-8 text") from error
    raw, body, lines, cells = _records(raw)
    if raw.count(b'"') % 2:
        raise DataError(
            f"line {lines[-1]}: found a double quote without its pair, accepted is a pair around a whole cell"
        )
    names = [name.strip() for name in next(csv.reader(io.StringIO(raw[:body].decode(), newline="")), [])]
    for name, count in Counter(names).items():
        if not name or count > 1:
            raise DataError(
                f"line {lines[0]}: found column {show(name)} {count} times, accepted are distinct, filled names"
            )
    ragged = np.flatnonzero(cells != len(names))
    if len(ragged):
        line, found = lines[ragged[0]], cells[ragged[0]]
        raise DataError(f"line {line}: found {found} cells, accepted is {len(names)} as in the header")
    # has_header=False keeps the names as they are; a mark in front keeps "x^" from being taken for compressed data
    text = pl.Schema(dict.fromkeys(names, pl.String))
    frame = pl.read_csv(BOM + raw[body:], has_header=False, schema=text, raise_if_empty=False)
    if frame.height != len(lines) - 1:
        raise DataError("found double quotes that do not pair, accepted is a pair around a whole cell")
    return frame, lambda row: f"line {lines[row + 1]}"


def _records(raw: bytes) -> tuple[bytes, int, np.ndarray, np.ndarray]:
    """Find the records of a CSV file, which quoted cells may stretch over lines.

    Returns:
        The file without blank lines, the byte at which the second record starts, and each record's line and cells.
    """
    data = np.frombuffer(raw, dtype=np.uint8)
    newline, comma = data == ord("\n"), data == ord(",")
    breaks = np.flatnonzero(newline)
    if b'"' in raw:
        unquoted = ~np.logical_xor.accumulate(data == ord('"'))
        newline, comma = newline & unquoted, comma & unquoted
    starts = np.append(0, np.flatnonzero(newline) + 1)
    starts = starts[starts < len(raw)]
    sizes = np.diff(starts, append=len(raw))
    cells = np.add.reduceat(comma, starts, dtype=np.int64) + 1
    filled = ~((data[starts] == ord("\n")) | ((data[starts] == ord("\r")) & (sizes == 2)))
    if not filled.any():
        raise DataError("the file is empty")
    if not filled.all():
        raw = data[np.repeat(filled, sizes)].tobytes()
    return raw, int(sizes[filled][0]), (np.searchsorted(breaks, starts) + 1)[filled], cells[filled]


def _read_parquet(path: Path) -> tuple["pl.DataFrame", Callable[[int], str]]:
    """Return the table and what names a row."""
    import polars as pl

    with path.open("rb") as file:
        if file.read(4) != b"PAR1":
            raise DataError("found no Parquet mark at its start, accepted is a Parquet file")
    # Some damage makes polars abort the process: a child reads the file first, and dies in our place.
    child = [sys.executable, "-P", "-c", "import polars, sys; polars.read_parquet(sys.argv[1], glob=False)", str(path)]
    probe = subprocess.run(child, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if probe.returncode or b"panicked" in probe.stderr:
        reason = probe.stderr.decode(errors="replace").strip().rpartition("\n")[2][:200]
        raise DataError(f"damaged, or not a Parquet file ({reason})")
    return pl.read_parquet(path, glob=False), "row {}".format


def read_table(path: Path, wanted: Wanted) -> FileContents:
    """Read long form, one row a time step, where there is an id column; else wide form, one row a sequence."""
    is_text = path.suffix.lower() == ".csv"
    frame, place = _read_csv(path) if is_text else _read_parquet(path)
    if frame.height == 0:
        raise DataError("found no rows, accepted is at least one")
    features = _feature_columns(frame.columns, wanted)
    values = _feature_values(frame.select(features), is_text, place)  # (rows, F)
    labels = groups = None
    if wanted.label_column in frame.columns:
        names = _text_column(frame[wanted.label_column], is_class=True)
        labels = complete(names, "label", place, wanted.require_labels)
    if wanted.group_column in frame.columns:
        groups = complete(_text_column(frame[wanted.group_column]), "group", place)
    if wanted.id_column is None:
        ids, at, lengths = row_ids(frame.height), np.arange(frame.height), np.full(frame.height, len(features))
        values = values.reshape(-1, 1)  # (N * T, 1)
    else:
        named = complete(_text_column(frame[wanted.id_column]), "id", place)
        times = None if wanted.time_column is None else frame[wanted.time_column]
        owner, order = _steps(named, times, place)
        for what, column in (("label", labels), ("group", groups)):
            if column is not None:
                _check_constant(column, what, named, owner, place)
        at, lengths = np.unique(owner, return_counts=True)
        ids, values = named[at].to_numpy(), values[order]
    labels, groups = (None if column is None else column[at].to_numpy() for column in (labels, groups))
    sequences = Sequences(values, lengths, groups=groups, ids=ids)
    return FileContents(sequences, labels, None if wanted.id_column is None else features)


def _feature_columns(columns: list[str], wanted: Wanted) -> list[str]:
    """Return the features in order, once every column that was asked for is there, and no other."""
    roles = {
        "label_column": wanted.label_column if wanted.require_labels else None,
        "id_column": wanted.id_column,
        "time_column": wanted.time_column,
        "group_column": wanted.group_column if wanted.require_labels else None,
    }
    for option, name in roles.items():
        if name is not None and name not in columns:
            raise DataError(f"{option}: found no column {show(name)}, accepted are {listing(columns)}")
    taken = {wanted.label_column, wanted.group_column, *roles.values()}
    left = [name for name in columns if name not in taken]
    asked = left if wanted.feature_columns is None else wanted.feature_columns
    has, asks = set(left), Counter(asked)
    for found, differ in (
        ("no feature", [name for name in asked if name not in has]),
        ("also", [name for name in left if name not in asks] if wanted.only_features else []),
        ("twice", [name for name, count in asks.items() if count > 1]),
    ):
        if differ:
            raise DataError(f"features that differ: found {found} {listing(differ)}, accepted are {listing(asked)}")
    if not left:
        raise DataError(f"found no feature columns besides {listing(columns)}, accepted is at least one")
    return asked


def _feature_values(frame: "pl.DataFrame", is_text: bool, place: Callable[[int], str]) -> np.ndarray:
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
            raise DataError(f"column {show(column.name)}: found {column.dtype}, accepted are numbers and booleans")
        numbers = cells.cast(pl.Float64, strict=False).cast(pl.Float32)
        bad = (cells.is_not_null() & (numbers.is_null() | numbers.is_infinite())).arg_true()
        if len(bad):
            where = f"{place(bad[0])}, column {show(column.name)}"
            raise DataError(f"{where}: found {show(column[bad[0]])}, {NUMBERS_ACCEPTED}")
        values[:, j] = numbers.fill_null(math.nan).to_numpy()
    return values


def _text_column(column: "pl.Series", is_class: bool = False) -> "pl.Series":
    """Return stripped text, "" where there is none; classes, and any floats, in their canonical spelling."""
    import polars as pl

    _refuse_nested(column)
    text = column.cast(pl.String).fill_null("").str.strip_chars()
    if not is_class and not column.dtype.is_float():
        return text
    unique = text.unique()
    return text.replace_strict(unique, pl.Series([class_name(name) for name in unique], dtype=pl.String))


def _refuse_nested(column: "pl.Series") -> None:
    if column.dtype.is_nested() or str(column.dtype) in ("Binary", "Object"):
        raise DataError(f"column {show(column.name)}: found {column.dtype}, accepted are text and numbers")


def _steps(ids: "pl.Series", times: "pl.Series | None", place: Callable[[int], str]) -> tuple[np.ndarray, np.ndarray]:
    """Find the sequence and the place of each row.

    Returns:
        owner: (rows,) first row of the sequence that each row belongs to.
        order: (rows,) rows by sequence, in order of first appearance, and within one by time.
    """
    import polars as pl

    rows = pl.DataFrame({"id": ids, "row": np.arange(len(ids))})
    owner = rows.select(pl.col("row").min().over("id"))["row"].to_numpy()
    if times is None:
        return owner, np.argsort(owner, kind="stable")
    _refuse_nested(times)
    if times.dtype == pl.String:
        text = times.str.strip_chars()
        text = text.set(text == "", None)
        readings = (text.cast(kind, strict=False) for kind in (pl.Int64, pl.Float64))
        times = next((reading for reading in readings if reading.null_count() == text.null_count()), text)
    missing = (times.fill_nan(None) if times.dtype.is_float() else times).is_null().arg_true()
    if len(missing):
        raise DataError(f"{place(missing[0])}: found no time, accepted is a number, a date or text")
    rank = times.rank("dense").to_numpy()
    order = np.lexsort((rank, owner))
    twice = np.flatnonzero((np.diff(owner[order]) == 0) & (np.diff(rank[order]) == 0))
    if len(twice):
        first, second = order[twice[0] : twice[0] + 2].tolist()
        what = f"id {show(ids[second])} and time {show(times[second])}"
        raise DataError(f"{place(second)}: found {what} as in {place(first)}, accepted is one row for each time")
    return owner, order


def _check_constant(column: Any, what: str, ids: Any, owner: np.ndarray, place: Callable[[int], str]) -> None:
    differs = np.flatnonzero(column != column[owner])
    if len(differs):
        row, first = int(differs[0]), int(owner[differs[0]])
        found, accepted = f"{what} {show(column[row])} in id {show(ids[row])}", show(column[first])
        raise DataError(f"{place(row)}: found {found}, accepted is {accepted} as in {place(first)}")
