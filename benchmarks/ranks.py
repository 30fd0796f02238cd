"""How many sequences a second do two processes train, against one, each with one thread?

The mid size: T = 100, H = 64, B = 64 in each process; from the second epoch on, with all that `fit` does. Two runs that
know nothing of each other, at the same time, show what the machine itself allows. The ways take turns epoch by epoch,
the others waiting meanwhile: a shared machine is seldom as quick for a whole run as it was for the one before.
"""

import argparse
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from subprocess import DEVNULL, Popen

from benchmarks.common import TURNS, child_environment, save

TRAIN, EPOCHS = 4096, 10  # as many as by default: in the first few most are looked into for gradients through time
TWO = ("--trainer.devices", "2", "--trainer.strategy", "ddp")
WAYS = {"1 rank": [()], "2 ranks": [TWO], "2 runs apart": [(), ()]}  # what is run at the same time


class Run:
    """Processes that train at the same time, an epoch whenever they are told to."""

    def __init__(self, folder: Path, children: list[Popen[bytes]], processes: int) -> None:
        """Set up."""
        self.folder, self.children, self.processes, self.turns = folder, children, processes, 0

    def epoch(self) -> list[float]:
        """Let all processes train an epoch; return the seconds that each took."""
        for waiting in self._arrivals():
            waiting.write_text("go")
        self.turns += 1
        return [float(path.name.split("-")[2]) for path in self._arrivals()]

    def _arrivals(self) -> list[Path]:
        while len(found := [*self.folder.glob(f"{self.turns}-*")]) < self.processes:
            if any(child.poll() for child in self.children):
                raise RuntimeError(f"{self.children} ended in epoch {self.turns}")
            time.sleep(0.02)
        return found


@contextmanager
def started(commands: list[list[str]], processes: int) -> Iterator[Run]:
    """Give the run of several commands, each in a folder of its own."""
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        turns = Path(place, "turns")
        turns.mkdir()
        environment = child_environment() | {TURNS: str(turns)}
        children = []
        for number, command in enumerate(commands):
            folder = Path(place, str(number))
            folder.mkdir()
            child = Popen(
                [sys.executable, *command],
                cwd=folder,
                env=environment,
                stdout=DEVNULL,
                stderr=DEVNULL,
                start_new_session=True,
            )
            children.append(child)
            stack.callback(end, child)
        yield Run(turns, children, processes)


def end(child: Popen[bytes]) -> None:
    """End a child and its own children: who waits for its turn does not listen."""
    with suppress(ProcessLookupError):  # it has ended
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def main(runs: int = 5, cell: str = "lstm", batch: int = 64) -> None:
    options = {
        "--model.cell": cell, "--model.hidden_size": 64, "--data.length": 100, "--data.num_train": TRAIN,
        "--data.num_val": TRAIN // 4, "--data.batch_size": batch, "--trainer.max_epochs": EPOCHS,
        "--trainer.accelerator": "cpu", "--trainer.callbacks+": "benchmarks.clock.Turns",
    }  # fmt: skip
    command = ["-m", "lightning_rnn", "fit", *(f"{name}={value}" for name, value in options.items())]

    def speeds() -> dict[str, float]:
        seconds: dict[str, list[list[float]]] = {what: [] for what in WAYS}
        with ExitStack() as stack:
            all_started = {
                what: stack.enter_context(started([[*command, *more] for more in ways], 1 if what == "1 rank" else 2))
                for what, ways in WAYS.items()
            }
            for _ in range(EPOCHS):
                for what, run in all_started.items():
                    seconds[what].append(run.epoch())
        trained = TRAIN * (EPOCHS - 1)
        by_process = {what: [sum(epochs[1:]) for epochs in zip(*found, strict=True)] for what, found in seconds.items()}
        together = trained / max(by_process["2 ranks"])  # which share the sequences
        return {what: sum(trained / s for s in found) for what, found in by_process.items()} | {"2 ranks": together}

    found = [speeds() for _ in range(runs)]
    rows = []
    for what in WAYS:
        ratios = [one[what] / one["1 rank"] for one in found]
        rows.append({
            "cell": cell, "B": batch, "what": what,
            "sequences_per_s": f"{statistics.median(one[what] for one in found):.0f}",
            "ratio": f"{statistics.median(ratios):.2f}", "lowest_ratio": f"{min(ratios):.2f}",
            "highest_ratio": f"{max(ratios):.2f}", "runs": runs,
        })  # fmt: skip
    save("ranks", rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--cell", default="lstm")
    parser.add_argument("--batch", type=int, default=64)
    main(**vars(parser.parse_args()))
