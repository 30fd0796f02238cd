"""Lines without quotes, which polars splits, give the cells that Python's CSV reader gives."""

from contextlib import closing

import numpy as np
import polars as pl
import pytest

from lightning_rnn import ReadOptions
from lightning_rnn.data.readers import table_rows
from lightning_rnn.data.readers.parquet import ParquetDecoder
from lightning_rnn.errors import DataError

CELLS = ("", " ", "a", "1.5", "-2e3", " 7", "nan", "NULL", "é", "#x", "'", "1_0", "\t", "\\")
ODD_CELLS = ('"a,b"', '"x\ny"', '"', "a\rb", "\0", "\ufeff", "a,b", "\n", "\x85", "\u2028")


def rows_or_error(path, options, size=None):
    """Return names, cells and line numbers, or the message."""
    try:
        with closing(ParquetDecoder()) as decoder:
            pieces = list(table_rows.table_rows(path, options, decoder, size))
    except DataError as error:
        return str(error)
    cells = [row for piece in pieces for row in piece.frame.rows()]
    return pieces[0].frame.columns, cells, np.concatenate([p.numbers for p in pieces]).tolist()


@pytest.mark.parametrize("seed", range(40))
def test_the_cells_are_those_of_the_csv_reader(tmp_path, monkeypatch, seed):
    rng = np.random.default_rng(seed)
    end = rng.choice(["\n", "\r\n"])
    separator = str(rng.choice([",", ";", "\t"]))
    num_columns = int(rng.integers(1, 5))
    lines = [separator.join(f"c{i}" for i in range(num_columns))]
    for _ in range(rng.integers(1, 60)):
        cells = [str(rng.choice(CELLS)).replace(separator, "") for _ in range(num_columns)]
        if rng.random() < 0.02:
            cells[-1] = str(rng.choice(ODD_CELLS))
        if rng.random() < 0.01:
            cells.append("more")
        if rng.random() < 0.01:
            cells.pop()
        lines.append(separator.join(cells))
    path = tmp_path / "a.csv"
    path.write_bytes((end.join(lines) + end * int(rng.integers(3))).encode())
    options = ReadOptions(separator=separator)
    found = [rows_or_error(path, options, size) for size in (None, 200, 2000)]
    monkeypatch.setattr(table_rows, "plain_frame", lambda *args: None)
    expected = rows_or_error(path, options)
    assert found == [expected] * 3


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_lines_without_quotes_need_no_csv_reader(end):
    schema = {"a": pl.String, "b": pl.String}
    frame = table_rows.plain_frame(end.join([b"1,", b",x", b"nan,2"]), schema, ",")
    assert frame.rows() == [("1", None), (None, "x"), ("nan", "2")]


def test_cells_that_are_not_utf_8_are_refused_with_their_line(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"a,b\n" + b"1,2\n" * 500 + b"3,\xff\n")
    assert "line 502: expected UTF-8" in rows_or_error(path, ReadOptions(), 400)
