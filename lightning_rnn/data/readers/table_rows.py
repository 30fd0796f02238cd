"""The rows of CSV, Parquet and Excel files, piece by piece."""

import csv
import gzip
import io
import itertools
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_rnn.data.readers.contents import (
    ReadOptions,
    first_line,
    quote,
    unexpected,
    utf8_lines,
)
from lightning_rnn.errors import DataError, import_extra

if TYPE_CHECKING:
    import polars as pl

GZIP_MAGIC = b"\x1f\x8b"
BYTES_PER_CELL = 8
DECODER = Path(__file__).with_name("decode_parquet.py")
CSV_PIECE_BYTES = 1 << 24
CSV_SYNTAX = "lines that end in \\n or \\r\\n, and double quotes around whole cells"


@dataclass(frozen=True)
class Rows:
    """Some rows of a table.

    Attributes:
        frame: The rows, only text from a CSV or Excel file.
        is_text: Whether they come from a CSV or Excel file.
        numbers: (rows,) int64, the line or row of each in the file; of a later file of several
            plus the number in `origins`.
        are_steps: Whether lists have been unpacked, so that each row is a time step.
        origins: This number and the name of each file, in order; "" if there is only one file.
    """

    frame: "pl.DataFrame"
    is_text: bool
    numbers: np.ndarray
    origins: Sequence[tuple[int, str]] = ((0, ""),)
    are_steps: bool = False

    def place(self, row: int) -> str:
        """Return how error messages name a row."""
        number = int(self.numbers[row])
        first, file = [origin for origin in self.origins if origin[0] <= number][-1]
        unit = "line" if self.is_text else "row"
        place = f"{unit} {number - first}"
        return f"{file}, {place}" if file else place


def table_rows(
    path: Path, options: ReadOptions, decoder: "ParquetDecoder", size: int | None = None
) -> Iterator[Rows]:
    """Yield the rows of a CSV, Parquet or Excel file in order, at least one.

    Args:
        path: The file.
        options: Separator and encoding of a CSV file.
        decoder: Decodes a Parquet file.
        size: Approximate number of bytes to yield at a time, 8 per cell; by default all rows of a
            Parquet file, and 16 MB of a CSV file. Excel files are read at once.
    """
    if path.suffix.lower() == ".xlsx":
        pieces = _excel_rows(path)
    elif path.suffix.lower() == ".parquet":
        pieces = decoder.rows(path, size or -1)
    else:
        pieces = _csv_rows(path, options, size or CSV_PIECE_BYTES)
    num_rows = 0
    for rows in pieces:
        num_rows += rows.frame.height
        yield rows
    if num_rows == 0:
        raise unexpected("", "at least one row", "none")


def join_rows(pieces: Iterable[Rows]) -> Rows:
    """Return all rows together."""
    parts = list(pieces)
    frame = concatenate([part.frame for part in parts])
    numbers = np.concatenate([part.numbers for part in parts])
    return replace(parts[0], frame=frame, numbers=numbers)


def concatenate(frames: "list[pl.DataFrame]") -> "pl.DataFrame":
    """Return the rows of all frames, with the types that hold the values of all of them."""
    import polars as pl

    try:
        return pl.concat(frames, how="vertical_relaxed")
    except pl.exceptions.PolarsError as error:
        raise unexpected("", "columns of one type in all files", first_line(error)) from error


def _csv_rows(path: Path, options: ReadOptions, size: int) -> Iterator[Rows]:
    import polars as pl

    with path.open("rb") as file:
        is_compressed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        file.seek(0)
        content: Any = gzip.GzipFile(fileobj=file) if is_compressed else file
        records = _records(_text_lines(content, options.encoding), options.separator)
        line, header = next(records)
        names = _column_names(header, line)
        schema = dict.fromkeys(names, pl.String)
        piece_rows = max(1, size // (BYTES_PER_CELL * len(names)))
        while True:
            lines: list[int] = []
            rows: list[list[str]] = []
            for line, cells in itertools.islice(records, piece_rows):
                if len(cells) != len(names):
                    expected = f"{len(names)} cells as in the header"
                    expected += " (for others set separator, encoding or decimal_comma)"
                    raise unexpected(f"line {line}", expected, str(len(cells)))
                lines.append(line)
                rows.append(cells)
            if not rows:
                return
            frame = pl.DataFrame(rows, schema=schema, orient="row")
            yield Rows(frame, is_text=True, numbers=np.array(lines))


def _text_lines(file: Any, encoding: str | None) -> Iterator[str]:
    """Yield the lines of an open file."""
    if encoding is None:
        for _, text in utf8_lines(file):
            yield text
        return
    try:
        with io.TextIOWrapper(file, encoding=encoding, newline="\n") as lines:
            for text in lines:
                yield text.removeprefix("\ufeff")
    except (LookupError, ValueError) as error:
        raise unexpected("encoding", "that of the file", first_line(error)) from error


def _records(lines: Iterator[str], separator: str | None) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and cells of the header and of each row; blank lines are left out.

    A line `sep=;`, which Excel writes before the header, sets the separator.
    """
    num_skipped = 0
    for text in lines:
        excel_separator = re.fullmatch(r"sep=([ -~\t])\r?\n", text)
        if excel_separator:
            separator = excel_separator[1]
        elif text.strip("\r\n"):
            break
        num_skipped += 1
    else:
        raise DataError("the file is empty")
    separator = (separator or _find_separator(text)).replace("\\t", "\t")
    # the reader refuses a cell of more than 131,072 characters, which a lost quote would make
    reader = csv.reader(itertools.chain([text], lines), delimiter=separator, strict=True)
    line = num_skipped + 1
    try:
        for cells in reader:
            if cells:
                yield line, cells
            line = num_skipped + reader.line_num + 1
    except csv.Error as error:
        raise unexpected(f"line {line}", CSV_SYNTAX, str(error)) from error


def _find_separator(header: str) -> str:
    """Return the semicolon or tab if it is the only separator in the header, else the comma."""
    unquoted = re.sub('"[^"]*"', "", header)
    found = [separator for separator in ",;\t" if separator in unquoted]
    return found[0] if len(found) == 1 else ","


def _column_names(header: list[str], line: int) -> list[str]:
    names = [name.strip() for name in header]
    for name, count in Counter(names).items():
        if not name:
            expected = "a name for every column (pandas writes an index without one: index=False)"
            raise unexpected(f"line {line}", expected, f"none for column {names.index(name) + 1}")
        if count > 1:
            got = f"{count} columns {quote(name)}"
            raise unexpected(f"line {line}", "a different name for every column", got)
    return names


class ParquetDecoder:
    """A child process that decodes Parquet files, started with the first one.

    Damage in the header of a page makes polars 2.1 allocate the claimed size and abort its process.
    The metadata of the file does not show such damage, and no exception handler catches it.
    """

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._messages = TemporaryFile()  # noqa: SIM115  closed by `close`

    def close(self) -> None:
        """End the process."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
        self._messages.close()

    def rows(self, path: Path, size: int) -> Iterator[Rows]:
        """Yield the rows of a file, in pieces of about `size` bytes, or at once if it is below 0.

        Raises:
            DataError: If the file is damaged, after which no other can be read.
        """
        import polars as pl

        with path.open("rb") as file:
            if file.read(4) != b"PAR1":
                raise unexpected("", "a Parquet file", "a file that does not start with PAR1")
        pipe = subprocess.PIPE
        if self._child is None:
            # -P keeps the modules beside the script from being imported in place of others
            command = [sys.executable, "-P", str(DECODER)]
            self._child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._messages)
        source, target = self._child.stdout, self._child.stdin
        assert source is not None
        assert target is not None
        target.write(json.dumps([str(path), size]).encode() + b"\n")
        target.flush()
        start = 0
        while num_bytes := int.from_bytes(header := source.read(8), "little"):
            frame = pl.read_ipc(io.BytesIO(source.read(num_bytes)))
            numbers = np.arange(start, start + frame.height)
            yield _unpacked(Rows(frame, is_text=False, numbers=numbers))
            start += frame.height
        self._messages.seek(0)
        text = self._messages.read().decode(errors="replace").strip()
        if not header or "panicked" in text:
            reason = text.rpartition("\n")[2][:200]
            raise DataError(f"damaged, or not a Parquet file ({reason})")


def _unpacked(rows: Rows) -> Rows:
    """Return a row for each time step of rows that contain lists; others are repeated."""
    import polars as pl

    frame = rows.frame
    lists: list[str] = []
    for column in frame:
        if isinstance(column.dtype, pl.Array):
            frame = frame.with_columns(column.arr.to_list())
        if isinstance(column.dtype, pl.Array | pl.List):
            lists.append(column.name)
    if not lists:
        return rows
    lengths = frame[lists[0]].list.len().fill_null(0)
    for name in lists:
        found = frame[name].list.len().fill_null(0)
        is_wrong = (found != lengths) | (found == 0)
        if is_wrong.any():
            row = int(is_wrong.arg_true()[0])
            expected = f"lists of {max(1, lengths[row])} values as in column {quote(lists[0])}"
            raise unexpected(f"{rows.place(row)}, column {quote(name)}", expected, f"{found[row]}")
    numbers = rows.numbers.repeat(lengths.to_numpy())
    return Rows(frame.explode(lists), rows.is_text, numbers, are_steps=True)


def _excel_rows(path: Path) -> Iterator[Rows]:
    """Yield the rows of the first sheet of an Excel file, without empty ones."""
    import polars as pl

    workbook = import_extra("fastexcel", "excel").read_excel(path)
    options = {"header_row": None, "skip_rows": 0}  # so that the n-th row is line n
    cells = workbook.load_sheet(0, dtypes="string", **options).to_polars()
    # the text of a number has at most nine decimals
    numbers = workbook.load_sheet(0, dtypes="float", **options).to_polars()
    columns: list[pl.Series] = []
    for text, exact in zip(cells, numbers, strict=True):
        is_rounded = (text.cast(pl.Float64, strict=False) != exact).fill_null(False)
        columns.append(exact.cast(pl.String).zip_with(is_rounded, text))
    frame = pl.DataFrame(columns)
    has_cells = ~frame.select(pl.all_horizontal(pl.all().is_null())).to_series()
    lines = np.flatnonzero(has_cells) + 1
    if len(lines) == 0:
        raise DataError("the first sheet is empty")
    frame = frame.filter(has_cells).fill_null("")
    frame.columns = _column_names(list(frame.row(0)), lines[0])
    yield Rows(frame[1:], is_text=True, numbers=lines[1:])
