"""Ctrl-C and SIGTERM end a run between two steps, with a checkpoint, on all ranks at once."""

import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_rnn.callbacks.checkpoints import Checkpoints

SIGNALS = (signal.SIGINT, signal.SIGTERM)


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
                print(f"\n{signal.Signals(signum).name}: stopping after this step; Ctrl-C stops at once", flush=True)

        self._handlers = {number: signal.signal(number, handle) for number in SIGNALS}
        loop = trainer.fit_loop.epoch_loop
        assert callable(loop._broadcast_sigterm_tensor)  # private: a test fails when Lightning changes it
        loop._broadcast_sigterm_tensor = lambda: self._agree(trainer)  # type: ignore[method-assign]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the handlers back."""
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
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

    def _agree(self, trainer: Trainer) -> None:
        found = torch.tensor([self.signum], device=trainer.strategy.root_device)
        torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
        self.signum = int(found)
        if self.signum:
            raise SIGTERMException

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}
