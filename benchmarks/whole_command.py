"""How long does a whole `fit` take, and how much memory, against the same experiment as a plain script?

Runs both in turn, as processes; ours with validation in each epoch, TensorBoard, checkpoints and default output.
"""

import csv
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
COMMANDS = {
    "plain": [sys.executable, str(HERE / "plain_seed.py")],
    "fit": [sys.executable, "-m", "lightning_rnn", "fit"],
}


def once(command: list[str]) -> tuple[float, float]:
    """Return wall seconds and peak MiB of one run."""
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begin
    if status != 0:
        raise RuntimeError(f"{command} ended with {status}")
    return wall, usage.ru_maxrss / (1024 if sys.platform == "linux" else 2**20)


def environment() -> dict[str, str]:
    """Return machine, versions and commit, for the results."""
    git = ["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip()
    versions = {name: version(name) for name in ("torch", "lightning")}
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    return {"machine": machine, "python": platform.python_version(), **versions, "commit": commit}


def main(runs: int = 5) -> None:
    compare(COMMANDS, "whole_command", runs)


def compare(commands: dict[str, list[str]], name_of_file: str, runs: int) -> None:
    """Run commands in turn; write medians, and of each run's ratios to the first command, as CSV."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    first = next(iter(commands))
    for number in range(runs + 1):
        for name, command in commands.items():
            result = once(command)
            if number > 0:  # the first warms the file cache
                found[name].append(result)
    path = HERE / "results" / f"{name_of_file}.csv"
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(
            file, ["what", "wall_s", "wall_ratio", "peak_mib", "peak_ratio", "runs", *environment()]
        )
        writer.writeheader()
        for name, results in found.items():
            wall, peak = (statistics.median(column) for column in zip(*results, strict=True))
            pairs = list(zip(results, found[first], strict=True))
            row = {
                "what": name,
                "wall_s": f"{wall:.2f}",
                "wall_ratio": f"{statistics.median(a[0] / b[0] for a, b in pairs):.2f}",
                "peak_mib": f"{peak:.0f}",
                "peak_ratio": f"{statistics.median(a[1] / b[1] for a, b in pairs):.2f}",
                "runs": runs,
            }
            writer.writerow(row | environment())
            print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
