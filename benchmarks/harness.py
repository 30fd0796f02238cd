"""Runs the sides of a comparison in turn (A B A B ...) and saves medians with their spread.

Ratios pair the runs of one round, so that a machine that changes its speed affects both sides
alike.
"""

import argparse
import csv
import math
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from lightning_rnn import __version__
from lightning_rnn.atomic_files import atomic_write

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_name("results")
LOSS = re.compile(r"loss\W+([\d.]+)")

T = TypeVar("T")


@dataclass(frozen=True)
class Side:
    """One side of a comparison: a process with its own default number of threads.

    Attributes:
        name: Name in the table.
        command: Arguments of `python`. A command that trains prints a line per epoch, which begins
            with "epoch".
        sequences: Number of training sequences per epoch; 0 if their time is not to be measured.
    """

    name: str
    command: list[str]
    sequences: int = 1

    def run(self) -> dict[str, float]:
        """Run the command once, in an empty folder.

        The peak memory of a process is at least that of its parent. That is why neither this module
        nor those that compare processes import torch.

        Returns:
            `wall_s` from start to exit, `cpu_s` of all cores meanwhile, `us_per_sequence` in
            training after the first epoch, `peak_mib`, and the last printed `loss`; NaN where the
            command does not train.

        Raises:
            RuntimeError: If the command fails.
        """
        times, loss = [], math.nan
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as errors:
            process = subprocess.Popen(
                [sys.executable, *self.command],
                cwd=folder,
                env=_environment(),
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
            with process.stdout as output:
                for line in output:
                    if line.startswith("epoch"):
                        times.append(time.perf_counter())
                        loss = float(LOSS.findall(line)[-1])
            _, status, usage = os.wait4(process.pid, 0)
            wall_s = time.perf_counter() - start
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode != 0:
                errors.seek(0)
                raise RuntimeError(f"{self.command} failed: {errors.read()[-2000:]}")
        us_per_sequence = math.nan
        if len(times) > 1 and self.sequences > 0:
            sequences = self.sequences * (len(times) - 1)
            us_per_sequence = 1e6 * (times[-1] - times[0]) / sequences
        unit = 1024 if sys.platform == "linux" else 2**20  # Linux counts KiB, macOS bytes
        peak_mib = usage.ru_maxrss / unit
        return {
            "wall_s": wall_s,
            "cpu_s": usage.ru_utime + usage.ru_stime,
            "us_per_sequence": us_per_sequence,
            "peak_mib": peak_mib,
            "loss": loss,
        }


def _environment() -> dict[str, str]:
    environment = {name: text for name, text in os.environ.items() if name != "OMP_NUM_THREADS"}
    # unbuffered: the line of an epoch arrives when the epoch ends
    return environment | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def alternate(
    calls: Mapping[str, Callable[[], T]], runs: int, warm_up: int = 1
) -> dict[str, list[T]]:
    """Call functions in turn; return their results of all rounds but those that warm up."""
    results: dict[str, list[T]] = {name: [] for name in calls}
    for number in range(warm_up + runs):
        for name, call in calls.items():
            result = call()
            if number >= warm_up:
                results[name].append(result)
    return results


def seconds(call: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def time_calls(
    calls: Mapping[str, Callable[[], object]], runs: int, warm_up: int = 1
) -> dict[str, list[float]]:
    """Return the seconds of functions called in turn."""
    return alternate({name: partial(seconds, call) for name, call in calls.items()}, runs, warm_up)


def compare(case: str, sides: Sequence[Side], runs: int, warm_up: int = 1) -> list[dict[str, str]]:
    """Run the sides in turn; return one row per side, with ratios to the first side."""
    measured = alternate({side.name: side.run for side in sides}, runs, warm_up)
    first = measured[sides[0].name]
    rows = []
    for name, own in measured.items():
        row = {"case": case, "side": name, "runs": str(runs)}
        for quantity in ("wall_s", "cpu_s", "us_per_sequence"):
            values = [run[quantity] for run in own]
            row |= spread(quantity, values)
            row |= spread(f"{quantity}_ratio", ratios(values, [run[quantity] for run in first]))
        row["peak_mib"] = f"{statistics.median(run['peak_mib'] for run in own):.0f}"
        row["loss"] = f"{own[-1]['loss']:.4f}"
        rows.append(row)
        print("  ".join(row.values()), flush=True)
    return rows


def ratios(values: Sequence[float], baseline: Sequence[float]) -> list[float]:
    """Return the ratios of measurements of the same rounds."""
    return [value / base for value, base in zip(values, baseline, strict=True)]


def spread(name: str, values: Sequence[float]) -> dict[str, str]:
    """Return the median, minimum and maximum as columns of a row."""
    columns = {name: statistics.median(values), f"{name}_min": min(values)}
    columns[f"{name}_max"] = max(values)
    return {column: f"{value:.2f}" for column, value in columns.items()}


def save(name: str, rows: Sequence[Mapping[str, object]], *, quick: bool = False) -> None:
    """Write rows to `results/name.csv`, or `results/quick/name.csv`, with machine and versions."""
    path = (RESULTS / "quick" if quick else RESULTS) / f"{name}.csv"
    path.unlink(missing_ok=True)
    append_rows(path, rows)
    print(path.read_text(), flush=True)


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a file of results; none if it does not exist."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def append_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Add rows with machine and versions to a file, which is replaced atomically."""
    complete = [*read_rows(path), *({**row, **_versions()} for row in rows)]
    columns = dict.fromkeys(column for row in complete for column in row)
    with atomic_write(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(columns), restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(complete)


def card_suffix(device: str) -> str:
    """Return the end of the name of a file of results: none on a CPU, or the name of the card."""
    if device == "cpu":
        return ""
    import torch  # not above, see `Side.run`

    return "_" + re.sub(r"\W+", "_", torch.cuda.get_device_name()).strip("_").lower()


def _versions() -> dict[str, str]:
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        machine += f", {torch.cuda.get_device_name()}"
    versions = {"machine": machine, "load": f"{os.getloadavg()[0]:.1f}"}
    versions |= {"python": platform.python_version(), "lightning_rnn": __version__}
    return versions | {package: version(package) for package in ("torch", "lightning")}


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help shows a module's docstring as it is written."""
    layout = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(
        description=description, formatter_class=layout, allow_abbrev=False
    )


def options_of(description: str | None, runs: int) -> argparse.ArgumentParser:
    """Return a parser with the options of every comparison: `--runs` and `--quick`."""
    parser = parser_of(description)
    parser.add_argument("--runs", type=int, default=runs, help="rounds that count")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it works")
    return parser
