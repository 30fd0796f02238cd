"""Folders of recordings and windows of long ones, by every command."""

import json
import re

import numpy as np
import polars as pl
import pytest
from helpers import RUN, TINY

from lightning_rnn import ReadOptions, read_file

OPTIONS = ("--data.id_column", "file_name", "--data.label_column", "folder_name")


def write_recording(path, rng, step_labels=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {"x": rng.normal(size=20), "y": rng.normal(size=20)}
    if step_labels is not None:
        columns["state"] = step_labels
    pl.DataFrame(columns).write_csv(path)


def newest_predictions(folder):
    files = (folder / RUN).glob("predictions*.csv")
    return pl.read_csv(max(files, key=lambda path: path.stat().st_mtime_ns))


@pytest.fixture
def walks(tmp_path, monkeypatch):
    """Work in a folder with a folder of recordings for each class, and some to predict."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 3)):
        for name in ("run", "walk"):
            for i in range(count):
                write_recording(tmp_path / split / name / f"{i}.csv", rng)
    for i in range(2):
        write_recording(tmp_path / "new" / f"{i}.csv", rng)
    return tmp_path


def test_a_folder_of_recordings(run_ok, walks):
    paths = ("--data.train_path", "train", "--data.test_path", "test/*/*.csv")
    report = run_ok("inspect", "train", *OPTIONS)
    assert "train: 16 sequences; steps: 20; no missing values; run 8, walk 8" in report
    run_ok("fit", *paths, *OPTIONS, *TINY)
    run_ok("test")
    metrics = json.loads((walks / RUN / "test_metrics.json").read_text())
    assert metrics["test/accuracy"] * 6 == pytest.approx(round(metrics["test/accuracy"] * 6))
    run_ok("predict")
    found = newest_predictions(walks)
    assert found["id"].to_list() == [f"{c}/{i}.csv" for c in ("run", "walk") for i in range(3)]
    assert found["true_label"].to_list() == ["run"] * 3 + ["walk"] * 3
    for new in ("new", "[new/0.csv,new/1.csv]", "new/*.csv"):
        run_ok("predict", "--data.predict_path", new)
        found = newest_predictions(walks)
        assert found["id"].to_list() == ["0.csv", "1.csv"]
    pack = ("--id_column", "file_name", "--label_column", "folder_name")
    run_ok("pack", "--input", "test", "--output", "packed", *pack)
    run_ok("test", "--data.test_path", "packed")


def test_labels_from_a_table(run_ok, run, walks):
    names = [f"{c}/{i}" for c in ("run", "walk") for i in range(8)]
    classes = [name.partition("/")[0] for name in names]
    pl.DataFrame({"id": names, "label": classes}).write_csv("labels.csv")
    options = ("--data.train_path", "train", "--data.id_column", "file_name")
    run_ok("fit", *options, "--data.labels_path", "labels.csv", *TINY)
    # the test files are not in the table
    result = run("test", "--data.test_path", "new")
    assert result.code == 1
    assert re.search(r"new: sequence '0\.csv': expected an id in \S+labels\.csv", result.err)


def test_windows(run_ok, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for i in range(8):
        write_recording(tmp_path / f"train/{i}.csv", rng, ["rest"] * 9 + ["move"] * 11)
    write_recording(tmp_path / "test.csv", rng, ["rest"] * 12 + ["move"] * 8)
    write_recording(tmp_path / "new.csv", rng)
    windows = ("--data.window_length", 6, "--data.window_stride", 2)
    run_ok(
        *("fit", "--data.train_path", "train", "--data.test_path", "test.csv", *windows, *TINY),
        *("--data.id_column", "file_name", "--data.label_column", "state"),
    )
    run_ok("test")
    run_ok("predict")
    found = newest_predictions(tmp_path)
    assert found["id"].to_list() == [f"test.csv:{start}" for start in range(0, 15, 2)]
    assert found["group"].to_list() == ["test.csv"] * 8
    assert found["true_label"].to_list() == ["rest"] * 4 + ["move"] * 4
    run_ok("predict", "--data.predict_path", "new.csv")
    found = newest_predictions(tmp_path)
    assert found["id"].to_list() == [f"new.csv:{start}" for start in range(0, 15, 2)]
    pack = ("--id_column", "file_name", "--label_column", "state")
    run_ok("pack", "--input", "train", "--output", "packed", *pack, "--window_length", 6)
    contents = read_file("packed", ReadOptions(window_length=6))
    assert set(contents.sequences.groups) == {f"{i}.csv" for i in range(8)}
    result = run("fit", "--data.train_path", "packed", *TINY)
    assert "packed: --data.window_length: expected 6, as given to pack, got None" in result.err
    run_ok("fit", "--data.train_path", "packed", "--data.window_length", 6, *TINY)
    run_ok("predict", "--data.predict_path", "new.csv", "--data.id_column", "file_name")
    (file,) = (tmp_path / "lightning_logs/version_1").glob("predictions*.csv")
    assert pl.read_csv(file)["id"].to_list() == ["new.csv:0", "new.csv:6", "new.csv:12"]
