"""Ctrl-C and SIGTERM end a run between two steps, on all ranks, with a checkpoint."""

import itertools
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
from finished_runs import newest, outcome
from helpers import LAST, MANY_SETTINGS, TIME_LIMIT, TWO_RANKS, load, process_environment
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_rnn import SequenceClassifier, SequenceDataModule, SyntheticDataModule

EPOCHS = ("--trainer.max_epochs", "30")  # enough to receive a signal in the middle
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
AT_ONCE = 20  # seconds, most of which the process needs to exit on a busy machine
ANNOUNCEMENT = "stopping after this step; press Ctrl-C again to stop at once"
DATA = ("--data.num_train", 64, "--data.batch_size", 16, "--data.num_val", 32)
TRAINER = ("--trainer.max_epochs", 3, "--trainer.log_every_n_steps", 1)
SMALL = (*DATA, "--model.dropout", 0.3, *TRAINER)


def start(folder: Path, ranks: int, *extra: str) -> subprocess.Popen:
    """Start `fit` in a session of its own, so that all its ranks can be killed together."""
    command = [sys.executable, "-m", "lightning_rnn", "fit", *MANY_SETTINGS.split()]
    if ranks == 2:
        command += [str(word) for word in TWO_RANKS]
    command += extra
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=process_environment(),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def finish(process: subprocess.Popen, folder: Path) -> None:
    """Wait for a run to end without an error."""
    if process.wait(timeout=TIME_LIMIT) != 0:
        raise RuntimeError(f"fit ended with {process.returncode}:\n{(folder / 'log').read_text()}")


@pytest.fixture(autouse=True)
def _sigint_is_not_ignored():
    """Under nohup the tests ignore SIGINT, and so would the processes that they start."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


def signalled_in(hook, signum, call):
    """Let the program receive a signal in the call of this number of a hook of the model."""
    original = getattr(SequenceClassifier, hook)
    calls = itertools.count()

    def hooked(self, *args):
        if next(calls) == call:
            signal.raise_signal(signum)
        return original(self, *args)

    return patch.object(SequenceClassifier, hook, hooked)


def session(leader):
    """Return the living processes of a session: their environments by their ids."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            after_name = (path / "stat").read_text().rpartition(")")[2]
            state, _, _, session_id = after_name.split()[:4]
            if int(session_id) == leader and state != "Z":
                environment = (path / "environ").read_bytes().decode()
                found[int(path.name)] = environment.split("\0")
        except OSError:  # the process has ended
            continue
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
    """Return the outcome of an undisturbed run of so many ranks, trained once."""
    known = {}

    def undisturbed_outcome(ranks):
        if ranks not in known:
            folder = tmp_path_factory.mktemp(f"whole{ranks}")
            finish(start(folder, ranks, *EPOCHS), folder)
            known[ranks] = outcome(folder)
        return known[ranks]

    return undisturbed_outcome


@pytest.fixture
def begin(tmp_path):
    """Start runs, none of which outlives the test."""
    processes = []

    def begin_run(*args):
        process = start(tmp_path, *args, *EPOCHS)
        processes.append(process)
        return process

    yield begin_run
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
    assert (result.code, result.err) == (CODES[signum], "")
    assert f"{signum.name}: {ANNOUNCEMENT}" in result.out
    assert f"stopped after step {step}; checkpoint: " in result.out
    assert load(LAST)["global_step"] == step
    command = shlex.split(result.out.rpartition("continue: ")[2])
    assert command[:3] == ["python", "-m", "lightning_rnn"]
    run_ok(*command[3:])
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")
    assert [signal.getsignal(number) for number in CODES] == before


def test_the_printed_command_names_classes_of_the_user(empty, monkeypatch, run, run_ok):
    code = "from lightning_rnn import *\n"
    code += "class Model(SequenceClassifier):\n    pass\n"
    code += "class Data(SyntheticDataModule):\n    pass\n"
    Path("own_classes.py").write_text(code)
    monkeypatch.syspath_prepend(str(empty))
    classes = ("--model", "own_classes.Model", "--data", "own_classes.Data")
    with signalled_in("training_step", signal.SIGINT, 3):
        result = run("fit", *classes, *TRAINER)
    command = shlex.split(result.out.rpartition("continue: ")[2])
    assert command[-4:] == list(classes)
    run_ok(*command[3:])


def test_an_ignored_sigint_stays_ignored(empty, run):
    """As in a process started with nohup; a SIGTERM still ends the run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with signalled_in("training_step", signal.SIGINT, 5):
        result = run("fit", *SMALL)
    assert (result.code, result.err) == (0, "")
    assert ANNOUNCEMENT not in result.out
    assert load(LAST)["global_step"] == 12
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    with signalled_in("training_step", signal.SIGTERM, 5):
        assert run("fit", *SMALL).code == 143


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
    assert load(LAST)["epoch"] == 2


# contracts with Lightning


def test_a_single_process_checks_received_sigterm_before_each_step(tmp_path):
    """Trainer._signal_connector.received_sigterm"""

    class Terminated(Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 3:
                assert trainer._signal_connector.received_sigterm is False
                trainer._signal_connector.received_sigterm = True

    trainer = small_trainer(tmp_path, Terminated())
    with pytest.raises(SIGTERMException):
        trainer.fit(SequenceClassifier(), datamodule=small_data())
    assert trainer.global_step == 3


@pytest.mark.filterwarnings("ignore:It is recommended to use .self.log")  # ranks are simulated
def test_a_distributed_run_calls_broadcast_sigterm_tensor_before_each_step(tmp_path):
    """_TrainingEpochLoop._broadcast_sigterm_tensor, set on the loop of a Trainer"""
    assert callable(_TrainingEpochLoop._broadcast_sigterm_tensor)
    steps = []

    class Replaced(Callback):
        def on_train_start(self, trainer, pl_module):
            loop = trainer.fit_loop.epoch_loop
            loop._broadcast_sigterm_tensor = lambda: steps.append(trainer.global_step)

    meeting = f"file://{tmp_path / 'meeting'}"
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=0, world_size=1)
    try:
        with patch.object(Trainer, "world_size", 2):
            trainer = small_trainer(tmp_path, Replaced())
            trainer.fit(SequenceClassifier(), datamodule=small_data())
    finally:
        torch.distributed.destroy_process_group()
    assert steps == [0, 1]  # two steps of this rank


def small_data():
    return SyntheticDataModule(num_train=64, batch_size=16, num_val=0)


def small_trainer(folder, *callbacks):
    return Trainer(
        max_epochs=1,
        callbacks=list(callbacks),
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


# real processes


@pytest.mark.slow
@pytest.mark.parametrize("signum", CODES, ids=lambda signum: signum.name)
def test_a_process_stops_and_the_printed_command_continues_it(tmp_path, begin, undisturbed, signum):
    expected = undisturbed(1)
    process = begin(1)
    wait_for_text(tmp_path, "epoch 2/30")
    process.send_signal(signum)
    assert process.wait(timeout=30) == CODES[signum]
    log = (tmp_path / "log").read_text()
    assert "Traceback" not in log
    assert "epoch 30/30" not in log
    assert load(newest(tmp_path) / "checkpoints/last.ckpt")["global_step"] > 0
    command = shlex.split(log.rpartition("continue: ")[2].splitlines()[0])
    continued = [sys.executable, *command[1:]]
    environment = process_environment()
    subprocess.run(continued, cwd=tmp_path, env=environment, timeout=120, check=True)
    assert outcome(tmp_path) == expected
    assert [path.name for path in (tmp_path / "lightning_logs").iterdir()] == ["version_0"]


@pytest.mark.slow
def test_a_process_started_with_sigint_ignored_survives_it(tmp_path, begin, undisturbed):
    expected = undisturbed(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    process = begin(1)
    wait_for_text(tmp_path, "epoch 2/30")
    process.send_signal(signal.SIGINT)
    finish(process, tmp_path)
    assert outcome(tmp_path) == expected


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
    script = SLOW_STEP.format(hook=hook)
    command = [sys.executable, "-c", script, *map(str, args)]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, env=process_environment()
        )


@pytest.mark.slow
def test_a_second_ctrl_c_ends_at_once(tmp_path):
    process = start_slow(tmp_path, "training_step", "fit", *SMALL)
    try:
        wait_for_text(tmp_path, "in the step")
        process.send_signal(signal.SIGINT)
        wait_for_text(tmp_path, "press Ctrl-C again to stop at once")
        time.sleep(0.5)
        assert process.poll() is None  # the step is finished first
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=AT_ONCE) == 130
        assert "Traceback" not in (tmp_path / "log").read_text()
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("signum", CODES, ids=lambda signum: signum.name)
def test_a_signal_ends_a_test_process_at_once(trained, signum):
    process = start_slow(trained, "test_step", "test")
    try:
        wait_for_text(trained, "in the step")
        process.send_signal(signum)
        assert process.wait(timeout=AT_ONCE) == CODES[signum]
    finally:
        process.kill()
        process.wait()


def rank_of(environment):
    """Return the rank of a process; the one that starts the others is rank 0."""
    for entry in environment:
        if entry.startswith("LOCAL_RANK="):
            return int(entry.removeprefix("LOCAL_RANK="))
    return 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("receivers", "signum"),
    [
        ({0}, signal.SIGTERM),
        ({1}, signal.SIGTERM),
        ({0, 1}, signal.SIGTERM),
        ({0, 1}, signal.SIGINT),
    ],
    ids=["rank 0", "rank 1", "all", "ctrl-c"],
)
def test_all_ranks_end_whichever_receives_it(tmp_path, begin, undisturbed, receivers, signum):
    expected = undisturbed(2)
    process = begin(2)
    wait_for_text(tmp_path, "epoch 2/30")
    ranks = {}
    for pid, environment in session(process.pid).items():
        ranks[rank_of(environment)] = pid
    assert ranks.keys() == {0, 1}
    assert ranks[0] == process.pid
    for rank in receivers:
        os.kill(ranks[rank], signum)
    assert process.wait(timeout=60) == CODES[signum], (tmp_path / "log").read_text()
    wait_for(lambda: not session(process.pid), seconds=30)
    log = (tmp_path / "log").read_text()
    assert "Traceback" not in log
    assert "epoch 30/30" not in log
    assert log.count("stopped after step") == 1
    finish(begin(2, "--ckpt_path", "last"), tmp_path)
    assert outcome(tmp_path) == expected
