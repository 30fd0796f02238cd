"""Features whose digits float32 cannot hold are refused, whatever holds them."""

import re
from math import prod

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lightning_rnn import FileDataModule, RecurrentClassifier, Sequences
from lightning_rnn.data import checks
from lightning_rnn.data import pack as pack_module
from lightning_rnn.data.pack import pack
from lightning_rnn.data.readers import arrays, read_contents, read_file
from lightning_rnn.data.readers.contents import ReadOptions
from lightning_rnn.errors import DataError

LOST = r"feature .*: expected values that float32 tells apart .*rounded by up to"
EPOCH = 1.7e9 + np.arange(240.0).reshape(24, 10)  # 24 sequences of seconds
CLASSES = ["a", "b"] * 12
OPTIONS = ReadOptions(id_column="id", feature_columns=["v"])


def is_refused(values):
    sequences = Sequences(values, [len(values)])
    try:
        sequences.moments()
    except DataError:
        return True
    return False


@given(
    offset=st.floats(-16, 16).map(lambda power: 10.0**power),
    spread=st.floats(-8, 12).map(lambda power: 10.0**power),
    seed=st.integers(0, 99),
)
@settings(max_examples=300)
def test_refused_if_rounding_changes_more_than_a_hundredth_of_the_deviation(offset, spread, seed):
    values = offset + spread * np.random.default_rng(seed).normal(size=(50, 1))
    assume(spread > 1e-12 * offset)  # below, it is the noise of calculations
    change = np.abs(values - values.astype(np.float32)).max()
    share = change / values.std()
    assume(not 0.001 < share < 0.1)  # near the limit, the deviation may be that after rounding
    assert is_refused(values) == (share > 0.01)


@pytest.mark.parametrize(
    "values",
    [
        np.full((9, 1), 0.1),  # constant
        np.full((9, 1), 1e12 + 0.3),
        0.1 * np.array([[1.0], [3.0]]) / np.array([[1.0], [3.0]]) + 1e-17,  # noise
        np.array([[0.3], [0.1 + 0.2]] * 5),
        16_777_000 + np.arange(9)[:, None],  # whole, and exact in float32
        1.7e9 + 86400.0 * np.arange(100)[:, None],  # far apart
        np.array([[1e-3], [np.nan], [3.4e38], [2e5]]),
        (1.7e9 + np.arange(9.0)[:, None]).astype(np.float32),  # lost before
    ],
)
def test_accepted(values):
    assert not is_refused(values)


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.uint64, np.int32, ">f8"])
def test_every_type(dtype):
    values = (1.7e9 + np.arange(60)[:, None]).astype(dtype)
    assert is_refused(values)
    assert is_refused(values.tolist())
    if dtype not in (np.uint64, ">f8"):
        assert is_refused(torch.from_numpy(values))


def test_all_features_are_named():
    values = np.array([0, 1e9, 2e9]) + np.random.default_rng(0).normal(size=(40, 3))
    with pytest.raises(DataError, match="feature 'b', 'c': "):
        Sequences(values, [40]).moments(["a", "b", "c"])


def write_files(folder):
    """Write the sequences of EPOCH in every format."""
    steps = EPOCH.size
    ids = np.repeat(np.arange(len(EPOCH)), EPOCH.shape[1])
    table = pl.DataFrame(
        {
            "id": ids,
            "other": np.random.default_rng(0).normal(size=steps),
            "v": EPOCH.reshape(-1).astype(np.int64),
            "label": np.array(CLASSES)[ids],
        }
    )
    table.write_csv(folder / "long.csv")
    table.write_parquet(folder / "long.parquet")
    rows = [[label, *map(str, row)] for label, row in zip(CLASSES, EPOCH, strict=True)]
    (folder / "x.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    lines = [",".join(row[1:]) + f":{row[0]}\n" for row in rows]
    (folder / "x.ts").write_text("@classLabel true a b\n@data\n" + "".join(lines))
    names = ["label", *(f"t{i}" for i in range(10))]
    (folder / "wide.csv").write_text("\n".join(map(",".join, [names, *rows])) + "\n")
    np.savez(folder / "x.npz", X=EPOCH, y=CLASSES)
    np.save(folder / "y.npy", EPOCH)
    np.save(folder / "y_labels.npy", CLASSES)
    pack(input=str(folder / "long.csv"), output=str(folder / "packed"), id_column="id")


@pytest.mark.parametrize("limit", [0, arrays.MAX_BYTES_IN_MEMORY])
@pytest.mark.parametrize(
    "name",
    ["long.csv", "long.parquet", "x.tsv", "x.ts", "wide.csv", "x.npz", "y.npy", "packed"],
)
def test_every_format(tmp_path, monkeypatch, name, limit):
    monkeypatch.setattr(arrays, "MAX_BYTES_IN_MEMORY", limit)
    write_files(tmp_path)
    path = str(tmp_path / name)
    options = OPTIONS if name in ("long.csv", "long.parquet") else ReadOptions()
    with pytest.raises(DataError, match=LOST):
        read_file(path, options)
    data = FileDataModule(
        train_path=path, predict_path=path, id_column=options.id_column, test_fraction=0.2
    )
    with pytest.raises(DataError, match=LOST):
        data.train_moments  # noqa: B018  # what fit asks for
    assert len(data.split("predict")) == len(EPOCH)  # only training needs all digits


def test_features_of_a_packed_folder_are_refused_by_name(tmp_path):
    write_files(tmp_path)
    folder = str(tmp_path / "packed")
    with pytest.raises(DataError, match="feature 'v': "):
        read_file(folder)
    contents = read_file(folder, ReadOptions(feature_columns=["other"]))
    assert prod(contents.sequences.values.shape) == EPOCH.size


def test_the_estimator():
    for x in (EPOCH, EPOCH[:, :, None], [*EPOCH], EPOCH.astype(np.int64)):
        with pytest.raises(DataError, match=LOST):
            RecurrentClassifier(max_epochs=1).fit(x, CLASSES)


@pytest.mark.parametrize("start", [2**60, 2**53 * 512])
def test_large_integers_that_float64_makes_equal_are_refused(tmp_path, start):
    integers = start + np.arange(60)
    ids = ["a", "b"] * 30
    frame = pl.DataFrame({"id": ids, "v": integers, "label": ids})
    frame.write_parquet(tmp_path / "a.parquet")
    frame.write_csv(tmp_path / "a.csv")
    np.savez(tmp_path / "a.npz", X=integers.reshape(2, 30), y=["x", "y"])
    number = re.escape(f"{start:.17g}")
    for name in ("a.parquet", "a.csv"):
        with pytest.raises(DataError, match=f"feature 'v': .* got {number} to {number}"):
            read_file(tmp_path / name, OPTIONS)
    with pytest.raises(DataError, match=LOST):
        read_file(tmp_path / "a.npz")


def test_large_integers_that_are_equal_or_far_apart_are_read(tmp_path):
    frame = pl.DataFrame({"id": ["a", "b"], "v": [2**60] * 2, "label": ["x", "y"]})
    frame.write_csv(tmp_path / "a.csv")
    assert read_file(tmp_path / "a.csv", OPTIONS).sequences.values.tolist() == [[2.0**60]] * 2
    assert not is_refused(np.full((9, 1), 2**60 + 1))
    assert not is_refused(np.random.default_rng(0).integers(2**62, size=(50, 1)))


def test_large_integers_are_compared_over_all_rows(monkeypatch):
    monkeypatch.setattr(checks, "CACHED_VALUES", 10)
    integers = np.repeat([2**60, 2**60 + 1], 10)[:, None]
    varied = np.append(integers, [[0]], axis=0)
    for convert in (np.asarray, torch.from_numpy):
        assert is_refused(convert(integers))
        with pytest.raises(DataError, match=LOST):
            Sequences.from_arrays(convert(integers)[None]).moments()
        assert not is_refused(convert(varied))


@pytest.mark.parametrize("kind", [np.array, torch.tensor, list])
def test_integers_of_a_list_that_float64_would_round_are_refused(kind):
    Sequences.from_arrays([kind([[2**60], [3]]), kind([[-(2**61)]])])
    with pytest.raises(DataError, match=f"x.1.: expected integers .* got {2**60 + 1}"):
        Sequences.from_arrays([kind([[2**60]]), kind([[2**60 + 1]])])


def is_lost(path, options=None):
    contents = read_contents(path, options or ReadOptions())
    try:
        contents.sequences.moments()
    except DataError:
        return True
    return False


LARGE = st.sampled_from([2**53, 2**60, -(2**60), 2**63 - 1024])


@settings(max_examples=25, deadline=None)
@given(
    start=LARGE,
    steps=st.lists(st.sampled_from([0, 1, 3]), min_size=2, max_size=12),
    mark=st.sampled_from([None, -9999]),
    outlier=st.booleans(),
)
@pytest.mark.slow
def test_pieces_files_and_formats_agree_on_large_integers(
    tmp_path_factory, start, steps, mark, outlier
):
    """A feature is lost if its numbers differ, but are one number in float64, wherever they lie."""
    integers = [start + step for step in steps]
    if mark is not None:
        integers[1:1] = [mark]
    if outlier:
        integers.append(7)
    known = [value for value in integers if value != mark]
    expected = len(set(known)) > 1 and len(set(map(np.float32, known))) == 1
    marks = [mark] if mark is not None else None
    folder = tmp_path_factory.mktemp("large")
    ids = [f"s{i}" for i in range(len(integers))]
    labels = ["x", "y"] * len(ids)
    frame = pl.DataFrame({"id": ids, "v": integers, "label": labels[: len(ids)]})
    frame.write_csv(folder / "a.csv")
    (folder / "tables").mkdir()
    (folder / "arrays").mkdir()
    for i, value in enumerate(integers):
        frame[i : i + 1].write_csv(folder / f"tables/{i}.csv")
        np.savez(folder / f"arrays/{i}.npz", X=[[[value]]], y=["x"])
    options = ReadOptions(id_column="id", feature_columns=["v"], missing_values=marks)
    found = [is_lost(folder / "a.csv", options), is_lost(folder / "tables", options)]
    found.append(is_lost(folder / "arrays", ReadOptions(missing_values=marks)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack_module, "CHUNK_BYTES", 8)
        for name in ("a.csv", "tables", "arrays"):
            columns = {} if name == "arrays" else {"id_column": "id", "feature_columns": ["v"]}
            target = folder / f"packed {name}"
            pack(input=str(folder / name), output=str(target), missing_values=marks, **columns)
            found.append(is_lost(target, ReadOptions(missing_values=marks)))
        frame.drop("id").write_csv(folder / "wide.csv")  # one feature: the single step
        pack(input=str(folder / "wide.csv"), output=str(folder / "w"), missing_values=marks)
    found += [is_lost(folder / "wide.csv", ReadOptions(missing_values=marks))]
    found += [is_lost(folder / "w", ReadOptions(missing_values=marks))]
    assert found == [expected] * len(found)
