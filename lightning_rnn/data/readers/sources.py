"""The files that a path stands for: one file, or the files of a folder, a pattern or a list."""

import filecmp
import glob
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_rnn.data.readers.contents import (
    FILE_NAME,
    FOLDER_NAME,
    NAMES_OF_PATH,
    ReadOptions,
    errors_with_path,
    join_names,
    quote,
    unexpected,
)
from lightning_rnn.data.readers.parquet import ParquetDecoder
from lightning_rnn.data.readers.table_rows import Rows, table_rows
from lightning_rnn.errors import DataError

if TYPE_CHECKING:
    import polars as pl

Paths = str | Path | list[str]  # a file, a folder, a pattern, or files
BESIDE = re.compile("(.*)_(lengths|labels|groups|ids)[.]npy")  # see `read_npy`


@dataclass(frozen=True)
class Source:
    """Files of one kind that are read as one."""

    title: str  # how error messages name all of them
    files: list[Path]  # at least one
    names: list[str]  # in the folder that they have in common

    def errors_with_name(self, position: int) -> AbstractContextManager[None]:
        """Return a context whose errors begin with the name of a file, if there are several."""
        if len(self.files) == 1:
            return nullcontext()
        return errors_with_path(self.names[position])

    def from_path(self, column: str | None, position: int) -> str:
        """Return the value of the column `FILE_NAME` or `FOLDER_NAME` for one of the files."""
        name = self.names[position]
        if column == FILE_NAME:
            return name
        alone = [other for other in self.names if "/" not in other]
        if 0 < len(alone) < len(self.names):
            expected = f"a folder for each file, because a column is {FOLDER_NAME}"
            raise unexpected("", expected, f"none for {join_names(alone)}")
        if "/" in name:
            return name.partition("/")[0]
        return self.files[position].absolute().parent.name


def title_of(paths: Paths) -> str:
    """Return how messages name the files."""
    if not isinstance(paths, list):
        return str(paths)
    if len(paths) < 2:
        return "".join(paths)
    return f"{paths[0]} and {len(paths) - 1} more"


@contextmanager
def data_errors_with_title(paths: Paths) -> Iterator[None]:
    """Put the title of files in front of the message of a DataError."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{title_of(paths)}: {error}") from None


def absolute(paths: Any) -> Any:
    """Return the absolute path of each file; a value that is no path is returned as it is."""
    if isinstance(paths, list):
        return [absolute(path) for path in paths]
    if not isinstance(paths, str | Path):
        return paths
    return os.path.abspath(os.path.expanduser(paths))


def find_source(paths: Paths, options: ReadOptions) -> Source:
    """Find the files, of one kind; without a folder or a pattern they need not exist."""
    title = title_of(paths)
    if isinstance(paths, list):
        files = [Path(path).expanduser().absolute() for path in paths]
        root = Path(os.path.commonpath([file.parent for file in files] or [Path()]))
    else:
        path = Path(paths).expanduser()
        if glob.has_magic(str(path)) and not path.exists():
            found = [Path(name) for name in glob.iglob(str(path), recursive=True)]
            found = [file for file in found if not _is_beside(file)]
            root = Path(re.split("[*?[]", f"{path}")[0] + "_").parent  # above the first wildcard
        elif path.is_dir() and not (path / "values.npy").is_file():
            found = [file for file in path.rglob("*") if _is_data(file, path)]
            root = path
        else:
            return Source(title, [path], [path.name])
        files = sorted(found, key=natural_order)
    if options.labels_path is not None:
        table = Path(options.labels_path).expanduser().absolute()
        files = [file for file in files if file.absolute() != table]
    if not files:
        raise DataError(f"{title}: expected at least one file, got none")
    kinds = sorted({extension_of(file) for file in files})
    if len(kinds) > 1 or len(set(files)) < len(files):
        expected = "different files of one kind (or a pattern such as 'folder/*.csv')"
        got = join_names(kinds) if len(kinds) > 1 else f"{len(files)} files"
        raise DataError(f"{title}: expected {expected}, got {got}")
    return Source(title, files, [file.relative_to(root).as_posix() for file in files])


def _is_data(file: Path, folder: Path) -> bool:
    """Return whether a file in a folder is neither hidden nor read with another one."""
    is_hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return file.is_file() and not is_hidden and not _is_beside(file)


def _is_beside(file: Path) -> bool:
    """Return whether a file is read with another one, as its labels, for example."""
    beside = BESIDE.fullmatch(file.name)
    return beside is not None and file.with_name(f"{beside[1]}.npy").is_file()


def natural_order(path: Path) -> list[tuple[int, str]]:
    """Return a key that sorts numbers in names by their value, as part2, part10."""
    pieces = re.split("([0-9]+)", path.as_posix())
    return [(int(piece) if piece.isdigit() else -1, piece) for piece in pieces]


def extension_of(path: Path) -> str:
    """Return the extension in lower case, with that before .gz."""
    extension = path.suffix.lower()
    if extension == ".gz":
        return "".join(path.suffixes[-2:]).lower()
    return extension


def source_rows(source: Source, options: ReadOptions, size: int | None = None) -> Iterator[Rows]:
    """Yield the rows of tables like `table_rows`, those of one file after those of another.

    The columns must be the same, in any order. `FILE_NAME` and `FOLDER_NAME` are added if one of
    the options names them and the tables do not have them.
    """
    origins: list[tuple[int, str]] = []
    columns: list[str] = []
    first_types: dict[str, Any] = {}
    next_number = 0
    with closing(ParquetDecoder()) as decoder:
        for position, file in enumerate(source.files):
            origins.append((next_number, source.names[position] if len(source.files) > 1 else ""))
            with source.errors_with_name(position):
                for rows in table_rows(file, options, decoder, size):
                    frame = _with_columns_of_path(rows.frame, source, position, options)
                    columns = columns or frame.columns
                    if set(frame.columns) != set(columns):
                        expected = f"the columns {join_names(columns)} as in {source.names[0]}"
                        raise unexpected("", expected, join_names(frame.columns))
                    _check_types(frame, first_types)
                    numbers = rows.numbers + origins[-1][0]
                    next_number = int(numbers[-1]) + 1
                    frame = frame.select(columns)
                    yield replace(rows, frame=frame, numbers=numbers, origins=origins)


def _check_types(frame: "pl.DataFrame", first_types: dict[str, Any]) -> None:
    """Check that no column has numbers in some files, which booleans or times would become."""
    import polars as pl

    for column in frame:
        types = {column.dtype, first_types.setdefault(column.name, column.dtype)}
        has_others = pl.Boolean in types or any(found.is_temporal() for found in types)
        if has_others and any(found.is_numeric() for found in types):
            expected = f"{first_types[column.name]} as in the first file"
            raise unexpected(f"column {quote(column.name)}", expected, str(column.dtype))


def _with_columns_of_path(
    frame: "pl.DataFrame", source: Source, position: int, options: ReadOptions
) -> "pl.DataFrame":
    import polars as pl

    named = (options.id_column, options.group_column, options.label_column)
    for column in NAMES_OF_PATH:
        if column in named and column not in frame.columns:
            value = source.from_path(column, position)
            frame = frame.with_columns(pl.lit(value).alias(column))
    return frame


def are_same_files(paths: Paths, others: Paths | None) -> bool:
    """Return whether files, or folders written by `pack`, exist and have the same values."""
    if others is None:
        return False
    try:
        files, other_files = (find_source(each, ReadOptions()).files for each in (paths, others))
        return len(files) == len(other_files) and all(map(_is_same_file, files, other_files))
    except (DataError, OSError):
        return False


def _is_same_file(path: Path, other: Path) -> bool:
    if path.is_dir() and other.is_dir():
        return _is_same_file(path / "values.npy", other / "values.npy")
    return path.is_file() and filecmp.cmp(path, other, shallow=False)
