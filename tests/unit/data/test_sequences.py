"""Ragged storage: accepted and refused input; batches and moments against slow references."""

import math
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rnn.data import checks
from lightning_rnn.data.sequences import Sequences
from lightning_rnn.errors import DataError

NAN = math.nan


def make(lengths, features=2, seed=0, missing=0.0, **columns):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(sum(lengths), features)).astype(np.float32)
    values[rng.random(values.shape) < missing] = np.nan
    return Sequences(values, lengths, np.arange(len(lengths)) % 2, **columns)


def rows_of(sequences, i):
    """Steps of one sequence, as a list of lists."""
    start = int(sequences.offsets[i])
    return sequences.values[start : start + int(sequences.lengths[i])].tolist()


def check_equal(found, expected):
    """Compare two batches field by field; NaN equals NaN."""
    np.testing.assert_array_equal(found.x.numpy(), expected.x.numpy())
    assert (found.y is None) == (expected.y is None)
    assert found.y is None or torch.equal(found.y, expected.y)
    assert torch.equal(found.lengths, expected.lengths)
    assert torch.equal(found.index, expected.index)
    assert found.padding.is_full == expected.padding.is_full


def test_views_with_negative_strides():
    x = np.arange(12.0).reshape(2, 3, 2)
    for view in (x[::-1, ::-1], list(x[::-1, ::-1])):
        values = Sequences.from_arrays(view).values
        assert values.tolist() == x[::-1, ::-1].reshape(6, 2).tolist()


def test_masked_arrays_are_refused():
    x = np.ma.masked_array(np.ones((2, 3, 2)), mask=True)
    for masked in (x, list(x), [x[0].data, x[1]]):
        with pytest.raises(DataError, match="expected no masked array"):
            Sequences.from_arrays(masked)
    with pytest.raises(DataError, match=r"^labels: expected no masked array"):
        Sequences.from_arrays(x.data, np.ma.masked_array([0, 1], mask=[True, False]))


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        (np.arange(12).reshape(2, 3, 2), [[[0, 1], [2, 3], [4, 5]], [[6, 7], [8, 9], [10, 11]]]),
        (torch.arange(6.0).view(3, 2), [[[0, 1], [2, 3], [4, 5]]]),
        ([np.ones((1, 2)), np.zeros((2, 2), dtype=np.int8)], [[[1, 1]], [[0, 0], [0, 0]]]),
        ([np.array([1.0, 2.0]), torch.tensor([3])], [[[1], [2]], [[3]]]),
        ([[True, False], [[2], [3], [4]]], [[[1], [0]], [[2], [3], [4]]]),
        (([[1, 2]],), [[[1, 2]]]),
    ],
    ids=["(N, T, F)", "(T, F)", "list of (T, F)", "list of (T,)", "nested lists", "tuple"],
)
def test_from_arrays_accepts(arrays, expected):
    sequences = Sequences.from_arrays(arrays, list(range(len(expected))))
    assert [rows_of(sequences, i) for i in range(len(sequences))] == expected
    assert sequences.values.dtype == torch.float32
    assert sequences.lengths.tolist() == [len(rows) for rows in expected]
    assert sequences.labels.tolist() == list(range(len(expected)))
    assert (sequences.labels.dtype, sequences.lengths.dtype) == (torch.int64, torch.int64)
    assert sequences.num_features == len(expected[0][0])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (np.zeros(3), "x: expected shape (N, T, F) or (T, F), or a list, got shape (3,)"),
        (
            np.zeros((1, 2, 3, 4)),
            "x: expected shape (N, T, F) or (T, F), or a list, got shape (1, 2, 3, 4)",
        ),
        ([], "x: expected an array or a list of at least one array, got an empty list"),
        ("abc", "x: expected an array or a list of at least one array, got str"),
        (None, "x: expected an array or a list of at least one array, got NoneType"),
        (
            [np.zeros((2, 3)), np.zeros((2, 2))],
            "x[1]: expected shape (T, 3) as x[0], got (2, 2)",
        ),
        (
            [np.zeros((2, 1)), np.zeros((1, 2, 1))],
            "x[1]: expected shape (T, 1) as x[0], got (1, 2, 1)",
        ),
        ([np.array(["a"])], "x[0]: expected real numbers, got dtype <U1"),
        (np.zeros((1, 1, 1), dtype=complex), "x: expected real numbers, got dtype complex128"),
        (
            torch.zeros(1, 1, 1, dtype=torch.complex64),
            "x: expected real numbers, got dtype torch.complex64",
        ),
        (np.zeros((0, 5, 2)), "lengths: expected shape (N,) with at least one sequence, got (0,)"),
        (np.zeros((2, 0, 2)), "lengths: expected at least 1, got 0 for sequence 0"),
        (np.zeros((2, 3, 0)), "values: expected shape (steps, features), got (6, 0)"),
    ],
)
def test_from_arrays_refuses(arrays, message):
    with pytest.raises(DataError) as caught:
        Sequences.from_arrays(arrays)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "arrays", [[1.0, 2.0], [np.float32(3)], [[[1], [2, 3]]]], ids=["floats", "0-d", "ragged"]
)
def test_from_arrays_refuses_what_is_no_table(arrays):
    with pytest.raises(DataError, match=r"^x\[0\]: expected "):
        Sequences.from_arrays(arrays)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0, 2.0], [2]), "values: expected shape (steps, features), got (2,)"),
        (
            (np.zeros((2, 1)), [[2]]),
            "lengths: expected shape (N,) with at least one sequence, got (1, 1)",
        ),
        ((np.zeros((2, 1)), [1.0, 1.0]), "lengths: expected integers, got dtype float64"),
        (
            (np.zeros((2, 1)), torch.ones(2)),
            "lengths: expected integers, got dtype torch.float32",
        ),
        ((np.zeros((2, 1)), [3, -1]), "lengths: expected at least 1, got -1 for sequence 1"),
        (
            (np.zeros((2, 1)), [1, 2]),
            "lengths: expected a sum of 2, the number of rows of values, got a sum of 3",
        ),
        (
            (np.zeros((2, 1)), [1, 1], [0]),
            "labels: expected shape (2,), one per sequence, got (1,)",
        ),
        (
            (np.zeros((2, 1)), [1, 1], [0.0, 1.0]),
            "labels: expected integers, got dtype float64",
        ),
    ],
)
def test_constructor_refuses(arguments, message):
    with pytest.raises(DataError) as caught:
        Sequences(*arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize("column", ["groups", "ids"])
def test_constructor_refuses_a_column_of_another_length(column):
    with pytest.raises(
        DataError, match=rf"^{column}: expected shape \(2,\), one per sequence, got \(1,\)$"
    ):
        Sequences(np.zeros((2, 1)), [1, 1], **{column: np.array(["a"])})


def test_trailing_nan_shortens_to_one_step_at_least_and_inner_nan_stays():
    parts = [
        [[1, 2], [NAN, 3], [NAN, NAN], [NAN, NAN]],  # ends after the step with a 3
        [[NAN, NAN]] * 3,  # nothing in it
        [[NAN, NAN], [4, NAN], [NAN, NAN], [5, 6]],  # gaps only inside
        [[7, 8], [NAN, NAN]],
    ]
    sequences = Sequences.from_arrays([np.array(part) for part in parts], [0, 1, 0, 1])
    assert sequences.lengths.tolist() == [2, 1, 4, 1]
    assert sequences.offsets.tolist() == [0, 4, 7, 11]
    batch = sequences.batch(torch.arange(4))
    expected = np.zeros((4, 4, 2), dtype=np.float32)
    for i, (part, length) in enumerate(zip(parts, (2, 1, 4, 1), strict=True)):
        expected[i, :length] = part[:length]
    np.testing.assert_array_equal(batch.x.numpy(), expected)  # takes NaN as equal to NaN


@pytest.mark.parametrize(
    ("ids", "name"),
    [(None, "sequence 1"), (np.array(["anna", "bert", "carl"], dtype=object), "sequence 'bert'")],
)
@pytest.mark.parametrize("value", [math.inf, -math.inf, 1e39])
def test_infinity_is_refused_by_place(ids, name, value, monkeypatch):
    monkeypatch.setattr(checks, "CHUNK_VALUES", 2)
    values = np.zeros((9, 3))
    values[5, 2] = value  # third step of the second sequence
    found = "-inf" if value < 0 else "inf"
    with pytest.raises(DataError) as caught:
        Sequences(values, [3, 4, 2], ids=ids)
    assert str(caught.value) == (
        f"{name}, step 2, feature 2: expected a finite float32 number, or NaN for a missing value, "
        f"got {found}"
    )


@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=6),
    features=st.integers(1, 3),
    missing=st.sampled_from((0.0, 0.5)),
    seed=st.integers(0, 2**31),
    data=st.data(),
)
@settings(max_examples=60)
def test_batch_equals_slow_reference(lengths, features, missing, seed, data):
    sequences = make(lengths, features, seed, missing)
    index = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=8))
    batch = sequences.batch(torch.tensor(index))
    width = max(int(sequences.lengths[i]) for i in index)
    x = np.zeros((len(index), width, features), dtype=np.float32)
    for row, i in enumerate(index):
        for t in range(int(sequences.lengths[i])):
            for f in range(features):
                x[row, t, f] = sequences.values[sum(lengths[:i]) + t, f]
    np.testing.assert_array_equal(batch.x.numpy(), x)
    assert batch.x.dtype == torch.float32
    assert batch.lengths.tolist() == [int(sequences.lengths[i]) for i in index]
    assert batch.y.tolist() == [i % 2 for i in index]
    assert batch.index.tolist() == index


def test_batch_without_labels():
    assert Sequences.from_arrays(np.zeros((2, 3, 1))).batch(torch.tensor([1])).y is None


def test_select_shares_the_values():
    names = np.array(list("abc"), dtype=object)
    sequences = make([2, 3, 1], groups=names, ids=names[::-1])
    chosen = sequences.select(torch.tensor([2, 0]))
    assert chosen.values.data_ptr() == sequences.values.data_ptr()
    assert [rows_of(chosen, 0), rows_of(chosen, 1)] == [
        rows_of(sequences, 2),
        rows_of(sequences, 0),
    ]
    assert chosen.labels.tolist() == [0, 0]
    assert chosen.groups.tolist() == ["c", "a"]
    assert chosen.ids.tolist() == ["a", "c"]
    again = chosen.select(torch.tensor([1]))
    assert (len(again), rows_of(again, 0)) == (1, rows_of(sequences, 0))
    bare = Sequences.from_arrays(np.zeros((2, 1, 1))).select(torch.tensor([1]))
    assert (bare.labels, bare.groups, bare.ids) == (None, None, None)


def test_does_not_copy_what_is_float32_already():
    values = np.zeros((4, 1), dtype=np.float32)
    assert np.shares_memory(Sequences(values, [1, 3]).values.numpy(), values)
    tensor = torch.zeros(2, 2, 1)
    assert Sequences.from_arrays(tensor).values.data_ptr() == tensor.data_ptr()


def test_memory_mapped_values_stay_mapped(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(8, dtype=np.float32).reshape(4, 2))
    mapped = np.lib.format.open_memmap(tmp_path / "x.npy", mode="c")
    sequences = Sequences(mapped, [1, 3]).select(torch.tensor([1]))
    assert np.shares_memory(sequences.values.numpy(), mapped)
    assert sequences.batch(torch.tensor([0])).x.tolist() == [[[2, 3], [4, 5], [6, 7]]]


@pytest.mark.parametrize("chunk_rows", [1, 3, 1 << 20])
@pytest.mark.parametrize("offset", [0.0, 1e4, -3e5])
def test_moments_equal_numpys(chunk_rows, offset, monkeypatch):
    monkeypatch.setattr(checks, "CACHED_VALUES", chunk_rows)
    rng = np.random.default_rng(0)
    values = (rng.normal(size=(40, 4)) * [1, 5, 0.7, 1] + offset).astype(np.float32)
    values[rng.random(values.shape) < 0.2] = np.nan
    values[:, 3] = np.float32(offset / 3)  # constant
    index = [0, 3, 1]  # of sequences with 10, 4, 20 and 6 steps
    sequences = Sequences(values, [10, 4, 20, 6]).select(torch.tensor(index))
    mean, std = sequences.moments()
    used = np.concatenate([values[:14], values[34:]]).astype(np.float64)
    np.testing.assert_allclose(mean.numpy(), np.nanmean(used, axis=0), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(std[:3].numpy(), np.nanstd(used, axis=0)[:3], rtol=1e-5)
    assert std[3] == 1.0
    assert (mean.dtype, std.dtype) == (torch.float32, torch.float32)


def test_moments_of_features_with_nothing_or_one_value():
    mean, std = Sequences([[NAN, 3.0, NAN], [NAN, NAN, 0.0]], [1, 1]).moments()
    assert mean.tolist() == [0.0, 3.0, 0.0]
    assert std.tolist() == [1.0, 1.0, 1.0]


def test_float32_rounding_is_no_spread():
    constant = np.float32(1e4)
    rounded = np.where(np.arange(9) % 2, constant, np.nextafter(constant, np.float32(np.inf)))
    assert rounded.std() > 0
    mean, std = Sequences(np.stack([rounded, 2 * np.arange(9)], axis=1), [9]).moments()
    assert mean.tolist() == pytest.approx([1e4, 8.0])
    assert std.tolist() == pytest.approx([1.0, np.std(2 * np.arange(9))])


def test_whole_numbers_far_from_0_have_their_spread():
    values = 1e7 + np.arange(42.0)[:, None] % 21
    mean, std = Sequences(values, [42]).moments()
    assert mean.item() == pytest.approx(1e7 + 10)
    assert std.item() == pytest.approx(values.std(), rel=1e-6)


def test_moments_of_a_feature_that_begins_in_a_later_chunk(monkeypatch):
    monkeypatch.setattr(checks, "CHUNK_VALUES", 1)
    values = np.full((20, 2), 1.0, dtype=np.float32)
    values[0, 0] = np.nan
    values[1:, 0] = 3e5 + np.random.default_rng(0).normal(size=19)
    mean, std = Sequences(values, [1] * 20).moments()
    assert mean[0].item() == pytest.approx(values[1:, 0].mean(dtype=np.float64), rel=1e-6)
    assert std[0].item() == pytest.approx(values[1:, 0].std(dtype=np.float64), rel=1e-3)


def test_fingerprint_is_a_function_of_the_content(monkeypatch):
    whole = make([2, 3, 4])
    assert make([2, 3, 4]).fingerprint() == whole.fingerprint()
    assert whole.select(torch.arange(3)).fingerprint() == whole.fingerprint()
    part = whole.select(torch.tensor([1, 2]))
    alone = Sequences(whole.values[2:].clone(), [3, 4], [1, 0])
    assert (
        part.fingerprint() == alone.fingerprint()
    )  # of the sequences, not of what lies between them
    before = whole.fingerprint()
    monkeypatch.setattr(checks, "CHUNK_VALUES", 2)
    assert whole.fingerprint() == before


@given(row=st.integers(0, 8), feature=st.integers(0, 1))
@settings(max_examples=18)
def test_fingerprint_changes_with_any_value(row, feature):
    original, changed = make([2, 3, 4]), make([2, 3, 4])
    changed.values[row, feature] += 1e-6
    assert changed.fingerprint() != original.fingerprint()
    changed.values[row, feature] = NAN
    assert changed.fingerprint() != original.fingerprint()


def test_fingerprint_changes_with_labels_lengths_order_and_shape():
    values = np.arange(12, dtype=np.float32)
    tables = [
        Sequences(values.reshape(6, 2), [2, 4], [0, 1]),
        Sequences(values.reshape(6, 2), [2, 4], [1, 1]),
        Sequences(values.reshape(6, 2), [2, 4]),
        Sequences(values.reshape(6, 2), [3, 3], [0, 1]),
        Sequences(values.reshape(12, 1), [2, 10], [0, 1]),
        Sequences(values.reshape(6, 2), [2, 4], [0, 1]).select(torch.tensor([1, 0])),
        Sequences(values.reshape(6, 2), [2, 4], [0, 1]).select(torch.tensor([0])),
    ]
    assert len({table.fingerprint() for table in tables}) == len(tables)


@pytest.mark.parametrize(("index", "is_full"), [([0, 2], True), ([0, 1], False), ([1], True)])
def test_batch_knows_whether_it_is_full(index, is_full):
    batch = make([3, 2, 3]).batch(torch.tensor(index))
    assert batch.padding.is_full == is_full
    assert len(batch) == len(index)
    moved = batch.to(torch.device("cpu"))
    check_equal(moved, batch)


def test_labels_are_replaced_in_a_copy():
    sequences = make([2, 3, 1], ids=np.array(list("abc"), dtype=object)).select(
        torch.tensor([2, 0])
    )
    labelled = sequences.replaced(labels=torch.tensor([7, 8]))
    assert (labelled.labels.tolist(), labelled.ids.tolist()) == ([7, 8], ["c", "a"])
    assert rows_of(labelled, 0) == rows_of(sequences, 0)
    assert sequences.labels.tolist() == [0, 0]
    with pytest.raises(DataError, match=r"^labels: expected shape \(2,\), one per sequence"):
        sequences.replaced(labels=torch.tensor([1]))
    with pytest.raises(DataError, match=r"^data: expected labels, got sequences without labels$"):
        sequences.replaced(labels=None).required_labels.sum()


def test_moving_takes_only_what_is_chosen():
    sequences = Sequences(torch.arange(20.0).view(10, 2), [1, 2, 3, 4], [0, 1, 2, 3])
    chosen = sequences.select(torch.tensor([3, 1]))
    moved = chosen.to(torch.device("cpu"))
    assert moved.values.shape == (6, 2)
    index = torch.tensor([1, 0])
    check_equal(moved.batch(index), chosen.batch(index))


@given(seed=st.integers(0, 2**31), num_features=st.integers(1, 3), block=st.integers(1, 40))
@settings(max_examples=40)
def test_trailing_missing_steps_are_cut_as_one_by_one(seed, num_features, block):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 9, size=rng.integers(1, 12))
    values = rng.normal(size=(lengths.sum(), num_features)).astype(np.float32)
    values[rng.random(len(values)) < rng.random()] = np.nan
    expected = []
    for sequence in np.split(values, lengths.cumsum()[:-1]):
        while len(sequence) > 1 and np.isnan(sequence[-1]).all():
            sequence = sequence[:-1]
        expected.append(len(sequence))
    with patch.object(checks, "CACHED_VALUES", block):
        found = Sequences(values, lengths)
        assert found.lengths.tolist() == expected
        for order in (slice(None), rng.permutation(len(lengths)), slice(0, None, 2)):
            chosen = found.select(torch.arange(len(lengths))[order])
            parts = [values[i : i + n] for i, n in zip(chosen.offsets, chosen.lengths, strict=True)]
            for size in (None, block):
                chunks = torch.cat(list(chosen.chunks(size)))
                np.testing.assert_array_equal(chunks.numpy(), np.concatenate(parts))
