"""What the benchmarks share: a clock inside `fit`, runs of child processes in turn, and results as CSV."""

import csv
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

HERE = Path(__file__).parent
CLOCK = "BENCHMARK_CLOCK"  # names the file that `EpochClock` writes


class EpochClock(Callback):
    """Notes when each epoch begins and when training ends; all that happens in between counts."""

    def __init__(self) -> None:
        """Set up."""
        self.times: list[float] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the time."""
        self.times.append(now())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the times down."""
        self.times.append(now())
        if trainer.is_global_zero:
            Path(os.environ[CLOCK]).write_text(json.dumps(self.times))


def now() -> float:
    """Return seconds, once the accelerator has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def epoch_times(command: list[str], *, threads: int | None = 1) -> list[float]:
    """Return the seconds of each epoch of a child process: of a plain loop, or of `fit` with an `EpochClock`.

    Args:
        command: Arguments of `python`.
        threads: Value of OMP_NUM_THREADS; unset when None.

    Returns:
        Seconds, one an epoch, the first including what is done only once.
    """
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment |= {"PYTHONPATH": str(HERE.parent)} | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    with tempfile.TemporaryDirectory() as folder:
        clock = Path(folder) / "clock.json"
        if "lightning_rnn" in command:
            command = [*command, "--trainer.callbacks+=benchmarks.common.EpochClock"]
        done = subprocess.run(
            [sys.executable, *command],
            cwd=folder,
            env=environment | {CLOCK: str(clock)},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{command} ended with {done.returncode}: {done.stderr[-2000:]}")
        times = json.loads(clock.read_text() if clock.exists() else done.stdout.splitlines()[-1])
    return [after - before for before, after in pairwise(times)]


def after_first(seconds: list[float]) -> float:
    """Return the time from the second epoch on."""
    return sum(seconds[1:])


def environment() -> dict[str, str]:
    """Return machine, versions and commit, for the results."""
    git = ["git", "-C", str(HERE), "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip()
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    if torch.cuda.is_available():
        machine += f", {torch.cuda.get_device_name()}"
    versions = {name: version(name) for name in ("torch", "lightning")}
    return {"machine": machine, "python": platform.python_version(), **versions, "commit": commit}


def ratio(ours: Iterable[float], theirs: Iterable[float]) -> float:
    """Return the median of the ratios of measurements taken side by side."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def save(name: str, rows: list[dict[str, Any]]) -> None:
    """Print the rows and write them to `results/name.csv`."""
    path = HERE / "results" / f"{name}.csv"
    path.parent.mkdir(exist_ok=True)
    rows = [row | environment() for row in rows]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(path.read_text(), flush=True)
