"""Numbers that are not finite end a run and never reach a checkpoint; the smallest data still train."""

import itertools
import json
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from kill_and_resume import history

from lightning_rnn import SequenceClassifier
from lightning_rnn.evaluation.metrics import evaluate

RUN = Path("lightning_logs/version_0")
LAST, PREVIOUS, BEST = (
    RUN / "checkpoints" / name for name in ("last.ckpt", "previous.ckpt", "best.ckpt")
)
SMALL = ("--data.num_train", 64, "--data.batch_size", 16, "--data.num_val", 32, "--model.hidden_size", 8,
         "--trainer.max_epochs", 3)  # fmt: skip
TWO = ("--trainer.accelerator", "cpu", "--trainer.devices", 2, "--trainer.strategy", "ddp")


def assert_finite(path):
    content = torch.load(path, weights_only=True)
    tensors = [*content["state_dict"].values()]
    tensors += [
        value
        for state in content["optimizer_states"][0]["state"].values()
        for value in state.values()
    ]
    assert all(bool(tensor.isfinite().all()) for tensor in tensors)
    return content


def broken_in(step, change):
    """Change the loss of the step after so many."""
    original = SequenceClassifier.training_step

    def training_step(self, batch, batch_idx):
        loss = original(self, batch, batch_idx)
        if self.trainer.global_step != step:
            return loss
        self._loss = loss.detach() * change
        return loss * change

    return patch.object(SequenceClassifier, "training_step", training_step)


def write_npz(path, values):
    np.savez(path, X=values.astype(np.float32), y=np.arange(len(values)) % 2)


# not finite


@pytest.mark.parametrize("change", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    "interval", [1, 10]
)  # steps between logs: the check does not wait for them on a CPU
@pytest.mark.parametrize(
    "step", [0, 6, 7]
)  # in the first epoch nothing has been saved; 7 ends the second
def test_a_loss_that_is_not_finite_ends_the_run(empty, run, change, interval, step):
    with broken_in(step, change):
        result = run(
            "fit", *SMALL, "--trainer.log_every_n_steps", interval, "--checkpoint.every_n_steps", 1
        )
    assert result.code == 1
    assert (
        result.err.startswith("lightning_rnn: error: training stopped: ")
        and result.err.count("\n") == 1
    )
    assert f"step {step} has loss {change:.4g}" in result.err
    assert "at learning rate 0.0" in result.err
    assert "the largest input of its batch is " in result.err
    assert LAST.exists() == (step > 0)
    if LAST.exists():
        assert assert_finite(LAST)["global_step"] == step
        assert BEST.exists() == (step >= 4)
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


@pytest.mark.parametrize("rate", [1e38, 1e30])
def test_a_rate_that_explodes(empty, run, rate):
    for optimizer in ("adam", "adamw"):
        result = run(
            "fit",
            *SMALL,
            "--model.lr",
            rate,
            "--model.optimizer",
            optimizer,
            "--model.weight_decay",
            0.9,
        )
        assert result.code in (1, 2), result
        assert result.err.startswith("lightning_rnn: error: ") and result.err.count("\n") == 1, (
            result
        )
        assert "at learning rate " in result.err or "--model.lr: found" in result.err
    for path in Path("lightning_logs").glob("version_*/checkpoints/*.ckpt"):
        assert_finite(path)


@pytest.mark.parametrize("stem", ["none", "conv"])
@pytest.mark.parametrize("value", [3e38, 1e20])
def test_finite_inputs_that_are_enormous(empty, run, stem, value):
    """They are standardised in a precision that holds them, or named; never trained on as NaN."""
    values = np.random.default_rng(0).normal(size=(64, 5, 2))
    values[7, 3, 1] = value
    write_npz("train.npz", values)
    words = ("--data", "FileDataModule", "--data.train_path", "train.npz", "--model.stem", stem)
    result = run("fit", *words, "--trainer.max_epochs", 2)
    assert result.code in (0, 1) and "Traceback" not in result.err
    if result.code == 1:
        assert (
            "step" in result.err
            and f"{np.float32(value):.4g}" in result.err
            and "sequence" in result.err
        )
    else:
        assert {"last.ckpt", "best.ckpt"} <= {path.name for path in LAST.parent.iterdir()}
        assert all(np.isfinite(number) for _, _, number in history(RUN))
    for path in RUN.glob("checkpoints/*.ckpt"):
        assert_finite(path)


def test_the_largest_input_is_named(empty, run):
    """The sequence's row is that of the training part, here all of the file."""
    values = np.random.default_rng(0).normal(size=(16, 5, 2))
    values[11, 2, 0] = -1234.5
    write_npz("train.npz", values)
    words = ("--data", "FileDataModule", "--data.train_path", "train.npz", "--data.val_fraction", 0)
    with broken_in(0, float("nan")):
        result = run("fit", *words, "--data.batch_size", 16)
    assert result.code == 1
    assert (
        "the largest input of its batch is 1234" in result.err
        and "in training sequence 11." in result.err
    )


@pytest.mark.parametrize("monitor", ["val/loss", "val/accuracy"])
def test_a_validation_that_is_not_finite_is_never_the_best(empty, run, monitor):
    evaluations = itertools.count()

    def spoiled(*args, **options):
        metrics = evaluate(*args, **options)
        if next(evaluations) != 1:  # the second epoch's
            metrics |= {name: metrics[name] * float("nan") for name in ("loss", "accuracy")}
        return metrics

    with patch("lightning_rnn.classifier.evaluate", spoiled):
        result = run("fit", *SMALL, "--checkpoint.monitor", monitor)
    assert result.code == 0, result
    assert torch.load(BEST, weights_only=True)["global_step"] == 8


BROKEN_ON_TWO = """
import sys
from lightning_rnn import SequenceClassifier
from lightning_rnn.evaluation.metrics import evaluate
from lightning_rnn.__main__ import main
original = SequenceClassifier.training_step
def training_step(self, batch, batch_idx):
    loss = original(self, batch, batch_idx)
    bad = self.trainer.global_step == 5 and self.trainer.global_rank == 1
    return loss * float("nan") if bad else loss
SequenceClassifier.training_step = training_step
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_both_ranks_end(tmp_path, run_apart):
    """One rank has a loss that is not finite; the gradients of both are not."""
    (tmp_path / "broken.py").write_text(BROKEN_ON_TWO)
    args = ("fit", *SMALL, "--data.batch_size", 8, "--checkpoint.every_n_steps", 2, *TWO)
    result = run_apart("broken.py", *args, cwd=tmp_path, module=None)
    assert result.code == 1
    assert result.err.count("training stopped: step 5 has loss") in (
        1,
        2,
    )  # the launcher may end the other one first
    assert "lightning_rnn: error: training stopped" in result.err
    assert "Traceback" not in result.err
    assert assert_finite(tmp_path / LAST)["global_step"] == 4
    assert_finite(tmp_path / BEST)


# the smallest data


def test_a_validation_part_of_one_class(empty, run, run_ok):
    values = np.random.default_rng(0).normal(size=(40, 5, 2)).astype(np.float32)
    np.savez("train.npz", X=values, y=np.arange(40) % 2)
    np.savez("val.npz", X=values[:6], y=np.ones(6, dtype=int))
    words = (
        "--data",
        "FileDataModule",
        "--data.train_path",
        "train.npz",
        "--data.val_path",
        "val.npz",
    )
    run_ok("fit", *words, "--trainer.max_epochs", 2)
    tags = {tag for tag, _, _ in history(RUN)}
    assert {"val/loss", "val/accuracy"} <= tags and "val/auroc" not in tags
    result = run("fit", *words, "--checkpoint.monitor", "val/auroc")
    assert result.code == 1
    assert (
        result.err.count("\n") == 1
        and "val/auroc is not defined on this validation part" in result.err
    )


def test_a_test_part_of_one_class(trained, run_ok):
    run_ok("test", "--data.num_test", 1)
    metrics = json.loads((RUN / "test_metrics.json").read_text())
    assert "test/auroc" not in metrics and "test/average_precision" not in metrics
    assert all(np.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize("stem", ["none", "conv"])
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize(
    "data",
    [
        ("--data.batch_size", 1),
        ("--data.length", 1),
        ("--data.length", 1, "--data.batch_size", 1),
        ("--data.num_train", 1, "--data.batch_size", 1),
        ("--data.num_train", 3, "--data.batch_size", 8),
        ("--data.num_train", 1, "--data.length", 1),
        ("--data.num_train", 17),
    ],
    ids=" ".join(["{}"]).format,
)
def test_small_batches_and_short_sequences(empty, run_ok, stem, cell, data):
    base = (
        "--data.num_train",
        20,
        "--data.num_val",
        5,
        "--data.num_test",
        3,
        "--trainer.max_epochs",
        2,
    )
    options = ("--model.cell", cell, "--model.stem", stem, "--trainer.log_every_n_steps", 1)
    run_ok("fit", *base, *options, *data)
    content = assert_finite(LAST)
    settings = content["SyntheticDataModule"]["settings"]
    assert content["global_step"] == 2 * -(-settings["num_train"] // settings["batch_size"])
    assert all(np.isfinite(value) for _, _, value in history(RUN))
    run_ok("test")
    assert all(
        np.isfinite(value) for value in json.loads((RUN / "test_metrics.json").read_text()).values()
    )


def test_the_order_of_magnitude_of_the_inputs_does_not_matter(empty, run_ok):
    """Standardised in training, whatever their unit: the same curve."""
    values = np.random.default_rng(0).normal(size=(40, 5, 2))
    losses = []
    for name, unit in (("a.npz", 1.0), ("b.npz", 2.0**40), ("c.npz", 2.0**-40)):
        write_npz(name, values * unit)
        run_ok(
            "fit", "--data", "FileDataModule", "--data.train_path", name, "--trainer.max_epochs", 2
        )
        run = sorted(Path("lightning_logs").iterdir(), key=lambda path: path.stat().st_mtime)[-1]
        losses.append([value for tag, _, value in history(run) if tag == "train/loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[2] == pytest.approx(losses[0], rel=1e-4)
