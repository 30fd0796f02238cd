"""One class has one name."""

from decimal import Decimal

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_rnn.categories import class_name, join_classes
from lightning_rnn.data.readers import ReadOptions, read_file
from lightning_rnn.data.readers.class_names import check_not_continuous, order_classes
from lightning_rnn.errors import DataError

SPELLINGS = st.decimals(-1000, 1000, places=3).flatmap(
    lambda number: st.sampled_from(
        [
            f"{number}",
            f"{number}000",
            f"{number:+}",
            f"{number:.6e}",
            f" {number:E} ",
            str(float(number)),
            f"{number}".lstrip("0") if number > 0 else f"{number}",
        ]
    ).map(lambda text: (number, text))
)


@given(SPELLINGS, SPELLINGS)
def test_names_are_equal_if_numbers_are(first, second):
    (a, a_text), (b, b_text) = first, second
    assert (class_name(a_text) == class_name(b_text)) == (a == b)
    assert class_name(float(a)) == class_name(a_text)
    assert Decimal(class_name(a_text)) == a


def test_names_of_large_numbers_keep_their_digits():
    names = [class_name(text) for text in ("9007199254740993.0", "9007199254740992.00", "-0.0e9")]
    assert names == ["9007199254740993", "9007199254740992", "0"]
    assert class_name(2.0**60) == class_name("1.152921504606847e18") == "1152921504606847000"


@pytest.mark.parametrize("values", [[True, False], [0.5, 1.0], [-1, 1], [0.0, -0.5]])
def test_formats_agree_on_names(tmp_path, values):
    frame = pl.DataFrame({"a": [1.0, 2.0], "label": values})
    frame.write_parquet(tmp_path / "a.parquet")
    np.savez(tmp_path / "a.npz", X=np.ones((2, 1, 1)), y=values)
    text = [str(value) for value in values]
    pl.DataFrame({"a": [1.0, 2.0], "label": text}).write_csv(tmp_path / "a.csv")
    (tmp_path / "a.tsv").write_text("".join(f"{value}\t1\n" for value in text))
    (tmp_path / "a.ts").write_text("@data\n" + "".join(f"1:{value}\n" for value in text))
    names = [read_file(path).labels.tolist() for path in sorted(tmp_path.iterdir())]
    assert len(names) == 5
    assert all(other == names[0] for other in names)


@pytest.mark.parametrize("word", ["+nan", "nan(1)", "1.#QNAN", "-1.#IND", "missing", "--", "."])
def test_other_words_are_no_missing_values(tmp_path, word):
    (tmp_path / "b.csv").write_text(f"a,b,label\n1,{word},x\n")
    (tmp_path / "b.tsv").write_text(f"x\t1\t{word}\n")
    (tmp_path / "b.ts").write_text(f"@data\n1,{word}:x\n")
    for name in ("b.csv", "b.tsv", "b.ts"):
        with pytest.raises(DataError, match=r"expected (finite|values with time stamps)"):
            read_file(tmp_path / name)


@pytest.mark.parametrize(
    "word",
    ["", "?", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "-nan", "null", "NULL", "None"],
)
def test_missing_words_are_the_same_everywhere(tmp_path, word):
    def refused(name, text, **options):
        features = ["v"] if name == "a.csv" else None
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=r"got a missing value") as caught:
            read_file(tmp_path / name, ReadOptions(feature_columns=features, **options))
        return str(caught.value)

    long = {"id_column": "id", "time_column": "t"}
    header = "id,t,v,g,label\na,1,1,g,x\n"
    assert "line 3: expected a label" in refused("a.csv", f"{header}b,2,2,g, {word} \n", **long)
    assert "line 3: expected an id" in refused("a.csv", f"{header}{word},2,2,g,x\n", **long)
    assert "line 3, column 't'" in refused("a.csv", f"{header}b,{word},2,g,x\n", **long)
    assert "line 3: expected a group" in refused(
        "a.csv", f"{header}b,1,2,{word},x\n", **long, group_column="g"
    )
    assert "line 2: expected a label" in refused("a.tsv", f"x\t1\n{word}\t2\n")
    assert "line 3: expected a label" in refused("a.ts", f"@data\n1:x\n2:{word}\n")
    np.savez(tmp_path / "a.npz", X=np.ones((2, 1, 1)), y=["x", word])
    with pytest.raises(DataError, match="sequence 1: expected a label, got a missing value"):
        read_file(tmp_path / "a.npz")
    (tmp_path / "b.csv").write_text(f"a,b,label\n1,{word},x\n")
    (tmp_path / "b.tsv").write_text(f"x\t1\t{word}\n")
    (tmp_path / "b.ts").write_text(f"@data\n1,{word}:x\n")
    for name in ("b.csv", "b.tsv", "b.ts"):  # a missing last value shortens the sequence
        assert read_file(tmp_path / name).sequences.values[:, 0].isnan().tolist() == [False, True]


@pytest.mark.parametrize(
    ("labels", "is_refused"),
    [
        ([str(i / 7) for i in range(12)], True),
        (["0.5", "0.7", "0.9"], True),
        ([str(i) for i in range(200, 215)], True),
        ([f"{i} %" for i in range(20)], True),
        ([f"${i}.50" for i in range(20)] * 2, True),
        ([f"{i},5" for i in range(20)], True),  # without decimal_comma
        ([f"2024-01-{i}" for i in range(10, 30)], True),
        ([f"{i}e-9" for i in range(1, 13)] * 3, True),
        ([f"{i}-{i + 1}" for i in range(20)] * 2, False),
        (["+", "-", "++"] * 4, False),
        (["0.5", "0.5", "1.5"], False),
        ([str(i / 2) for i in range(9)] * 2, False),
        ([str(i / 2) for i in range(20)] * 10, False),
        ([str(i) for i in range(200, 215)] * 2, False),
        ([f"c{i}" for i in range(30)], False),
    ],
)
def test_numbers_to_predict(labels, is_refused):
    array = np.array([class_name(label) for label in labels], dtype=object)
    if is_refused:
        with pytest.raises(DataError, match="which look like a number to predict"):
            check_not_continuous(array)
    else:
        check_not_continuous(array)


def test_names_with_commas_are_quoted_in_messages():
    names = ["a, b", "c", "5 %", 'say "x"', "f (g)"]
    assert join_classes(names) == """'a, b', c, 5 %, 'say "x"', 'f (g)'"""
    with pytest.raises(DataError, match=r"the positive_class 'a', got 'a, b', c$"):
        order_classes(np.array(["a, b", "c"]), "a")
