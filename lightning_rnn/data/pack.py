"""Packing a sequence file of any size into a folder of .npy files that training reads by batch."""

import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import numpy as np
import torch

from lightning_rnn.data.disk_rows import DiskRows
from lightning_rnn.data.readers import array_contents, complete_contents, is_table, tables, with_ids
from lightning_rnn.data.readers.arrays import RECORDINGS
from lightning_rnn.data.readers.checked_folders import (
    CATEGORIES,
    CHECKED,
    mark_as_checked,
    write_options,
)
from lightning_rnn.data.readers.class_names import sort_classes
from lightning_rnn.data.readers.columns import find_categories, text_column
from lightning_rnn.data.readers.contents import FileContents, ReadOptions, errors_with_path
from lightning_rnn.data.readers.label_table import read_labels
from lightning_rnn.data.readers.sources import Source, extension_of, find_source, source_rows
from lightning_rnn.data.readers.table_rows import concatenate
from lightning_rnn.data.sequences import Sequences
from lightning_rnn.errors import check

CHUNK_BYTES = 1 << 25  # of the file, read together; parsing takes some ten times as much memory
MAX_BUCKETS = 256
EXPANSION = 4  # approximate number of decoded bytes per byte of a compressed file
ROW_NUMBER = "\0number"  # columns added to the rows in a bucket; no file has such names
BUCKET = "\0bucket"


@dataclass(frozen=True)
class _Part:
    """Some of the file's sequences, and the (N,) numbers of the first row of each."""

    contents: FileContents
    first_rows: np.ndarray
    has_ids: bool = True


def pack(
    *, input: list[str] | str, output: str, overwrite: bool = False, **options: Any
) -> Sequences:
    """Write the sequences of a file to a folder from which training reads one batch at a time.

    The folder holds what `read_file` returns for the file, and is accepted wherever a file is. It
    appears only when it is complete. CSV and Parquet files are read piece by piece, so that they
    may be larger than memory, whatever the order of their rows (docs/many_files.md).

    Args:
        input: File or files of sequences, as for training: a file of any format, a folder, a
            pattern or a list.
        output: Folder to write.
        overwrite: Whether to replace an existing folder written by `pack`.
        **options: Arguments of `ReadOptions`.

    Returns:
        The sequences.

    Raises:
        OptionError: If the output exists and may not be replaced, or an option cannot be used.
        DataError: If the file cannot be used, see `read_file`.
    """
    target = Path(os.path.abspath(Path(output).expanduser()))
    may_replace = overwrite and (target / CHECKED).is_file()
    expected = "a folder that does not exist, or overwrite and a folder written by pack"
    check(may_replace or not os.path.lexists(target), "output", output, expected)
    read_options = ReadOptions(**options)
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as name:
        work = Path(name)
        parts = _parts(find_source(input, read_options), read_options, work)
        sequences = _write(parts, work, read_options)
        if target.exists():
            target.rename(work / "old")
        (work / "packed").rename(target)
    return sequences


def _parts(source: Source, options: ReadOptions, work: Path) -> Iterator[_Part]:
    """Yield the sequences some at a time, as `read_file` returns them."""
    label_of = read_labels(options)
    with np.errstate(all="ignore"), errors_with_path(source.title):
        for part in _parts_of_files(source, options, work):
            contents, owners = complete_contents(part.contents, label_of, options)
            yield _Part(contents, part.first_rows[owners], part.has_ids)


def _parts_of_files(source: Source, options: ReadOptions, work: Path) -> Iterator[_Part]:
    """Yield the files' sequences some at a time."""
    if not is_table(source, options):
        start = 0
        for contents in array_contents(source, options):
            stop = start + len(contents.sequences)
            has_ids = contents.sequences.ids is not None or options.window_length is not None
            yield _Part(with_ids(contents, start), np.arange(start, stop), has_ids)
            start = stop
        return
    options = _with_categories(source, options)
    if options.id_column is None:
        for rows in source_rows(source, options, CHUNK_BYTES):
            yield _Part(*tables.table_contents(rows, options), has_ids=False)
    else:
        with (work / "buckets").open("w+b") as file:
            yield from _parts_by_id(file, source, options, options.id_column)
        (work / "buckets").unlink()


def _with_categories(source: Source, options: ReadOptions) -> ReadOptions:
    """Return the options with the categories of all rows, of which a part has only some."""
    if not options.category_names:
        return options
    found: dict[str, set[str]] = {}
    for rows in source_rows(source, options, CHUNK_BYTES):
        tables.feature_columns(rows.frame, options)  # raises if a column is missing
        for name, words in find_categories(rows.frame, options).items():
            found.setdefault(name, set()).update(words)
    categories = {name: sort_classes(words) for name, words in found.items()}
    return replace(options, categories=categories | (options.categories or {}))


def _parts_by_id(
    file: BinaryIO, source: Source, options: ReadOptions, id_column: str
) -> Iterator[_Part]:
    """Distribute the rows to buckets by their id, then form the sequences of each bucket."""
    import polars as pl

    num_bytes = sum(path.stat().st_size for path in source.files)
    if extension_of(source.files[0]) in (".parquet", ".csv.gz"):
        num_bytes *= EXPANSION
    num_buckets = min(MAX_BUCKETS, 1 + num_bytes // CHUNK_BYTES)
    pieces: dict[int, list[tuple[int, int]]] = {}  # bucket: offsets and sizes of its pieces in file
    is_wide = options.time_column is None and not options.category_names
    known_ids: set[str] = set()
    num_rows = 0
    time_kind: str | None = None
    for rows in source_rows(source, options, CHUNK_BYTES):
        tables.feature_columns(rows.frame, options)  # raises if a column is missing
        if options.time_column is not None:
            # all times of the file, not only those of a bucket, must be of the same kind
            _, time_kind = tables.parse_times(rows, options, time_kind)
        ids = text_column(rows.frame[id_column], options)
        if is_wide:
            num_rows += rows.frame.height
            known_ids.update(ids)
            is_wide = len(known_ids) == num_rows
        buckets = ids.hash() % num_buckets
        frame = rows.frame.with_columns(buckets.alias(BUCKET), pl.Series(ROW_NUMBER, rows.numbers))
        for (bucket,), piece in frame.partition_by(BUCKET, as_dict=True, include_key=False).items():
            data = piece.write_ipc(None).getvalue()  # a view might outlive its buffer, and crash
            pieces.setdefault(bucket, []).append((file.tell(), len(data)))
            file.write(data)
    file.flush()
    if options.one_row_per_sequence is None:
        options = replace(options, one_row_per_sequence=is_wide)
    known_ids.clear()
    for places in pieces.values():
        frames: list[pl.DataFrame] = []
        for offset, size in places:
            frames.append(pl.read_ipc(io.BytesIO(os.pread(file.fileno(), size, offset))))
        frame = concatenate(frames)
        numbers = frame.drop_in_place(ROW_NUMBER).to_numpy()
        bucket_rows = replace(rows, frame=frame, numbers=numbers)
        yield _Part(*tables.table_contents(bucket_rows, options, time_kind))


def _write(parts: Iterator[_Part], work: Path, options: ReadOptions) -> Sequences:
    """Write the sequences to the folder `work / "packed"`, in the order of their first rows."""
    columns: dict[str, list[Any]] = {}
    rounding: list[Any] = []  # of each part, (5, F), see `Sequences`
    with (work / "rows").open("wb") as file:
        for part in parts:
            sequences = part.contents.sequences
            file.writelines(values.contiguous().numpy().data for values in sequences.chunks())
            rounding.append(sequences.rounding)
            columns.setdefault("first_rows", []).append(part.first_rows)
            columns.setdefault("lengths", []).append(sequences.lengths.numpy())
            columns.setdefault("labels", []).append(part.contents.labels)
            columns.setdefault("groups", []).append(sequences.groups)
            columns.setdefault("ids", []).append(sequences.ids if part.has_ids else None)
    arrays: dict[str, np.ndarray] = {}
    for name, pieces in columns.items():
        if all(piece is not None for piece in pieces):
            arrays[name] = np.concatenate(pieces)
    if "labels" in arrays and not any(arrays["labels"]):
        del arrays["labels"]
    order = np.argsort(arrays.pop("first_rows"), kind="stable")
    shape = (int(arrays["lengths"].sum()), sequences.num_features)
    values = DiskRows(work / "rows", 0, shape, np.float32)
    unordered = Sequences(values, arrays["lengths"], checked=True)
    ordered = unordered.select(torch.from_numpy(order))
    folder = work / "packed"
    folder.mkdir()
    np.save(folder / "rounding.npy", np.max(rounding, axis=0))
    with (folder / "values.npy").open("wb") as file:
        header = {"descr": np.dtype(np.float32).str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.writelines(values.numpy().data for values in ordered.chunks())
    np.save(folder / "lengths.npy", arrays.pop("lengths")[order])
    if part.contents.has_windows:
        arrays[RECORDINGS] = arrays.pop("groups")
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array[order].astype(str))
    if part.contents.feature_names is not None:
        np.save(folder / "features.npy", np.array(part.contents.feature_names))
    if part.contents.step_names is not None:
        np.save(folder / "steps.npy", np.array(part.contents.step_names))
    if part.contents.categories:
        (folder / CATEGORIES).write_text(json.dumps(part.contents.categories), encoding="utf-8")
    write_options(folder, options)
    mark_as_checked(folder)
    return ordered
