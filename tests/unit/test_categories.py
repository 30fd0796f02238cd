"""Categories in arrays get the codes that a table's columns get."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rnn import ReadOptions, read_file
from lightning_rnn.categories import CategoryCodes
from lightning_rnn.errors import DataError

WORDS = st.sampled_from(
    ("red", "blue", " blue ", "1", "1.0", "01", "+1", "True", "-0.50", "NA", "", "é", "-", "null")
)


@given(words=st.lists(WORDS, min_size=1, max_size=8).map(lambda words: [*words, "red"]))
@settings(max_examples=50)
def test_arrays_and_tables_have_the_same_codes(words, tmp_path_factory):
    path = tmp_path_factory.mktemp("codes") / "table.csv"
    rows = [f"a,{word},{t},up\n" for t, word in enumerate(words)]
    path.write_text("id,word,x,label\n" + "".join(rows), encoding="utf-8")
    contents = read_file(path, ReadOptions(id_column="id", category_columns=["word"]))
    encode = CategoryCodes(contents.feature_names, contents.categories)
    arrays = [[word, t] for t, word in enumerate(words)]
    for array in (arrays, np.array(arrays, dtype=object)):
        np.testing.assert_array_equal(encode(array, "x"), contents.sequences.values.numpy())


def test_one_feature_may_be_a_list_of_words():
    encode = CategoryCodes(["token"], {"token": ["a", "7"]}, accept_unknown=True)
    found = encode(["a", 7, 7.0, None, math.nan, "b"], "x")[:, 0]
    np.testing.assert_array_equal(found, [1, 2, 2, math.nan, math.nan, 0])
    with pytest.raises(DataError, match=r"^x, step 1, feature 'token': expected a category .*'b'$"):
        CategoryCodes(["token"], {"token": ["a"]})(["a", "b"], "x")


def test_numbers_beside_categories_are_checked():
    encode = CategoryCodes(["token", "level"], {"token": ["a"]})
    np.testing.assert_array_equal(encode([["a", "0.1"], ["a", None]], "x")[:, 1], [0.1, math.nan])
    with pytest.raises(DataError, match=r"^x, step 0, feature 'level': expected a number, got"):
        encode([["a", "low"]], "x")
    with pytest.raises(DataError, match=r"^x: expected shape \(T, 2\), got \(1, 1\)"):
        encode([["a"]], "x")
