"""A run that starts with the weights of a checkpoint, for other data, classes or settings."""

import shutil
from pathlib import Path

import polars as pl
import pytest
import torch
import yaml
from finished_runs import outcome
from helpers import BEST, CPU, LONG, RUN, load

from lightning_rnn import FileDataModule

SECOND = RUN.with_name("version_1")
SHORT = ("--trainer.max_epochs", 1, *CPU)


def table(train, *, scale=1.0, columns=None, classes=None):
    """Return a table like that of the run, with other values, columns or classes."""
    frame = pl.read_csv(train).with_columns(pl.col("a", "b") * scale)
    if classes is not None:
        digit = pl.col("id").str.slice(1).cast(pl.Int64) % len(classes)
        frame = frame.with_columns(label=digit.replace_strict(dict(enumerate(classes))))
    return frame.rename(columns or {})


def parts(checkpoint):
    """Return the weights and statistics of a checkpoint: those of the heads, and all others."""
    heads = {}
    body = {}
    for name, value in load(checkpoint)["state_dict"].items():
        if name.startswith(("network.head.", "network.summary_head.")):
            heads[name] = value
        elif name.startswith("network.") and "decision" not in name:
            body[name] = value
    return heads, body


def differing(first, second):
    return {name for name in first if not torch.equal(first[name], second[name])}


def test_a_frozen_run_trains_the_head_only(trained_on_files, run_ok):
    out = run_ok("fit", "--init_from", BEST, "--model.freeze", "true", *SHORT)
    step = load(BEST)["global_step"]
    assert f"initial weights: {BEST.absolute()}, step {step}\n" in out
    assert "all but the head frozen" in out
    old_heads, old_body = parts(BEST)
    heads, body = parts(SECOND / "checkpoints/last.ckpt")
    assert differing(old_body, body) == set()
    assert differing(old_heads, heads) == set(old_heads)
    config = yaml.safe_load((SECOND / "config.yaml").read_text())
    assert config["init_from"] == str(BEST.absolute())
    # the options of the architecture and of the data are those of the checkpoint
    first = yaml.safe_load((RUN / "config.yaml").read_text())
    assert config["model"] == first["model"] | {"freeze": True}
    assert config["data"] == first["data"]


def test_other_classes_get_a_new_head(trained_on_files, run_ok):
    table("train.csv", classes=["low", "mid", "high"]).write_csv("other.csv")
    data = ("--data.train_path", "other.csv", *LONG)
    out = run_ok("fit", "--init_from", BEST, "--model.freeze", "true", *data, *SHORT)
    assert "new head for the classes high, low, mid (checkpoint: down, up)\n" in out
    last = SECOND / "checkpoints/last.ckpt"
    heads, body = parts(last)
    assert differing(parts(BEST)[1], body) == set()
    assert {len(value) for value in heads.values()} == {3}
    run_ok("predict", "--ckpt_path", last, "--data.predict_path", "other.csv", "--output", "p.csv")
    assert set(pl.read_csv("p.csv")["label"]) <= {"high", "low", "mid"}


def test_the_statistics_are_those_of_the_new_data(trained_on_files, run_ok):
    table("train.csv", scale=100.0).write_csv("other.csv")
    data = ("--data.train_path", "other.csv", *LONG)
    run_ok("fit", "--init_from", BEST, *data, *SHORT)
    options = {"id_column": "id", "time_column": "time", "group_column": "group"}
    mean, std = FileDataModule(train_path="other.csv", val_fraction=0.0, **options).train_moments
    _, body = parts(SECOND / "checkpoints/last.ckpt")
    assert torch.equal(body["network.preprocess.mean"], mean)
    assert torch.equal(body["network.preprocess.std"], std)
    assert differing(parts(BEST)[1], body) == set(body)


def test_temperature_and_threshold_are_reset(trained_on_files, run_ok):
    content = load(BEST)
    content["state_dict"]["network.decision.temperature"].fill_(3.0)
    content["state_dict"]["network.decision.threshold"].fill_(0.2)
    torch.save(content, "calibrated.ckpt")
    run_ok("fit", "--init_from", "calibrated.ckpt", "--calibrate.when", "never", *SHORT)
    state = load(SECOND / "checkpoints/best.ckpt")["state_dict"]
    assert state["network.decision.temperature"] == 1.0
    assert state["network.decision.threshold"] == 0.5


@pytest.mark.parametrize("freeze", ["true", "false"])
def test_a_resumed_run_is_exact_and_does_not_read_the_first_weights(
    trained_on_files, tmp_path, monkeypatch, run_ok, freeze
):
    source = shutil.copy(BEST, tmp_path / "source.ckpt")
    settings = ("--model.schedule", "constant", "--model.dropout", 0.3, "--model.freeze", freeze)
    options = ("fit", *CPU, *settings, "--init_from", source)
    results = []
    for name in ("whole", "resumed"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        if name == "whole":
            run_ok(*options, "--trainer.max_epochs", 4)
        else:
            run_ok(*options, "--trainer.max_epochs", 2)
            Path(source).unlink()
            run_ok("fit", "--ckpt_path", "last", "--trainer.max_epochs", 4)
            out = run_ok(*options, "--ckpt_path", "auto", "--trainer.max_epochs", 4)
            assert "the run is finished: step" in out
        results.append(outcome(tmp_path / name))
    assert results[0] == results[1]
    assert load(tmp_path / "resumed" / BEST)["hyper_parameters"]["freeze"] == (freeze == "true")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": "c"}, "the features 'c', 'b' of the data, got {} for 'a', 'b'"),
        (
            {"a": "b", "b": "a"},
            "the features 'b', 'a' of the data, got {} for 'a', 'b'; --data.feature_columns "
            "chooses the order",
        ),
    ],
)
def test_other_features_are_refused(trained_on_files, run_ok, refused, columns, message):
    table("train.csv", columns=columns).write_csv("other.csv")
    options = ("fit", "--init_from", BEST, "--data.train_path", "other.csv", *LONG, *SHORT)
    expected = f"--init_from: expected weights for {message.format(BEST.absolute())}"
    assert refused(*options, code=2) == expected
    if set(columns.values()) == {"a", "b"}:
        run_ok(*options, "--data.feature_columns", "[a, b]")


def test_other_time_steps_are_refused(empty, run_ok, refused):
    rows = {"label": ["x", "y"] * 10, "t0": range(20), "t1": range(20, 40)}
    pl.DataFrame(rows).write_csv("two.csv")
    pl.DataFrame(rows | {"t2": range(20)}).write_csv("three.csv")
    run_ok("fit", "--data.train_path", "two.csv", *SHORT, "--model.hidden_size", 4)
    message = refused("fit", "--data.train_path", "three.csv", "--init_from", BEST, *SHORT, code=2)
    expected = "--init_from: expected weights for the time steps 't0', 't1', 't2' of the data, got "
    assert message == f"{expected}{BEST.absolute()} for 't0', 't1'"


def test_another_number_of_features_is_refused(trained, files, refused):
    data = ("--data.train_path", files / "JapaneseVowels_slice_TRAIN.ts")
    message = refused("fit", "--init_from", BEST, *data, *SHORT, code=2)
    expected = "--init_from: expected weights for 12 features, as the data have, got "
    assert message == f"{expected}{BEST.absolute()} for 1"


def test_what_contradicts_the_checkpoint_is_refused(trained_on_files, refused):
    start = ("fit", "--init_from", BEST, *SHORT)
    assert refused(*start, "--model.cell", "gru", code=2).startswith(
        f"--model.cell: expected 'lstm' as in {BEST.absolute()}, got 'gru'"
    )
    assert refused(*start, "--ckpt_path", "last", code=2) == (
        f"--init_from: expected none together with --ckpt_path, got '{BEST}'"
    )
    assert refused("fit", "--model.freeze", "true", *SHORT, code=2) == (
        "--model.freeze: expected False without --init_from, got True"
    )
    assert refused("fit", "--init_from", "missing.ckpt", code=1) == (
        "missing.ckpt: expected a checkpoint file, got no such file"
    )


def test_a_refused_resume_names_the_way_out(trained_on_files, refused):
    way_out = "--init_from in place of --ckpt_path starts from its weights"
    table("train.csv", classes=["low", "mid", "high"]).write_csv("classes.csv")
    table("train.csv", scale=2.0).write_csv("values.csv")
    resume = ("fit", "--ckpt_path", "last")
    assert refused(*resume, "--data.val_fraction", 0.3, code=2).endswith(f", got 0.3; {way_out}")
    message = refused(*resume, "--data.train_path", "classes.csv", code=1)
    got = "got ['high', 'low', 'mid']"
    assert message.endswith(f"expected data with the classes ['down', 'up'], {got}; {way_out}")
    more = ("--trainer.max_epochs", 3)
    message = refused(*resume, "--data.train_path", "values.csv", *more, code=1)
    expected = "expected the sequences that the checkpoint was trained with, got others"
    assert message == f"train data: {expected}; {way_out}"
