"""Run folders: one for each run, locked while it lives, and none left behind in vain."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers import (
    BEST,
    CPU,
    LAST,
    PREVIOUS,
    RUN,
    TIME_LIMIT,
    TINY,
    TINY_DATA,
    TWO_RANKS,
    load,
    process_environment,
    run_here,
)
from start_together import start_together

from lightning_rnn import SequenceClassifier
from lightning_rnn.atomic_files import remove_drafts
from lightning_rnn.errors import NumericError
from lightning_rnn.training.run_folder import new_run_folder

LOGS = RUN.parent
SMALL = (*TINY, *TINY_DATA)


@contextmanager
def lock(folder):
    """Lock a folder as a process that trains in it."""
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield
    os.close(descriptor)


def state_of(folder):
    """Content of all files, and the empty folders."""
    state = {}
    for path in folder.rglob("*"):
        state[path] = path.read_bytes() if path.is_file() else None
    return state


@pytest.mark.slow
def test_processes_that_start_together_get_different_folders(tmp_path):
    start_together(tmp_path, 8)


def test_a_taken_number_is_left_out(tmp_path):
    (tmp_path / "lightning_logs/version_3").mkdir(parents=True)
    with new_run_folder(tmp_path, lambda: True) as first:
        (first / "file").touch()
        with new_run_folder(tmp_path, lambda: False) as second:
            (second / "file").touch()
            assert [first.name, second.name] == ["version_4", "version_5"]
    assert sorted(path.name for path in first.parent.iterdir()) == ["version_3", "version_4"]


@pytest.mark.parametrize("ckpt_path", ["auto", BEST])
def test_a_run_that_is_being_trained_is_not_continued(trained, refused, ckpt_path):
    before = state_of(trained)
    with lock(RUN):
        message = refused("fit", "--ckpt_path", ckpt_path, "--trainer.max_epochs", 3, code=1)
    assert "lightning_logs/version_0: expected a run that has ended, got one" in message
    assert state_of(trained) == before


def test_a_run_that_is_being_trained_can_be_tested(trained, run_ok):
    with lock(RUN):
        run_ok("test")


def test_drafts_of_living_processes_stay(tmp_path):
    gone = tmp_path / f".last.ckpt.{2**22 + 1}"  # more than there are processes
    living = tmp_path / f".last.ckpt.{os.getppid()}"
    other = tmp_path / ".last.ckpt.draft"
    for path in (gone, living, other):
        path.touch()
    remove_drafts(tmp_path, "*.ckpt")
    assert sorted(tmp_path.iterdir()) == sorted([living, other])


# refused and failed commands


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("--data.train_path", "absent.csv"), 1),
        (("--data.train_path", "absent.csv", "--trainer.default_root_dir", "new/folder"), 1),
        (("--model.lr", "nan"), 2),
        (("--trainer.accelerator", "cpu", "--trainer.strategy", "none"), 1),
        (("--trainer.limit_train_batches", 1.5), 1),
    ],
)
def test_a_refused_new_run_leaves_nothing(empty, refused, args, code):
    refused("fit", *args, code=code)
    assert not list(empty.iterdir())


def test_a_run_without_a_step_leaves_nothing(empty, run_ok):
    out = run_ok("fit", *SMALL, "--trainer.max_epochs", 0)
    assert "nothing was trained: there is no checkpoint" in out
    assert "run folder" not in out
    assert not list(empty.iterdir())


def test_a_run_that_fails_in_its_first_step_leaves_nothing(empty, monkeypatch):
    def fail(*args):
        raise NumericError("the loss is not finite")

    monkeypatch.setattr(SequenceClassifier, "training_step", fail)
    result = run_here("fit", *SMALL)
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert not list(empty.iterdir())


def test_a_refused_resume_changes_nothing(trained, refused):
    before = state_of(trained)
    refused("fit", "--ckpt_path", "last", "--data.seed", 9, code=2)
    assert state_of(trained) == before


def test_a_newer_run_without_a_checkpoint_is_named(trained, run):
    (LOGS / "version_1").mkdir()
    for args in (("test",), ("fit", "--ckpt_path", "last")):
        result = run(*args)
        assert result.code == 0
        assert (
            f"skipped runs without {(args[1:] and 'last') or 'best'}.ckpt: version_1" in result.err
        )
        assert "lightning_logs/version_0/checkpoints" in result.out


# damaged checkpoints


def spoil(path, how):
    content = path.read_bytes()
    path.unlink()  # it may be a hard link
    if how == "flipped bit":
        middle = content.index(b"network.head.weight")
        path.write_bytes(content[:middle] + b"N" + content[middle + 1 :])
    elif how == "folder":
        path.mkdir()
    elif how == "link loop":
        path.symlink_to(path.name)


@pytest.mark.parametrize("how", ["folder", "link loop"])
def test_the_next_checkpoint_is_taken(trained, run, how):
    spoil(LAST, how)
    result = run("fit", "--ckpt_path", "last", "--trainer.max_epochs", 3)
    assert str(LAST) in result.err
    assert f"continuing from {PREVIOUS.absolute()}, step " in result.out
    if how == "folder":  # which could not be replaced by the next checkpoint
        assert result.code == 1
        assert "expected a file that can be replaced, got a folder" in result.err
    else:
        assert result.code == 0
        assert load(LAST)["epoch"] == 2


def test_the_best_checkpoint_is_taken_at_last(trained, run, refused):
    best = load(BEST)["global_step"]
    spoil(LAST, "flipped bit")
    spoil(PREVIOUS, "flipped bit")
    result = run("fit", "--ckpt_path", "auto", "--trainer.max_epochs", 1)
    assert result.err.count("damaged: ") == 2
    assert f"best.ckpt, step {best}" in result.out
    spoil(BEST, "flipped bit")
    before = state_of(trained)
    assert run("fit", "--ckpt_path", "auto").code == 1
    assert state_of(trained) == before


def test_a_damaged_checkpoint_never_replaces_a_good_one(trained, run, monkeypatch):
    """Killed while it writes the first checkpoint after a resume from `previous.ckpt`."""
    spoil(LAST, "flipped bit")
    good = PREVIOUS.read_bytes()

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.save", full)
    assert run("fit", "--ckpt_path", "last", "--trainer.max_epochs", 3).code == 1
    assert PREVIOUS.read_bytes() == good


# a disk, a folder or an output that goes away


def test_a_run_whose_folder_is_deleted_ends_with_a_message(empty, monkeypatch):
    original = SequenceClassifier.training_step

    def training_step(self, *args):
        if self.trainer.global_step == 3:
            RUN.rename("deleted")  # at once: while files are removed, a writer may add one
        return original(self, *args)

    monkeypatch.setattr(SequenceClassifier, "training_step", training_step)
    result = run_here("fit", *SMALL)
    assert result.code == 1
    *notes, message = result.err.splitlines()
    assert message.startswith("lightning_rnn: error: ")
    assert str(RUN) in message
    assert all("failed and is disabled" in note for note in notes)  # the writer may fail first
    assert not RUN.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limit", "options"),
    [
        (20, ("--model.hidden_size", 64)),  # a checkpoint
        (40, ("--model.hidden_size", 2, "--trainer.max_epochs", 300)),  # the events
    ],
)
def test_a_full_disk_ends_a_run_with_a_message(tmp_path, limit, options):
    """A limit of so many kilobytes on each file, which fails in the same way."""
    words = map(str, ("fit", *SMALL, *CPU, *options))
    command = f"ulimit -f {limit}; exec {sys.executable} -m lightning_rnn {' '.join(words)}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=tmp_path,
        env=process_environment(),
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("lightning_rnn: error: [Errno 27] File too large")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("redirection", "code"), [("| head -n 1", 0), (">&-", 0), (">/dev/full", 1)]
)
def test_training_goes_on_without_a_reader(tmp_path, redirection, code):
    words = " ".join(map(str, ("fit", *SMALL, *CPU)))
    command = f"{sys.executable} -m lightning_rnn {words} {redirection}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=tmp_path,
        env=process_environment(),
        stderr=subprocess.PIPE,
        text=True,
        timeout=TIME_LIMIT,
    )
    assert done.returncode == code
    assert (tmp_path / LAST).exists() == (code == 0)
    assert done.stderr.count("\n") == code


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_the_other_rank_names_a_killed_one(tmp_path, rank):
    args = map(str, ("fit", *SMALL, *TWO_RANKS, "--trainer.max_epochs", 100_000))
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "lightning_rnn", *args],
            cwd=tmp_path,
            env=process_environment(),
            stdout=log,
            stderr=log,
        )
    deadline = time.monotonic() + TIME_LIMIT
    while not (tmp_path / LAST).exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    victim = process.pid if rank == 0 else int(children[0])
    os.kill(victim, signal.SIGKILL)
    assert process.wait(timeout=TIME_LIMIT) != 0
    text = ""
    while "has ended unexpectedly" not in text and time.monotonic() < deadline:
        time.sleep(0.1)  # the child of a killed process is not waited for
        text = (tmp_path / "log").read_text()
    assert f"rank {rank} has ended unexpectedly; continue with: fit --ckpt_path" in text
    assert text.count("error") == 1
    assert "Traceback" not in text
