"""Limits of what a file may announce, and lines of text that keep to them."""

from collections.abc import Iterable, Iterator
from typing import Any

from lightning_rnn.data.readers.contents import ReadOptions, unexpected

CELLS_PER_COLUMN = 2000  # for `max_cells`, by the memory that they need
CELLS_PER_BYTE = 4
UTF8 = "UTF-8 text (for another one in a CSV file set, for example, encoding='latin-1')"


def check_columns(count: int, options: ReadOptions) -> None:
    """Raise a DataError if a table has too many columns for `max_cells`."""
    check_cells(
        CELLS_PER_COLUMN * count, f"{CELLS_PER_COLUMN} for each of {count} columns", options
    )


def check_cells(count: int, got: str, options: ReadOptions) -> None:
    """Raise a DataError if a file has more cells than `max_cells`, before they take memory."""
    if count > options.max_cells:
        expected = f"at most {options.max_cells} cells (max_cells raises the limit)"
        raise unexpected("", expected, f"{count} ({got})")


def max_line_bytes(options: ReadOptions) -> int:
    """Return the length above which a line is too long for `max_cells`."""
    return options.max_cells // CELLS_PER_BYTE


def bounded_lines(file: Any, options: ReadOptions) -> Iterator[Any]:
    """Yield the lines of an open file, none of which may be too long for `max_cells`."""
    limit = max_line_bytes(options)
    while line := file.readline(limit + 1):
        if len(line) > limit:
            got = f"{CELLS_PER_BYTE} for each byte of a line"
            check_cells(CELLS_PER_BYTE * len(line), got, options)
        yield line


def utf8_lines(
    lines: Iterable[bytes], comments: tuple[bytes, ...] = (), first: int = 1
) -> Iterator[tuple[int, str]]:
    """Yield number and text of each line but the comments, which may be in any encoding.

    `first` is the number of the first line.
    """
    for number, line in enumerate(lines, start=first):
        start = line.lstrip()
        # #N/A is a missing value
        if start.startswith(comments) and not start.upper().startswith(b"#N/A"):
            continue
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            got = f"byte {line[error.start : error.start + 1]!r}"
            raise unexpected(f"line {number}", UTF8, got) from error
        yield number, text.removeprefix("\ufeff")  # the byte order mark
