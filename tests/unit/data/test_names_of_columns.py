"""Columns are found by the names that the model was trained on, in every format of tables."""

import tempfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rnn import FileDataModule
from lightning_rnn.data import pack as pack_module
from lightning_rnn.data.column_findings import column_findings
from lightning_rnn.data.pack import pack
from lightning_rnn.data.readers import ReadOptions, read_file
from lightning_rnn.errors import DataError

CASES = Path(__file__).parents[2] / "files" / "cases"
STEPS = ["t0", "t1", "t2", "t3"]
X = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
LABELS = ["up", "down"] * 6
NAMES = [f"p{i}" for i in range(12)]
WIDE = pl.DataFrame({f"t{i}": X[:, i] for i in range(4)} | {"label": LABELS})
WIDE_WITH_IDS = WIDE.with_columns(who=pl.Series(NAMES))
LONG = pl.DataFrame(
    {"who": np.repeat(NAMES, 4), "a": X.ravel(), "b": -X.ravel(), "label": np.repeat(LABELS, 4)}
)
FORMATS = st.sampled_from(["csv", "parquet", "packed"])


def write(frame, folder, kind, **options):
    """Write a table in one of the formats; return the path."""
    path = Path(folder) / ("table.csv" if kind == "csv" else "table.parquet")
    if kind == "csv":
        frame.write_csv(path)
    else:
        frame.write_parquet(path)
    if kind != "packed":
        return str(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack_module, "CHUNK_BYTES", 100)  # several pieces and buckets
        pack(input=str(path), output=str(Path(folder) / "packed"), **options)
    return str(Path(folder) / "packed")


def read_with_model(trained_on, frame, kind, stage, **options):
    """Read a table as a model reads it that was trained on another one."""
    with tempfile.TemporaryDirectory() as folder:
        schema = FileDataModule(train_path=write(trained_on, folder, "parquet"), **options).schema
    with tempfile.TemporaryDirectory() as folder:
        settings = {**options, "feature_columns": None}
        path = write(frame, folder, kind, require_labels=stage == "test", **settings)
        data = FileDataModule(**{f"{stage}_path": path}, **options)
        (sequences,) = data.load(stage, schema)
        return sequences, data.true_labels(stage)


def values(sequences):
    return next(sequences.chunks()).numpy().reshape(len(sequences), 4, -1)


@given(order=st.permutations([*STEPS, "who", "label"]), kind=FORMATS, has_ids=st.booleans())
@settings(max_examples=10)
def test_wide_tables_keep_the_order_of_the_steps(order, kind, has_ids):
    options = {"id_column": "who"} if has_ids else {}
    full = WIDE_WITH_IDS if has_ids else WIDE
    frame = full.select([name for name in order if name in full.columns])
    if [name for name in order if name in STEPS] != STEPS:
        with pytest.raises(DataError, match="expected time steps in the order 't0', 't1', 't2'"):
            read_with_model(full, frame, kind, "test", **options)
        return
    sequences, labels = read_with_model(full, frame, kind, "test", **options)
    np.testing.assert_array_equal(values(sequences)[..., 0], X)
    assert sequences.ids.tolist() == (NAMES if has_ids else [str(i) for i in range(12)])
    assert labels == LABELS


@pytest.mark.parametrize("stage", ["test", "predict"])
@pytest.mark.parametrize("kind", ["csv", "parquet", "packed"])
@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (WIDE.with_columns(t4=pl.lit(0.5)), "got also 't4'"),
        (WIDE.drop("t1"), "got no feature 't1'"),
        (WIDE.rename({"t1": "u1"}), "got no feature 't1'"),
        (WIDE.select("t1", "t0", "t2", "t3", "label"), "in the order 't0', 't1', 't2', 't3', got"),
    ],
)
def test_other_steps_are_refused(frame, message, kind, stage):
    with pytest.raises(DataError, match=message):
        read_with_model(WIDE, frame, kind, stage)


@given(
    order=st.permutations(["who", "a", "b", "c", "label"]),
    chosen=st.sampled_from([None, ["a", "b"], ["b", "a"], ["a"]]),
    typed=st.sampled_from([None, ["a", "b"], ["b", "a"], ["c"]]),
    kind=FORMATS,
)
@settings(max_examples=12)
def test_the_models_features_are_read_whatever_is_typed(order, chosen, typed, kind):
    frame = LONG.with_columns(c=pl.lit(0.25)).select(order)
    with tempfile.TemporaryDirectory() as folder:
        path = write(LONG, folder, "csv")
        trained = FileDataModule(train_path=path, id_column="who", feature_columns=chosen)
        schema = trained.schema
        expected = values(trained._train_sequences)
    with tempfile.TemporaryDirectory() as folder:
        path = write(frame, folder, kind, id_column="who")
        data = FileDataModule(predict_path=path, id_column="who", feature_columns=typed)
        (sequences,) = data.load("predict", schema)
        np.testing.assert_array_equal(values(sequences), expected)
        assert data.true_labels("predict") == LABELS
        tested = FileDataModule(test_path=path, id_column="who")
        with pytest.raises(DataError, match="got also"):
            tested.load("test", schema)


def test_ignored_columns_are_named(tmp_path, capsys):
    path = write(LONG.with_columns(c=1.0, note=pl.lit("x")), tmp_path, "csv")
    schema = FileDataModule(train_path=write(LONG, tmp_path, "parquet"), id_column="who").schema
    FileDataModule(predict_path=path, id_column="who").load("predict", schema)
    assert capsys.readouterr().out == f"{path}: ignored columns: 'c', 'note'\n"
    typed = FileDataModule(predict_path=path, id_column="who", feature_columns=["c"])
    typed.load("predict", schema)
    first, second = capsys.readouterr().out.splitlines()
    assert first == "feature_columns is ignored: the model has 'a', 'b'"
    assert second == f"{path}: ignored columns: 'c', 'note'"


@pytest.mark.parametrize("kind", ["csv", "parquet", "packed"])
def test_a_single_step_of_a_long_table_is_no_wide_table(kind):
    one_step = LONG.unique("who", maintain_order=True)
    if kind == "packed":  # alone, the table looks wide
        with pytest.raises(DataError, match="expected 2 features per step, as in training, got 1"):
            read_with_model(LONG, one_step, kind, "predict", id_column="who")
        return
    sequences, _ = read_with_model(LONG, one_step, kind, "predict", id_column="who")
    assert (sequences.lengths.tolist(), sequences.num_features) == ([1] * 12, 2)


def test_rows_of_another_kind_are_refused(tmp_path):
    path = write(LONG, tmp_path, "csv")
    schema = FileDataModule(train_path=path, id_column="who").schema
    data = FileDataModule(predict_path=path)
    with pytest.raises(DataError, match=r"id_column: expected a column, because .*, got None"):
        data.load("predict", schema)
    repeated = pl.concat([WIDE_WITH_IDS, WIDE_WITH_IDS[3:4]])
    with pytest.raises(DataError, match=r"line 14: expected a new id, because .*, got 'p3'"):
        read_with_model(WIDE_WITH_IDS, repeated, "csv", "predict", id_column="who")


def test_labels_that_are_known_in_part():
    labels = pl.Series(["up", None, "NA", "other", *LABELS[4:]])
    frame = WIDE.with_columns(label=labels)
    for kind in ("csv", "parquet", "packed"):
        _, found = read_with_model(WIDE, frame, kind, "predict")
        assert found == ["up", None, None, "other", *LABELS[4:]]
        assert read_with_model(WIDE, frame.drop("label"), kind, "predict")[1] is None


def test_the_training_file_as_test_file(tmp_path, capsys):
    path = write(WIDE, tmp_path, "csv")
    copy = tmp_path / "copy.csv"
    copy.write_bytes(Path(path).read_bytes())
    folder = write(WIDE, tmp_path, "packed")
    for test_path, train_path in ((path, path), (copy, path), (folder, folder)):
        data = FileDataModule(train_path=str(train_path), test_path=str(test_path))
        data.load("test", None)
        assert capsys.readouterr().out == f"{test_path}: the same sequences as in train_path\n"
    WIDE[:10].write_csv(copy)
    FileDataModule(train_path=path, test_path=str(copy)).load("test", None)
    assert capsys.readouterr().out == ""


def findings(frame, **options):
    with tempfile.TemporaryDirectory() as folder:
        contents = read_file(write(frame, folder, "csv"), ReadOptions(**options))
    return column_findings(contents, options.get("id_column"))


def test_nothing_is_suspicious_about_plain_tables():
    assert findings(WIDE) == []
    assert findings(WIDE_WITH_IDS, id_column="who") == []
    assert findings(LONG, id_column="who") == []


def test_a_counting_column():
    expected = [
        "column 'Unnamed: 0' is read as a time step",
        "column 'Unnamed: 0' numbers the rows",
    ]
    contents = read_file(CASES / "wide_with_index.csv")
    assert column_findings(contents, None) == expected
    shuffled = WIDE.with_columns(n=pl.Series(np.random.default_rng(1).permutation(12) + 5))
    assert findings(shuffled) == ["column 'n' numbers the rows"]
    counts = LONG.with_columns(n=pl.Series(list(range(4)) * 12))
    assert findings(counts, id_column="who") == ["column 'n' counts the steps of each sequence"]


@pytest.mark.parametrize("name", ["id", "ID", "patient_id", "index", "time", "Unnamed: 0", "date"])
def test_names_of_no_feature(name):
    noise = pl.Series(np.random.default_rng(2).normal(size=48))
    column = f"column {name!r} is read as"
    assert findings(WIDE.with_columns(noise[:12].alias(name))) == [f"{column} a time step"]
    long = LONG.with_columns(noise.alias(name))
    assert findings(long, id_column="who") == [f"{column} a feature"]


def test_a_long_table_that_is_read_as_wide():
    looks = "column 'n' looks like ids of sequences with a row for each step: set id_column"
    frame = LONG.drop("who").with_columns(n=pl.Series(np.repeat(np.arange(12) * 7, 4)))
    assert findings(frame) == [looks]
    assert findings(frame.sample(fraction=1.0, shuffle=True, seed=1)) == [looks]
    assert findings(frame[:8]) == [looks]  # two sequences of two classes
    bits = WIDE.with_columns(n=pl.Series([0, 0, 1, 1] * 3))
    assert findings(bits) == []


def test_steps_that_are_sorted_as_text():
    frame = pl.DataFrame({f"t{i}": X[:, 0] for i in (1, 10, 2)} | {"label": LABELS})
    assert findings(frame) == ["column 't10' is the time step before 't2'"]


def test_sequences_of_one_step():
    assert findings(WIDE.select("t0", "label")) == ["all sequences have one step"]
