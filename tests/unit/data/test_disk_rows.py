"""Rows that stay in their file, against the same rows in memory."""

import os
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rnn.data import sequences as sequences_module
from lightning_rnn.data.disk_rows import DiskRows
from lightning_rnn.data.file_module import FileDataModule
from lightning_rnn.data.loader import SequenceLoader, TrainSampler
from lightning_rnn.data.readers import arrays as array_files
from lightning_rnn.data.readers import read_file
from lightning_rnn.data.readers.checked_folders import mark_as_checked
from lightning_rnn.data.readers.contents import ReadOptions
from lightning_rnn.data.sequences import Sequences
from lightning_rnn.errors import DataError

OFFSET = 7


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("stored") / "rows"


def store(path, array, columns=None):
    path.write_bytes(bytes(OFFSET) + array.tobytes())
    return DiskRows(path, offset=OFFSET, shape=array.shape, dtype=array.dtype, columns=columns)


@given(
    index=st.lists(st.integers(0, 11), max_size=30),
    dtype=st.sampled_from(["<f4", ">f4", "<f8", "|i1", "?"]),
    columns=st.sampled_from([None, [2], [1, 0, 2]]),
)
@settings(max_examples=60)
def test_any_rows_equal_a_tensors(path, index, dtype, columns):
    array = np.random.default_rng(0).normal(size=(12, 3)).astype(dtype)
    stored = store(path, array, columns)
    tensor = torch.from_numpy(array[:, columns or [0, 1, 2]].astype(np.float32))
    rows = torch.tensor(index, dtype=torch.int64)
    found = stored.index_select(0, rows)
    assert found.dtype == torch.float32
    assert torch.equal(found, tensor.index_select(0, rows))
    assert (stored.shape, len(stored), stored.ndim) == (tuple(tensor.shape), 12, 2)
    assert torch.equal(stored[3:7], tensor[3:7])


@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=6),
    seed=st.integers(0, 99),
    data=st.data(),
)
@settings(max_examples=40)
def test_sequences_are_the_same(path, lengths, seed, data):
    rng = np.random.default_rng(seed)
    array = rng.normal(size=(sum(lengths), 2)).astype(np.float32)
    array[rng.random(len(array)) < 0.4] = np.nan
    labels = np.arange(len(lengths))
    memory, stored = (Sequences(values, lengths, labels) for values in (array, store(path, array)))
    assert stored.lengths.tolist() == memory.lengths.tolist()
    index = torch.tensor(
        data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=8))
    )
    np.testing.assert_array_equal(stored.batch(index).x.numpy(), memory.batch(index).x.numpy())
    assert torch.equal(stored.batch(index).y, memory.batch(index).y)
    for found, expected in zip(stored.moments(), memory.moments(), strict=True):
        assert torch.equal(found, expected)
    assert stored.select(index).fingerprint() == memory.select(index).fingerprint()


def test_a_copy_opens_the_file_itself(path):
    stored = store(path, np.arange(6, dtype=np.float32).reshape(3, 2), [1])
    copy = pickle.loads(pickle.dumps(stored))
    del stored  # closes its own
    assert copy[0:3].tolist() == [[1], [3], [5]]


def test_infinity_is_refused_by_place(path):
    array = np.zeros((5, 2))
    array[3, 1] = 1e300  # float32 cannot hold it
    with pytest.raises(
        DataError, match=r"^sequence 1, step 1, feature 1: expected a finite .*, got inf$"
    ):
        Sequences(store(path, array), [2, 3])


def test_a_file_that_shrinks_is_an_error_and_no_crash(path):
    stored = store(path, np.zeros((5, 2), dtype=np.float32))
    os.truncate(path, OFFSET + 20)
    assert stored[:2].tolist() == [[0, 0], [0, 0]]
    with pytest.raises(
        DataError,
        match=r"rows: expected a file that does not change while it is used, got its end at",
    ):
        stored.index_select(0, torch.tensor([0, 4]))


def test_statistics_of_much_are_those_of_a_sample(path, monkeypatch):
    monkeypatch.setattr(sequences_module, "SAMPLE_BITS", 12)
    array = np.random.default_rng(0).normal(3.0, 2.0, size=(2**15, 2)).astype(np.float32)
    array[: 2**14] += 1.0
    lengths = [4] * 2**13
    memory, stored = Sequences(array, lengths), Sequences(store(path, array), lengths)
    mean, std = memory.moments()
    assert mean.tolist() == pytest.approx([3.5, 3.5], abs=0.15)
    assert std.tolist() == pytest.approx([array[:, i].std() for i in (0, 1)], abs=0.15)
    assert len(memory._sample()) == 2**9
    assert (memory._sample().offsets.diff() % 64).unique().numel() > 1, "at irregular intervals"
    assert torch.equal(stored.moments()[0], mean)
    assert stored.fingerprint() == memory.fingerprint() != Sequences(-array, lengths).fingerprint()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
@pytest.mark.parametrize("order", ["C", "F"])
def test_large_npy_files_are_not_in_memory(tmp_path, monkeypatch, dtype, order):
    array = np.asarray(
        np.random.default_rng(0).normal(size=(4, 3, 2)) * 9, dtype=dtype, order=order
    )
    np.save(tmp_path / "a.npy", array)
    np.save(tmp_path / "a_labels.npy", [0, 1, 0, 1])
    small = read_file(tmp_path / "a.npy").sequences
    monkeypatch.setattr(array_files, "MAX_BYTES_IN_MEMORY", 0)
    large = read_file(tmp_path / "a.npy").sequences
    assert isinstance(small.values, torch.Tensor)
    assert isinstance(large.values, DiskRows) == (order == "C")
    assert torch.equal(large.batch(torch.arange(4)).x, small.batch(torch.arange(4)).x)
    assert torch.equal(small.batch(torch.arange(4)).x, torch.from_numpy(array.astype(np.float32)))


# folders


def folder(path, **arrays):
    path.mkdir()
    for name, array in arrays.items():
        np.save(path / f"{name}.npy", array)
    return path


VALUES = np.arange(8.0).reshape(4, 2)
GOOD = {"values": VALUES, "lengths": [1, 3], "labels": ["x", "y"]}


def test_a_folder_of_arrays_is_a_file(tmp_path):
    path = folder(tmp_path / "a", **GOOD, groups=["g", "h"], features=["u", "v"])
    contents = read_file(path, ReadOptions(group_column="any"))
    assert contents.sequences.lengths.tolist() == [1, 3]
    assert contents.labels.tolist() == ["x", "y"]
    assert contents.feature_names == ["u", "v"]
    assert contents.sequences.groups.tolist() == ["g", "h"]
    assert contents.sequences.ids.tolist() == ["0", "1"]
    path = folder(tmp_path / "b", values=VALUES.reshape(2, 2, 2), labels=[1, 2])
    block = read_file(path, ReadOptions(id_column="for others"))
    assert (block.sequences.lengths.tolist(), block.feature_names) == ([2, 2], None)


@pytest.mark.parametrize("limit", [0, 1 << 20])
def test_features_of_a_folder_are_chosen_by_name(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(array_files, "MAX_BYTES_IN_MEMORY", limit)
    path = folder(tmp_path / "a", **GOOD, features=["u", "v"])
    contents = read_file(path, ReadOptions(feature_columns=["v", "u"]))
    assert contents.feature_names == ["v", "u"]
    assert contents.sequences.batch(torch.tensor([0])).x.tolist() == [[[1, 0]]]
    with pytest.raises(DataError, match="a: expected the features 'w', got no feature 'w'"):
        read_file(path, ReadOptions(feature_columns=["w"]))
    with pytest.raises(DataError, match="got also 'u'"):
        read_file(path, ReadOptions(feature_columns=["v"], only_features=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": ["u"]}, r"features\.npy: expected text of shape \(2,\), got <U1 \(1,\)"),
        ({"features": [1, 2]}, r"features\.npy: expected text of shape \(2,\), got int64"),
        (
            {"lengths": [1, 2]},
            "lengths: expected a sum of 4, the number of rows of values, got a sum of 3",
        ),
        ({"labels": ["x"]}, r"labels\.npy: expected numbers or text of shape \(2,\), got <U1"),
        ({"values": np.array(["a"])}, r"values\.npy: expected real numbers, got dtype <U1"),
        (
            {"values": np.array([None])},
            r"values\.npy: expected an array of plain numbers or text, got",
        ),
    ],
)
def test_a_mark_does_not_make_a_bad_folder_good(tmp_path, change, message):
    path = folder(tmp_path / "a", **(GOOD | change))
    mark_as_checked(path)
    with pytest.raises(DataError, match=message):
        read_file(path)


def test_a_mark_is_believed_unless_a_file_has_changed(tmp_path):
    path = folder(tmp_path / "a", **(GOOD | {"values": np.array([[1.0], [2], [np.inf], [np.nan]])}))
    with pytest.raises(
        DataError, match=r"sequence 1, step 1, feature 0: expected a finite .*, got inf"
    ):
        read_file(path)
    mark_as_checked(path)
    assert read_file(path).sequences.lengths.tolist() == [1, 3]
    np.save(path / "values.npy", np.array([[1.0], [2], [3], [np.nan]]))
    message = r"values\.npy: expected the file that pack has written \(or no file checked\), got"
    with pytest.raises(DataError, match=message):
        read_file(path)
    (path / "checked").unlink()
    assert read_file(path).sequences.lengths.tolist() == [1, 2]


def test_an_empty_mark_is_refused(tmp_path):
    path = folder(tmp_path / "a", **GOOD)
    (path / "checked").touch()
    with pytest.raises(DataError, match="checked: expected digests as written by pack"):
        read_file(path)


def test_no_flipped_bit_is_read(tmp_path):
    """In any file of a packed folder, also in the mark."""
    path = folder(tmp_path / "a", **GOOD)
    mark_as_checked(path)
    good = read_file(path)
    rng = np.random.default_rng(0)
    for file in sorted(path.iterdir()):
        content = file.read_bytes()
        for bit in rng.choice(8 * len(content), 40, replace=False).tolist():
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            file.write_bytes(flipped)
            with pytest.raises(DataError):
                read_file(path)
        file.write_bytes(content)
    assert torch.equal(read_file(path).sequences.values, good.sequences.values)


def test_a_rank_reads_its_own_batches_and_no_more(tmp_path, monkeypatch):
    values = np.random.default_rng(0).normal(size=(40, 5, 2)).astype(np.float32)
    path = folder(tmp_path / "a", values=values, labels=np.arange(40) % 2)
    mark_as_checked(path)
    monkeypatch.setattr(array_files, "MAX_BYTES_IN_MEMORY", 0)
    read, preadv = [], os.preadv  # rows

    def record(file, buffers, at):
        read.extend(range((at - 128) // 8, (at - 128 + len(buffers[0])) // 8))
        return preadv(file, buffers, at)

    monkeypatch.setattr(os, "preadv", record)
    part = FileDataModule(train_path=str(path), val_fraction=0.2).split("train")
    assert read == []
    seen = []
    for rank in (0, 1):
        sampler = TrainSampler(part.lengths, batch_size=8, seed=0, rank=rank, world_size=2)
        index = torch.cat([batch.index for batch in SequenceLoader(part, sampler)])
        assert len(index) == 16
        assert read == (part.offsets[index, None] + torch.arange(5)).view(-1).tolist()
        seen += read
        read.clear()
    assert len(set(seen)) == 32 * 5
