"""Constants and functions that several test files use."""

import io
import os
import socket
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch

from lightning_rnn.__main__ import main

RUN = Path("lightning_logs/version_0")
BEST = RUN / "checkpoints/best.ckpt"
LAST = RUN / "checkpoints/last.ckpt"
PREVIOUS = RUN / "checkpoints/previous.ckpt"
TINY = ("--trainer.max_epochs", 2, "--trainer.log_every_n_steps", 1, "--model.hidden_size", 8)
LONG = ("--data.id_column", "id", "--data.time_column", "time", "--data.group_column", "group")
TINY_DATA = ("--data.num_train", 64, "--data.num_val", 32, "--data.num_test", 64)
CPU = ("--trainer.accelerator", "cpu")
TWO_RANKS = (*CPU, "--trainer.devices", 2, "--trainer.strategy", "ddp")
MANY_SETTINGS = """
    --model.stem conv --model.cell lstm --model.hidden_size 8 --model.dropout 0.3
    --model.bidirectional true
    --data.fresh true --data.length 24 --data.min_length 5 --data.num_train 500 --data.num_val 100
    --data.seed 3
    --trainer.max_epochs 12 --trainer.log_every_n_steps 2 --trainer.val_check_interval 0.5
    --checkpoint.every_n_steps 3 --trainer.enable_progress_bar false
"""
ERROR = "lightning_rnn: error: "
TIME_LIMIT = 300  # seconds of one process


class Result(NamedTuple):
    """How a run of the program ended, and what it printed."""

    code: int
    out: str
    err: str


def run_here(*args: object) -> Result:
    """Run the program in this process."""
    out = io.StringIO()
    err = io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = main([str(arg) for arg in args])
        except SystemExit as exit_:
            code = int(exit_.code or 0)
    return Result(code, out.getvalue(), err.getvalue())


def assert_one_line_error(result: Result) -> None:
    """Check that the program ended with an error message of one line."""
    assert result.code in (1, 2), result
    assert result.err.startswith(ERROR), result
    assert result.err.endswith("\n"), result
    assert result.err.count("\n") == 1, result
    assert "Traceback" not in result.out + result.err, result


def process_environment(**variables: str) -> dict[str, str]:
    """Return the environment of a process that no launcher has started, plus `variables`."""
    launchers = ("PL_", "MASTER_", "SLURM_", "TORCHELASTIC_")
    environment = {}
    for name, value in os.environ.items():
        if not name.startswith(launchers):
            environment[name] = value
    return environment | {"OMP_NUM_THREADS": "1"} | variables


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def run_process(*args: object, cwd: Path, module: str | None = "lightning_rnn") -> Result:
    """Run `python -m lightning_rnn`, or `python` if no module."""
    command = [sys.executable]
    if module is not None:
        command += ["-m", module]
    command += [str(arg) for arg in args]
    environment = process_environment(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()))
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=TIME_LIMIT
    )
    return Result(done.returncode, done.stdout, done.stderr)


def load(path: Path | str) -> dict[str, Any]:
    """Return the entries of a checkpoint."""
    content: dict[str, Any] = torch.load(path, weights_only=True)
    return content


def long_table(ids: list[str]) -> pl.DataFrame:
    """Return sequences of 3 to 5 steps, their rows shuffled; the class is the sign of feature a."""
    rng = np.random.default_rng(len(ids))
    rows = []
    for i, name in enumerate(ids):
        sign = 1 if i % 2 else -1
        label = "up" if i % 2 else "down"
        for step in range(3 + i % 3):
            a = sign * (1 + rng.random())
            rows.append((name, step, a, rng.normal(), f"g{i // 2}", label))
    frame = pl.DataFrame(rows, schema=["id", "time", "a", "b", "group", "label"], orient="row")
    return frame.sample(fraction=1.0, shuffle=True, seed=0)
