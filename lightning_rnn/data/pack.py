"""Sequence files of any size into a folder of .npy files, which training reads a batch at a time."""

import io
import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import numpy as np
import torch

from lightning_rnn.data.disk_rows import DiskRows
from lightning_rnn.data.readers.arrays import CHECKED
from lightning_rnn.data.readers.contents import FileContents, ReadOptions
from lightning_rnn.data.readers.files import errors_of, reader_of
from lightning_rnn.data.readers.table_rows import Rows, tables
from lightning_rnn.data.readers.tables import (
    TIME_KINDS,
    contents_of,
    features_of,
    read_table,
    read_times,
    text_column,
)
from lightning_rnn.data.sequences import Sequences
from lightning_rnn.errors import check

CHUNK_BYTES = 1 << 25  # of the file, read together; parsing takes some ten times as much memory
MAX_BUCKETS = 256
NUMBER = "\0number"  # column of row numbers in a bucket

Part = tuple[FileContents, np.ndarray]  # some sequences, and the number of each one's first row


def pack(
    *,
    input: str,
    output: str,
    label_column: str = "label",
    id_column: str | None = None,
    time_column: str | None = None,
    group_column: str | None = None,
    feature_columns: list[str] | None = None,
    require_labels: bool = True,
    overwrite: bool = False,
) -> None:
    """Turn a sequence file of any size into a folder that trains without being read into memory.

    The folder holds what `read_file` would return for the file, and is accepted wherever a file is. It appears when it
    is whole. CSV and Parquet files are read piece by piece, in whatever order their rows are (docs/data.md).

    Args:
        input: File of sequences, of any format that training reads.
        output: Folder to make.
        label_column: Column of the class, in CSV and Parquet.
        id_column: Column that tells sequences apart in CSV and Parquet with one row a time step; when not given,
            one row is one sequence.
        time_column: Column to order a sequence's rows by; when not given, their order in the file.
        group_column: Column of groups, to split by when training.
        feature_columns: Columns of the features; when not given, all the others.
        require_labels: Whether a missing label is an error; if not, it makes a folder without labels, to predict.
        overwrite: Whether a folder made before is replaced.

    Raises:
        OptionError: The folder exists, and is not one to be replaced.
        DataError: The file cannot be used, see `read_file`.
    """
    source, target = Path(input), Path(os.path.abspath(output))
    ours = overwrite and (target / CHECKED).is_file()
    accepted = "another name, or --overwrite true for a folder made by pack"
    check(
        ours or not os.path.lexists(target),
        "--output",
        output,
        f"a folder that is not there: {accepted}",
    )
    wanted = ReadOptions(
        label_column,
        id_column,
        time_column,
        group_column,
        feature_columns,
        require_labels=require_labels,
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as name:
        work = Path(name)
        sequences = _write(_parts(source, wanted, work), work)
        if target.exists():
            target.rename(work / "old")
        (work / "packed").rename(target)
    print(f"{len(sequences)} sequences of {sequences.num_features} features written to {output}")


def _parts(path: Path, wanted: ReadOptions, work: Path) -> Iterator[Part]:
    """Yield the file's sequences some at a time, as `read_file` would return them."""
    with errors_of(path):
        reader = reader_of(path, wanted)
        if reader is not read_table:
            contents = reader(path, wanted)
            yield contents, np.arange(len(contents.sequences))
        elif wanted.id_column is None:
            for rows in tables(path, CHUNK_BYTES):
                contents, numbers = contents_of(rows, wanted)
                contents.sequences.ids = None  # the row's number in this piece
                yield contents, numbers
        else:
            with (work / "buckets").open("w+b") as file:
                yield from _from_buckets(file, path, wanted, wanted.id_column)
            (work / "buckets").unlink()


def _from_buckets(
    file: BinaryIO, path: Path, wanted: ReadOptions, id_column: str
) -> Iterator[Part]:
    """Deal out the rows so that all of one id are in one bucket, and make sequences of one bucket after another."""
    import polars as pl

    count = min(
        MAX_BUCKETS,
        1 + path.stat().st_size * (4 if path.suffix.lower() == ".parquet" else 1) // CHUNK_BYTES,
    )
    places: list[list[tuple[int, int]]] = [
        [] for _ in range(count)
    ]  # offset and size of each bucket's pieces
    kinds = TIME_KINDS
    for rows in tables(path, CHUNK_BYTES):
        features_of(rows.frame.columns, wanted)  # refuses a file without the columns
        if (
            wanted.time_column is not None
        ):  # what all times are, not those of a bucket, decides how they are read
            kinds = read_times(rows.frame[wanted.time_column], kinds)[1]
        bucket = text_column(rows.frame[id_column]).hash().to_numpy() % count
        order = np.argsort(bucket, kind="stable")
        dealt = rows.frame.with_columns(pl.Series(NUMBER, rows.numbers))[order]
        bounds = np.searchsorted(bucket[order], np.arange(count + 1)).tolist()
        for i, (begin, end) in enumerate(pairwise(bounds)):
            if begin < end:
                piece = dealt[begin:end].write_ipc(None).getbuffer()
                places[i].append((file.tell(), len(piece)))
                file.write(piece)
    file.flush()
    for pieces in filter(None, places):
        frame = pl.concat(
            [pl.read_ipc(io.BytesIO(os.pread(file.fileno(), size, at))) for at, size in pieces]
        )
        yield contents_of(
            Rows(frame.drop(NUMBER), rows.unit, frame[NUMBER].to_numpy()), wanted, kinds
        )


def _write(parts: Iterator[Part], work: Path) -> Sequences:
    """Write the sequences in the order of their first rows into the folder `packed`, and return them."""
    columns: dict[str, list[Any]] = {
        name: [] for name in ("first", "lengths", "labels", "groups", "ids")
    }
    with (work / "rows").open("wb") as file:
        for contents, numbers in parts:
            part = contents.sequences
            file.writelines(values.numpy().data for values in part.chunks())
            for name, column in (
                ("first", numbers),
                ("lengths", part.lengths.numpy()),
                ("labels", contents.labels),
                ("groups", part.groups),
                ("ids", part.ids),
            ):
                columns[name].append(column)
    whole = {
        k: np.concatenate(v) for k, v in columns.items() if not any(piece is None for piece in v)
    }
    shape = (int(whole["lengths"].sum()), part.num_features)
    order = np.argsort(whole.pop("first"), kind="stable")
    values = DiskRows(work / "rows", offset=0, shape=shape, dtype=np.float32)
    sequences = Sequences(values, whole["lengths"], checked=True).select(torch.from_numpy(order))
    folder = work / "packed"
    folder.mkdir()
    with (folder / "values.npy").open("wb") as file:
        header = {"descr": np.dtype(np.float32).str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.writelines(values.numpy().data for values in sequences.chunks())
    for name, column in whole.items():
        np.save(
            folder / f"{name}.npy",
            column[order] if name == "lengths" else column[order].astype(str),
        )
    if contents.feature_names is not None:
        np.save(folder / "features.npy", np.array(contents.feature_names))
    (folder / CHECKED).touch()
    return sequences
