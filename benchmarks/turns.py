"""Processes that train in turns of a few epochs, while the others wait.

A shared machine is seldom as quick for a whole run as it was for the one before. A turn's first epoch does not count:
after a pause a virtual machine's processors need a while to get as quick as they were.
"""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from subprocess import DEVNULL, Popen

from benchmarks.common import child_environment

TURN = 5  # epochs of a turn, in runs that have as many
FOLDER, EACH = (
    "BENCHMARK_TURNS",
    "BENCHMARK_EACH",
)  # variables of a child: where it waits, after how many epochs


class Turns:
    """Where a process waits: at a pipe, whose name says how long the turn before took without its first epoch."""

    def __init__(self) -> None:
        """Set up."""
        self.folder, self.each, self.begun = os.environ[FOLDER], int(os.environ[EACH]), 0.0

    def before(self, epoch: int) -> None:
        """Wait, or begin to count."""
        turn, number = divmod(epoch, self.each)
        if number == 0:
            self._arrive(turn).read_text()
        elif number == 1:
            self.begun = time.perf_counter()

    def after(self, epochs: int) -> None:
        """Tell of the last turn."""
        self._arrive(epochs // self.each)

    def _arrive(self, turn: int) -> Path:
        pipe = Path(self.folder, f"{turn}-{os.getpid()}-{time.perf_counter() - self.begun:.6f}")
        os.mkfifo(pipe)
        return pipe


def in_turns(epochs: int) -> Iterator[int]:
    """Yield the numbers of a plain loop's epochs, each when its turn has come."""
    turns = Turns() if FOLDER in os.environ else None
    for epoch in range(epochs):
        if turns is not None:
            turns.before(epoch)
        yield epoch
    if turns is not None:
        turns.after(epochs)


class Run:
    """Processes that train at the same time, a turn whenever they are told to."""

    def __init__(self, folder: Path, children: list[Popen[bytes]], processes: int) -> None:
        """Set up."""
        self.folder, self.children, self.processes, self.turns = folder, children, processes, 0

    def turn(self) -> list[float]:
        """Let all processes train for a turn; return the seconds that each took."""
        for waiting in self.arrivals():
            waiting.write_text("go")
        self.turns += 1
        return [float(path.name.split("-")[2]) for path in self.arrivals()]

    def arrivals(self) -> list[Path]:
        """Wait until all processes wait for their turn; return the pipes at which they do."""
        while len(found := [*self.folder.glob(f"{self.turns}-*")]) < self.processes:
            if any(child.poll() for child in self.children):
                raise RuntimeError(
                    f"{[child.args for child in self.children]} ended before turn {self.turns}"
                )
            time.sleep(0.02)
        return found


def counted(epochs: int) -> int:
    """Return how many of so many epochs are not the first of a turn."""
    return epochs - epochs // min(TURN, epochs)


def taking_turns(
    runs: dict[str, tuple[list[list[str]], int]], epochs: int
) -> dict[str, list[float]]:
    """Train in turns; return by name the seconds that each process took.

    Args:
        runs: Commands that run at the same time, arguments of `python` each, and how many processes they come to.
        epochs: Epochs of each, whole turns.
    """
    each = min(TURN, epochs)
    assert epochs % each == 0
    with ExitStack() as stack:
        started = {name: stack.enter_context(_started(*run, each)) for name, run in runs.items()}
        for run in started.values():
            run.arrivals()  # nothing else is going on when the first turn begins
        rounds = [
            {name: run.turn() for name, run in started.items()} for _ in range(epochs // each)
        ]
    return {
        name: [sum(turns) for turns in zip(*(one[name] for one in rounds), strict=True)]
        for name in runs
    }


@contextmanager
def _started(commands: list[list[str]], processes: int, each: int) -> Iterator[Run]:
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        turns = Path(place, "turns")
        turns.mkdir()
        environment = child_environment() | {FOLDER: str(turns), EACH: str(each)}
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
            stack.callback(_end, child)
        yield Run(turns, children, processes)


def _end(child: Popen[bytes]) -> None:
    """End a child and its own children: who waits for its turn does not listen."""
    with suppress(ProcessLookupError):  # it has ended
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
