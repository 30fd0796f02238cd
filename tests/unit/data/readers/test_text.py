"""Files of numbers read at once, against the same files read line by line."""

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rnn.data.readers import read_file, text
from lightning_rnn.data.readers.contents import ReadOptions
from lightning_rnn.errors import DataError

CELLS = ["0.5", "-1", "+.25", "3.", "1e5", "-0", "2E-3", "", " 7", "16777217.123456789", "1e-50"]
OTHERS = ["NaN", "nan", "?", "NA", "inf", "1e39", "1_0", "x", "-nan", "+NaN", "0x1", '"1"', "1,5"]
BREAKS = ["\n", "\n\n", "\r\n", " \n", "\n\ufeff"]


def read(path):
    try:
        contents = text.read_tsv(path, ReadOptions())
    except DataError as error:
        return str(error)
    sequences = contents.sequences
    rounding = sequences.rounding.tolist()
    rows = sequences.values.numpy().tobytes()
    return rows, sequences.lengths.tolist(), rounding, list(contents.labels)


@given(
    rows=st.lists(st.lists(st.sampled_from(CELLS), min_size=2, max_size=2), min_size=1, max_size=6),
    labels=st.lists(st.sampled_from(["a", "1", "1.0", "", "b c", "\ufeffa"]), min_size=6),
    other=st.one_of(st.none(), st.sampled_from(OTHERS)),
    end=st.sampled_from(BREAKS),
    is_ragged=st.booleans(),
)
@settings(max_examples=150)
def test_numbers_at_once_are_read_as_line_by_line(
    rows, labels, other, end, is_ragged, tmp_path_factory
):
    lines = ["\t".join([label, *row]) for label, row in zip(labels, rows, strict=False)]
    if other is not None:
        lines[-1] = lines[-1].rpartition("\t")[0] + "\t" + other
    if is_ragged:
        lines.append("a\t1")
    path = tmp_path_factory.mktemp("tsv") / "a.tsv"
    path.write_text("\n".join(lines) + end, newline="")
    found = read(path)
    with patch.object(text, "_read_plain_tsv", lambda path, options: None):
        assert found == read(path)


def test_a_file_of_numbers_is_read_at_once(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("a\t1\t2\nb\t3\t4\n")
    with patch.object(text, "_parse_numbers", side_effect=AssertionError):
        values = text.read_tsv(path, ReadOptions()).sequences.values
    np.testing.assert_array_equal(values, [[1], [2], [3], [4]])


@pytest.mark.parametrize("cells", [["1", "2.5e1"], [" 1", "-.5 "]])
def test_plain_cells_are_numbers(cells):
    assert text._parse_numbers(cells, "line 1").tolist() == [float(cell) for cell in cells]


@pytest.mark.parametrize("suffix", ["tsv", "ts"])
def test_integers_that_float64_would_round_are_refused(suffix, tmp_path):
    path = tmp_path / f"x.{suffix}"
    header = "@classLabel true a b\n@data\n"
    cells = ["9007199254740992", "-9007199254740994", "18014398509481984"]
    line = {"tsv": "a\t" + "\t".join(cells) + "\n", "ts": ",".join(cells) + ":a\n"}[suffix]
    start = header if suffix == "ts" else ""
    path.write_text(start + line)
    read_file(path, ReadOptions())
    path.write_text(start + line + line.replace("740992", "740993"))
    with pytest.raises(DataError, match=r"value 1: .*float64 holds, got '9007199254740993'"):
        read_file(path, ReadOptions())
