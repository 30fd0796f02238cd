"""Reader of Parquet files."""

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np

from lightning_rnn.data.readers.contents import ReadOptions, quote, unexpected
from lightning_rnn.data.readers.limits import check_cells, check_columns
from lightning_rnn.data.readers.table_rows import Rows
from lightning_rnn.errors import DataError, counted

DECODER = Path(__file__).with_name("decode_parquet.py")


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

    def rows(self, path: Path, options: ReadOptions, size: int) -> Iterator[Rows]:
        """Yield the rows of a file, in pieces of about `size` bytes, or at once if it is below 0.

        After a damaged file, no other can be read.
        """
        import polars as pl

        _check_parquet(path, options, at_once=size < 0)
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
            frame = frame.select(pl.exclude("^__index_level_[0-9]+__$"))  # row numbers of pandas
            numbers = np.arange(start, start + frame.height)
            yield _unpacked(Rows(frame, is_text=False, numbers=numbers))
            start += frame.height
        self._messages.seek(0)
        text = self._messages.read().decode(errors="replace").strip()
        if not header or "panicked" in text:
            reason = text.rpartition("\n")[2][:200]
            raise DataError(f"damaged, or not a Parquet file ({reason})")


def _check_parquet(path: Path, options: ReadOptions, *, at_once: bool) -> None:
    """Check the number of columns, and the number of cells if all rows are read at once."""
    import polars as pl

    with path.open("rb") as file:
        if file.read(4) != b"PAR1":
            raise unexpected("", "a Parquet file", "a file that does not start with PAR1")
    table = pl.scan_parquet(path, glob=False)
    num_columns = len(table.collect_schema())
    check_columns(num_columns, options)
    if at_once:
        num_rows = table.select(pl.len()).collect().item()
        got = f"{num_rows} rows of {num_columns} columns; pack reads them piece by piece"
        check_cells(num_rows * num_columns, got, options)


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
            size = counted(max(1, lengths[row]), "value")
            expected = f"lists of {size} as in column {quote(lists[0])}"
            raise unexpected(f"{rows.place(row)}, column {quote(name)}", expected, f"{found[row]}")
    numbers = rows.numbers.repeat(lengths.to_numpy())
    return Rows(frame.explode(lists), rows.is_text, numbers, are_steps=True)
