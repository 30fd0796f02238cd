"""Ctrl-C and SIGTERM end a run between two steps, with a checkpoint, on all ranks at once."""

import shlex
import signal
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

from lightning_rnn.training.checkpoints import Checkpoints

SIGNALS = (signal.SIGINT, signal.SIGTERM)
PAUSE, MOST_STEPS = (
    0.2,
    64,
)  # seconds from one question to all ranks to the next, and steps, at most


class Interrupts(Callback):
    """Stops after the current step and whatever belongs to it (validation at an epoch's end); a second Ctrl-C at once.

    Lightning already looks between steps for a SIGTERM, and stops there with its loops in a state that can be
    resumed. This callback makes SIGINT do the same, and lets any rank's signal count: Lightning asks rank 0 alone.

    Attributes:
        signum: The signal received, or 0.
    """

    def __init__(self) -> None:
        """Set up."""
        self.signum = 0
        self._handlers: dict[int, Any] = {}
        self._asked: tuple[Any, torch.Tensor] | None = (
            None  # whether any rank has a signal: the work, and its answer
        )
        self._group: Any = None  # of the ranks, for tensors in main memory

    @contextmanager
    def outside_training(self) -> Iterator[None]:
        """End the program at once at a SIGTERM that comes before or after training."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over from Lightning's handlers."""
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
                print(
                    f"\n{signal.Signals(signum).name}: stopping after this step; Ctrl-C stops at once",
                    flush=True,
                )

        self._handlers = {number: signal.signal(number, handle) for number in SIGNALS}
        loop = trainer.fit_loop.epoch_loop
        assert callable(
            loop._broadcast_sigterm_tensor
        )  # private: a test fails when Lightning changes it
        loop._broadcast_sigterm_tensor = self._agree  # type: ignore[method-assign]  # there is no hook for it
        self._asked = self._group = None
        self._steps, self._every, self._asked_at = 0, 1, time.monotonic()
        if trainer.world_size > 1 and torch.distributed.get_backend() != "gloo":
            self._group = torch.distributed.new_group(
                backend="gloo"
            )  # an answer on an accelerator would stop it

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the handlers back."""
        self._restore()
        if self._asked is not None:  # all ranks have asked after the last step
            self._asked[0].wait()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Save, on all ranks together, and say how to continue."""
        self._restore()
        if not isinstance(exception, SIGTERMException):
            return
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, Checkpoints) and callback.folder is not None:
                callback.save_last(trainer)
                if trainer.is_global_zero:
                    path = shlex.quote(str(callback.folder / "last.ckpt"))
                    print(f"stopped after step {trainer.global_step}; checkpoint: {path}")
                    print(f"continue: python -m lightning_rnn fit --ckpt_path {path}", flush=True)

    def _agree(self) -> None:
        """Ask all ranks for signals, about every `PAUSE` seconds: a question costs as much as a small step.

        The answer is taken when the next question is due, so that no rank waits for it. It holds the time since the
        question before, too, from which all ranks find the same number of steps to the next.
        """
        self._steps += 1
        if self._steps < self._every:
            return
        if self._asked is not None:
            work, answer = self._asked
            work.wait()
            signum, seconds = answer.tolist()
            if signum:  # not a signal that has come to this rank alone since then
                self._asked, self.signum = None, int(signum)
                raise SIGTERMException
            self._every = min(MOST_STEPS, max(1, int(self._every * PAUSE / max(seconds, 1e-3))))
        now = time.monotonic()
        question = torch.tensor([self.signum, now - self._asked_at], dtype=torch.float64)
        work = torch.distributed.all_reduce(
            question, torch.distributed.ReduceOp.MAX, self._group, async_op=True
        )
        self._asked, self._asked_at, self._steps = (work, question), now, 0

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}
