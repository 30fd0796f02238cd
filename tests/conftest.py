"""What several test files share: the program in this process and in one of its own, and runs to look at."""

import io
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest
import torch

from lightning_rnn.__main__ import main

TINY = ("--trainer.max_epochs", 2, "--trainer.log_every_n_steps", 1, "--model.hidden_size", 8)
TINY_DATA = ("--data.num_train", 64, "--data.num_val", 32, "--data.num_test", 64)


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)  # tiny models, and as many test processes as cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Lightning 2.6 calls what jsonargparse 5, which pyproject.toml excludes, will no longer have
    config.addinivalue_line(
        "filterwarnings", "ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning"
    )


class Result(NamedTuple):
    code: int
    out: str
    err: str


def run_here(*args: object) -> Result:
    """Run the program in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = main([str(arg) for arg in args])
        except SystemExit as exit_:
            code = int(exit_.code or 0)
    return Result(code, out.getvalue(), err.getvalue())


def run_process(*args: object, cwd: Path, module: str | None = "lightning_rnn") -> Result:
    """Run `python -m lightning_rnn`, or `python` alone, in a process of its own; it dies after five minutes."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PL_")}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, *(("-m", module) if module else ()), *map(str, args)]
    environment |= {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )
    return Result(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def run() -> Callable[..., Result]:
    return run_here


@pytest.fixture(scope="session")
def run_apart() -> Callable[..., Result]:
    return run_process


@pytest.fixture(scope="session")
def run_ok() -> Callable[..., str]:
    """Run the program in this process, which must succeed without a word on stderr; returns its stdout."""

    def run_well(*args: object) -> str:
        result = run_here(*args)
        assert (result.code, result.err) == (0, ""), result
        return result.out

    return run_well


@pytest.fixture(scope="session")
def tiny() -> tuple[object, ...]:
    return TINY


@pytest.fixture(scope="session")
def files() -> Path:
    return Path(__file__).parent / "files"


@pytest.fixture
def empty(tmp_path, monkeypatch) -> Path:
    """An empty working folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def long_table(ids: list[str]) -> pl.DataFrame:
    """Return sequences of 3 to 5 steps, their rows shuffled; the class is the sign of feature a."""
    rng = np.random.default_rng(len(ids))
    rows = []
    for i, name in enumerate(ids):
        sign = 1 if i % 2 else -1
        for step in range(3 + i % 3):
            rows.append(
                (
                    name,
                    step,
                    sign * (1 + rng.random()),
                    rng.normal(),
                    f"g{i // 2}",
                    "up" if i % 2 else "down",
                )
            )
    frame = pl.DataFrame(rows, schema=["id", "time", "a", "b", "group", "label"], orient="row")
    return frame.sample(fraction=1.0, shuffle=True, seed=0)


LONG = ("--data.id_column", "id", "--data.time_column", "time", "--data.group_column", "group")


@pytest.fixture(scope="session")
def make_long() -> Callable[[list[str]], pl.DataFrame]:
    return long_table


def _fit(folder: Path, *args: object) -> Path:
    with chdir(folder):
        result = run_here("fit", *TINY, *args)
    assert (result.code, result.err) == (0, ""), result
    (folder / "fit.txt").write_text(result.out)
    return folder


@pytest.fixture(scope="session")
def _trained(tmp_path_factory) -> Path:
    return _fit(
        tmp_path_factory.mktemp("trained"), *TINY_DATA, "--data.seed", 5, "--data.batch_size", 16
    )


@pytest.fixture(scope="session")
def _trained_on_files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("on_files")
    long_table([f"s{i}" for i in range(40)]).write_csv(folder / "train.csv")
    long_table([f"t{i}" for i in range(10)]).write_csv(folder / "test.csv")
    paths = ("--data.train_path", "train.csv", "--data.test_path", "test.csv")
    return _fit(folder, "--data", "FileDataModule", *paths, *LONG)


def _working_copy(original: Path, copy: Path, monkeypatch) -> Path:
    shutil.copytree(original, copy)
    monkeypatch.chdir(copy)
    return copy


@pytest.fixture
def trained(_trained, tmp_path, monkeypatch) -> Path:
    """The working folder, with a run on synthetic data in it (`fit.txt` is what it printed)."""
    return _working_copy(_trained, tmp_path / "here", monkeypatch)


@pytest.fixture
def trained_on_files(_trained_on_files, tmp_path, monkeypatch) -> Path:
    """The working folder, with a run on a long CSV file in it; the run knows the first folder's files."""
    return _working_copy(_trained_on_files, tmp_path / "here", monkeypatch)
