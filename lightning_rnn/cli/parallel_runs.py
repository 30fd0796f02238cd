"""Runs of `fit` and `test` in several worker processes of one CPU thread each."""

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from typing import Any, TypeVar

from lightning_rnn.atomic_files import atomic_write
from lightning_rnn.errors import LightningRNNError

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Run:
    """A run of `fit` and `test` in a folder of its own."""

    folder: Path  # which contains nothing else
    fit_args: tuple[str, ...]

    def result(self) -> dict[str, Any] | None:
        """Return what `fit_and_test` has returned for this folder; None if it has not finished."""
        path = self.folder / "result.json"
        if not path.exists():
            return None
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return result


def fit_and_test(run: Run) -> dict[str, Any]:
    """Train and test from scratch; what both print goes to `log.txt` in the folder.

    Returns the number of `parameters`, number of `steps` and `seconds` of training, and the metrics
    of `test_metrics.json`. If `fit` or `test` fails, a LightningRNNError has its message.
    """
    from lightning_rnn.training.classifier import SequenceClassifier

    shutil.rmtree(run.folder, ignore_errors=True)  # of a run that was killed
    run.folder.mkdir(parents=True)
    start = time.monotonic()
    _call_program(["fit", *run.fit_args, f"--trainer.default_root_dir={run.folder}"], run.folder)
    seconds = time.monotonic() - start
    best = next(run.folder.rglob("best.ckpt"), None)
    if best is None:
        raise LightningRNNError(f"{run.folder}: expected a checkpoint from fit, got none")
    _call_program(["test", f"--ckpt_path={best}"], run.folder)
    metrics = json.loads((best.parents[1] / "test_metrics.json").read_text(encoding="utf-8"))
    for name in ("classes", "origin"):  # a table of runs has numbers only
        del metrics[name]
    model = SequenceClassifier.load_from_checkpoint(best.with_name("last.ckpt"), map_location="cpu")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    result = {
        "parameters": parameters,
        "steps": model.checkpoint_step,
        "seconds": round(seconds, 1),
    }
    result |= metrics
    with atomic_write(run.folder / "result.json") as temporary:
        temporary.write_text(json.dumps(result, indent=2), encoding="utf-8")
    return result


def run_parallel(
    function: Callable[[Task], Result], tasks: Sequence[Task], jobs: int
) -> Iterator[tuple[Task, Result]]:
    """Call a function of a module for each task in `jobs` processes; yield results as they arrive.

    An error, a signal, or the end of this process ends the workers, too.
    """
    waiting = list(reversed(tasks))
    running: dict[Any, Task] = {}
    context = get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=_start_worker) as pool:
        try:
            while waiting or running:
                while waiting and len(running) < jobs:  # a worker that ends takes no other task
                    task = waiting.pop()
                    running[pool.submit(function, task)] = task
                # with the signal handler of polars, Ctrl-C does not interrupt a wait without end
                done, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in done:
                    yield running.pop(future), future.result()
        except BaseException:
            for process in active_children():
                process.terminate()
            raise


def _call_program(args: list[str], folder: Path) -> None:
    from lightning_rnn.cli.main import run as run_program

    path = folder / "log.txt"
    with path.open("a", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
        exit_code = run_program(args)
    if exit_code != 0:
        last_line = path.read_text(encoding="utf-8").strip().rpartition("\n")[2]
        message = last_line.rpartition("error: ")[2]
        raise LightningRNNError(f"{args[0]} in {folder} failed: {message}")


def _start_worker() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"  # as many processes as cores
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers by SIGTERM

    import lightning.pytorch  # noqa: F401  its log must not be bound to the file of a run
    import torch

    torch.set_num_threads(1)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)
