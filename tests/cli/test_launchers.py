"""torchrun and SLURM: their numbers of processes apply; options that contradict are errors."""

import os
import subprocess
import sys

import pytest
from helpers import LAST, TIME_LIMIT, TWO_RANKS, free_port, load, process_environment

from lightning_rnn.cli.launchers import apply_launched_world, launched_world
from lightning_rnn.distributed import process_rank
from lightning_rnn.errors import OptionError

SMALL = ("--trainer.max_epochs", 2, "--data.num_val", 20, "--trainer.accelerator", "cpu")
DEFAULTS = {"devices": "auto", "num_nodes": 1, "strategy": "auto"}


def torchrun(folder, *args, processes=2):
    """Run the program with torchrun."""
    launcher = ["--nproc_per_node", processes, "--master_port", free_port()]
    words = ["-m", "torch.distributed.run", *launcher, "-m", "lightning_rnn", *args]
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=folder,
        env=process_environment(),
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT,
    )


def torchrun_env(here, total):
    sizes = {"LOCAL_WORLD_SIZE": str(here), "WORLD_SIZE": str(total)}
    return {"TORCHELASTIC_RUN_ID": "1", "RANK": "0", "LOCAL_RANK": "0", "GROUP_RANK": "0", **sizes}


def slurm_env(tasks, nodes):
    return {
        "SLURM_NTASKS": str(tasks),
        "SLURM_NNODES": str(nodes),
        "SLURM_JOB_NAME": "train",
        "SLURM_PROCID": "0",
    }


@pytest.fixture
def launch(monkeypatch):
    """Put the variables of a launcher into the environment, and no others'."""
    for name in [name for name in os.environ if name.startswith(("SLURM_", "TORCHELASTIC_"))]:
        monkeypatch.delenv(name)

    def launched(environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)

    return launched


# the numbers


def test_without_a_launcher_nothing_changes(launch):
    launch({})
    assert launched_world() is None
    trainer = {**DEFAULTS, "devices": 7}
    apply_launched_world(trainer)
    assert trainer == {**DEFAULTS, "devices": 7}


@pytest.mark.parametrize(
    ("environment", "world"),
    [
        (torchrun_env(2, 2), (2, 1)),
        (torchrun_env(2, 6), (2, 3)),
        (torchrun_env(1, 2), (1, 2)),
        (slurm_env(4, 1), (4, 1)),
        (slurm_env(4, 2), (2, 2)),
        (slurm_env(2, 2), (1, 2)),
    ],
)
@pytest.mark.parametrize("typed", [{}, {"devices": "1"}, {"devices": 1}, "same", "same as text"])
def test_the_launchers_numbers_are_taken(launch, environment, world, typed):
    launch(environment)
    assert launched_world() == world
    if isinstance(typed, str):
        devices = str(world[0]) if typed == "same as text" else world[0]
        typed = {"devices": devices, "num_nodes": world[1], "strategy": "ddp"}
    trainer = {**DEFAULTS, **typed}
    apply_launched_world(trainer)
    assert trainer == {"devices": world[0], "num_nodes": world[1], "strategy": "ddp"}


@pytest.mark.parametrize(
    "environment", [torchrun_env(2, 4), slurm_env(4, 2)], ids=["torchrun", "slurm"]
)
@pytest.mark.parametrize(
    ("name", "value"), [("devices", 3), ("devices", "3"), ("devices", [0]), ("num_nodes", 3)]
)
def test_numbers_that_contradict_are_refused(launch, environment, name, value):
    launch(environment)
    with pytest.raises(OptionError) as error:
        apply_launched_world({**DEFAULTS, name: value})
    expected = "2, the number that the launcher started"
    assert str(error.value) == f"{name}: expected {expected}, got {value!r}"


@pytest.mark.parametrize(
    "environment",
    [torchrun_env(2, 3), slurm_env(5, 2), slurm_env(2, 4), slurm_env(3, 2), slurm_env(5, 3)],
    ids=repr,
)
def test_nodes_of_different_sizes_are_refused(launch, environment):
    launch(environment)
    with pytest.raises(OptionError, match="world size: expected as many processes on each node"):
        launched_world()


def test_an_explicit_strategy_stays(launch):
    launch(torchrun_env(2, 2))
    trainer = {**DEFAULTS, "strategy": "ddp_find_unused_parameters_true"}
    apply_launched_world(trainer)
    assert trainer["strategy"] == "ddp_find_unused_parameters_true"


def test_one_process_needs_no_strategy(launch):
    launch(torchrun_env(1, 1))
    trainer = dict(DEFAULTS)
    apply_launched_world(trainer)
    assert trainer == {"devices": 1, "num_nodes": 1, "strategy": "auto"}


@pytest.mark.parametrize(
    "environment", [slurm_env(1, 1), {**slurm_env(4, 2), "SLURM_JOB_NAME": "bash"}]
)
def test_an_interactive_job_is_no_launcher(launch, environment):
    launch(environment)
    assert launched_world() is None


@pytest.mark.parametrize(
    ("environment", "rank"),
    [
        ({}, 0),
        ({"RANK": "3", "LOCAL_RANK": "1"}, 3),
        ({"LOCAL_RANK": "1"}, 1),
        ({"SLURM_PROCID": "5"}, 5),
        ({"RANK": "x"}, 0),
    ],
)
def test_the_rank_before_there_is_a_trainer(launch, monkeypatch, environment, rank):
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    launch(environment)
    assert process_rank() == rank


@pytest.mark.parametrize(
    "environment", [torchrun_env(2, 2), slurm_env(2, 1)], ids=["torchrun", "slurm"]
)
def test_the_command_line_refuses_in_one_line(empty, run, launch, environment):
    launch(environment)
    result = run("fit", *SMALL, "--trainer.devices", 3)
    assert result.code == 2
    assert result.err.startswith("lightning_rnn: error: --trainer.devices: expected 2, the number")
    assert result.err.count("\n") == 1
    assert not list(empty.iterdir())


# real launchers


@pytest.mark.slow
def test_torchrun_trains_one_run(tmp_path):
    done = torchrun(tmp_path, "fit", *SMALL)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "lightning_logs").iterdir()] == ["version_0"]
    assert done.stdout.count("epoch 2/2") == 1
    content = load(tmp_path / LAST)
    assert content["global_step"] == 2 * 16  # 1000 sequences in global batches of 2 * 32
    random_states = next(
        state for name, state in content["callbacks"].items() if "RandomStates" in name
    )
    assert len(random_states["ranks"]) == 2


@pytest.mark.slow
def test_torchrun_with_wrong_devices_is_refused_once_a_rank(tmp_path):
    done = torchrun(tmp_path, "fit", *SMALL, "--trainer.devices", 3)
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if line.startswith("lightning_rnn: error")]
    rest = "--trainer.devices: expected 2, the number that the launcher started, got '3'"
    assert set(said) <= {f"lightning_rnn: error: {rest}", f"lightning_rnn: error (rank 1): {rest}"}
    assert 1 <= len(said) == len(set(said))  # torchrun may end a rank before it has spoken
    assert not (tmp_path / "lightning_logs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 3])
def test_fewer_sequences_than_places(tmp_path, run_apart, size):
    """Each rank has a sequence in each step: the one there is, or all but the one left over."""
    data = ("--data.num_train", size, "--data.num_val", 1, "--data.num_test", 1)
    result = run_apart("fit", *SMALL, *data, *TWO_RANKS, cwd=tmp_path)
    assert result.code == 0, result
    content = load(tmp_path / LAST)
    assert content["global_step"] == 2
    assert all(bool(value.isfinite().all()) for value in content["state_dict"].values())
