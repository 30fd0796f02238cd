"""Accuracy against the share of each sequence that has been seen."""

import json
import math

import numpy as np
import polars as pl
import pytest
from helpers import RUN
from matplotlib.image import imread

from lightning_rnn import SequenceClassifier
from lightning_rnn.data.readers import ReadOptions, read_file


def test_earliness_is_that_of_sequences_cut_short(trained_on_files, run_ok):
    """The oracle cuts each array and asks `predict_proba`."""
    out = run_ok("test", "--earliness", "true", "--data.test_path", "test.csv")
    assert "earliness.csv" in out
    table = pl.read_csv(RUN / "earliness.csv")
    assert table["share_seen"].to_list() == [round(0.1 * k, 1) for k in range(1, 11)]
    model = SequenceClassifier.load_from_checkpoint(RUN / "checkpoints/best.ckpt")
    wanted = ReadOptions(
        id_column="id", time_column="time", group_column="group", feature_columns=["a", "b"]
    )
    contents = read_file("test.csv", wanted)
    sequences = contents.sequences
    truth = contents.labels == "up"
    for percent, accuracy in zip(range(10, 101, 10), table["accuracy"], strict=True):
        right = []
        for i in range(len(sequences)):
            start, length = int(sequences.offsets[i]), int(sequences.lengths[i])
            steps = sequences.values[start : start + max(1, math.ceil(percent * length / 100))]
            right.append((model.predict_proba([steps])[0] > 0.5) == truth[i])
        assert accuracy == pytest.approx(np.mean(right), abs=1e-6)
    metrics = json.loads((RUN / "test_metrics.json").read_text())
    assert table["accuracy"][-1] == pytest.approx(metrics["test/accuracy"], abs=1e-6)
    picture = imread(RUN / "earliness.png")
    assert picture.shape[0] > 300
    assert picture[..., :3].std() > 0.05


def test_it_is_not_done_unasked(trained, run_ok):
    run_ok("test")
    assert not list(RUN.glob("earliness*"))


def test_matplotlib_is_named_where_it_is_missing(trained, run, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    result = run("test", "--earliness", "true")
    assert result.code == 2
    assert "matplotlib is not installed; run: pip install 'lightning_rnn[figures]'" in result.err
    assert not list(RUN.glob("earliness*"))
