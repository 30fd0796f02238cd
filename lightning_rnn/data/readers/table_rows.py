"""The rows of CSV, Parquet and Excel files, piece by piece."""

import csv
import gzip
import io
import itertools
import os
import re
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_rnn.data.readers.contents import ReadOptions, first_line, quote, unexpected
from lightning_rnn.data.readers.formulas import check_formulas
from lightning_rnn.data.readers.limits import (
    bounded_lines,
    check_columns,
    max_line_bytes,
    utf8_lines,
)
from lightning_rnn.errors import DataError, import_extra

if TYPE_CHECKING:
    import polars as pl

    from lightning_rnn.data.readers.parquet import ParquetDecoder

GZIP_MAGIC = b"\x1f\x8b"
BYTES_PER_CELL = 8
CSV_PIECE_BYTES = 1 << 20
OTHER_DIALECTS = (
    "for others set, for example, separator=';', encoding='latin-1' or decimal_comma=True"
)
CSV_SYNTAX = "lines that end in \\n or \\r\\n, and double quotes around whole cells"


@dataclass(frozen=True)
class Rows:
    """Some rows of a table.

    `numbers` (rows,) int64 are the lines or rows in the file; of a later file of several plus the
    number in `origins`, which has this number and the name of each file, "" if there is only one.
    """

    frame: "pl.DataFrame"
    is_text: bool  # whether they come from a CSV or Excel file, and are only text
    numbers: np.ndarray
    origins: Sequence[tuple[int, str]] = ((0, ""),)
    are_steps: bool = False  # whether lists have been unpacked, so that each row is a time step

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
            Parquet file, and 1 MB of a CSV file. Excel files are read at once.
    """
    if path.suffix.lower() == ".xlsx":
        pieces = _excel_rows(path)
    elif path.suffix.lower() == ".parquet":
        pieces = decoder.rows(path, options, size or -1)
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

    schemas = [frame.schema for frame in frames]
    for name in schemas[0]:
        if any(name in schema and schema[name].is_float() for schema in schemas):
            _check_integers([frame[name] for frame in frames if name in frame.schema])
    try:
        return pl.concat(frames, how="vertical_relaxed")
    except pl.exceptions.PolarsError as error:
        raise unexpected("", "columns of one type in all files", first_line(error)) from error


def _check_integers(columns: "list[pl.Series]") -> None:
    """Check that integers stay apart in a column that has floats in other files."""
    for column in columns:
        if column.dtype.is_integer() and (column.abs() >= 2**53).any():
            expected = "columns of one type in all files, as there are integers above 2^53"
            raise unexpected(f"column {quote(column.name)}", expected, "floats and integers")


def _csv_rows(path: Path, options: ReadOptions, size: int) -> Iterator[Rows]:
    import polars as pl

    with path.open("rb") as file:
        is_compressed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        file.seek(0)
        content: Any = gzip.GzipFile(fileobj=file) if is_compressed else file
        lines = _text_lines(content, options)
        line, text, separator = _first_line(lines, options.separator)
        records = _records(itertools.chain([text], lines), separator, line)
        _, header = next(records)
        names = _column_names(header, line)
        check_columns(len(names), options)
        schema = dict.fromkeys(names, pl.String)
        if options.encoding is None and '"' not in text:
            line += 1
            for rows in _plain_rows(content, schema, separator, options, size, line):
                yield rows
                line += rows.frame.height
            records = _records(_text_lines(content, options, line), separator, line)
        piece_rows = max(1, size // (BYTES_PER_CELL * len(names)))
        while True:
            numbers: list[int] = []
            table: list[list[str]] = []
            for line, cells in itertools.islice(records, piece_rows):
                if len(cells) != len(names):
                    expected = f"{len(names)} cells as in the header"
                    expected += f" ({OTHER_DIALECTS})"
                    raise unexpected(f"line {line}", expected, str(len(cells)))
                numbers.append(line)
                table.append(cells)
            if not table:
                return
            frame = pl.DataFrame(table, schema=schema, orient="row")
            yield Rows(frame, is_text=True, numbers=np.array(numbers))


def _plain_rows(
    file: Any, schema: dict[str, Any], separator: str, options: ReadOptions, size: int, line: int
) -> Iterator[Rows]:
    """Yield rows without quotes from line `line` of an open file on, up to others or wrong ones."""
    limit = max_line_bytes(options)
    while block := file.read(size):
        block += file.readline(limit)
        frame = None if len(block) > limit else plain_frame(block, schema, separator)
        if frame is None:
            file.seek(-len(block), os.SEEK_CUR)
            return
        numbers = np.arange(line, line + frame.height)
        yield Rows(frame.fill_null(""), is_text=True, numbers=numbers)
        line += frame.height


def plain_frame(content: bytes, schema: dict[str, Any], separator: str) -> "pl.DataFrame | None":
    """Return the cells of lines, null if empty; None if lines are wrong or need a CSV reader."""
    import polars as pl

    if b"\r" in content:
        content = content.replace(b"\r\n", b"\n")
    has_bom = not content.isascii() and BOM_UTF8 in content
    if len(schema) == 1 or has_bom or any(mark in content for mark in (b'"', b"\r", b"\0")):
        return None
    try:
        settings: dict[str, Any] = {"has_header": False, "quote_char": None, "schema": schema}
        frame = pl.read_csv(content, separator=separator, **settings)
    except pl.exceptions.PolarsError:
        return None
    num_lines = content.count(b"\n") + (not content.endswith(b"\n"))
    has_null = any(column.null_count() for column in frame)  # a cell is empty or missing
    num_separators = num_lines * (len(schema) - 1)
    if has_null and content.count(separator.encode()) != num_separators:
        return None
    return frame if frame.height == num_lines else None


def _text_lines(file: Any, options: ReadOptions, first: int = 1) -> Iterator[str]:
    """Yield the lines of an open file from its line `first` on."""
    if options.encoding is None:
        for _, text in utf8_lines(bounded_lines(file, options), first=first):
            yield text
        return
    try:
        with io.TextIOWrapper(file, encoding=options.encoding, newline="\n") as lines:
            for text in bounded_lines(lines, options):
                yield text.removeprefix("\ufeff")
    except (LookupError, ValueError) as error:
        raise unexpected("encoding", "that of the file", first_line(error)) from error


def _first_line(lines: Iterator[str], separator: str | None) -> tuple[int, str, str]:
    """Return number and text of the first line that is not blank, and the separator.

    A line `sep=;`, which Excel writes before the header, sets the separator.
    """
    for number, text in enumerate(lines, start=1):
        excel_separator = re.fullmatch(r"sep=([ -~\t])\r?\n", text)
        if excel_separator:
            separator = excel_separator[1]
        elif text.strip("\r\n"):
            return number, text, (separator or _find_separator(text)).replace("\\t", "\t")
    raise DataError("the file is empty")


def _records(lines: Iterable[str], separator: str, first: int) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and cells of each row from line `first` on; blank lines are left out.

    Between the rows of a single column, of which they could be cells, they are an error.
    """
    # the reader refuses a cell of more than 131,072 characters, which a lost quote would make
    reader = csv.reader(lines, delimiter=separator, strict=True)
    line = first
    num_cells = 0
    blank_line = 0
    try:
        for cells in reader:
            if cells:
                num_cells = num_cells or len(cells)
                if num_cells == 1 and blank_line > 0:
                    raise unexpected(f"line {blank_line}", "a value, or NA", "a blank line")
                yield line, cells
            else:
                blank_line = line
            line = first + reader.line_num
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


def _excel_rows(path: Path) -> Iterator[Rows]:
    """Yield the rows of the first sheet of an Excel file, without empty ones."""
    import polars as pl

    workbook = import_extra("fastexcel", "excel").read_excel(path)
    check_formulas(path)
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
