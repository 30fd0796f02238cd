"""Classes of sequences from a table of ids and labels."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from lightning_rnn.data.readers.columns import class_column, text_column
from lightning_rnn.data.readers.contents import (
    FILE_NAME,
    FileContents,
    ReadOptions,
    complete,
    errors_with_path,
    join_names,
    quote,
    unexpected,
)
from lightning_rnn.data.readers.parquet import ParquetDecoder
from lightning_rnn.data.readers.sources import extension_of
from lightning_rnn.data.readers.table_rows import join_rows, table_rows


def read_labels(options: ReadOptions) -> dict[str, str]:
    """Return the class of each id in the table `labels_path`, each id once; none without it."""
    if options.labels_path is None:
        return {}
    path = Path(options.labels_path).expanduser()
    with errors_with_path(path):
        if extension_of(path) not in (".csv", ".csv.gz", ".parquet", ".xlsx"):
            raise unexpected("", "a table (.csv, .csv.gz, .parquet or .xlsx)", quote(path.name))
        with closing(ParquetDecoder()) as decoder:
            rows = join_rows(table_rows(path, options, decoder))
        columns = rows.frame.columns
        id_column = options.id_column if options.id_column in columns else "id"
        for name in (id_column, options.label_column):
            if name not in columns:
                raise unexpected(
                    "", f"a column {quote(name)}", f"the columns {join_names(columns)}"
                )
        ids = complete(text_column(rows.frame[id_column], options), "an id", rows.place)
        labels = class_column(rows.frame[options.label_column], options)
        labels = complete(labels, "a label", rows.place)
        is_repeated = ids.is_duplicated() & ~ids.is_first_distinct()
        if is_repeated.any():
            row = int(is_repeated.arg_true()[0])
            raise unexpected(rows.place(row), "each id once", f"{quote(ids[row])} again")
    return dict(zip(ids, labels, strict=True))


def add_labels(
    contents: FileContents, label_of: dict[str, str], options: ReadOptions
) -> FileContents:
    """Return the contents with the classes of their ids; of a file also without its extension."""
    ids = contents.sequences.ids
    assert ids is not None
    if contents.labels is not None or contents.step_labels is not None:
        got = f"{options.labels_path} and labels in the file"
        raise unexpected("labels_path", "labels in one place", got)
    labels: list[str] = []
    for name in ids:
        found = {label_of.get(name, "")}
        if options.id_column == FILE_NAME:
            found.add(label_of.get(name[: -len(extension_of(Path(name)))], ""))
        found.discard("")
        if len(found) > 1:
            expected = f"one label in {options.labels_path}"
            raise unexpected(f"sequence {quote(name)}", expected, join_names(sorted(found)))
        if not found and options.require_labels:
            expected = f"an id in {options.labels_path}"
            raise unexpected(f"sequence {quote(name)}", expected, "one that is not there")
        labels.append("".join(found))
    return replace(contents, labels=np.array(labels, dtype=object))
