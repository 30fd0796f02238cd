"""Readers of sequence files, one module per format, behind one function."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lightning_rnn.data.readers.arrays import read_npy, read_npz
from lightning_rnn.data.readers.columns import check_categories
from lightning_rnn.data.readers.contents import (
    FILE_NAME,
    NAMES_OF_PATH,
    FileContents,
    ReadOptions,
    errors_with_path,
    quote,
    row_ids,
    unexpected,
)
from lightning_rnn.data.readers.hdf5 import read_hdf5
from lightning_rnn.data.readers.label_table import add_labels, read_labels
from lightning_rnn.data.readers.sources import (
    Paths,
    Source,
    extension_of,
    find_source,
    source_rows,
    title_of,
)
from lightning_rnn.data.readers.table_rows import join_rows
from lightning_rnn.data.readers.tables import table_contents
from lightning_rnn.data.readers.text import read_ts, read_tsv
from lightning_rnn.data.readers.windows import cut_windows
from lightning_rnn.data.sequences import Sequences
from lightning_rnn.errors import DataError

__all__ = ["FileContents", "ReadOptions", "read_file"]

Reader = Callable[[Path, ReadOptions], FileContents]
TABLES = (".csv", ".csv.gz", ".parquet", ".xlsx")
READERS: dict[str, Reader] = {
    ".ts": read_ts,
    ".tsv": read_tsv,
    ".npz": read_npz,
    ".npy": read_npy,
    ".h5": read_hdf5,
    ".hdf5": read_hdf5,
}


def read_file(path: Paths, options: ReadOptions | None = None) -> FileContents:
    r"""Read sequences, class names and feature names from a file, or from files of one kind.

    Args:
        path: The file, or a folder written by `pack`; or files: a folder with all its subfolders, a
            pattern such as `walks/*.csv`, or a list. The extension, in any case, names the format:
            .ts, .tsv, .npz, .npy, .h5, .hdf5, .csv, .csv.gz, .parquet or .xlsx.
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
    contents = read_contents(path, options or ReadOptions())
    with errors_with_path(title_of(path)):
        contents.sequences.moments(contents.feature_names)  # raises if digits are lost
    return contents


def read_contents(path: Paths, options: ReadOptions) -> FileContents:
    """Read files like `read_file`, whatever digits are lost."""
    source = find_source(path, options)
    label_of = read_labels(options)
    with np.errstate(all="ignore"), errors_with_path(source.title):
        if is_table(source, options):
            contents, _ = table_contents(join_rows(source_rows(source, options)), options)
        else:
            contents = with_ids(join_contents(list(array_contents(source, options))))
        contents, _ = complete_contents(contents, label_of, options)
    if contents.labels is not None and not any(contents.labels):
        return replace(contents, labels=None)
    return contents


def complete_contents(
    contents: FileContents, label_of: dict[str, str], options: ReadOptions
) -> tuple[FileContents, np.ndarray]:
    """Add labels of a table and cut windows; return also the (windows,) positions of sequences."""
    check_categories(contents.categories, options.missing_values or [])
    if options.labels_path is not None:
        contents = add_labels(contents, label_of, options)
    if options.window_length is None or contents.has_windows:
        return contents, np.arange(len(contents.sequences))
    return cut_windows(contents, options)


def is_table(source: Source, options: ReadOptions) -> bool:
    """Return whether files are tables; raise a DataError if they do not exist or do not suit."""
    for position, file in enumerate(source.files):
        with source.errors_with_name(position):
            reader = find_reader(file, options)
    return reader is None


def array_contents(source: Source, options: ReadOptions) -> Iterator[FileContents]:
    """Yield the contents of each file that is not a table, without ids if the file has none."""
    known_ids: set[str] = set()
    first: Any = None
    for position, file in enumerate(source.files):
        with source.errors_with_name(position):
            reader = find_reader(file, options)
            assert reader is not None
            contents = reader(file, options)
            if not file.is_dir():
                contents = _with_names_of_path(contents, source, position, options)
            sequences = contents.sequences
            if sequences.ids is not None:
                _add_ids(sequences.ids, known_ids)
            parts = (contents.labels, sequences.groups, sequences.ids)
            has = [part is not None for part in parts]
            names = (contents.feature_names, contents.step_names, contents.categories)
            found = (sequences.num_features, *names, contents.time_kind, contents.has_windows, *has)
            first = first or found
            if found != first:
                expected = "features, names, categories, kind of times, labels, groups and ids"
                raise unexpected("", f"{expected} as in {source.names[0]}", "others")
            yield contents


def with_ids(contents: FileContents, first: int = 0) -> FileContents:
    """Return the contents with ids; those of a file that has none count from `first`."""
    sequences = contents.sequences
    if sequences.ids is not None:
        return contents
    ids = row_ids(first + len(sequences))[first:]
    return replace(contents, sequences=sequences.replaced(ids=ids))


def _add_ids(ids: np.ndarray, known_ids: set[str]) -> None:
    """Add ids to the known ones; raise a DataError if one of them is known."""
    for row, name in enumerate(ids):
        if name in known_ids:
            expected = "an id that no other sequence has"
            raise unexpected(f"sequence {row}", expected, quote(name))
        known_ids.add(name)


def _with_names_of_path(
    contents: FileContents, source: Source, position: int, options: ReadOptions
) -> FileContents:
    """Return the contents with the id, group and label that the options take from the path."""
    names: dict[str, np.ndarray] = {}
    for role in ("id", "group", "label"):
        column = getattr(options, f"{role}_column")
        if column in NAMES_OF_PATH:
            name = source.from_path(column, position)
            names[f"{role}s"] = np.full(len(contents.sequences), name, dtype=object)
    labels = names.pop("labels", contents.labels)
    if not options.require_labels:
        labels = contents.labels
    return replace(contents, labels=labels, sequences=contents.sequences.replaced(**names))


def join_contents(parts: list[FileContents]) -> FileContents:
    """Return the sequences of several files together, in memory."""
    if len(parts) == 1:
        return parts[0]
    sequences = [part.sequences for part in parts]
    joined: dict[str, Any] = {}
    for name in ("lengths", "ids", "groups"):
        pieces = [getattr(part, name) for part in sequences]
        joined[name] = None if pieces[0] is None else np.concatenate(pieces)
    values = torch.cat([chunk for part in sequences for chunk in part.chunks()])
    rounding = torch.stack([part.rounding for part in sequences]).amax(0)
    labels = None
    if parts[0].labels is not None:
        labels = np.concatenate([part.labels for part in parts])
    all_sequences = Sequences(values, rounding=rounding, **joined)
    return replace(parts[0], sequences=all_sequences, labels=labels)


def find_reader(path: Path, options: ReadOptions) -> Reader | None:
    """Return the reader of a file or folder, None for a table; options must suit its format."""
    if path.is_dir():
        if not (path / "values.npy").is_file():
            expected = "a file or a folder written by pack"
            raise unexpected("", expected, "a folder without values.npy")
        return read_npy
    if not path.is_file():
        raise DataError("no such file")
    extension = extension_of(path)
    if extension not in (*READERS, *TABLES):
        expected = f"one of the extensions {', '.join((*READERS, *TABLES))}"
        if extension in ("", ".txt"):
            expected += " (.tsv for UCR text files, with tabs between label and values)"
        raise unexpected("", expected, repr(extension))
    if path.stat().st_size == 0:
        raise DataError("the file is empty")
    if extension in TABLES:
        for name in ("time_column", "window_length", "labels_path"):
            value = getattr(options, name)
            if value is not None and options.id_column is None:
                expected = f"also an id_column ({FILE_NAME} if each file is a sequence)"
                raise unexpected(name, expected, repr(value))
        return None
    unsupported = ["feature_columns", "id_column", "time_column", "token_column"]
    unsupported += ["category_columns", "categories"]
    if extension in (".ts", ".tsv"):
        unsupported.append("group_column")
    for name in unsupported:
        value = getattr(options, name)
        is_from_path = value in NAMES_OF_PATH and extension not in (".ts", ".tsv")
        if value is not None and not is_from_path:
            expected = f"None, because {extension} files have no columns (tables are named .csv)"
            raise unexpected(name, expected, repr(value))
    return READERS[extension]
