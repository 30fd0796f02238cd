"""Callbacks and settings of Lightning on the command line: success, or an error of one line."""

import csv
import importlib.util
import re
from functools import partial
from pathlib import Path

import pytest
import yaml
from finished_runs import history
from helpers import LAST, RUN, TINY, TINY_DATA, assert_one_line_error, load
from lightning_utilities.core.imports import RequirementCache

TRAINER = ("--trainer.max_epochs", 3, "--trainer.log_every_n_steps", 1)
SMALL = (*TINY_DATA, "--data.batch_size", 16, "--model.hidden_size", 8, *TRAINER)
STEPS = 3 * 4
CALLBACKS = {
    "LearningRateFinder": {"num_training_steps": 30, "early_stop_threshold": "null"},
    "BatchSizeFinder": {"init_val": 4, "max_trials": 2, "steps_per_trial": 1},
    "Timer": {"duration": "00:01:00:00"},
    "StochasticWeightAveraging": {"swa_lrs": 0.01},
    "RichProgressBar": {},
    "GradientAccumulationScheduler": {"scheduling": "{1: 2}"},
    "EMAWeightAveraging": {},
}

pytestmark = pytest.mark.filterwarnings(
    "ignore:`weights_only` was not set",
    "ignore:You're using the WeightAveraging callback with a model that overrides",
)


def callback_options(name, arguments):
    words = [f"--trainer.callbacks+={name}"]
    for argument, value in arguments.items():
        words.append(f"--trainer.callbacks.{argument}={value}")
    return words


def fit_with(run, name, *args):
    """Train with a callback of `CALLBACKS`."""
    result = run("fit", *SMALL, *callback_options(name, CALLBACKS[name]), *args)
    assert result.code == 0, result
    assert "Traceback" not in result.err
    assert load(LAST)["epoch"] == 2
    [settings] = yaml.safe_load((RUN / "config.yaml").read_text())["trainer"]["callbacks"]
    assert settings["class_path"] == f"lightning.pytorch.callbacks.{name}"


def continue_run(run):
    """Continue a run with the config that it has written."""
    config = ("--config", RUN / "config.yaml")
    result = run("fit", "--ckpt_path", "last", *config, "--trainer.max_epochs", 4)
    assert result.code == 0, result
    assert load(LAST)["epoch"] == 3
    return result


def test_learning_rate_finder(empty, run):
    fit_with(run, "LearningRateFinder", "--data.num_train", 256)
    assert load(LAST)["hyper_parameters"]["lr"] != 0.01


def test_batch_size_finder(empty, run):
    fit_with(run, "BatchSizeFinder")
    assert load(LAST)["global_step"] == 3 * 64 // 8


def test_timer(empty, run):
    fit_with(run, "Timer")
    continue_run(run)


def test_stochastic_weight_averaging(empty, run):
    fit_with(run, "StochasticWeightAveraging")
    continue_run(run)


def test_rich_progress_bar(empty, run):
    """The callback switches the progress bar on, also where the output is no terminal."""
    fit_with(run, "RichProgressBar")
    continue_run(run)


def test_gradient_accumulation_scheduler(empty, run):
    fit_with(run, "GradientAccumulationScheduler")
    assert load(LAST)["global_step"] == 4 + 2 + 2


@pytest.mark.slow
def test_ema_weight_averaging(empty, run_apart):
    """Lightning says nothing about what it finds in the checkpoint."""
    run_apart = partial(run_apart, cwd=empty)
    fit_with(run_apart, "EMAWeightAveraging")
    assert "averaging_state" in load(LAST)
    assert continue_run(run_apart).err == ""


def test_progress_bar_counts_from_one(empty, run):
    bar = ("--trainer.enable_progress_bar", "true", "--data.batch_size", 2)
    first = run("fit", *TINY, *TINY_DATA, *bar).out
    more = ("--ckpt_path", "last", "--trainer.max_epochs", 3)
    second = run("fit", *more, *bar).out
    assert set(re.findall(r"epoch (\d+/\d+):", first)) == {"1/2", "2/2"}
    assert set(re.findall(r"epoch (\d+/\d+):", second)) == {"3/3"}
    assert "v_num" not in first + second


@pytest.mark.parametrize("bar", ["RunProgressBar", "TQDMProgressBar"])
def test_no_line_is_lost_to_a_progress_bar(empty, run, bar):
    """The last epoch's line comes after the bar of Lightning is closed."""
    options = ("--trainer.enable_progress_bar", "true")
    if bar == "TQDMProgressBar":
        options = callback_options(bar, {})
    out = run("fit", *TINY, *TINY_DATA, *options).out
    lines = re.findall(r"epoch (\d)/2  train/loss", out)
    assert lines == ["1", "2"]


def test_a_package_that_is_missing(empty, refused, monkeypatch):
    name = "lightning.pytorch.loggers.wandb._WANDB_AVAILABLE"
    monkeypatch.setattr(name, RequirementCache("not-there>=1.2"))
    message = refused("fit", "--trainer.logger", "WandbLogger", code=2)
    assert message == "not-there is not installed; run: pip install 'not-there>=1.2'"


@pytest.mark.filterwarnings("ignore:\\s+Unable to serialize instance l1_unstructured")
def test_model_pruning(empty, run):
    """A pruned network cannot be copied, so gradient flow is not measured."""
    arguments = {"pruning_fn": "l1_unstructured", "amount": 0.5}
    result = run("fit", *SMALL, *callback_options("ModelPruning", arguments))
    assert result.code == 0, result
    assert result.err.count("\n") == 1
    assert result.err.startswith("GradientFlowProbe failed and is disabled, the run goes on: ")
    assert load(LAST)["global_step"] == STEPS


def test_device_stats_monitor(empty, run):
    """On a CPU it needs psutil."""
    result = run("fit", *SMALL, *callback_options("DeviceStatsMonitor", {}))
    if importlib.util.find_spec("psutil") is None:
        assert_one_line_error(result)
        assert "psutil" in result.err
    else:
        assert (result.code, result.err) == (0, "")


def test_csv_logger_beside_tensorboard(empty, run_ok):
    tensorboard = ("--trainer.logger+=TensorBoardLogger", "--trainer.logger.save_dir=.")
    run_ok(
        "fit", *SMALL, *tensorboard, "--trainer.logger+=CSVLogger", "--trainer.logger.save_dir=csv"
    )
    [path] = Path("csv").glob("lightning_logs/version_*/metrics.csv")
    with path.open() as file:
        rows = list(csv.DictReader(file))
    for name in ("train/loss", "train/lr", "val/loss"):
        from_csv = [float(row[name]) for row in rows if row.get(name)]
        from_events = [value for tag, _, value in history(RUN) if tag == name]
        assert from_csv == pytest.approx(from_events)


def test_reloaded_data_loaders(empty, run_ok):
    run_ok("fit", *SMALL, "--trainer.reload_dataloaders_every_n_epochs", 1)
    assert load(LAST)["global_step"] == STEPS


def test_simple_profiler(empty, run_ok):
    run_ok("fit", *SMALL, "--trainer.profiler", "simple")
    assert load(LAST)["global_step"] == STEPS


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
@pytest.mark.parametrize("cell", ["rnn", "mingru"])
def test_precision(empty, run_ok, precision, cell):
    """Gradients are clipped by default, and the best checkpoint is calibrated."""
    options = ("--trainer.precision", precision, "--model.cell", cell)
    assert "calibration: " in run_ok("fit", *SMALL, *options)
    assert load(LAST)["global_step"] == STEPS


@pytest.mark.parametrize(
    "name", ["accumulate_grad_batches", "check_val_every_n_epoch", "val_check_interval"]
)
def test_an_interval_of_zero_is_refused(empty, refused, name):
    message = refused("fit", *SMALL, f"--trainer.{name}", 0, code=2)
    assert message.startswith(f"--trainer.{name}: expected a number above 0, got 0")
