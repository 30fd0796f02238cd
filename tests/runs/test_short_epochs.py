"""Runs with a few steps an epoch: validated, saved and reported on by steps, resumed exactly."""

from contextlib import chdir

import pytest
from finished_runs import outcome
from helpers import run_here
from test_resume import terminated_in

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
@pytest.mark.parametrize("step", [4, 5, 6, 8, 11, 64, 65, 66, 121, 123, 124])
def test_a_stopped_run_continues_exactly(undisturbed, empty, run, run_ok, step):
    limit, expected = undisturbed
    with terminated_in(step):
        run("fit", *SMALL, *limit)
    run_ok("fit", "--ckpt_path", "last")
    got = outcome(empty)
    assert [name for name, value in expected.items() if got[name] != value] == []
