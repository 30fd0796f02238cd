"""Fixtures of several test files: the program, and working folders with finished runs."""

import os
import shutil
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

import hypothesis
import polars as pl
import pytest
import torch
from helpers import (
    ERROR,
    LONG,
    TINY,
    TINY_DATA,
    Result,
    assert_one_line_error,
    long_table,
    run_here,
    run_process,
)

hypothesis.settings.register_profile("without deadline", deadline=None)  # machines may be busy
hypothesis.settings.load_profile("without deadline")


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)  # tiny models, and as many test processes as cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Lightning 2.6 calls what jsonargparse 5, which pyproject.toml excludes, will no longer have
    config.addinivalue_line(
        "filterwarnings", "ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning"
    )


@pytest.fixture(scope="session")
def run() -> Callable[..., Result]:
    return run_here


@pytest.fixture(scope="session")
def run_apart() -> Callable[..., Result]:
    return run_process


@pytest.fixture(scope="session")
def run_ok() -> Callable[..., str]:
    """Run the program in this process; it must print nothing to stderr. Return its stdout."""

    def run_successfully(*args: object) -> str:
        result = run_here(*args)
        assert (result.code, result.err) == (0, ""), result
        return result.out

    return run_successfully


@pytest.fixture
def refused(tmp_path) -> Callable[..., str]:
    """Run the program, which must end with an error of one line and leave no new file.

    Returns the message without the name of the program.
    """

    def run_in_vain(*args: object, code: int) -> str:
        before = set(tmp_path.rglob("*"))
        result = run_here(*args)
        assert result.code == code, result
        assert_one_line_error(result)
        assert len(result.err) < 500, result
        new = set(tmp_path.rglob("*")) - before
        assert not new, f"left behind: {sorted(map(str, new))}"
        return result.err.removeprefix(ERROR).strip()

    return run_in_vain


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
def original_run(tmp_path_factory) -> Path:
    return _fit(
        tmp_path_factory.mktemp("trained"), *TINY_DATA, "--data.seed", 5, "--data.batch_size", 16
    )


@pytest.fixture(scope="session")
def original_run_on_files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("on_files")
    long_table([f"s{i}" for i in range(40)]).write_csv(folder / "train.csv")
    long_table([f"t{i}" for i in range(10)]).write_csv(folder / "test.csv")
    paths = ("--data.train_path", "train.csv", "--data.test_path", "test.csv")
    return _fit(folder, *paths, *LONG, "--data.val_fraction", 0.2)


def _working_copy(original: Path, copy: Path, monkeypatch) -> Path:
    shutil.copytree(original, copy)
    monkeypatch.chdir(copy)
    return copy


@pytest.fixture
def trained(original_run, tmp_path, monkeypatch) -> Path:
    """The working folder, with a run on synthetic data in it (`fit.txt` is what it printed)."""
    return _working_copy(original_run, tmp_path / "here", monkeypatch)


@pytest.fixture
def trained_on_files(original_run_on_files, tmp_path, monkeypatch) -> Path:
    """The working folder, with a run on a long CSV file; its files lie in the first folder."""
    return _working_copy(original_run_on_files, tmp_path / "here", monkeypatch)
