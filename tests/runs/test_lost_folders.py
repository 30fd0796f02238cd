"""A run folder or disk that is lost in mid-run, or is full, ends a command with one message."""

import shutil
import subprocess
from pathlib import Path

import pytest
from helpers import BEST, ERROR, LAST, RUN, TINY, TINY_DATA, run_here

from lightning_rnn.training.classifier import SequenceClassifier

SMALL = (*TINY, *TINY_DATA, "--data.batch_size", 8, "--trainer.max_epochs", 4)  # 8 batches each


def replaced_by_a_file(path):
    if path.is_dir():
        shutil.rmtree(path)
        path.write_text("")


def run_while(break_, step, monkeypatch, *args):
    """Run `fit` and break something at a step; return the result."""
    original = SequenceClassifier.training_step

    def training_step(self, *inputs):
        if self.trainer.global_step == step:
            break_()
        return original(self, *inputs)

    monkeypatch.setattr(SequenceClassifier, "training_step", training_step)
    result = run_here("fit", *SMALL, *args)
    monkeypatch.undo()
    return result


def assert_one_message(result):
    """Callbacks that watch a run may fail first, which they say in a line of their own."""
    assert result.code == 1, result
    *notes, message = result.err.splitlines()
    assert message.startswith(ERROR), result
    assert all("failed and is disabled" in note for note in notes), result
    assert "Traceback" not in result.out + result.err


@pytest.mark.parametrize("step", [3, 13])  # before and after the first checkpoint
@pytest.mark.parametrize("how", ["deleted", "a file", "checkpoints are a file", "root is a file"])
def test_a_folder_that_is_lost(empty, monkeypatch, how, step):
    def break_():
        if how == "deleted":
            shutil.rmtree(RUN)
        elif how == "a file":
            replaced_by_a_file(RUN)
        elif how == "root is a file":
            replaced_by_a_file(RUN.parent)
        else:
            RUN.joinpath("checkpoints").mkdir(exist_ok=True)
            replaced_by_a_file(RUN / "checkpoints")

    assert_one_message(run_while(break_, step, monkeypatch))


@pytest.fixture
def small_disk(tmp_path, monkeypatch):
    """A file system of 1 MB; only root can mount it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a file system cannot be mounted")
    monkeypatch.chdir(folder)
    yield folder
    monkeypatch.chdir(tmp_path)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder):
    with (folder / "filling").open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12):
            while True:
                try:
                    if file.write(bytes(size)) < size:
                        break
                except OSError:
                    break


def make_read_only(folder):
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)


@pytest.mark.parametrize("step", [3, 13])
@pytest.mark.parametrize("break_", [fill, make_read_only])
def test_a_disk_that_is_full_or_read_only(small_disk, monkeypatch, break_, step):
    assert_one_message(run_while(lambda: break_(small_disk), step, monkeypatch))
    assert not list(small_disk.rglob(".*.ckpt.*"))  # drafts


@pytest.mark.parametrize("break_", [fill, make_read_only])
def test_commands_on_a_disk_that_is_full_or_read_only(small_disk, original_run, break_):
    shutil.copytree(original_run / "lightning_logs", small_disk / "lightning_logs")
    shutil.copy(Path(__file__).parents[1] / "files/ItalyPowerDemand_TRAIN.ts", "train.ts")
    before = {path.name for path in small_disk.rglob("*")} | {"filling"}
    break_(small_disk)
    for command in (
        ("predict", "--ckpt_path", BEST, "--output", "predictions.csv"),
        ("test", "--ckpt_path", BEST),
        ("export", "--ckpt_path", BEST, "--output", "model.onnx"),
        ("pack", "--input", "train.ts", "--output", "packed"),
        ("fit", "--ckpt_path", LAST, "--trainer.max_epochs", 3),
        ("fit", *SMALL),
    ):
        assert_one_message(run_here(*command))
        after = {path.name for path in small_disk.rglob("*")}
        events = {name for name in after if name.startswith("events.")}  # as far as there was room
        assert after - events <= before, command
