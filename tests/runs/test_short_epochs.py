"""Runs with a few steps an epoch: validated, saved and reported on by steps, resumed exactly."""

import re
from contextlib import chdir
from unittest.mock import patch

import pytest
from finished_runs import history, outcome
from helpers import BEST, RUN, load, run_here
from test_resume import terminated_in

from lightning_rnn.training.checkpoints import Checkpoints

FEW = ("--data.num_train", 20, "--data.batch_size", 8, "--data.num_val", 16)  # 3 steps an epoch
VARIED = ("--data.fresh", "true", "--data.min_length", 4, "--model.dropout", 0.3)
SMALL = (*FEW, *VARIED, "--model.stem", "conv", "--model.hidden_size", 4)
LIMITS = {
    "epochs": ("--trainer.max_epochs", 42),
    "steps": ("--trainer.max_epochs", -1, "--trainer.max_steps", 125),
}


@pytest.fixture(scope="module", params=list(LIMITS))
def undisturbed(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    with chdir(folder):
        assert run_here("fit", *SMALL, *LIMITS[request.param]).code == 0
    return LIMITS[request.param], outcome(folder)


# inside an epoch; at its end, without and with a save; in the last epoch, whole or cut short
STEPS = [5, 66]
MORE_STEPS = [4, 6, 8, 11, 64, 65, 121, 123, 124]


@pytest.mark.parametrize(
    "step", [*STEPS, *(pytest.param(step, marks=pytest.mark.slow) for step in MORE_STEPS)]
)
def test_a_stopped_run_continues_exactly(undisturbed, empty, run, run_ok, step):
    limit, expected = undisturbed
    with terminated_in(step):
        run("fit", *SMALL, *limit)
    run_ok("fit", "--ckpt_path", "last")
    got = outcome(empty)
    assert [name for name, value in expected.items() if got[name] != value] == []


def steps_of(tag):
    return [step for name, step, _ in history(RUN) if name == tag]


def lines_of(out):
    return [line for line in out.splitlines() if line.startswith("epoch ")]


def test_short_epochs_are_validated_and_saved_together(empty, run_ok):
    saved = []
    original = Checkpoints.save_last

    def save_last(self, trainer, **kwargs):
        saved.append(trainer.global_step)
        original(self, trainer, **kwargs)

    limit = ("--trainer.max_epochs", -1, "--trainer.max_steps", 500)
    with patch.object(Checkpoints, "save_last", save_last):
        out = run_ok("fit", *FEW, *limit)
    # 8 epochs of 3 steps fit in a twentieth of the run, 16 do not; step 500 cuts an epoch short
    expected = [*range(24, 500, 24), 500]
    assert [step + 1 for step in steps_of("val/loss")] == expected
    assert saved == expected
    assert "validation: every 8 epochs (24 batches)" in out
    lines = lines_of(out)
    assert len(lines) == len(expected)
    assert lines[0].startswith("epoch 8, step 24/500  train/loss ")
    assert lines[-1].startswith("epoch 167, step 500/500  train/loss ")
    assert all("  val/loss " in line for line in lines)
    assert "; ended by max_steps: 500\n" in out
    best = load(BEST)
    rule = f"best: epoch {best['epoch'] + 1}, step {best['global_step']} (lowest val/loss)"
    assert f"{rule}  val/loss {best['metrics']['val/loss']:.4f}" in out
    hparams = {name: value for name, _, value in history(RUN) if name.startswith("hp/val")}
    assert hparams["hp/val_loss"] == pytest.approx(best["metrics"]["val/loss"])


def test_a_long_run_has_few_lines(empty, run_ok):
    out = run_ok("fit", *FEW, "--trainer.max_epochs", 400, "--trainer.check_val_every_n_epoch", 400)
    assert 10 < len(lines_of(out)) <= 30
    assert steps_of("val/loss") == [1199]
    assert [line for line in lines_of(out) if "val/" in line] == lines_of(out)[-1:]


def test_lightnings_own_intervals_are_kept(empty, run_ok):
    limit = ("--trainer.max_epochs", 42)
    run_ok("fit", *FEW, *limit, "--trainer.check_val_every_n_epoch", 1)
    assert len(steps_of("val/loss")) == 42
    out = run_ok("fit", *FEW, "--trainer.max_epochs", 2, "--trainer.val_check_interval", 2)
    assert "  val/loss " in lines_of(out)[0]
    assert lines_of(out)[0].endswith(" (at step 2)")


def test_an_epoch_cut_short_has_no_validation_of_another(empty, run_ok):
    limit = ("--trainer.max_steps", 7, "--trainer.check_val_every_n_epoch", 1)
    lines = lines_of(run_ok("fit", *FEW, *limit))
    assert ["val/loss" in line for line in lines] == [True, True, False]
    assert lines[-1].startswith("epoch 3/10, step 7/7  train/loss ")


def test_an_epoch_that_is_resumed_has_its_line(empty, run, run_ok):
    with terminated_in(3):
        run("fit", *FEW, "--trainer.max_epochs", 3)
    lines = lines_of(run_ok("fit", "--ckpt_path", "last"))
    assert [line.split()[1] for line in lines] == ["2/3", "3/3"]
    assert all("  val/loss " in line for line in lines)


CALLBACKS = "--trainer.callbacks"
STOPPING = f"{CALLBACKS}+=lightning_rnn.EarlyStopping", f"{CALLBACKS}.monitor=val/loss"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--trainer.max_epochs", 2), r"max_epochs: 2"),
        (
            (*STOPPING, f"{CALLBACKS}.min_delta=10", f"{CALLBACKS}.patience=2"),
            r"EarlyStopping: .* did not improve in the last 2 records. Best score: 0\.\d+\.",
        ),
        (
            ("--trainer.max_time", "00:00:00:01", "--trainer.max_epochs", 100_000),
            r"max_time: 1 s of training",
        ),
    ],
)
def test_the_rule_that_ends_a_run_is_said(empty, run_ok, options, reason):
    out = run_ok("fit", *FEW, *options)
    assert re.search(rf"^trained to step \d+ in .* s; ended by {reason}$", out, re.MULTILINE), out


def test_averaged_weights_are_said(empty, run_ok):
    out = run_ok("fit", *FEW, "--trainer.max_epochs", 1, f"{CALLBACKS}+=EMAWeightAveraging")
    assert "EMAWeightAveraging: validation and checkpoints use the averaged weights" in out
