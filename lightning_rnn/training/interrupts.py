"""Ends a run cleanly after Ctrl-C or SIGTERM: between two steps, on all ranks, with a checkpoint.

This module uses two private names of Lightning, because there is no public way to end the training
loop between two steps, in the state in which it can be resumed exactly:

* `Trainer._signal_connector.received_sigterm`, which the loop of a single process checks;
* `TrainingEpochLoop._broadcast_sigterm_tensor`, which the loop of a distributed run calls before
  each step. It follows signals to rank 0 only, and waits for all ranks at every step.

`tests/runs/test_signals.py` fails if Lightning changes them.
"""

import os
import re
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_rnn.atomic_files import is_alive
from lightning_rnn.distributed import gather_objects
from lightning_rnn.errors import LostRankError
from lightning_rnn.training.checkpoints import Checkpoints
from lightning_rnn.training.data_statistics import sequence_data
from lightning_rnn.training.logs import shown_path
from lightning_rnn.training.settings import own_classes

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SECONDS_BETWEEN_QUERIES = 0.2  # of all ranks for a signal
MAX_STEPS_BETWEEN_QUERIES = 64
SECONDS_TO_END = 3.0  # within which a process that has closed its connections ends
# messages of gloo, NCCL and the store of torch when another process is gone
CONNECTION_ERRORS = re.compile("(?i)gloo|nccl|connection|broken pipe|store")


class Interrupts(Callback):
    """Ends training after the current step when a signal arrives at any rank.

    The validation that belongs to the step is finished, too. A second Ctrl-C ends the process at
    once. A signal that is ignored when training starts, as SIGINT under `nohup`, stays ignored.
    """

    def __init__(self) -> None:
        self.signum = 0  # of the signal received
        self._previous_handlers: dict[int, Any] = {}
        self._group: Any = None  # of processes that share their signals
        self._interval = 1  # steps between two queries for signals
        self._steps = 0  # since the last query
        self._time = 0.0  # of the last query
        self._processes: list[tuple[str, int]] = []  # machine and process number of each rank

    @contextmanager
    def outside_training(self) -> Iterator[None]:
        """Exit at once on a SIGTERM before or after training."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def exit_at_once(signum: int, frame: FrameType | None) -> None:
            sys.exit(128 + signum)

        previous = signal.signal(signal.SIGTERM, exit_at_once)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, previous)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Install the signal handlers."""
        self._processes = gather_objects((socket.gethostname(), os.getpid()))
        if threading.current_thread() is not threading.main_thread():
            return

        def handle(signum: int, frame: FrameType | None) -> None:
            if self.signum and signum == signal.SIGINT:
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                raise KeyboardInterrupt
            self.signum = signum
            if trainer.world_size == 1:
                trainer._signal_connector.received_sigterm = True
            if trainer.is_global_zero:
                text = "stopping after this step; press Ctrl-C again to stop at once"
                print(f"\n{signal.Signals(signum).name}: {text}", flush=True)

        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                self._previous_handlers[number] = signal.signal(number, handle)
        if trainer.world_size > 1:
            if torch.distributed.get_backend() != "gloo":  # reading would stall an accelerator
                self._group = torch.distributed.new_group(backend="gloo")
            self._time = time.monotonic()
            loop = trainer.fit_loop.epoch_loop
            loop._broadcast_sigterm_tensor = self._end_if_signalled  # type: ignore[method-assign]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the signal handlers."""
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        self._previous_handlers = {}

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        """Save a checkpoint, on all ranks together, and print how to continue."""
        self.on_train_end(trainer, pl_module)
        if not isinstance(exception, SIGTERMException):
            self._report_lost_ranks(trainer, exception)
            return
        for callback in trainer.checkpoint_callbacks:
            if not isinstance(callback, Checkpoints) or callback.folder is None:
                continue
            if not callback.has_saved_epoch(trainer):
                callback.save_last(trainer)
            if trainer.is_global_zero:
                path = shlex.quote(str(shown_path(callback.folder / "last.ckpt")))
                print(f"stopped after step {trainer.global_step}; checkpoint: {path}")
                command = f"fit --ckpt_path {path}{own_classes(pl_module, sequence_data(trainer))}"
                print(f"continue: python -m lightning_rnn {command}", flush=True)

    def _report_lost_ranks(self, trainer: Trainer, exception: BaseException) -> None:
        """Raise an error that names ranks whose process is gone, if that can be the reason."""
        is_of_torch = isinstance(exception, RuntimeError)  # not a file in a folder `store`
        is_lost = is_of_torch and CONNECTION_ERRORS.search(str(exception)) is not None
        if len(self._processes) < 2 or not is_lost:
            return
        deadline = time.monotonic() + SECONDS_TO_END
        lost: list[int] = []
        while not lost and time.monotonic() < deadline:
            time.sleep(0.05)
            for rank, (machine, pid) in enumerate(self._processes):
                if machine == socket.gethostname() and not is_alive(pid):
                    lost.append(rank)
        names = ", ".join(map(str, lost)) or "of another machine, or more than one,"
        hint = "continue with: fit --ckpt_path last"
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, Checkpoints) and callback.folder is not None:
                last = callback.folder / "last.ckpt"
                hint = f"continue with: fit --ckpt_path {shlex.quote(str(last))}"
                if not last.exists():
                    hint = "there is no checkpoint yet"
        raise LostRankError(f"rank {names} has ended unexpectedly; {hint}") from exception

    def _end_if_signalled(self) -> None:
        """Raise a SIGTERMException on all ranks before the same step if any rank has a signal.

        All ranks are queried, but only from time to time, as a query takes as long as a small step.
        It shares the seconds since the last query, too, from which all ranks compute the same
        number of steps until the next one.
        """
        self._steps += 1
        if self._steps < self._interval:
            return
        seconds = time.monotonic() - self._time
        query = torch.tensor([self.signum, seconds], dtype=torch.float64)
        torch.distributed.all_reduce(query, torch.distributed.ReduceOp.MAX, self._group)
        ratio = SECONDS_BETWEEN_QUERIES / max(float(query[1]), 1e-3)
        self._interval = min(MAX_STEPS_BETWEEN_QUERIES, max(1, int(self._interval * ratio)))
        self._steps = 0
        self._time = time.monotonic()
        if query[0]:
            self.signum = int(query[0])  # not one that has arrived at this rank since
            raise SIGTERMException
