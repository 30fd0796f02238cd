"""HDF5 files: the arrays of an .npz file, from no other file, in bounded memory."""

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lightning_rnn import FileDataModule
from lightning_rnn.data.pack import pack
from lightning_rnn.data.readers import ReadOptions, decode_hdf5, hdf5, read_file
from lightning_rnn.data.readers.arrays import NPZ_NAMES
from lightning_rnn.errors import DataError, OptionError

NAMES = list(NPZ_NAMES.values())
IN_THIS_FILE = "expected a data set of text or numbers that is stored in this file, got"
SHAPES = st.tuples(*[st.integers(0, 3)] * 3) | st.tuples(*[st.integers(0, 5)] * 2) | st.just(())
NUMBERS = arrays.arrays(st.sampled_from([">f8", "f2", "<i8", ">u4", "?", "f4"]), SHAPES)
WORDS = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5))


def copied(folder, max_cells=10**6):
    """Return the arrays that the decoder copies from `a.h5`."""
    decode_hdf5.copy(str(folder / "a.h5"), str(folder / "a.npz"), max_cells, NAMES)
    with np.load(folder / "a.npz") as archive:
        return {name: archive[name] for name in archive.files}


@settings(max_examples=40, deadline=None)
@given(
    values=NUMBERS,
    words=WORDS,
    is_fixed=st.booleans(),
    settings=st.sampled_from([{}, {"compression": "gzip"}, {"shuffle": True, "chunks": True}]),
)
def test_arrays_are_those_that_were_written(tmp_path_factory, values, words, is_fixed, settings):
    folder = tmp_path_factory.mktemp("hdf5")
    with h5py.File(folder / "a.h5", "w") as file:
        is_chunked = values.ndim > 0 and values.size > 0
        file.create_dataset("X", data=values, **(settings if is_chunked else {}))
        encoded = [word.encode() for word in words]
        texts = np.array(encoded, dtype="S") if is_fixed else np.array(words, dtype=object)
        file.create_dataset("ids", data=texts, dtype=None if is_fixed else h5py.string_dtype())
    found = copied(folder)
    assert found["X"].dtype.str[1:] == values.dtype.str[1:]  # the byte order may change
    np.testing.assert_array_equal(found["X"], values)
    assert found["X"].shape == values.shape
    assert np.char.decode(found["ids"].astype("S")).tolist() == words


def write(path, arrays):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array


@pytest.mark.parametrize("name", ["a.h5", "b.HDF5"])
def test_sequences_are_those_of_npz(tmp_path, name):
    arrays = {
        "X": np.array([[1.0, np.nan], [2, 3], [-9, 5], [np.nan, np.nan]], dtype=">f8"),
        "lengths": np.array([1, 3], dtype="i2"),
        "y": ["é", "b"],
        "ids": ["u", "v"],
        "groups": [7, 7],
    }
    write(tmp_path / name, arrays | {"other": [1], "folder/X": [2]})
    np.savez(tmp_path / "a.npz", **arrays)
    options = ReadOptions(group_column="any", missing_values=[-9])
    found, expected = (read_file(tmp_path / each, options) for each in (name, "a.npz"))
    assert found.sequences.lengths.tolist() == [1, 2]
    assert found.labels.tolist() == expected.labels.tolist() == ["é", "b"]
    for part in ("lengths", "ids", "groups"):
        assert getattr(found.sequences, part).tolist() == getattr(expected.sequences, part).tolist()
    np.testing.assert_equal(found.sequences.values.numpy(), expected.sequences.values.numpy())
    pack(input=str(tmp_path / name), output=str(tmp_path / "packed"), group_column="any")
    assert read_file(tmp_path / "packed").sequences.ids.tolist() == ["u", "v"]


def test_a_folder_of_recordings(tmp_path):
    for label in ("run", "walk"):
        (tmp_path / label).mkdir()
        write(tmp_path / label / "1.h5", {"X": np.ones((3, 2))})
    data = FileDataModule(
        train_path=str(tmp_path), id_column="file_name", label_column="folder_name", val_fraction=0
    )
    assert data.split("train").ids.tolist() == ["run/1.h5", "walk/1.h5"]
    assert data.class_names == ["run", "walk"]


def refused(folder, max_cells=10**6):
    with pytest.raises(SystemExit) as caught:
        copied(folder, max_cells)
    return str(caught.value.code)


def test_other_files_are_not_read(tmp_path):
    write(tmp_path / "secret.h5", {"X": np.ones((2, 3)), "y": [0, 1]})
    (tmp_path / "secret.bin").write_bytes(bytes(48))
    layout = h5py.VirtualLayout(shape=(2, 3), dtype="f8")
    layout[:] = h5py.VirtualSource(tmp_path / "secret.h5", "X", shape=(2, 3))
    makers = {
        "link": lambda file: file.update(X=h5py.ExternalLink(str(tmp_path / "secret.h5"), "/X")),
        "soft link": lambda file: file.update(X=h5py.SoftLink("/elsewhere")),
        "virtual": lambda file: file.create_virtual_dataset("X", layout),
        "external": lambda file: file.create_dataset(
            "X", (2, 3), "f8", external=[(str(tmp_path / "secret.bin"), 0, 48)]
        ),
        "group": lambda file: file.create_group("X"),
        "type": lambda file: file.update(X=np.dtype("f8")),
    }
    for make in makers.values():
        with h5py.File(tmp_path / "a.h5", "w") as file:
            make(file)
        assert refused(tmp_path).startswith(f"X: {IN_THIS_FILE} another object, a link")


@pytest.mark.parametrize(
    "array",
    [
        h5py.Empty("f8"),
        [np.ones(2), np.ones(3)],
        np.array([0, 1], dtype=h5py.enum_dtype({"walk": 0, "run": 1})),
    ],
)
def test_other_types_are_refused(tmp_path, array):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["X"] = np.ones((2, 3))
        dtype = h5py.vlen_dtype("f8") if isinstance(array, list) else array.dtype
        file.create_dataset("y", data=array, dtype=dtype)
    assert refused(tmp_path).startswith(f"y: {IN_THIS_FILE} ")


def test_what_a_file_announces_is_not_allocated(tmp_path):
    limit = r"expected at most 100 cells \(max_cells raises the limit\), got"
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("X", (10**12, 3), "f8", chunks=(100, 3))
    with pytest.raises(DataError, match=f"a.h5: X: {limit} 3000000000000 of 8 bytes"):
        read_file(tmp_path / "a.h5", ReadOptions(max_cells=100))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("X", (1, 3), "f8", chunks=(10**6, 3), maxshape=(None, 3))
    assert "got 3000000 of 8 bytes" in refused(tmp_path, 100)
    write(tmp_path / "a.h5", {"X": np.ones((20, 3)), "y": ["x" * 99] + ["z"] * 19})
    assert "y: expected at most 100 cells" in refused(tmp_path, 100)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no HDF5", "damaged, or not an HDF5 file (Unable to synchronously open file (file signa"),
        ({"x": [1]}, "expected a data set 'X', got 'x'"),
        ({"X": np.ones((2, 3)), "y": [b"x", b"\xe9"]}, "y: expected UTF-8 text (for Latin-1 "),
        ({"X": np.ones((2, 3)), "y": ["x", "NA"]}, "sequence 1: expected a label, got a missing"),
        ({"X": np.ones((2, 3))}, "expected an array y of class labels, got none"),
    ],
)
def test_broken(tmp_path, content, message):
    path = tmp_path / "a.h5"
    path.write_bytes(content) if isinstance(content, bytes) else write(path, content)
    with pytest.raises(DataError) as caught:
        read_file(path)
    assert str(caught.value).startswith(f"{path}: {message}")


@pytest.mark.parametrize("code", ["import os\nos.abort()", "while True: pass"])
def test_a_crash_and_a_hang_are_errors(tmp_path, monkeypatch, code):
    """Damaged files cause both in the library; a decoder that does the same takes its place."""
    write(tmp_path / "a.h5", {"X": [1.0]})
    limit = "import resource as r, sys; r.setrlimit(r.RLIMIT_CPU, (int(sys.argv[4]),) * 2)\n"
    (tmp_path / "decoder.py").write_text(limit + code)
    monkeypatch.setattr(hdf5, "DECODER", tmp_path / "decoder.py")
    monkeypatch.setattr(hdf5, "SECONDS", 1)
    with pytest.raises(DataError, match="the HDF5 library crashed or did not end"):
        read_file(tmp_path / "a.h5")


def test_the_decoder_limits_its_time(tmp_path):
    write(tmp_path / "a.h5", {"X": [1.0]})
    words = [sys.executable, hdf5.DECODER, tmp_path / "a.h5", tmp_path / "a.npz", "9", "0", "X"]
    assert subprocess.run(words, check=False).returncode < 0
    assert not Path(tmp_path / "a.npz").exists()


def test_without_h5py(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "a.h5").write_bytes(b"x")
    message = r"^h5py is not installed; run: pip install 'lightning_rnn\[hdf5\]'$"
    with pytest.raises(OptionError, match=message):
        read_file(tmp_path / "a.h5")
