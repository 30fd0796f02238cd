"""What `test` prints and writes."""

import json
import math
import re
from fractions import Fraction

import numpy as np
import polars as pl
import pytest
import torch
from evaluations import random_evaluation
from helpers import BEST, RUN
from matplotlib.image import imread

from lightning_rnn import SequenceClassifier
from lightning_rnn.data.readers import ReadOptions, read_file
from lightning_rnn.evaluation.metrics import evaluate_classes
from lightning_rnn.models.decision import Decision
from lightning_rnn.training.outputs import class_tables, num_steps


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


@pytest.mark.parametrize("tenths", range(1, 11))
def test_shares_of_sequences_are_rounded_up(tenths):
    """0.6 * 25 is 15 steps, although it is a little more in float32."""
    lengths = torch.arange(1, 2000)
    expected = [math.ceil(Fraction(tenths, 10) * length) for length in range(1, 2000)]
    assert num_steps(lengths, tenths).tolist() == expected


@pytest.mark.parametrize("options", [("test",), ("validate", "--calibrate.when", "always")])
def test_a_checkpoint_written_meanwhile_is_not_the_one_evaluated(
    trained, run, monkeypatch, options
):
    """As by a run that goes on training."""
    hook = "on_test_epoch_end" if options == ("test",) else "on_validation_epoch_end"
    evaluate = getattr(SequenceClassifier, hook)
    newer = BEST.read_bytes() + b"."

    def replace_file_and_evaluate(model):
        BEST.unlink()
        BEST.write_bytes(newer)
        evaluate(model)

    monkeypatch.setattr(SequenceClassifier, hook, replace_file_and_evaluate)
    result = run(*options)
    assert result.code == 1
    assert "best.ckpt: expected the same file to the end of the evaluation, got" in result.err
    assert not (RUN / "test_metrics.json").exists()
    assert BEST.read_bytes() == newer


def test_predictions_do_not_replace_a_file_written_meanwhile(trained, run_ok, monkeypatch):
    path = RUN / "predictions.csv"
    predict = SequenceClassifier.predict_step

    def write_file_and_predict(model, batch, batch_idx):
        path.write_text("of another process")
        return predict(model, batch, batch_idx)

    monkeypatch.setattr(SequenceClassifier, "predict_step", write_file_and_predict)
    assert "predictions-2.csv" in run_ok("predict")
    assert path.read_text() == "of another process"


def test_it_is_not_done_unasked(trained, run_ok):
    run_ok("test")
    assert not list(RUN.glob("earliness*"))


def test_matplotlib_is_named_where_it_is_missing(trained, run, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    result = run("test", "--earliness", "true")
    assert result.code == 2
    assert "matplotlib is not installed; run: pip install 'lightning_rnn[figures]'" in result.err
    assert not list(RUN.glob("earliness*"))


def test_the_test_says_how_to_judge_it(trained, run_ok):
    out = run_ok("test")
    lines = out.splitlines()
    found = json.loads((RUN / "test_metrics.json").read_text())
    assert "test: 64 sequences" in lines
    assert found["test/num_sequences"] == 64
    assert "auroc, average_precision, f1: of the positive class, 'positive'" in lines
    classes = found["classes"]
    assert sum(values["support"] for values in classes.values()) == 64
    assert classes["positive"]["f1"] == pytest.approx(found["test/f1"])
    correct = sum(values["predicted_as"][name] for name, values in classes.items())
    assert correct == pytest.approx(64 * found["test/accuracy"])
    for name, values in classes.items():
        row = [name, *(f"{values[key]:.4f}" for key in ("precision", "recall", "f1"))]
        rows = [line.split() for line in lines]
        assert [*row, str(values["support"])] in rows
        assert [name, *map(str, values["predicted_as"].values())] in rows


def test_many_classes_have_their_most_frequent_confusions():
    names = [f"{k} {'x' * 30}" for k in range(12)]
    classes = evaluate_classes(random_evaluation(12, 50, seed=0), Decision(), names)
    lines = class_tables(classes)
    assert max(map(len, lines)) < 120
    confusions = [line for line in lines if " predicted as " in line]
    assert 0 < len(confusions) <= 10
    for line in confusions:
        count, true, predicted = re.fullmatch(
            r"  (\d+) of '(.*)' predicted as '(.*)'", line
        ).groups()
        assert classes[true].predicted_as[predicted] == int(count)


def test_all_right_is_no_certainty(empty, run_ok):
    """30 of 30 have intervals that reach down."""
    x = np.repeat([[[-1.0]], [[1.0]]], 15, axis=0) * np.ones((1, 6, 1))
    np.savez("all.npz", X=x, y=np.repeat(["a", "b"], 15))
    data = ("--data", "FileDataModule", "--data.train_path", "all.npz", "--data.test_path")
    run_ok("fit", *data, "all.npz", "--trainer.max_epochs", 20)
    run_ok("test")
    found = json.loads((RUN / "test_metrics.json").read_text())
    for name in ("accuracy", "f1", "auroc", "balanced_accuracy", "average_precision"):
        assert found[f"test/{name}"] == 1
        assert 0.7 < found[f"test/{name}_low"] < 0.95


def test_long_names_of_classes_stay_different():
    names = [f"a name of more than twenty characters, {k}" for k in range(3)]
    classes = evaluate_classes(random_evaluation(3, 50, seed=0), Decision(), names)
    lines = class_tables(classes)
    assert len({line.partition("  ")[0] for line in lines[1:4]}) == 3
