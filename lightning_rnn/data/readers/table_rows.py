"""The rows of CSV and Parquet files, all at once or piece by piece."""

import csv
import gzip
import io
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from lightning_rnn.data.readers import decode_parquet
from lightning_rnn.data.readers.contents import BOM, ReadOptions
from lightning_rnn.data.readers.messages import first_line, quote, unexpected
from lightning_rnn.errors import DataError

if TYPE_CHECKING:
    import polars as pl

# A double quote without its pair turns the rest of the file into one record, which may not fit in
# memory; records of more bytes than this are refused.
MAX_RECORD = 1 << 30
GZIP_MAGIC = b"\x1f\x8b"
PAIRED_QUOTES = "a pair of double quotes around a whole cell"
UNPAIRED_QUOTE = "a double quote without its pair"


@dataclass(frozen=True)
class Rows:
    """Some rows of a table.

    Attributes:
        frame: The rows; all columns are text if they come from a CSV file.
        is_text: Whether they come from a CSV file.
        numbers: (rows,) int64, the line or row of each in the file.
    """

    frame: "pl.DataFrame"
    is_text: bool
    numbers: np.ndarray

    def place(self, row: int) -> str:
        """Return how error messages name a row."""
        unit = "line" if self.is_text else "row"
        return f"{unit} {self.numbers[row]}"


def table_rows(path: Path, options: ReadOptions, size: int = -1) -> Iterator[Rows]:
    """Yield the rows of a CSV or Parquet file in order.

    Args:
        path: The file.
        options: Separator and encoding of a CSV file.
        size: Approximate number of bytes to yield at a time; if negative, the rows come all at
            once.

    Raises:
        DataError: If the file is damaged or has no rows.
    """
    is_parquet = path.suffix.lower() == ".parquet"
    num_rows = 0
    for rows in _parquet_rows(path, size) if is_parquet else _csv_rows(path, options, size):
        num_rows += rows.frame.height
        yield rows
    if num_rows == 0:
        raise unexpected("", "at least one row", "none")


def _csv_rows(path: Path, options: ReadOptions, size: int) -> Iterator[Rows]:
    import polars as pl

    with _open_csv(path, options.encoding) as file:
        separator = options.separator
        header, line = _read_header(file)
        excel_separator = re.fullmatch(rb"sep=([ -~\t])\r?\n", header)
        if excel_separator:
            separator = excel_separator[1].decode()
            header, more_lines = _read_header(file)
            line += more_lines
        _check_header(header, line)
        separator = separator or _find_separator(header.decode())
        separator = separator.replace("\\t", "\t")
        names = _column_names(header.decode(), line, separator)
        schema = pl.Schema(dict.fromkeys(names, pl.String))
        for piece, lines_before in _whole_records(file, size, line):
            raw, lines, num_cells = _find_records(piece, lines_before, separator)
            if not len(lines):
                continue
            ragged = np.flatnonzero(num_cells != len(names))
            if len(ragged):
                where = f"line {lines[ragged[0]]}"
                expected = f"{len(names)} cells as in the header, separated by {separator!r}"
                expected += " (for others set separator, encoding or decimal_comma)"
                raise unexpected(where, expected, str(num_cells[ragged[0]]))
            # without the byte order mark polars takes text such as "x^" for compressed data
            frame = pl.read_csv(BOM + raw, has_header=False, schema=schema, separator=separator)
            if frame.height != len(lines):
                raise unexpected("", PAIRED_QUOTES, "double quotes inside a cell")
            yield Rows(frame, is_text=True, numbers=lines)


@contextmanager
def _open_csv(path: Path, encoding: str | None) -> Iterator[BinaryIO]:
    """Open a CSV file, which may be compressed by gzip, as UTF-8 after the byte order mark."""
    with path.open("rb") as file, TemporaryFile() as converted:
        is_compressed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        file.seek(0)
        content: Any = gzip.GzipFile(fileobj=file) if is_compressed else file
        if encoding is not None:
            try:
                text = io.TextIOWrapper(content, encoding=encoding, newline="")
                while block := text.read(1 << 20):
                    converted.write(block.encode())
            except (LookupError, ValueError) as error:
                raise unexpected("encoding", "that of the file", first_line(error)) from error
            content = converted
            content.seek(0)
        if content.read(len(BOM)) != BOM:
            content.seek(0)
        yield content


def _read_header(file: BinaryIO) -> tuple[bytes, int]:
    """Return the first record that is not blank, and the number of lines read."""
    header = b""
    line = 0
    while not header.strip(b"\r\n") or header.count(b'"') % 2:
        text = file.readline()
        if not text and header.strip(b"\r\n"):
            raise unexpected(f"line {line}", PAIRED_QUOTES, UNPAIRED_QUOTE)
        if not text:
            raise DataError("the file is empty")
        header = header.lstrip(b"\r\n") + text
        line += 1
    return header, line


def _check_header(header: bytes, line: int) -> None:
    num_lines = header.removesuffix(b"\n").count(b"\n") + 1
    _check_utf8(header, line - num_lines)
    if b"\r" in header.rstrip(b"\r\n") and b'"' not in header:
        raise unexpected(f"line {line}", "lines that end in \\n or \\r\\n", "lines that end in \\r")


def _find_separator(header: str) -> str:
    """Return the semicolon or tab if it is the only separator in the header, else the comma."""
    unquoted = re.sub('"[^"]*"', "", header)
    found = [separator for separator in ",;\t" if separator in unquoted]
    return found[0] if len(found) == 1 else ","


def _column_names(header: str, line: int, separator: str) -> list[str]:
    cells = next(csv.reader(io.StringIO(header, newline=""), delimiter=separator))
    names = [name.strip() for name in cells]
    for name, count in Counter(names).items():
        if not name or count > 1:
            got = f"column {quote(name)} {count} times"
            raise unexpected(f"line {line}", "distinct names that are not empty", got)
    return names


def _whole_records(file: BinaryIO, size: int, line: int) -> Iterator[tuple[bytes, int]]:
    """Yield pieces of whole records, and the number of lines before each, starting from `line`."""
    rest = b""
    is_last = False
    while not is_last:
        block = file.read(size)
        is_last = size < 0 or not block
        raw = rest + block
        end = len(raw) if is_last else _end_of_records(raw)
        if end == 0 and len(raw) > MAX_RECORD:
            raise unexpected(f"line {line + 1}", PAIRED_QUOTES, UNPAIRED_QUOTE)
        yield raw[:end], line
        line += raw.count(b"\n", 0, end)
        rest = raw[end:]


def _end_of_records(raw: bytes) -> int:
    """Return the number of bytes of the whole records at the start of `raw`."""
    end = len(raw)
    quotes = raw.count(b'"')
    # a line break ends a record if the number of double quotes before it is even
    while end and (quotes % 2 or raw[end - 1 : end] != b"\n"):
        line_start = raw.rfind(b"\n", 0, end - 1) + 1
        quotes -= raw.count(b'"', line_start, end)
        end = line_start
    return end


def _find_records(
    raw: bytes, lines_before: int, separator: str
) -> tuple[bytes, np.ndarray, np.ndarray]:
    """Find the records of a piece of a CSV file, whose quoted cells may contain line breaks.

    Returns:
        The piece without blank lines, the (records,) line at which each record starts, and its
        number of cells.
    """
    _check_utf8(raw, lines_before)
    data = np.frombuffer(raw, dtype=np.uint8)
    ends_record = data == ord("\n")
    ends_cell = data == ord(separator)
    line_ends = np.flatnonzero(ends_record)
    if b'"' in raw:
        is_outside_quotes = ~np.logical_xor.accumulate(data == ord('"'))
        ends_record &= is_outside_quotes
        ends_cell &= is_outside_quotes
    starts = np.append(0, np.flatnonzero(ends_record) + 1)
    starts = starts[starts < len(raw)]
    if not len(starts):
        return b"", starts, starts
    sizes = np.diff(starts, append=len(raw))
    lines = np.searchsorted(line_ends, starts) + lines_before + 1
    num_cells = np.add.reduceat(ends_cell, starts, dtype=np.int64) + 1
    is_return = (data[starts] == ord("\r")) & (sizes == 2)
    is_filled = ~is_return & (data[starts] != ord("\n"))
    if not is_filled.all():
        raw = data[np.repeat(is_filled, sizes)].tobytes()
    if raw.count(b'"') % 2:
        raise unexpected(f"line {lines[is_filled][-1]}", PAIRED_QUOTES, UNPAIRED_QUOTE)
    return raw, lines[is_filled], num_cells[is_filled]


def _check_utf8(raw: bytes, lines_before: int) -> None:
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + lines_before + 1
        byte = raw[error.start : error.start + 1]
        expected = "UTF-8 text (for other text set encoding)"
        raise unexpected(f"line {line}", expected, f"byte {byte!r}") from error


def _parquet_rows(path: Path, size: int) -> Iterator[Rows]:
    """Yield the rows of a Parquet file, which a child process decodes.

    Damage in the header of a page makes polars 2.1 allocate the claimed size and abort its process.
    The metadata of the file does not show such damage, and no exception handler catches it.
    """
    import polars as pl

    with path.open("rb") as file:
        if file.read(4) != b"PAR1":
            raise unexpected("", "a Parquet file", "a file that does not start with PAR1")
    # -P keeps the modules beside the script from being imported in place of others
    command = [sys.executable, "-P", decode_parquet.__file__, str(path), str(size)]
    pipe = subprocess.PIPE
    no_input = subprocess.DEVNULL
    with (
        TemporaryFile() as messages,
        subprocess.Popen(command, stdin=no_input, stdout=pipe, stderr=messages) as child,
    ):
        assert child.stdout is not None
        start = 0
        while piece := child.stdout.read(int.from_bytes(child.stdout.read(8), "little")):
            frame = pl.read_ipc(io.BytesIO(piece))
            yield Rows(frame, is_text=False, numbers=np.arange(start, start + frame.height))
            start += frame.height
        child.wait()
        messages.seek(0)
        text = messages.read().decode(errors="replace").strip()
        if child.returncode or "panicked" in text:
            reason = text.rpartition("\n")[2][:200]
            raise DataError(f"damaged, or not a Parquet file ({reason})")
