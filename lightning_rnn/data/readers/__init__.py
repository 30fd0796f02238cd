"""Readers of sequence files, one module per format, behind one function."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from lightning_rnn.data.readers.arrays import read_npy, read_npz
from lightning_rnn.data.readers.contents import (
    FileContents,
    ReadOptions,
    first_line,
    unexpected,
)
from lightning_rnn.data.readers.tables import read_table
from lightning_rnn.data.readers.text import read_ts, read_tsv
from lightning_rnn.errors import DataError

__all__ = ["FileContents", "ReadOptions", "read_file"]

Reader = Callable[[Path, ReadOptions], FileContents]
READERS: dict[str, Reader] = {
    ".ts": read_ts,
    ".tsv": read_tsv,
    ".npz": read_npz,
    ".npy": read_npy,
    ".csv": read_table,
    ".csv.gz": read_table,
    ".parquet": read_table,
}


def read_file(path: str | Path, options: ReadOptions | None = None) -> FileContents:
    r"""Read sequences, class names and feature names from one file.

    Args:
        path: The file, or a folder written by `pack`. The extension, in any case, names the
            format: .ts, .tsv, .npz, .npy, .csv, .csv.gz or .parquet.
        options: What to read from the file; by default `ReadOptions()`.

    Raises:
        DataError: If the file cannot be read, is damaged, or violates its format; or if rounding to
            float32 changes a feature by more than 1 % of its standard deviation.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "walks.csv"
        >>> text = "id,time,speed,label\na,2,0.5,slow\na,1,0.25,slow\nb,1,3,fast\n"
        >>> _ = path.write_text(text)
        >>> contents = read_file(path, ReadOptions(id_column="id", time_column="time"))
        >>> contents.labels.tolist(), contents.feature_names
        (['slow', 'fast'], ['speed'])
        >>> contents.sequences.lengths.tolist(), contents.sequences.values.flatten().tolist()
        ([2, 1], [0.25, 0.5, 3.0])
    """
    contents = read_contents(Path(path).expanduser(), options or ReadOptions())
    with errors_with_path(Path(path)):
        contents.sequences.moments(contents.feature_names)  # raises if digits are lost
    return contents


def read_contents(path: Path, options: ReadOptions) -> FileContents:
    """Read a file like `read_file`, whatever digits are lost."""
    with errors_with_path(path):
        contents = find_reader(path, options)(path, options)
    if contents.labels is not None and not any(contents.labels):
        return replace(contents, labels=None)
    return contents


@contextmanager
def errors_with_path(path: Path) -> Iterator[None]:
    """Convert every exception of the block to a DataError that begins with the path."""
    try:
        with np.errstate(all="ignore"):
            yield
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except BaseException as error:  # parsers raise anything for damaged bytes
        # polars raises PanicException, which is not an Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = first_line(error)
        raise DataError(f"{path}: damaged, or not a {path.suffix} file ({reason})") from error


def find_reader(path: Path, options: ReadOptions) -> Reader:
    """Return the reader of a file or folder, whose format must have what the options name."""
    if path.is_dir():
        if not (path / "values.npy").is_file():
            expected = "a file or a folder written by pack"
            raise unexpected("", expected, "a folder without values.npy")
        return read_npy
    if not path.is_file():
        raise DataError("no such file")
    extension = path.suffix.lower()
    if extension == ".gz":
        extension = "".join(path.suffixes[-2:]).lower()
    if extension not in READERS:
        expected = f"one of the extensions {', '.join(READERS)}"
        if extension in ("", ".txt"):
            expected += " (.tsv for UCR text files, with tabs between label and values)"
        raise unexpected("", expected, repr(extension))
    if path.stat().st_size == 0:
        raise DataError("the file is empty")
    reader = READERS[extension]
    if reader is read_table:
        if options.time_column is not None and options.id_column is None:
            raise unexpected("time_column", "also an id_column", repr(options.time_column))
        return reader
    unsupported = ["feature_columns", "id_column", "time_column"]
    if extension in (".ts", ".tsv"):
        unsupported.append("group_column")
    for name in unsupported:
        value = getattr(options, name)
        if value is not None:
            expected = f"None, because {extension} files have no columns (tables are named .csv)"
            raise unexpected(name, expected, repr(value))
    return reader
