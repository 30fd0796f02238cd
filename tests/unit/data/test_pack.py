"""A packed folder holds what the file's reader returns, however small the pieces it reads."""

import csv
import gc
import io
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rnn.data import pack as pack_module
from lightning_rnn.data.file_module import FileDataModule
from lightning_rnn.data.pack import pack
from lightning_rnn.data.readers import ReadOptions, read_file
from lightning_rnn.data.readers import arrays as array_files
from lightning_rnn.errors import DataError

TEXT = st.text(st.sampled_from('ab ,\n"\u00e9'), min_size=1, max_size=4).map(
    lambda text: f"x{text}x"
)
NUMBERS = st.one_of(st.none(), st.integers(-9, 9), st.floats(-1e3, 1e3).map(lambda x: round(x, 2)))


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(pack_module, "CHUNK_BYTES", 64)


def assert_equal(found, expected):
    """Compare two files' contents, values bit for bit."""
    a, b = found.sequences, expected.sequences
    assert a.lengths.tolist() == b.lengths.tolist()
    assert b"".join(x.numpy().tobytes() for x in a.chunks()) == b"".join(
        x.numpy().tobytes() for x in b.chunks()
    )
    for name in ("ids", "groups"):
        mine, other = getattr(a, name), getattr(b, name)
        assert (mine is None) == (other is None)
        assert mine is None or mine.tolist() == other.tolist()
    assert (found.labels is None) == (expected.labels is None)
    assert found.labels is None or found.labels.tolist() == expected.labels.tolist()
    assert found.feature_names == expected.feature_names
    assert found.step_names == expected.step_names


def check(path, **options):
    """Pack and compare; returns the folder."""
    folder = path.with_name("packed")
    packed = pack(input=str(path), output=str(folder), **options)
    names = ("group_column", "require_labels", "missing_values")
    reading = {name: options[name] for name in names if name in options}
    contents = read_file(folder, ReadOptions(**reading))
    assert_equal(contents, read_file(path, ReadOptions(**options)))
    assert len(packed) == len(contents.sequences)
    assert packed.num_features == contents.sequences.num_features
    return folder


@st.composite
def long_tables(draw):
    """Rows of a few ids in any order, no (id, time) twice, all times of one kind."""
    ids = draw(st.lists(TEXT, min_size=1, max_size=5, unique_by=str.strip))
    time = draw(
        st.sampled_from(
            [
                str,
                lambda t: f"{t / 2}",
                lambda t: f" 2020-01-{t:02} ",
                lambda t: f"2020-01-01T{t:02}:00:00.{t}-0{t % 3}:00",
                lambda t: f"{t}:00",
            ]
        )
    )
    keys = st.tuples(st.integers(0, len(ids) - 1), st.integers(1, 12))
    drawn = draw(st.lists(keys, min_size=1, max_size=40, unique=True))
    labels, groups = (draw(st.lists(TEXT, min_size=len(ids), max_size=len(ids))) for _ in range(2))
    cells = [
        (ids[i], str(time(t)), labels[i], groups[i], draw(NUMBERS), draw(NUMBERS)) for i, t in drawn
    ]
    return pl.DataFrame(
        cells,
        schema={
            "id": pl.String,
            "t": pl.String,
            "label": pl.String,
            "g": pl.String,
            "a": pl.Float64,
            "b": pl.Float64,
        },
        orient="row",
        strict=False,
    )


def csv_bytes(frame, blank):
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n" if blank else "\n")
    for i, row in enumerate([frame.columns, *frame.iter_rows()]):
        writer.writerow(["" if cell is None else cell for cell in row])
        out.write("\n" * (blank and i % 3))
    return out.getvalue().encode()


@given(
    frame=long_tables(),
    blank=st.booleans(),
    timed=st.booleans(),
    chunk=st.sampled_from([7, 64, 500]),
)
@settings(max_examples=60)
def test_long_csv(frame, blank, timed, chunk):
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack_module, "CHUNK_BYTES", chunk)
        path = Path(name) / "a.csv"
        path.write_bytes(csv_bytes(frame, blank))
        dropped = {} if timed else {"feature_columns": ["b", "a"]}
        check(path, id_column="id", time_column="t" if timed else None, group_column="g", **dropped)


@given(
    st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS, TEXT | st.none()), min_size=1, max_size=20),
    st.booleans(),
)
@settings(max_examples=40)
def test_wide_csv(rows, blank):
    frame = pl.DataFrame(
        rows,
        schema={"a": pl.Float64, "b": pl.Float64, "c": pl.Float64, "label": pl.String},
        orient="row",
        strict=False,
    )
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "a.csv"
        path.write_bytes(csv_bytes(frame, blank))
        check(path, require_labels=None not in [row[-1] for row in rows])


@pytest.mark.parametrize("long", [True, False])
@pytest.mark.parametrize("row_group_size", [3, None])
def test_parquet(tmp_path, long, row_group_size):
    rng = np.random.default_rng(0)
    ids = rng.permutation(np.repeat(np.arange(12), 5))
    frame = pl.DataFrame(
        {
            "id": ids,
            "t": rng.permutation(60) / 4,
            "label": ids % 3 + 0.0,
            "a": rng.normal(size=60),
            "b": rng.random(60) < 0.5,
            "day": pl.Series(rng.permutation(60)).cast(pl.Date),
        }
    ).with_columns(a=pl.when(pl.col("a") > -1).then("a"))
    path = tmp_path / "a.parquet"
    frame.write_parquet(path, row_group_size=row_group_size)
    if long:
        check(path, id_column="id", time_column="t", feature_columns=["a", "b"])
    else:
        check(path, feature_columns=["a", "t"])


def test_other_formats(tmp_path, files):
    path = files / "JapaneseVowels_slice_TRAIN.ts"
    pack(input=str(path), output=str(tmp_path / "packed"))
    assert_equal(read_file(tmp_path / "packed"), read_file(path))
    np.savez(tmp_path / "a.npz", X=np.ones((2, 3, 1)), y=[1, 2], ids=["u", "v"], groups=["g", "h"])
    pack(input=str(tmp_path / "a.npz"), output=str(tmp_path / "b"), group_column="any")
    grouped = ReadOptions(group_column="any")
    assert_equal(read_file(tmp_path / "b", grouped), read_file(tmp_path / "a.npz", grouped))
    pack(input=str(tmp_path / "b"), output=str(tmp_path / "c"), group_column="any")
    assert_equal(read_file(tmp_path / "c", grouped), read_file(tmp_path / "b", grouped))


def test_a_lost_quote_does_not_fill_the_memory(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('a,label\n1,x\n\n2,"y\n' + "3,z\n" * 50_000)
    with pytest.raises(
        DataError, match=r"a\.csv: line 4: expected .*, got field larger than field limit"
    ):
        pack(input=str(path), output=str(tmp_path / "packed"))


# --- the command ----------------------------------------------------------------------------------


def test_command_line(empty, run, run_ok, make_long, tiny):
    make_long([f"s{i}" for i in range(40)]).write_csv("a.csv")
    columns = ("--id_column", "id", "--time_column", "time", "--group_column", "group")
    run_ok("pack", "--input", "a.csv", "--output", "made/packed/", *columns)
    assert sorted(path.name for path in Path("made").iterdir()) == ["packed"]
    data = ("--data", "FileDataModule", "--data.group_column", "group")
    of_folder = run_ok("fit", *tiny, *data, "--data.train_path", "made/packed")
    long = ("--data.id_column", "id", "--data.time_column", "time")
    of_file = run_ok("fit", *tiny, *data, *long, "--data.train_path", "a.csv")
    assert [s for s in of_folder.splitlines() if s.startswith("epoch")] == [
        s for s in of_file.splitlines() if s.startswith("epoch")
    ]
    assert "40 predictions" in run_ok("predict", "--data.predict_path", "made/packed")


def test_some_features_of_a_folder_are_those_of_the_file(tmp_path, monkeypatch):
    path = tmp_path / "a.csv"
    path.write_text("id,x,y,label\np,1,1,u\np,,2,u\nq,3,,v\nq,,4,v\nq,5,6,v\n")
    folder = check(path, id_column="id")
    for limit in (1 << 27, -1):  # in memory, on disk
        monkeypatch.setattr(array_files, "MAX_BYTES_IN_MEMORY", limit)
        for names in (["x"], ["y", "x"]):
            found = read_file(folder, ReadOptions(feature_columns=names))
            assert_equal(found, read_file(path, ReadOptions(id_column="id", feature_columns=names)))


def test_folders_with_other_categories_or_windows_are_not_joined(tmp_path):
    options = {"id_column": "id", "category_columns": ["word"], "group_column": "id"}
    for name, words in (("a", "red,blue"), ("b", "red,green")):
        rows = [f"{name}{word},{word},x\n" for word in words.split(",")]
        (tmp_path / f"{name}.csv").write_text("id,word,label\n" + "".join(rows))
        pack(input=str(tmp_path / f"{name}.csv"), output=str(tmp_path / name), **options)
    pack(
        input=str(tmp_path / "a.csv"), output=str(tmp_path / "windows"), window_length=1, **options
    )
    for other, length in (("b", None), ("windows", 1)):
        paths = [str(tmp_path / "a"), str(tmp_path / other)]
        with pytest.raises(DataError, match=f"{other}: expected features, names, categories, kind"):
            read_file(paths, ReadOptions(group_column="g", window_length=length))
    options["categories"] = {"word": ["blue", "green", "red"]}
    for name in "ab":
        output = str(tmp_path / name)
        pack(input=f"{output}.csv", output=output, overwrite=True, **options)
    contents = read_file([str(tmp_path / "a"), str(tmp_path / "b")])
    assert contents.sequences.values.tolist() == [[3], [1], [3], [2]]


def test_missing_values_of_a_folder(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("id,x,label\np,1,u\np,-1,u\np,-9,u\nq,3,v\n")
    options = {"id_column": "id", "missing_values": [-9.0]}
    folder = check(path, **options)
    both = {"missing_values": [-1, -9]}
    expected = read_file(path, ReadOptions(id_column="id", **both))
    assert_equal(read_file(folder, ReadOptions(**both)), expected)
    message = r"packed: missing_values: expected \[-9\.0\], as given to pack, got \[\]"
    for read in (
        lambda: read_file(folder),
        lambda: FileDataModule(train_path=str(folder)).split("train"),
    ):
        with pytest.raises(DataError, match=message):
            read()


def test_what_an_error_leaves_can_be_collected(tmp_path):
    """With Python 3.12, collecting a buffer that was not released ended the process."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/1.csv").write_text("id,x,label\np,1,u\n")
    (tmp_path / "data/2.csv").write_text("id,label\np,u\n")
    with pytest.raises(DataError, match=r"2\.csv: expected the columns"):
        pack(input=str(tmp_path / "data"), output=str(tmp_path / "packed"), id_column="id")
    gc.collect()


def test_arrays_in_another_order(tmp_path):
    for i, x in enumerate((np.arange(12.0).reshape(4, 3).T, np.zeros((5, 2), order="F"))):
        np.savez(tmp_path / f"{i}.npz", X=x, lengths=[len(x)], y=["u"])
        check(tmp_path / f"{i}.npz")
        (tmp_path / "packed").rename(tmp_path / f"packed{i}")


def test_command_line_refusals(empty, run, run_ok):
    Path("a.csv").write_text("a,b,label\n1,2,x\n3,4,y\n")
    Path("bad.csv").write_text("a,b,label\n1,2,x\n3,z,y\n")
    Path("other").mkdir()
    before = sorted(Path().rglob("*"))
    for args, code, message in (
        (
            ("--input", "bad.csv", "--output", "p"),
            1,
            "bad.csv: line 3, column 'b': expected finite",
        ),
        (("--input", "no.csv", "--output", "p"), 1, "no.csv: no such file"),
        (
            ("--input", "a.csv", "--output", "other"),
            2,
            "output: expected a folder that does not exist",
        ),
        (
            ("--input", "a.csv", "--output", "other", "--overwrite", "true"),
            2,
            "output: expected a folder that does not exist",
        ),
        (
            ("--input", "a.csv", "--output", "a.csv", "--overwrite", "true"),
            2,
            "output: expected a folder that does not exist",
        ),
        (("--input", "a.csv"), 2, "--output: expected a value, got nothing"),
        (
            ("--input", "a.csv", "--output", "p", "--overwrite", "7"),
            2,
            "--overwrite: expected bool, got '7'",
        ),
        (("--input", "a.csv", "--output", "p", "--x", "7"), 2, "--x: unknown option"),
    ):
        result = run("pack", *args)
        assert (result.code, result.out, result.err.count("\n")) == (code, "", 1), result
        assert result.err.startswith("lightning_rnn: error: "), result
        assert message in result.err, result
    assert sorted(Path().rglob("*")) == before


def test_overwriting_is_all_or_nothing(empty, run, run_ok):
    Path("a.csv").write_text("a,b,label\n1,2,x\n3,4,y\n")
    Path("bad.csv").write_text("a,b,label\n1,2,x\n3,z,y\n")
    run_ok("pack", "--input", "a.csv", "--output", "p")
    before = {path: path.read_bytes() for path in Path("p").iterdir()}
    assert run("pack", "--input", "a.csv", "--output", "p").code == 2
    assert run("pack", "--input", "bad.csv", "--output", "p", "--overwrite", "true").code == 1
    assert {path: path.read_bytes() for path in Path("p").iterdir()} == before
    Path("a.csv").write_text("a,b,label\n5,6,x\n")
    run_ok("pack", "--input", "a.csv", "--output", "p", "--overwrite", "true")
    assert read_file("p").sequences.values.tolist() == [[5], [6]]
    assert sorted(path.name for path in Path().iterdir()) == ["a.csv", "bad.csv", "p"]


def test_help_names_the_command(run):
    assert "pack      " in run("--help").out
    assert "--id_column" in run("pack", "--help").out
