"""What the benchmarks share: runs of child processes in turn, and results as CSV."""

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

HERE = Path(__file__).parent
BRIEF = "BENCHMARK_BRIEF"  # set where runs are too short to be kept
CLOCK = "BENCHMARK_CLOCK"  # names the file that `EpochClock` writes
SKIPPED = 20  # batches before `BatchTimes` begins


def once(command: list[str]) -> tuple[float, float]:
    """Return wall seconds and peak MiB of one run in an empty folder.

    The peak of a child is at least what its parent held when it began: this file imports no torch.
    """
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=child_environment(None),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begin
    if status != 0:
        raise RuntimeError(f"{command} ended with {status}")
    return wall, usage.ru_maxrss / (1024 if sys.platform == "linux" else 2**20)


def compare(commands: dict[str, list[str]], name_of_file: str, runs: int) -> None:
    """Run commands in turn; save wall time and peak memory, as medians and as ratios to those of the first command."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for number in range(runs + 1):
        for name, command in commands.items():
            result = once(command)
            if number > 0:  # the first warms the file cache
                found[name].append(result)
    first, rows = list(zip(*next(iter(found.values())), strict=True)), []
    for name, results in found.items():
        wall, peak = zip(*results, strict=True)
        rows.append({
            "what": name, "wall_s": f"{statistics.median(wall):.2f}", "wall_ratio": f"{ratio(wall, first[0]):.2f}",
            "peak_mib": f"{statistics.median(peak):.0f}", "peak_ratio": f"{ratio(peak, first[1]):.2f}", "runs": runs,
        })  # fmt: skip
    save(name_of_file, rows)


def epoch_times(command: list[str], *, threads: int | None = 1) -> list[float]:
    """Return the seconds of each epoch of a child process, a `fit` with an `EpochClock`.

    Args:
        command: Arguments of `python`.
        threads: Value of OMP_NUM_THREADS; unset when None.

    Returns:
        Seconds, one an epoch, the first including what is done only once.
    """
    with tempfile.TemporaryDirectory() as folder:
        clock = Path(folder) / "clock.json"
        done = subprocess.run(
            [sys.executable, *command, "--trainer.callbacks+=benchmarks.clock.EpochClock"],
            cwd=folder,
            env=child_environment(threads) | {CLOCK: str(clock)},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{command} ended with {done.returncode}: {done.stderr[-2000:]}")
        times = json.loads(clock.read_text())
    return [after - before for before, after in pairwise(times)]


def child_environment(threads: int | None = 1) -> dict[str, str]:
    """Return the variables of a child process: it finds this project, and has so many threads (unset when None)."""
    own = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    return (
        own
        | {"PYTHONPATH": str(HERE.parent)}
        | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    )


def after_first(seconds: list[float]) -> float:
    """Return the time from the second epoch on."""
    return sum(seconds[1:])


def environment() -> dict[str, str]:
    """Return machine, versions and commit, for the results."""
    commit = _git("describe", "--always")
    if _git("status", "--porcelain", "--", "lightning_rnn", "benchmarks/*.py"):
        commit += "-dirty"
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        machine += f", {torch.cuda.get_device_name()}"
    versions = {name: version(name) for name in ("torch", "lightning")}
    return {"machine": machine, "python": platform.python_version(), **versions, "commit": commit}


def _git(*words: str) -> str:
    return subprocess.run(
        ["git", "-C", str(HERE.parent), *words], capture_output=True, text=True
    ).stdout.strip()


def ratio(ours: Iterable[float], theirs: Iterable[float]) -> float:
    """Return the median of the ratios of measurements taken side by side."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def save(name: str, rows: list[dict[str, Any]]) -> None:
    """Print the rows and write them to `results/name.csv`; brief ones to `results/brief/name.csv`."""
    path = HERE / "results" / ("brief" if BRIEF in os.environ else "") / f"{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [row | environment() for row in rows]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(path.read_text(), flush=True)
