"""`fit` in a forked process that kills itself with SIGKILL at an event of its training.

The parent has imported the package and trains nothing itself, so a run needs no start-up.
"""

import io
import json
import os
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lightning_rnn.cli.main import run
from lightning_rnn.training import calibrate, terminal
from lightning_rnn.training.checkpoints import Checkpoints
from lightning_rnn.training.classifier import SequenceClassifier
from lightning_rnn.training.train_metrics import TrainMetrics

# the events at which a run can be killed
EVENTS = {
    "step": "inside an epoch",
    "epoch end": "at its end, before it is logged",
    "epoch saved": "at its end, after it is saved",
    "validation": "in validation",
    "writing": "in a checkpoint's writing",
    "before rename": "between the renames",
    "after rename": "between the renames",
    "decision": "in the decision fit",
    "last step": "in the last step",
    "fit end": "after training, before its results are logged",
    "closing": "after training, in the clean-up",
}


@dataclass(frozen=True)
class Kill:
    """A moment: the `number`-th `event` (from 1) in the process of `rank`."""

    event: str
    number: int
    rank: int = 0

    def __str__(self) -> str:
        where = f" of rank {self.rank}" if self.rank else ""
        return f"{self.event} {self.number}{where}"


class Hooks:
    """Counts the events of this process, and kills it at one of them."""

    def __init__(self, kill: Kill | None) -> None:
        self.kill = kill
        self.counts: Counter[str] = Counter()

    def reached(self, event: str) -> None:
        """Count an event; kill this process if its time has come."""
        if self.is_next(event):
            os.kill(os.getpid(), signal.SIGKILL)
        self.counts[event] += 1

    def is_next(self, event: str) -> bool:
        """Return whether the next event of this name is that of the kill."""
        kill = self.kill
        if kill is None:
            return False
        wanted = "step" if kill.event == "last step" else kill.event
        return wanted == event and kill.number == self.counts[event] + 1

    def install(self) -> None:
        """Replace functions of this process, which lives for one run, by counting ones."""
        self._before(SequenceClassifier, "training_step", "step")
        self._before(SequenceClassifier, "validation_step", "validation")
        self._before(TrainMetrics, "on_train_epoch_end", "epoch end")
        self._after(Checkpoints, "on_train_epoch_end", "epoch saved")
        self._before(calibrate, "calibrate", "decision")
        self._before(terminal.HyperParameters, "on_fit_end", "fit end")
        self._before(terminal.NextCommands, "teardown", "closing")
        self._before(os, "replace", "before rename")
        self._after(os, "replace", "after rename")
        torch.save = self._save(torch.save)

    def _before(self, owner: Any, name: str, event: str) -> None:
        original = getattr(owner, name)

        def counting(*args: Any, **kwargs: Any) -> Any:
            self.reached(event)
            return original(*args, **kwargs)

        setattr(owner, name, counting)

    def _after(self, owner: Any, name: str, event: str) -> None:
        original = getattr(owner, name)

        def counting(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            self.reached(event)
            return result

        setattr(owner, name, counting)

    def _save(self, original: Callable[..., None]) -> Callable[..., None]:
        def save(content: Any, file: Any, **kwargs: Any) -> None:
            if self.is_next("writing"):
                buffer = io.BytesIO()
                original(content, buffer, **kwargs)
                half = buffer.getvalue()[: len(buffer.getvalue()) // 2]
                file.write(half)
                file.flush()
            self.reached("writing")
            original(content, file, **kwargs)

        return save


def start(
    args: list[str], folder: Path, *, kill: Kill | None = None, environment: dict[str, str]
) -> int:
    """Fork a process that runs `fit`, and return its id.

    It prints into `log` and leaves the numbers of its events in `counts.RANK`, both in `folder`.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        code = _child(args, folder, kill, environment)
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    except BaseException:
        traceback.print_exc()
    with suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _child(args: list[str], folder: Path, kill: Kill | None, environment: dict[str, str]) -> int:
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.environ.update(environment)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    rank = int(environment.get("RANK", 0))
    own_kill = kill if kill is not None and kill.rank == rank else None
    hooks = Hooks(own_kill)
    hooks.install()
    code = run(["fit", *args])
    (folder / f"counts.{rank}").write_text(json.dumps(hooks.counts))
    return code
