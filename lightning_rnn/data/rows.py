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

from lightning_rnn.data.contents import BOM, show
from lightning_rnn.errors import DataError

if TYPE_CHECKING:
    import polars as pl

WHOLE = 1 << 62  # size of what is read in one piece
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
    found = False
    for rows in (_csv_tables if path.suffix.lower() == ".csv" else _parquet_tables)(path, size):
        if rows.frame.height:
            found = True
            yield rows
    if not found:
        raise DataError("found no rows, accepted is at least one")


def _csv_tables(path: Path, size: int) -> Iterator[Rows]:
    import polars as pl

    names: list[str] = []
    rest, lines_before, last = b"", 0, False
    with path.open("rb") as file:
        if file.read(len(BOM)) != BOM:
            file.seek(0)
        while not last:
            block = file.read(size if size < WHOLE else -1)
            last = len(block) < size
            raw, rest, lines, cells, begin, line_count = _records(rest + block, last, lines_before)
            lines_before += line_count
            if not len(lines):
                continue
            if not names:
                names = _column_names(raw[:begin], lines[0])
                raw, lines, cells = raw[begin:], lines[1:], cells[1:]
            ragged = np.flatnonzero(cells != len(names))
            if len(ragged):
                line, found = lines[ragged[0]], cells[ragged[0]]
                raise DataError(f"line {line}: found {found} cells, accepted is {len(names)} as in the header")
            # has_header=False keeps the names as they are; a mark in front keeps "x^" from being taken for compressed
            text = pl.Schema(dict.fromkeys(names, pl.String))
            frame = pl.read_csv(BOM + raw, has_header=False, schema=text, raise_if_empty=False)
            if frame.height != len(lines):
                raise DataError("found double quotes that do not pair, accepted is a pair around a whole cell")
            yield Rows(frame, "line", lines)
    if not names:
        raise DataError("the file is empty")


def _column_names(header: bytes, line: int) -> list[str]:
    names = [name.strip() for name in next(csv.reader(io.StringIO(header.decode(), newline="")), [])]
    for name, count in Counter(names).items():
        if not name or count > 1:
            raise DataError(
                f"line {line}: found column {show(name)} {count} times, accepted are distinct, filled names"
            )
    return names


def _records(raw: bytes, last: bool, before: int) -> tuple[bytes, bytes, np.ndarray, np.ndarray, int, int]:
    """Find the records in part of a CSV file, which quoted cells may stretch over lines.

    Returns:
        The whole records, without blank lines; what follows them unless `last`; each record's line, `before` being
        those in front, and cells; the bytes of the first record, and the lines of all.
    """
    data = np.frombuffer(raw, dtype=np.uint8)
    newline, comma = data == ord("\n"), data == ord(",")
    breaks = np.flatnonzero(newline)
    odd = False
    if b'"' in raw:
        quoted = np.logical_xor.accumulate(data == ord('"'))
        newline, comma, odd = newline & ~quoted, comma & ~quoted, bool(quoted[-1])
    starts = np.append(0, np.flatnonzero(newline) + 1)
    end = len(raw) if last else int(starts[-1])
    raw, rest, data, starts = raw[:end], raw[end:], data[:end], starts[starts < end]
    lines, count = np.searchsorted(breaks, starts) + before + 1, int(np.searchsorted(breaks, end))
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        line, byte = before + raw[: error.start].count(b"\n") + 1, raw[error.start : error.start + 1]
        raise DataError(f"line {line}: found byte {byte!r}, accepted is UTF-8 text") from error
    if not len(starts):
        return raw, rest, lines, lines, 0, count
    sizes = np.diff(starts, append=end)
    cells = np.add.reduceat(comma[:end], starts, dtype=np.int64) + 1
    filled = ~((data[starts] == ord("\n")) | ((data[starts] == ord("\r")) & (sizes == 2)))
    if odd and last and filled.any():
        line = lines[filled][-1]
        raise DataError(f"line {line}: found a double quote without its pair, accepted is a pair around a whole cell")
    if not filled.all():
        raw = data[np.repeat(filled, sizes)].tobytes()
    return raw, rest, lines[filled], cells[filled], int(sizes[filled][:1].sum()), count


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
