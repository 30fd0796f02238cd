"""Numbers that are not finite end a run and are never saved; the smallest data train a model."""

import itertools
import json
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from finished_runs import history
from helpers import BEST, LAST, RUN, TWO_RANKS, assert_one_line_error, load
from lightning.pytorch import Trainer, seed_everything

from lightning_rnn import SequenceClassifier, SyntheticDataModule
from lightning_rnn.evaluation.metrics import evaluate

DATA = ("--data.num_train", 64, "--data.batch_size", 16, "--data.num_val", 32)
SMALL = (*DATA, "--model.hidden_size", 8, "--trainer.max_epochs", 3)
FILE = ("--data", "FileDataModule", "--data.train_path", "train.npz")


def assert_finite(path):
    """Check weights and optimizer state of a checkpoint, and return it."""
    content = load(path)
    tensors = list(content["state_dict"].values())
    for state in content["optimizer_states"][0]["state"].values():
        tensors += state.values()
    assert all(bool(tensor.isfinite().all()) for tensor in tensors)
    return content


def assert_finite_history():
    assert all(np.isfinite(value) for _, _, value in history(RUN))


def assert_finite_test_metrics():
    metrics = json.loads((RUN / "test_metrics.json").read_text())
    del metrics["classes"], metrics["origin"]
    assert all(np.isfinite(value) for value in metrics.values())


def broken_in(step, change):
    """Multiply the loss of a training step."""
    original = SequenceClassifier.training_step

    def training_step(self, batch, batch_idx):
        loss = original(self, batch, batch_idx)
        if self.trainer.global_step != step:
            return loss
        self.step_loss = loss.detach() * change
        return loss * change

    return patch.object(SequenceClassifier, "training_step", training_step)


def write_npz(path, values):
    np.savez(path, X=values.astype(np.float32), y=np.arange(len(values)) % 2)


# not finite


@pytest.mark.parametrize("change", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("interval", [1, 10])  # a CPU checks steps that are not logged, too
@pytest.mark.parametrize("step", [0, 6, 7])  # nothing is saved before 0; 7 ends the second epoch
def test_a_loss_that_is_not_finite_ends_the_run(empty, run, change, interval, step):
    intervals = ("--trainer.log_every_n_steps", interval, "--checkpoint.every_n_steps", 1)
    with broken_in(step, change):
        result = run("fit", *SMALL, *intervals)
    assert_one_line_error(result)
    assert result.code == 1
    assert f"training stopped at step {step}: loss {change:.4g}, gradient norm " in result.err
    assert "learning rate 0.0" in result.err
    assert "the largest input of the batch is " in result.err
    assert LAST.exists() == (step > 0)
    assert BEST.exists() == (step >= 4)
    if LAST.exists():
        assert assert_finite(LAST)["global_step"] == step
    if BEST.exists():
        assert assert_finite(BEST)["global_step"] == 4


def test_no_step_is_logged_where_the_interval_is_0(empty, run_ok):
    run_ok("fit", *SMALL, "--trainer.log_every_n_steps", 0)
    metrics = assert_finite(LAST)["metrics"]
    assert "train/loss" in metrics
    assert "train/loss_step" not in metrics


@pytest.mark.parametrize("every", [1, 3])
def test_a_run_can_be_continued_after_it_with_another_rate(empty, run, run_ok, every):
    with broken_in(6, float("nan")):
        assert run("fit", *SMALL, "--checkpoint.every_n_steps", every).code == 1
    assert assert_finite(LAST)["global_step"] == 6
    run_ok("fit", "--ckpt_path", "last", "--model.lr", 1e-3)
    assert assert_finite(LAST)["global_step"] == 12


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
@pytest.mark.parametrize("rate", [1e38, 1e30])
def test_a_rate_that_explodes(empty, run, rate, optimizer):
    model = ("--model.lr", rate, "--model.optimizer", optimizer, "--model.weight_decay", 0.9)
    result = run("fit", *SMALL, *model)
    assert_one_line_error(result)
    if rate > 1e30:
        assert "--model.lr: expected " in result.err
    else:
        assert "learning rate " in result.err
    for path in Path("lightning_logs").glob("version_*/checkpoints/*.ckpt"):
        assert_finite(path)


@pytest.mark.parametrize("stem", ["none", "conv", "inception"])
@pytest.mark.parametrize("value", [3e38, 1e20])
def test_finite_inputs_that_are_enormous(empty, run, stem, value):
    """They are either standardised without overflow or named; never trained on as NaN."""
    values = np.random.default_rng(0).normal(size=(64, 5, 2))
    values[7, 3, 1] = value
    write_npz("train.npz", values)
    result = run("fit", *FILE, "--model.stem", stem, "--trainer.max_epochs", 2)
    assert result.code in (0, 1)
    if result.code == 1:
        assert_one_line_error(result)
        assert "step" in result.err
        assert f"{np.float32(value):.4g}" in result.err
        assert "sequence" in result.err
    else:
        assert {"last.ckpt", "best.ckpt"} <= {path.name for path in LAST.parent.iterdir()}
        assert_finite_history()
    for path in RUN.glob("checkpoints/*.ckpt"):
        assert_finite(path)


def test_the_largest_input_is_named(empty, run):
    """The row of the sequence is that of the training split, here all of the file."""
    values = np.random.default_rng(0).normal(size=(16, 5, 2))
    values[11, 2, 0] = -1234.5
    write_npz("train.npz", values)
    with broken_in(0, float("nan")):
        result = run("fit", *FILE, "--data.val_fraction", 0, "--data.batch_size", 16)
    assert result.code == 1
    assert "the largest input of the batch is 1234, in training sequence 11." in result.err


@pytest.mark.parametrize("monitor", ["val/loss", "val/accuracy"])
def test_a_validation_that_is_not_finite_is_never_the_best(empty, run, monitor):
    evaluations = itertools.count()

    def spoiled(*args, **options):
        metrics = evaluate(*args, **options)
        if next(evaluations) != 1:  # only the second epoch has finite metrics
            metrics |= {name: metrics[name] * float("nan") for name in ("loss", "accuracy")}
        return metrics

    with patch("lightning_rnn.training.logs.evaluate", spoiled):
        result = run("fit", *SMALL, "--checkpoint.monitor", monitor)
    assert result.code == 0, result
    assert load(BEST)["global_step"] == 8


BROKEN_ON_RANK_1 = """
import sys
from lightning_rnn import SequenceClassifier
from lightning_rnn.__main__ import main

original = SequenceClassifier.training_step

def training_step(self, batch, batch_idx):
    loss = original(self, batch, batch_idx)
    is_broken = self.trainer.global_step == 5 and self.trainer.global_rank == 1
    return loss * float("nan") if is_broken else loss

SequenceClassifier.training_step = training_step
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_both_ranks_end(tmp_path, run_apart):
    """One rank has a loss that is not finite; the gradients of both are not."""
    (tmp_path / "broken.py").write_text(BROKEN_ON_RANK_1)
    options = ("--data.batch_size", 8, "--checkpoint.every_n_steps", 2)
    args = ("fit", *SMALL, *options, *TWO_RANKS)
    result = run_apart("broken.py", *args, cwd=tmp_path, module=None)
    assert result.code == 1
    count = result.err.count("training stopped at step 5: loss ")
    assert count in (1, 2)  # the launcher may end the other rank first
    assert "lightning_rnn: error: training stopped" in result.err
    assert "Traceback" not in result.err
    assert assert_finite(tmp_path / LAST)["global_step"] == 4
    assert_finite(tmp_path / BEST)


# the smallest data


def test_a_validation_split_of_one_class(empty, run, run_ok):
    values = np.random.default_rng(0).normal(size=(40, 5, 2)).astype(np.float32)
    np.savez("train.npz", X=values, y=np.arange(40) % 2)
    np.savez("val.npz", X=values[:6], y=np.ones(6, dtype=int))
    paths = (*FILE, "--data.val_path", "val.npz")
    run_ok("fit", *paths, "--trainer.max_epochs", 2)
    tags = {tag for tag, _, _ in history(RUN)}
    assert {"val/loss", "val/accuracy"} <= tags
    assert "val/auroc" not in tags
    result = run("fit", *paths, "--checkpoint.monitor", "val/auroc")
    assert_one_line_error(result)
    assert result.code == 1
    assert "val/auroc is undefined because the validation split lacks a class" in result.err


def test_a_test_split_of_one_class(trained, run_ok):
    run_ok("test", "--data.num_test", 1)
    metrics = json.loads((RUN / "test_metrics.json").read_text())
    assert "test/auroc" not in metrics
    assert "test/average_precision" not in metrics
    assert_finite_test_metrics()


SMALL_SIZES = {"num_train": 20, "num_val": 5, "num_test": 3}
SMALLEST_DATA = [
    {"batch_size": 1},
    {"length": 1},
    {"length": 1, "batch_size": 1},
    {"num_train": 1, "batch_size": 1},
    {"num_train": 3, "batch_size": 8},
    {"num_train": 1, "length": 1},
    {"num_train": 17},
]
CELLS_AND_STEMS = list(itertools.product(("rnn", "lstm"), ("none", "conv", "inception")))


def num_steps(sizes):
    """Return the number of steps of two epochs; the last batch may be smaller."""
    return 2 * -(-sizes["num_train"] // sizes["batch_size"])


@pytest.mark.parametrize("number", range(len(SMALLEST_DATA)))
@pytest.mark.slow
def test_smallest_data_on_the_command_line(empty, run_ok, number):
    data = SMALLEST_DATA[number]
    cell, stem = CELLS_AND_STEMS[number % len(CELLS_AND_STEMS)]
    model = ("--model.cell", cell, "--model.stem", stem)
    options = []
    for name, value in (SMALL_SIZES | data).items():
        options += [f"--data.{name}", value]
    trainer = ("--trainer.max_epochs", 2, "--trainer.log_every_n_steps", 1)
    run_ok("fit", *model, *options, *trainer)
    content = assert_finite(LAST)
    assert content["global_step"] == num_steps(content["SyntheticDataModule"]["settings"])
    assert_finite_history()
    run_ok("test")
    assert_finite_test_metrics()


@pytest.mark.parametrize("data", SMALLEST_DATA, ids=str)
@pytest.mark.parametrize(("cell", "stem"), CELLS_AND_STEMS)
@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_smallest_data(tmp_path, cell, stem, data):
    seed_everything(0, verbose=False)
    model = SequenceClassifier(cell=cell, stem=stem)
    data_module = SyntheticDataModule(**(SMALL_SIZES | data))
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(model, datamodule=data_module)
    assert trainer.global_step == num_steps(data_module.settings)
    tensors = list(model.state_dict().values())
    for state in trainer.optimizers[0].state.values():
        tensors += state.values()
    assert all(bool(tensor.isfinite().all()) for tensor in tensors)
    assert all(bool(value.isfinite()) for value in trainer.callback_metrics.values())
    [metrics] = trainer.test(model, datamodule=data_module, verbose=False)
    assert "test/loss" in metrics
    assert all(np.isfinite(value) for value in metrics.values())


def test_the_order_of_magnitude_of_the_inputs_does_not_matter(empty, run_ok):
    """The values are standardised, whatever their unit: the curves are the same."""
    values = np.random.default_rng(0).normal(size=(40, 5, 2))
    losses = []
    for version, unit in enumerate((1.0, 2.0**40, 2.0**-40)):
        write_npz("train.npz", values * unit)
        run_ok("fit", *FILE, "--trainer.max_epochs", 2)
        rows = history(Path(f"lightning_logs/version_{version}"))
        losses.append([value for tag, _, value in rows if tag == "train/loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[2] == pytest.approx(losses[0], rel=1e-4)
