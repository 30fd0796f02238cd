"""Ctrl-C and SIGTERM end a run between two steps, on all ranks, with a checkpoint that goes on exactly."""

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from kill_and_resume import finish, newest, outcome, start

from lightning_rnn import SequenceClassifier, SequenceDataModule

EPOCHS = ("--trainer.max_epochs", "30")  # enough to be met in the middle
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
LAST = Path("lightning_logs/version_0/checkpoints/last.ckpt")
SMALL = ("--data.num_train", 64, "--data.batch_size", 16, "--data.num_val", 32, "--model.dropout", 0.3,
         "--trainer.max_epochs", 3, "--trainer.log_every_n_steps", 1)  # fmt: skip


def signalled_in(hook, signum, call):
    """Let the program receive a signal in the call of a hook of the model that has this number."""
    original, calls = getattr(SequenceClassifier, hook), iter(range(1_000_000))

    def hooked(self, *args):
        if next(calls) == call:
            signal.raise_signal(signum)
        return original(self, *args)

    return patch.object(SequenceClassifier, hook, hooked)


def session(leader):
    """Return the living processes of a session, by their ids."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, number = (path / "stat").read_text().rpartition(")")[2].split()[:4]
            environment = (path / "environ").read_bytes() if int(number) == leader else b""
        except OSError:  # it has ended
            continue
        if int(number) == leader and state != "Z":
            found[int(path.name)] = environment.decode().split("\0")
    return found


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.02)


def wait_for_text(folder, text):
    wait_for(lambda: (folder / "log").is_file() and text in (folder / "log").read_text())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Return what a run of so many ranks leaves, trained once."""
    known = {}

    def wanted(ranks):
        if ranks not in known:
            folder = tmp_path_factory.mktemp(f"whole{ranks}")
            finish(start(folder, ranks, *EPOCHS), folder)
            known[ranks] = outcome(folder)
        return known[ranks]

    return wanted


@pytest.fixture
def begin(tmp_path):
    """Start runs, none of which outlives the test."""
    processes = []

    def begun(*args):
        processes.append(start(tmp_path, *args, *EPOCHS))
        return processes[-1]

    yield begun
    for process in processes:
        for pid in session(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.wait()


# in this process


@pytest.mark.parametrize("signum", CODES, ids=lambda signum: signum.name)
@pytest.mark.parametrize(
    ("hook", "call", "step"), [("training_step", 5, 6), ("validation_step", 1, 8)]
)
def test_a_signal_ends_the_run_with_a_checkpoint(
    tmp_path, monkeypatch, run, run_ok, signum, hook, call, step
):
    before = [signal.getsignal(number) for number in CODES]
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "whole")
    run_ok("fit", *SMALL)
    monkeypatch.chdir(tmp_path / "stopped")
    with signalled_in(hook, signum, call):
        result = run("fit", *SMALL)
    assert result.code == CODES[signum] and result.err == ""
    assert f"{signum.name}: stopping after this step; Ctrl-C stops at once" in result.out
    assert f"stopped after step {step}; checkpoint: " in result.out
    assert torch.load(LAST, weights_only=True)["global_step"] == step
    command = shlex.split(result.out.rpartition("continue: ")[2])
    assert command[:3] == ["python", "-m", "lightning_rnn"]
    run_ok(*command[3:])
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")
    assert [signal.getsignal(number) for number in CODES] == before


@pytest.mark.parametrize("signum", CODES, ids=lambda signum: signum.name)
@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_a_signal_ends_an_evaluation_at_once(trained, run, command, signum):
    hook = {"validate": "validation_step", "test": "test_step", "predict": "predict_step"}[command]
    left = set(trained.rglob("*.json")) | set(trained.rglob("*.csv"))
    with signalled_in(hook, signum, 0):
        result = run(command)
    assert result.code == CODES[signum]
    assert "Traceback" not in result.err
    assert set(trained.rglob("*.json")) | set(trained.rglob("*.csv")) == left


@pytest.mark.parametrize("signum", CODES, ids=lambda signum: signum.name)
def test_a_signal_before_training_ends_the_run_at_once(empty, run, signum):
    with patch.object(SequenceDataModule, "load", lambda *args: signal.raise_signal(signum)):
        result = run("fit", *SMALL)
    assert result.code == CODES[signum]
    assert "Traceback" not in result.err
    assert not list(empty.rglob("*"))


def test_a_run_outside_the_main_thread(empty, run):
    results = []
    thread = threading.Thread(target=lambda: results.append(run("fit", *SMALL)))
    thread.start()
    thread.join(timeout=120)
    assert [(result.code, result.err) for result in results] == [(0, "")]
    assert torch.load(LAST, weights_only=True)["epoch"] == 2


# real processes


@pytest.mark.slow
@pytest.mark.parametrize("signum", CODES, ids=lambda signum: signum.name)
def test_a_process_stops_and_the_printed_command_continues_it(tmp_path, begin, undisturbed, signum):
    wanted = undisturbed(1)
    process = begin(1)
    wait_for_text(tmp_path, "epoch 2/30")
    process.send_signal(signum)
    assert process.wait(timeout=30) == CODES[signum]
    log = (tmp_path / "log").read_text()
    assert "Traceback" not in log and "epoch 30/30" not in log
    assert (
        torch.load(newest(tmp_path) / "checkpoints/last.ckpt", weights_only=True)["global_step"] > 0
    )
    command = shlex.split(log.rpartition("continue: ")[2].splitlines()[0])
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, *command[1:]], cwd=tmp_path, env=environment, timeout=120, check=True
    )
    assert outcome(tmp_path) == wanted
    assert [path.name for path in (tmp_path / "lightning_logs").iterdir()] == ["version_0"]


SLOW_STEP = """
import sys, time
from lightning_rnn import SequenceClassifier
from lightning_rnn.__main__ import main
def slow(self, *args):
    print("in the step", flush=True)
    time.sleep(100)
SequenceClassifier.{hook} = slow
sys.exit(main(sys.argv[1:]))
"""


def start_slow(folder, hook, *args):
    command = [sys.executable, "-c", SLOW_STEP.format(hook=hook), *map(str, args)]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )


@pytest.mark.slow
def test_a_second_ctrl_c_ends_at_once(tmp_path):
    process = start_slow(tmp_path, "training_step", "fit", *SMALL)
    try:
        wait_for_text(tmp_path, "in the step")
        process.send_signal(signal.SIGINT)
        wait_for_text(tmp_path, "Ctrl-C stops at once")
        time.sleep(0.5)
        assert process.poll() is None  # it waits for its step
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=4) == 130
        assert "Traceback" not in (tmp_path / "log").read_text()
    finally:
        process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("signum", CODES, ids=lambda signum: signum.name)
def test_a_signal_ends_a_test_process_at_once(trained, signum):
    process = start_slow(trained, "test_step", "test")
    try:
        wait_for_text(trained, "in the step")
        process.send_signal(signum)
        assert process.wait(timeout=4) == CODES[signum]
    finally:
        process.kill()


def rank_of(environment):
    return next((int(entry[11:]) for entry in environment if entry.startswith("LOCAL_RANK=")), 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("receivers", "signum"),
    [
        ("main", signal.SIGTERM),
        ("other", signal.SIGTERM),
        ("all", signal.SIGTERM),
        ("all", signal.SIGINT),
    ],
    ids=["main", "other", "all", "ctrl-c"],
)
def test_all_ranks_end_whichever_is_told(tmp_path, begin, undisturbed, receivers, signum):
    wanted = undisturbed(2)
    process = begin(2)
    wait_for_text(tmp_path, "epoch 2/30")
    ranks = {rank_of(environment): pid for pid, environment in session(process.pid).items()}
    assert ranks.keys() == {0, 1} and ranks[0] == process.pid
    for rank, pid in ranks.items():
        if receivers in ("all", ("main", "other")[rank]):
            os.kill(pid, signum)
    assert process.wait(timeout=60) == CODES[signum], (tmp_path / "log").read_text()
    wait_for(lambda: not session(process.pid), seconds=30)
    log = (tmp_path / "log").read_text()
    assert "Traceback" not in log and "epoch 30/30" not in log
    assert log.count("stopped after step") == 1
    finish(begin(2, "--ckpt_path", "last"), tmp_path)
    assert outcome(tmp_path) == wanted
