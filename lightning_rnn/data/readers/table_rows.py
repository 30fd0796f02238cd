"""The rows of CSV and Parquet files, all at once or piece by piece."""

import csv
import io
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lightning_rnn.data.readers.contents import BOM, show
from lightning_rnn.errors import DataError

if TYPE_CHECKING:
    import polars as pl

WHOLE = 1 << 62  # size of what is read in one piece
MAX_RECORD = 1 << 30  # bytes; what is longer has lost a double quote, and must not fill the memory
UNPAIRED = "found a double quote without its pair, accepted is a pair around a whole cell"
READ_PARQUET = """
import polars, sys
table = polars.scan_parquet(sys.argv[1], glob=False)
height = table.select(polars.len()).collect().item()
step = min(max(1, int(sys.argv[2]) // (8 * max(1, len(table.collect_schema())))), max(1, height))
for start in range(0, height, step):
    table.slice(start, step).collect()
print(height, step)
"""


class Rows(NamedTuple):
    """Rows of a table.

    Attributes:
        frame: The rows, all columns text if they are from a CSV file.
        unit: By what a row is known to the user, `line` or `row`.
        numbers: (rows,) int64, the number of each.
    """

    frame: "pl.DataFrame"
    unit: str
    numbers: np.ndarray

    def place(self, row: int) -> str:
        """Return how errors name a row."""
        return f"{self.unit} {self.numbers[row]}"


def tables(path: Path, size: int = WHOLE) -> Iterator[Rows]:
    """Yield the rows of a CSV or Parquet file, in order, about `size` bytes at a time.

    Raises:
        DataError: The file is damaged, or has no rows.
    """
    found = None
    for found in (_csv_tables if path.suffix.lower() == ".csv" else _parquet_tables)(path, size):
        yield found
    if found is None:
        raise DataError("found no rows, accepted is at least one")


def _csv_tables(path: Path, size: int) -> Iterator[Rows]:
    import polars as pl

    names: list[str] = []
    for piece, lines_before in _pieces(path, size):
        raw, lines, cells, begin = _records(piece, lines_before)
        if len(lines) and not names:
            names = _column_names(raw[:begin], lines[0])
            raw, lines, cells = raw[begin:], lines[1:], cells[1:]
        if not len(lines):
            continue
        ragged = np.flatnonzero(cells != len(names))
        if len(ragged):
            line, found = lines[ragged[0]], cells[ragged[0]]
            raise DataError(
                f"line {line}: found {found} cells, accepted is {len(names)} as in the header"
            )
        # has_header=False keeps the names as they are; a mark in front keeps "x^" from being taken for compressed data
        frame = pl.read_csv(
            BOM + raw, has_header=False, schema=pl.Schema(dict.fromkeys(names, pl.String))
        )
        if frame.height != len(lines):
            raise DataError(
                "found double quotes that do not pair, accepted is a pair around a whole cell"
            )
        yield Rows(frame, "line", lines)
    if not names:
        raise DataError("the file is empty")


def _pieces(path: Path, size: int) -> Iterator[tuple[bytes, int]]:
    """Yield whole records of a CSV file, and the number of lines in front of them."""
    rest, lines_before, last = b"", 0, False
    with path.open("rb") as file:
        if file.read(len(BOM)) != BOM:
            file.seek(0)
        while not last:
            block = file.read(size if size < WHOLE else -1)
            last = len(block) < size
            raw = rest + block
            end, quotes = len(raw), raw.count(b'"')
            while not last and (
                quotes % 2 or raw[end - 1 : end] not in (b"\n", b"")
            ):  # back to where a record ends
                begin = raw.rfind(b"\n", 0, end - 1) + 1
                quotes -= raw.count(b'"', begin, end)
                end = begin
            if end == 0 and len(raw) > MAX_RECORD:
                raise DataError(f"line {lines_before + 1}: {UNPAIRED}")
            yield raw[:end], lines_before
            rest, lines_before = raw[end:], lines_before + raw.count(b"\n", 0, end)


def _column_names(header: bytes, line: int) -> list[str]:
    names = [
        name.strip() for name in next(csv.reader(io.StringIO(header.decode(), newline="")), [])
    ]
    for name, count in Counter(names).items():
        if not name or count > 1:
            found = f"found column {show(name)} {count} times"
            raise DataError(f"line {line}: {found}, accepted are distinct, filled names")
    return names


def _records(raw: bytes, lines_before: int) -> tuple[bytes, np.ndarray, np.ndarray, int]:
    """Find the records of part of a CSV file, which quoted cells may stretch over lines.

    Return the part without blank lines, each record's line and number of cells, and where the second record starts.
    """
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        line, byte = (
            raw[: error.start].count(b"\n") + lines_before + 1,
            raw[error.start : error.start + 1],
        )
        raise DataError(f"line {line}: found byte {byte!r}, accepted is UTF-8 text") from error
    data = np.frombuffer(raw, dtype=np.uint8)
    newline, comma = data == ord("\n"), data == ord(",")
    breaks = np.flatnonzero(newline)
    if b'"' in raw:
        unquoted = ~np.logical_xor.accumulate(data == ord('"'))
        newline, comma = newline & unquoted, comma & unquoted
    starts = np.append(0, np.flatnonzero(newline) + 1)
    starts = starts[starts < len(raw)]
    sizes = np.diff(starts, append=len(raw))
    filled = ~((data[starts] == ord("\n")) | ((data[starts] == ord("\r")) & (sizes == 2)))
    if not filled.all():
        raw = data[np.repeat(filled, sizes)].tobytes()
    lines = (np.searchsorted(breaks, starts) + lines_before + 1)[filled]
    if raw.count(b'"') % 2:
        raise DataError(f"line {lines[-1]}: {UNPAIRED}")
    cells = np.add.reduceat(comma, starts, dtype=np.int64)[filled] + 1 if len(starts) else lines
    return raw, lines, cells, int(sizes[filled][:1].sum())


def _parquet_tables(path: Path, size: int) -> Iterator[Rows]:
    import polars as pl

    with path.open("rb") as file:
        if file.read(4) != b"PAR1":
            raise DataError("found no Parquet mark at its start, accepted is a Parquet file")
    # Some damage makes polars abort the process: a child reads the file first, and dies in our place.
    child = [sys.executable, "-P", "-c", READ_PARQUET, str(path), str(size)]
    probe = subprocess.run(child, stdin=subprocess.DEVNULL, capture_output=True)
    if probe.returncode or b"panicked" in probe.stderr:
        reason = probe.stderr.decode(errors="replace").strip().rpartition("\n")[2][:200]
        raise DataError(f"damaged, or not a Parquet file ({reason})")
    height, step = map(int, probe.stdout.split())
    table = pl.scan_parquet(path, glob=False)
    for start in range(0, height, step):
        frame = table.slice(start, step).collect()
        yield Rows(frame, "row", np.arange(start, start + frame.height))
