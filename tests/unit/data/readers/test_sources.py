"""Several files are read like the one file of which they are parts."""

import csv
import gzip
import subprocess
from datetime import date, time
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rnn.data.pack import pack
from lightning_rnn.data.readers import ReadOptions, read_file
from lightning_rnn.errors import DataError, OptionError

HEADER = ["id", "time", "label", "a", "b"]


def write_table(path, rows, header=HEADER):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pl.DataFrame(rows, schema=header, orient="row").write_parquet(path)
        return
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def assert_equal(found, expected):
    """Compare ids, labels, groups, names and values of two contents."""
    a, b = found.sequences, expected.sequences
    assert a.ids.tolist() == b.ids.tolist()
    assert a.lengths.tolist() == b.lengths.tolist()
    for mine, other in ((a.groups, b.groups), (found.labels, expected.labels)):
        assert (mine is None) == (other is None)
        assert mine is None or mine.tolist() == other.tolist()
    mine, other = (np.concatenate([x.numpy() for x in part.chunks()]) for part in (a, b))
    np.testing.assert_array_equal(mine, other)
    assert found.feature_names == expected.feature_names
    assert found.step_names == expected.step_names


def split_randomly(draw, rows):
    """Cut rows into up to four parts, none of them empty."""
    cuts = draw(st.sets(st.integers(1, max(1, len(rows) - 1)), max_size=3))
    edges = [0, *sorted(cut for cut in cuts if cut < len(rows)), len(rows)]
    return [rows[start:stop] for start, stop in pairwise(edges)]


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
@settings(max_examples=15)
@given(data=st.data())
def test_parts_of_a_table_are_the_table(tmp_path_factory, suffix, data):
    folder = tmp_path_factory.mktemp("parts")
    keys = st.tuples(st.sampled_from("pqrs"), st.integers(0, 9))
    drawn = data.draw(st.lists(keys, min_size=1, max_size=25, unique=True))
    rows = [(name, time, name in "pq", time / 4, hash(name) % 7) for name, time in drawn]
    write_table(folder / f"whole{suffix}", rows)
    parts = split_randomly(data.draw, rows)
    for i, part in enumerate(parts):
        order = data.draw(st.permutations(range(len(HEADER)))) if i else range(len(HEADER))
        cells = [[row[k] for k in order] for row in part]
        write_table(folder / f"parts/part{i + 8}{suffix}", cells, [HEADER[k] for k in order])
    options = {"id_column": "id", "time_column": data.draw(st.sampled_from(["time", None]))}
    if options["time_column"] is None:
        options["feature_columns"] = ["a", "b"]
    expected = read_file(folder / f"whole{suffix}", ReadOptions(**options))
    files = [str(folder / f"parts/part{i + 8}{suffix}") for i in range(len(parts))]
    for paths in (folder / "parts", f"{folder}/par*/part*", files):
        assert_equal(read_file(paths, ReadOptions(**options)), expected)
    packed = folder / "packed"
    pack(input=files, output=str(packed), **options)
    assert_equal(read_file(packed), expected)


@settings(max_examples=10)
@given(data=st.data())
def test_parts_of_wide_and_array_files(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("parts")
    count = data.draw(st.integers(1, 9))
    rows = [(i / 8, i % 3, f"c{i % 2}") for i in range(count)]
    write_table(folder / "whole.csv", rows, ["t0", "t1", "label"])
    parts = split_randomly(data.draw, rows)
    for i, part in enumerate(parts):
        write_table(folder / f"csv/{i}.csv", part, ["t0", "t1", "label"])
        (folder / "npz").mkdir(exist_ok=True)
        values = np.array([row[:2] for row in part])
        np.savez(folder / f"npz/{i}.npz", X=values, y=[row[2] for row in part])
    expected = read_file(folder / "whole.csv")
    assert_equal(read_file(folder / "csv"), expected)
    found = read_file(folder / "npz")
    assert found.sequences.ids.tolist() == expected.sequences.ids.tolist()
    assert found.labels.tolist() == expected.labels.tolist()
    np.testing.assert_array_equal(found.sequences.values, expected.sequences.values)
    for kind in ("csv", "npz"):
        pack(input=str(folder / kind), output=str(folder / f"packed_{kind}"))
        assert_equal(read_file(folder / f"packed_{kind}"), read_file(folder / kind))


def test_ids_in_arrays_are_those_of_the_files(tmp_path):
    for name, ids in (("a", [70, 71]), ("b", [0, 1]), ("c", [0, 1])):
        np.savez(tmp_path / f"{name}.npz", X=np.ones((2, 3)), y=[0, 1], ids=ids)
    np.savez(tmp_path / "d.npz", X=np.ones((2, 3)), y=[0, 1])
    paths = [str(tmp_path / f"{name}.npz") for name in "abcd"]
    contents = read_file(paths[:2])
    assert contents.sequences.ids.tolist() == ["70", "71", "0", "1"]
    pack(input=paths[:2], output=str(tmp_path / "packed"))
    assert_equal(read_file(tmp_path / "packed"), contents)
    with pytest.raises(DataError, match=r"c.npz: sequence 0: expected an id that no other .*'0'"):
        read_file(paths[1:3])
    with pytest.raises(DataError, match=r"d.npz: expected .*labels, groups and ids as in b.npz"):
        read_file([paths[1], paths[3]])
    for name in ("first", "second"):  # without ids, positions
        pack(input=paths[3], output=str(tmp_path / name))
    joined = read_file([str(tmp_path / "first"), str(tmp_path / "second")])
    assert joined.sequences.ids.tolist() == ["0", "1", "2", "3"]


RECORDINGS = {"walk/1": [1, 2, 3], "walk/2": [4, 5], "run/1": [6], "run/10": [7, 8]}


def write_recordings(folder: Path, kind: str) -> Path:
    for name, steps in RECORDINGS.items():
        path = folder / f"{name}.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        values = np.array([[step, -step] for step in steps], dtype=np.float32)
        if kind == "npy":
            np.save(path, values)
        elif kind == "npz":
            np.savez(path, X=values)
        else:
            write_table(path, values.tolist(), ["x", "y"])
    return folder


@pytest.mark.parametrize("kind", ["csv", "parquet", "npy", "npz"])
def test_one_recording_in_each_file(tmp_path, kind):
    folder = write_recordings(tmp_path / "train", kind)
    options = {
        "id_column": "file_name",
        "label_column": "folder_name",
        "group_column": "folder_name",
    }
    contents = read_file(folder, ReadOptions(**options))
    names = ["run/1", "run/10", "walk/1", "walk/2"]
    assert contents.sequences.ids.tolist() == [f"{name}.{kind}" for name in names]
    assert contents.labels.tolist() == ["run", "run", "walk", "walk"]
    assert contents.sequences.groups.tolist() == contents.labels.tolist()
    assert contents.sequences.lengths.tolist() == [1, 2, 3, 2]
    expected = [[step, -step] for name in names for step in RECORDINGS[name]]
    assert contents.sequences.values.tolist() == expected
    pack(input=str(folder), output=str(tmp_path / "packed"), **options)
    assert_equal(read_file(tmp_path / "packed", ReadOptions(group_column="g")), contents)
    # a file alone is in the folder of its class, too; to predict, the folder is no class
    one = read_file(folder / f"walk/2.{kind}", ReadOptions(**options))
    assert (one.sequences.ids.tolist(), one.labels.tolist()) == ([f"2.{kind}"], ["walk"])
    assert read_file(folder, ReadOptions(**options, require_labels=False)).labels is None


@pytest.mark.parametrize("kind", ["csv", "npy"])
@pytest.mark.parametrize("extension", ["", ".{kind}"])
def test_labels_from_a_table(tmp_path, kind, extension):
    folder = write_recordings(tmp_path / "data", kind)
    lines = [f"{name}{extension.format(kind=kind)},c{i}" for i, name in enumerate(RECORDINGS)]
    table = folder / "labels.csv"
    table.write_text("\n".join(["id,label", *lines, "further,c0"]))
    options = {"id_column": "file_name", "labels_path": str(table)}
    contents = read_file(folder, ReadOptions(**options))
    assert contents.labels.tolist() == ["c2", "c3", "c0", "c1"]
    pack(input=str(folder), output=str(tmp_path / "packed"), **options)
    assert_equal(read_file(tmp_path / "packed"), contents)
    table.write_text("\n".join(["id,label", *lines[1:]]))
    with pytest.raises(DataError, match=rf"sequence 'walk/1\.{kind}': expected an id in .*labels"):
        read_file(folder, ReadOptions(**options))
    contents = read_file(folder, ReadOptions(**options, require_labels=False))
    assert contents.labels.tolist() == ["c2", "c3", "", "c1"]


def test_labels_of_a_long_table(tmp_path):
    write_table(tmp_path / "a.csv", [("p", 1), ("q", 2), ("p", 3)], ["person", "x"])
    (tmp_path / "l.csv").write_text("state,person\n1.0,q\n0,p\n")
    options = {"id_column": "person", "label_column": "state", "labels_path": f"{tmp_path}/l.csv"}
    assert read_file(tmp_path / "a.csv", ReadOptions(**options)).labels.tolist() == ["0", "1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,label\np,x\np,y\n", "line 3: expected each id once, got 'p' again"),
        ("id,label\n,x\n", "line 2: expected an id, got a missing value"),
        ("id,label\np,NA\n", "line 2: expected a label, got a missing value"),
        ("name,label\np,x\n", "expected a column 'id', got the columns 'name', 'label'"),
        ("id,class\np,x\n", "expected a column 'label', got the columns 'id', 'class'"),
        ("id,label\np\n", "line 2: expected 2 cells"),
    ],
)
def test_broken_table_of_labels(tmp_path, text, message):
    write_table(tmp_path / "a.csv", [("p", 1), ("p", 2)], ["person", "x"])
    (tmp_path / "l.csv").write_text(text)
    options = ReadOptions(id_column="person", labels_path=str(tmp_path / "l.csv"))
    with pytest.raises(DataError, match=f"l.csv: {message}"):
        read_file(tmp_path / "a.csv", options)


def test_a_file_has_one_label(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("a.csv", "b.csv"):
        (folder / name).write_text("x\n1\n")
    table = tmp_path / "l.csv"
    table.write_text("id,label\na,u\nb.csv,v\na.csv,v\n")
    options = ReadOptions(id_column="file_name", labels_path=str(table))
    with pytest.raises(DataError, match=r"sequence 'a.csv': expected one label .*got 'u', 'v'"):
        read_file(folder, options)
    table.write_text("id,label\na,u\nb.csv,v\na.csv,u\n")
    assert read_file(folder, options).labels.tolist() == ["u", "v"]


LONG = {"id_column": "id", "time_column": "time"}


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        (
            {"1.csv": "id,time,x,label\np,0,1,u\n", "2.csv": "id,time,y,label\np,1,1,u\n"},
            LONG,
            "2.csv: expected the columns 'id', 'time', 'x', 'label' as in 1.csv, got",
        ),
        (
            {"1.csv": "id,time,x,label\np,0,1,u\n", "2.csv": "id,time,x,label\n\np,1,1,v\n"},
            LONG,
            "2.csv, line 3: expected label 'u' as in 1.csv, line 2, which has the same id, got 'v'",
        ),
        (
            {"1.csv": "id,time,x,label\np,0,1,u\n", "2.csv": "id,time,x,label\np,0,1,u\n"},
            LONG,
            "2.csv, line 2: expected one row for each id and time, got id 'p' and time '0' as in "
            "1.csv, line 2",
        ),
        (
            {"1.csv": "id,time,x,label\np,0,1,u\n", "2.csv": "id,time,x,label\np,1,one,u\n"},
            LONG,
            "2.csv, line 2, column 'x': expected finite float32 numbers",
        ),
        (
            {"1.csv": "id,time,x,label\np,0,1,u\n", "2.csv": "id,time,x,label\np,1,1\n"},
            LONG,
            "2.csv: line 2: expected 4 cells",
        ),
        ({"1.csv": "a,label\n1,x\n", "2.csv": ""}, {}, "2.csv: the file is empty"),
        ({"1.csv": "a,label\n1,x\n", "2.txt": "b"}, {}, "one kind .*, got '.csv', '.txt'"),
        (
            {"1.csv": "a\n1\n", "x/2.csv": "a\n2\n"},
            {"id_column": "file_name", "label_column": "folder_name"},
            "a folder for each file, because a column is folder_name, got none for '1.csv'",
        ),
        ({"1.csv": "a\n1\n", "2.csv": "a\n2\n"}, {}, "label_column: .* labels_path, or folder_n"),
        (
            {"1.csv": "a\n1\n"},
            {"labels_path": "l.csv"},
            r"l.csv: cannot be read",
        ),
    ],
)
def test_errors_name_the_file(tmp_path, files, options, message):
    folder = tmp_path / "data"
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    with pytest.raises(DataError, match=message) as read_error:
        read_file(folder, ReadOptions(**options))
    with pytest.raises(DataError) as pack_error:
        pack(input=str(folder), output=str(tmp_path / "packed"), **options)
    assert str(pack_error.value) == str(read_error.value)
    assert not (tmp_path / "packed").exists()


def test_one_process_decodes_all_parquet_files(tmp_path, monkeypatch):
    started = []
    start = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda *a, **k: started.append(start(*a, **k)) or started[-1]
    )
    for name in range(3):
        write_table(
            tmp_path / f"{name}.parquet", [(f"p{name}", 0, "u", 1, 2), (f"p{name}", 1, "u", 3, 4)]
        )
    options = ReadOptions(**LONG)
    assert read_file(tmp_path, options).sequences.ids.tolist() == ["p0", "p1", "p2"]
    assert len(started) == 1
    content = (tmp_path / "1.parquet").read_bytes()
    (tmp_path / "1.parquet").write_bytes(content[:60] + b"x" * 40 + content[100:])
    with pytest.raises(DataError, match=r": 1.parquet: damaged, or not a Parquet file [(]"):
        read_file(tmp_path, options)
    assert all(process.poll() is not None for process in started)


def test_a_table_of_labels_in_the_folder_of_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_table(tmp_path / "walks/1.csv", [(0, 1), (1, 2)], header=["time", "x"])
    write_table(tmp_path / "walks/labels.csv", [("1", "u")], header=["id", "label"])
    options = ReadOptions(id_column="file_name", labels_path="~/walks/labels.csv")
    assert read_file("~/walks", options).labels.tolist() == ["u"]


def test_no_files(tmp_path):
    for paths in (f"{tmp_path}/*.csv", [], tmp_path):
        with pytest.raises(DataError, match="expected at least one file, got none"):
            read_file(paths)
    file = tmp_path / "a.csv"
    file.write_text("a,label\n1,x\n")
    with pytest.raises(DataError, match=r"expected different files .*, got 2 files"):
        read_file([str(file), str(file)])
    with pytest.raises(DataError, match=r"b\.csv: no such file"):
        read_file([str(file), str(tmp_path / "b.csv")])


def test_files_in_order_without_hidden_and_sidecar_files(tmp_path):
    for name in ("x10", "x9"):
        np.save(tmp_path / f"{name}.npy", np.full((2, 3), float(name[1:])))
        np.save(tmp_path / f"{name}_labels.npy", ["a", "b"])
    (tmp_path / ".hidden.npy").write_text("")
    contents = read_file(tmp_path)
    assert contents.sequences.values.flatten().tolist() == [9.0] * 6 + [10.0] * 6
    assert contents.sequences.ids.tolist() == ["0", "1", "2", "3"]
    np.save(tmp_path / "x11.npy", np.zeros((2, 3, 2)))
    np.save(tmp_path / "x11_labels.npy", ["a", "b"])
    with pytest.raises(DataError, match=r"x11\.npy: expected features, .* as in x9\.npy"):
        read_file(tmp_path)


def test_file_name_is_needed_for_recordings(tmp_path):
    (tmp_path / "a.csv").write_text("x,label\n1,u\n2,v\n")
    with pytest.raises(DataError, match=r"window_length: expected also an id_column \(file_name"):
        read_file(tmp_path / "a.csv", ReadOptions(window_length=2))
    with pytest.raises(OptionError, match="window_label: expected also a positive_class"):
        ReadOptions(window_length=2, window_label="any")


def test_types_of_several_files_that_would_merge_ids_or_classes_are_refused(tmp_path):
    large = pl.DataFrame({"id": [2**60, 2**60 + 1], "v": [1.0, 2.0], "label": ["x", "x"]})
    large.write_parquet(tmp_path / "0.parquet")
    pl.DataFrame({"id": [0.5], "v": [3.0], "label": ["y"]}).write_parquet(tmp_path / "1.parquet")
    with pytest.raises(DataError, match=r"column 'id': expected columns of one type .*2\^53"):
        read_file(tmp_path, ReadOptions(id_column="id"))
    pl.DataFrame({"v": [1.0], "label": [1]}).write_parquet(tmp_path / "0.parquet")
    for label, kind in ((True, "Boolean"), (date(2024, 3, 31), "Date"), (time(9, 30), "Time")):
        pl.DataFrame({"v": [3.0], "label": [label]}).write_parquet(tmp_path / "1.parquet")
        message = f"1.parquet: column 'label': expected Int64 as in the first file, got {kind}"
        with pytest.raises(DataError, match=message):
            read_file(tmp_path)
        with pytest.raises(DataError, match=message):
            pack(input=str(tmp_path), output=str(tmp_path / "packed"))


def test_a_pattern_leaves_out_what_is_read_beside_a_file(tmp_path):
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", np.ones(3))
        np.save(tmp_path / f"{name}_labels.npy", [7])
    np.save(tmp_path / "of_labels.npy", np.ones(2))  # beside no other file
    options = ReadOptions(id_column="file_name", label_column="folder_name")
    for path in (tmp_path, tmp_path / "*.npy"):
        found = read_file(path, options).sequences
        assert found.ids.tolist() == ["a.npy", "b.npy", "of_labels.npy"]
        assert found.lengths.tolist() == [3, 3, 2]
