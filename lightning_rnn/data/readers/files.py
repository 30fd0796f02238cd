"""One door to sequence files of every format."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from lightning_rnn.data.readers.arrays import read_npy, read_npz
from lightning_rnn.data.readers.contents import FileContents, ReadOptions, reason
from lightning_rnn.data.readers.tables import read_table
from lightning_rnn.data.readers.text import read_ts, read_tsv
from lightning_rnn.errors import DataError

DEFAULT = ReadOptions()
READERS: dict[str, Callable[[Path, ReadOptions], FileContents]] = {
    ".ts": read_ts,
    ".tsv": read_tsv,
    ".npz": read_npz,
    ".npy": read_npy,
    ".csv": read_table,
    ".parquet": read_table,
}


def read_file(path: str | Path, wanted: ReadOptions = DEFAULT) -> FileContents:
    """Read sequences and class names from one file; the extension, in any case, names the format.

    Args:
        path: The file, or a folder made by `pack`.
        wanted: What to read of it.

    Returns:
        Sequences, class names and feature names.

    Raises:
        DataError: The file cannot be read, is damaged, or holds what its format does not accept. The message
            begins with the path and names the line or row, the column, what was found and what is accepted.
    """
    path = Path(path)
    with errors_of(path):
        return reader_of(path, wanted)(path, wanted)


@contextmanager
def errors_of(path: Path) -> Iterator[None]:
    """Make a DataError that begins with the path of whatever goes wrong in reading the file."""
    try:
        with np.errstate(all="ignore"):
            yield
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (
        BaseException
    ) as error:  # damaged bytes make parsers raise anything; a polars panic is no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise DataError(
            f"{path}: damaged, or not a {path.suffix} file ({reason(error)})"
        ) from error


def reader_of(path: Path, wanted: ReadOptions) -> Callable[[Path, ReadOptions], FileContents]:
    """Return the reader of a file or folder.

    Raises:
        DataError: There is no reader for it, or it cannot have what is wanted.
    """
    if path.is_dir():
        if not (path / "values.npy").is_file():
            raise DataError(
                "found a folder without values.npy, accepted is a file, or a folder made by pack"
            )
        return read_npy
    if not path.is_file():
        raise DataError("no such file")
    extension = path.suffix.lower()
    if extension not in READERS:
        raise DataError(f"found extension {extension!r}, accepted are {', '.join(READERS)}")
    if path.stat().st_size == 0:
        raise DataError("the file is empty")
    if extension not in (".csv", ".parquet"):
        columns = {"id_column", "time_column", "feature_columns"} | (
            {"group_column"} if "ts" in extension else set()
        )
        for option in sorted(columns):
            if getattr(wanted, option) is not None:
                raise DataError(
                    f"{option}: found {getattr(wanted, option)!r}, but {extension} files have no columns"
                )
    elif wanted.time_column is not None and wanted.id_column is None:
        raise DataError(
            f"time_column: found {wanted.time_column!r}, accepted only together with id_column"
        )
    return READERS[extension]
