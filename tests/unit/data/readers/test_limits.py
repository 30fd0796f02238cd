"""Files that would take much more memory than they have bytes are refused from their header."""

import resource
import sys

import polars as pl
import pytest

from lightning_rnn.data.pack import pack
from lightning_rnn.data.readers import ReadOptions, read_file
from lightning_rnn.errors import DataError

LIMIT = ReadOptions(max_cells=20_000)  # 10 columns, lines of 5,000 bytes


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", ",".join("abcdefghijk") + "\n", "got 22000 \\(2000 for each of 11 columns\\)"),
        ("a.csv", "a,label\n" + "1" * 5001 + ",x\n", "4 for each byte of a line"),
        ("a.tsv", "x" + "\t1" * 2501 + "\n", "4 for each byte of a line"),
        ("a.ts", "@data\n" + "1," * 2501 + "1:x\n", "4 for each byte of a line"),
    ],
)
def test_text_above_a_limit_is_refused(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content)
    expected = rf"expected at most 20000 cells \(max_cells raises the limit\), .*{message}"
    with pytest.raises(DataError, match=expected):
        read_file(path, LIMIT)
    if name == "a.csv":
        with pytest.raises(DataError, match=expected):
            read_file(path, ReadOptions(max_cells=20_000, encoding="latin-1"))


def test_rows_of_parquet_above_the_limit_are_refused_but_packed(tmp_path):
    path = tmp_path / "a.parquet"
    pl.select(a=pl.repeat(1.0, 20_001), label=pl.repeat("x", 20_001)).write_parquet(path)
    with pytest.raises(DataError, match="20001 rows of 2 columns; pack reads them piece by piece"):
        read_file(path, LIMIT)
    assert len(pack(input=str(path), output=str(tmp_path / "packed"), max_cells=20_000)) == 20_001
    assert len(read_file(path, ReadOptions(max_cells=50_000)).sequences) == 20_001


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="kilobytes of memory are those of Linux")
def test_a_million_columns_take_little_memory(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(",".join(f"c{i}" for i in range(10**6)) + "\n" + "1," * (10**6 - 1) + "1\n")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match="2000 for each of 1000000 columns"):
        read_file(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000
