"""What Lightning does at each step for nobody, left out: beside a small network it would be half the time."""

import inspect
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.profilers import PassThroughProfiler

STEP_HOOKS = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)
_NOTHING = nullcontext()


class NoProfiler(PassThroughProfiler):
    """Lightning's profiler that measures nothing, without a generator for each of a step's sixty sections."""

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]
        """Return a context that does nothing."""
        return _NOTHING


def drop_empty_hooks(trainer: Trainer, model: LightningModule) -> None:
    """Hide the hooks of a step that nobody has filled in: Lightning skips those that cannot be called.

    It also asks in each step for the step's signature, which is found at once where it is written down.
    """
    step: Any = type(model).training_step
    step.__signature__ = inspect.signature(step)
    for owner, base in (*((callback, Callback) for callback in trainer.callbacks), (model, LightningModule)):  # type: ignore[attr-defined]
        for hook in STEP_HOOKS:
            if getattr(type(owner), hook) is getattr(base, hook) and hook not in vars(owner):
                vars(owner)[hook] = None
