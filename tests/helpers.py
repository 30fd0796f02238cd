"""Functions that several test files use."""

import io
import os
import socket
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from lightning_rnn.__main__ import main

RUN = Path("lightning_logs/version_0")
BEST = RUN / "checkpoints/best.ckpt"
LAST = RUN / "checkpoints/last.ckpt"
TINY = ("--trainer.max_epochs", 2, "--trainer.log_every_n_steps", 1, "--model.hidden_size", 8)
LONG = ("--data.id_column", "id", "--data.time_column", "time", "--data.group_column", "group")
TINY_DATA = ("--data.num_train", 64, "--data.num_val", 32, "--data.num_test", 64)


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
    """Run `python -m lightning_rnn`, or `python` if no module, for at most five minutes."""
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
