"""`compare`: what it writes, what it keeps, and what it refuses."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import TINY, TINY_DATA, process_environment

from lightning_rnn.cli.compare import split_args

FIT = (*TINY, *TINY_DATA, "--trainer.max_epochs", 1)
COMPARE = ("compare", "--cells", "rnn,gru", "--seeds", 2, "--jobs", 2)


def rows(folder="comparison"):
    with Path(folder, "runs.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def compared(tmp_path_factory, run_ok):
    """Return a folder with a comparison, and what it printed."""
    folder = tmp_path_factory.mktemp("compared")
    out = run_ok(*COMPARE, "--folder", folder / "comparison", *FIT)
    return folder, out


@pytest.mark.slow
def test_a_run_is_that_of_fit_and_test(compared, run_ok, empty):
    folder, _ = compared
    row = rows(folder / "comparison")[3]
    assert (row["cell"], row["seed"]) == ("gru", "1")
    run_ok("fit", *FIT, "--model.cell", "gru", "--seed_everything", 1, "--data.seed", 1)
    run_ok("test")
    metrics = json.loads(Path("lightning_logs/version_0/test_metrics.json").read_text())
    del metrics["classes"], metrics["origin"]
    for name, value in metrics.items():
        assert float(row[name]) == pytest.approx(value, rel=1e-6), name
    assert row["steps"] == "2"
    assert int(row["parameters"]) == 3 * (8 + 64 + 8 + 8) + 9  # gates of H = 8, and the head


@pytest.mark.slow
def test_comparison_is_written(compared):
    folder, out = compared
    cells = [(row["cell"], row["seed"]) for row in rows(folder / "comparison")]
    assert cells == [("rnn", "0"), ("gru", "0"), ("rnn", "1"), ("gru", "1")]
    assert (folder / "comparison/accuracy.png").read_bytes().startswith(b"\x89PNG")
    lines = out.splitlines()
    assert lines[0] == "4 of 4 runs to do, 2 at a time"
    table = lines[lines.index(next(line for line in lines if "95 % interval" in line)) :]
    assert [line.split()[0] for line in table[1:3]] == ["rnn", "gru"]
    mean = sum(float(row["test/accuracy"]) for row in rows(folder / "comparison")[1::2]) / 2
    assert float(table[2].split()[1]) == pytest.approx(mean, abs=6e-4)


@pytest.mark.slow
def test_finished_runs_are_kept(compared, run_ok):
    folder, _ = compared
    first = folder / "comparison/gru/seed_0/result.json"
    kept = folder / "comparison/rnn/seed_0/result.json"
    before = first.read_text()
    time_before = kept.stat().st_mtime_ns
    first.unlink()  # as after a kill
    out = run_ok(*COMPARE, "--folder", folder / "comparison", *FIT)
    assert out.startswith("1 of 4 runs to do")
    again = json.loads(first.read_text())
    assert again | {"seconds": 0} == json.loads(before) | {"seconds": 0}
    assert kept.stat().st_mtime_ns == time_before
    fewer = run_ok("compare", "--cells=rnn", "--seeds=1", "--folder", folder / "comparison", *FIT)
    assert fewer.startswith("0 of 1 runs to do")
    assert len(rows(folder / "comparison")) == 1


@pytest.mark.slow
def test_other_options_need_another_folder(compared, run):
    folder, _ = compared
    before = sorted((folder / "comparison").rglob("*"))
    result = run(*COMPARE, "--folder", folder / "comparison", *FIT, "--model.lr", 0.02)
    assert result.code == 2
    path = folder / "comparison/config.yaml"
    expected = f"--folder: expected a new folder, or the options in {path}, got"
    assert f"{expected} model.lr 0.02 (was 0.01)\n" in result.err
    assert sorted((folder / "comparison").rglob("*")) == before


@pytest.mark.slow
def test_the_home_folder(compared, run_ok, empty, monkeypatch):
    folder, _ = compared
    monkeypatch.setenv("HOME", str(folder))
    out = run_ok(*COMPARE, "--folder", "~/comparison", *FIT)
    assert out.startswith("0 of 4 runs to do")
    assert not list(empty.iterdir())


def test_a_folder_of_others_is_refused(empty, refused):
    Path("mine/rnn/seed_0").mkdir(parents=True)
    Path("mine/rnn/seed_0/notes.txt").write_text("keep")
    assert "--folder: expected a new folder" in refused(*COMPARE, "--folder", "mine", *FIT, code=2)


@pytest.mark.parametrize(
    ("options", "message", "code"),
    [
        (("--cells", "rnn,elman"), "--cells: expected different ones of rnn, lstm, gru", 2),
        (("--cells", "rnn,rnn"), "--cells: expected different ones", 2),
        (("--seeds", 0), "--seeds: expected an integer of at least 1, got 0", 2),
        (("--seeds", "many"), "--seeds: expected int, got 'many'", 2),
        (("--jobs", 0), "--jobs: expected an integer of at least 1, got 0", 2),
        (("--model.cell", "gru"), "--model.cell: is set by compare; give --cells", 2),
        (("--seed_everything=3",), "--seed_everything: is set by compare; give --seeds", 2),
        (("--model.size", 3), "--model.size: unknown option", 2),
        (("--trainer.devices", 2), "--trainer.devices: expected 1", 2),
        (("--data", "FileDataModule", "--data.train_path", "train.csv"), "test_path", 1),
        (("--init_from", "x.ckpt"), "--init_from: expected none in a comparison", 2),
        (("--config", "last.yaml"), "--ckpt_path: expected none in a comparison", 2),
        (("--config", "own.yaml"), "--model: expected none in a comparison", 2),
    ],
)
def test_bad_options_end_before_training(options, message, code, empty, refused):
    Path("train.csv").write_text("label,t0,t1\na,1,2\nb,3,4\na,1,2\nb,3,4\n")
    Path("last.yaml").write_text("ckpt_path: last")
    Path("own.yaml").write_text("model: {class_path: own.Model}")
    assert message in refused("compare", *options, code=code)
    assert not Path("comparison").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            (
                "--trainer.callbacks=lightning_rnn.EarlyStopping",
                "--trainer.callbacks.monitor=val/x",
            ),
            "fit in comparison/rnn/seed_0 failed: --trainer.callbacks.monitor: expected one of",
        ),
        (("--trainer.fast_dev_run=true",), "comparison/rnn/seed_0: expected a checkpoint from fit"),
    ],
)
def test_a_failed_run_is_an_error(options, message, empty, run):
    result = run("compare", "--cells=rnn", "--seeds=1", *FIT, *options)
    assert result.code == 1
    assert message in result.err
    assert result.err.count("\n") == 1


def test_help_names_its_options_and_those_of_fit(run):
    result = run("compare", "--help")
    assert result.code == 0
    for text in ("--cells", "--seeds", "--jobs", "--folder", "lightning_rnn fit --help"):
        assert text in result.out


def test_options_are_split():
    args = ["--cells", "rnn", "--model.lr", "0.1", "--seeds=2", "--folder", "--jobs", "--data.x=1"]
    own, fit = split_args(args)
    assert own == ["--cells", "rnn", "--seeds=2", "--folder", "--jobs"]
    assert fit == ["--model.lr", "0.1", "--data.x=1"]


def children_of(pid):
    """Return the processes that descend from a process, on Linux."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            child = int(path.parent.name)
            found += [child, *children_of(child)]
    return found


def is_running(pid):
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return fields[0] != "Z"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_the_program(number, empty):
    """A signal to the program ends its workers, even a SIGKILL."""
    options = [*map(str, FIT), "--trainer.max_epochs", "4000", "--data.num_train", "640"]
    command = ["compare", "--cells=rnn,gru", "--seeds=1", "--jobs=2", *options]
    program = subprocess.Popen(
        [sys.executable, "-m", "lightning_rnn", *command],
        env=process_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        logs = [Path(f"comparison/{cell}/seed_0/log.txt") for cell in ("rnn", "gru")]
        deadline = time.monotonic() + 300
        while not all(log.exists() and "\nepoch " in log.read_text() for log in logs):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        workers = children_of(program.pid)
        assert len(workers) >= 2
        os.kill(program.pid, number)
        errors = program.communicate(timeout=120)[1].decode()
    finally:
        program.kill()
    expected = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -9}
    assert program.returncode == expected[number]
    assert "Traceback" not in errors
    deadline = time.monotonic() + 60
    while any(is_running(worker) for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert not list(Path("comparison").rglob("result.json"))
