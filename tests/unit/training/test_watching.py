"""Callbacks that only observe a run never end it."""

import json

import pytest
import torch
from helpers import RUN
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_rnn.training import tensorboard
from lightning_rnn.training.watching import Watcher

SMALL = ("--data.num_train", 64, "--data.num_val", 32, "--data.num_test", 32)


PRUNING = (
    "--trainer.callbacks+=ModelPruning",
    "--trainer.callbacks.pruning_fn=l1_unstructured",
    "--trainer.callbacks.amount=0.5",
)


def fail(*args, **kwargs):
    raise RuntimeError("cannot draw\nsecond line")


@pytest.mark.parametrize("error", [RuntimeError, torch.OutOfMemoryError])
def test_a_failure_disables_the_watcher(error, capsys):
    watcher = Watcher()
    with watcher.contain_failure():
        raise error("reason\ndetails")
    assert not watcher.is_enabled
    out, err = capsys.readouterr()
    message = f"Watcher failed and is disabled, the run goes on: {error.__name__}: reason\n"
    assert (out, err) == ("", message)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_signals_pass_through(error):
    watcher = Watcher()
    with pytest.raises(error), watcher.contain_failure():
        raise error
    assert watcher.is_enabled


def test_training_goes_on_when_the_network_cannot_be_copied(empty, run, tiny):
    options = ("--model.cell", "lstm", "--gradient_flow.every_n_epochs", 1)
    result = run("fit", *tiny, *SMALL, *options, *PRUNING)
    assert result.code == 0, result.err
    assert result.err.count("GradientFlowProbe failed and is disabled") == 1
    scalars = EventAccumulator(str(RUN)).Reload()
    assert len(scalars.Scalars("val/loss")) == 2
    assert not any(tag.startswith("gradient_flow") for tag in scalars.Tags()["scalars"])


def test_training_and_testing_go_on_when_a_figure_fails(empty, run, tiny, monkeypatch):
    monkeypatch.setattr(tensorboard, "evaluation_figures", fail)
    result = run("fit", *tiny, *SMALL, "--figures.every_n_epochs", 1)
    assert result.code == 0, result.err
    message = "Figures failed and is disabled, the run goes on: RuntimeError: cannot draw\n"
    assert result.err == message
    result = run("test")
    assert (result.code, result.err) == (0, message)
    assert "test/accuracy" in json.loads((RUN / "test_metrics.json").read_text())


def test_the_accuracy_is_written_when_its_figure_fails(trained, run, monkeypatch):
    monkeypatch.setattr("lightning_rnn.training.outputs.new_axes", fail)
    result = run("test", "--earliness", "true")
    assert result.code == 0
    assert "Earliness failed and is disabled" in result.err
    assert (RUN / "earliness.csv").exists()
    assert not (RUN / "earliness.png").exists()


def test_throughput_is_contained(empty, run, tiny, monkeypatch):
    monkeypatch.setattr(tensorboard, "write_to_loggers", fail)
    result = run("fit", *tiny, *SMALL)
    assert result.code == 0
    assert "Throughput failed and is disabled" in result.err
