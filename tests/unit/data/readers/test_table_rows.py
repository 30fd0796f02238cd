"""CSV files of any dialect give the rows that Python's csv module reads."""

import csv
import gzip
import io
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rnn.data.pack import pack
from lightning_rnn.data.readers import ReadOptions, read_file
from lightning_rnn.data.readers.parquet import ParquetDecoder
from lightning_rnn.data.readers.table_rows import table_rows
from lightning_rnn.errors import DataError, OptionError

CELLS = st.text(st.sampled_from('abé ,;\t|"\n1.'), max_size=4)


@st.composite
def tables(draw):
    width = draw(st.integers(2, 4))
    row = st.lists(CELLS, min_size=width, max_size=width)
    return draw(st.lists(row, min_size=1, max_size=8))


@settings(max_examples=150)
@given(
    table=tables(),
    separator=st.sampled_from(",;\t|"),
    is_named=st.booleans(),
    encoding=st.sampled_from([None, "utf-8", "utf-8-sig", "latin-1", "utf-16"]),
    line_end=st.sampled_from(["\n", "\r\n"]),
    prefix=st.sampled_from(["", "\n\n", "sep"]),
    is_compressed=st.booleans(),
    size=st.sampled_from([None, 1, 30, 64]),
)
def test_dialects(
    tmp_path_factory, table, separator, is_named, encoding, line_end, prefix, is_compressed, size
):
    out = io.StringIO(newline="")
    out.write(f"sep={separator}{line_end}" if prefix == "sep" else prefix)
    writer = csv.writer(out, delimiter=separator, lineterminator=line_end)
    names = [f"c{i}" for i in range(len(table[0]))]
    writer.writerows([names, *table])
    raw = out.getvalue().encode(encoding or "utf-8")
    path = tmp_path_factory.mktemp("csv") / ("a.csv.gz" if is_compressed else "a.csv")
    path.write_bytes(gzip.compress(raw) if is_compressed else raw)
    is_needed = separator == "|" and prefix != "sep"
    options = ReadOptions(separator=separator if is_named or is_needed else None, encoding=encoding)
    with closing(ParquetDecoder()) as decoder:
        frame = pl.concat([rows.frame for rows in table_rows(path, options, decoder, size)])
    assert frame.columns == names
    assert [["" if c is None else c for c in row] for row in frame.rows()] == table


@given(
    values=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=8),
    separator=st.sampled_from(",;\t"),
)
def test_decimal_commas(tmp_path_factory, values, separator):
    path = tmp_path_factory.mktemp("comma") / "a.csv"
    cells = [repr(value).replace(".", ",") for value in values]
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=separator)
        writer.writerows([["id", "v", "label"], *(["a", cell, "0,50"] for cell in cells)])
    contents = read_file(path, ReadOptions(id_column="id", decimal_comma=True))
    assert contents.sequences.values.flatten().tolist() == values
    assert contents.labels.tolist() == ["0.5"]


@pytest.mark.parametrize("cell", ["1.5", "1.234,5", "1,2,3"])
def test_points_are_refused_where_commas_are_decimal(tmp_path, cell):
    (tmp_path / "a.csv").write_text(f"a;label\n{cell};x\n")
    with pytest.raises(DataError, match=rf"line 2, column 'a': expected .*, got '{cell}'"):
        read_file(tmp_path / "a.csv", ReadOptions(decimal_comma=True))


def test_other_encodings_are_named(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("a,label\n1,\u00e9t\u00e9\n".encode("latin-1"))
    with pytest.raises(
        DataError, match=r"line 2: expected UTF-8 text .*encoding='latin-1'\), got byte"
    ):
        read_file(path)
    assert read_file(path, ReadOptions(encoding="latin-1")).labels.tolist() == ["\u00e9t\u00e9"]
    for encoding in ("ascii", "latin-99", "\0"):
        with pytest.raises(DataError, match=r"a\.csv: encoding: expected that of the file, got "):
            read_file(path, ReadOptions(encoding=encoding))
    path.write_bytes(b"a,label\r1,x\r2,y\r")
    with pytest.raises(DataError, match=r"line 1: expected lines that end in"):
        read_file(path)


def test_a_header_with_two_separators_is_read_with_commas(tmp_path):
    (tmp_path / "a.csv").write_text("a,b;c,label\n1,2,x\n")
    assert read_file(tmp_path / "a.csv").sequences.values.flatten().tolist() == [1, 2]


@pytest.mark.parametrize("separator", [";;", "", '"', "\n", "\u00e9"])
def test_separators_are_checked(separator):
    with pytest.raises(OptionError, match="separator: expected one ASCII character"):
        ReadOptions(separator=separator)


def test_blank_lines_between_rows_of_one_column_are_refused(tmp_path):
    """They could be cells, whose rows would be lost; blank lines at the end could not."""
    path = tmp_path / "a.csv"
    options = ReadOptions(require_labels=False)
    path.write_text('\na\n1\n""\n3\n\n\n')
    assert read_file(path, options).sequences.lengths.tolist() == [1, 1, 1]
    path.write_text("a\n1\n\n3\n")
    with pytest.raises(DataError, match="line 3: expected a value, or NA, got a blank line"):
        read_file(path, options)


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("a,label\n1,x\n1,2,x\n", "--data.separator --data.encoding --data.decimal_comma"),
        ("a|b|label\n1|2|x\n", "--data.separator --data.label_column"),
        ("a,label\n1,\u00e9\n", "--data.encoding"),
        ('a,label\n"1,5",x\n', "--data.decimal_comma"),
        ("who,t,v,label\n\u00c9,1,2,x\n", "--data.encoding"),
        ("who,t,v,label\na,1,2,x\na,2,2,x\n", "--data.id_column --data.time_column"),
        ("who,t,v,label\n1_2,1,2,x\n1_2,2,2,x\n", "--data.id_column"),
    ],
)
def test_errors_name_the_flags_to_type(empty, run, text, flags):
    Path("a.csv").write_bytes(text.encode("latin-1"))
    result = run("inspect", "a.csv")
    assert result.code == 1
    assert [flag for flag in flags.split() if flag not in result.err] == []


def test_pack_takes_the_same_options(tmp_path):
    text = "id;t;v;label\na;3.1.24;1,5;x\nb;1.1.24;2,5;\u00e9\na;2.1.24;3,5;x\n"
    path = tmp_path / "a.csv"
    path.write_bytes(gzip.compress(text.encode("latin-1")))
    dialect = {
        "time_format": "%d.%m.%y",
        "separator": ";",
        "decimal_comma": True,
        "encoding": "latin-1",
    }
    columns = {"id_column": "id", "time_column": "t"}
    pack(input=str(path), output=str(tmp_path / "packed"), **columns, **dialect)
    packed = read_file(tmp_path / "packed")
    assert packed.sequences.values.flatten().tolist() == [3.5, 1.5, 2.5]
    assert packed.labels.tolist() == ["x", "\u00e9"]
