"""Optimizers, and the values that their options may have."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_rnn.errors import check
from lightning_rnn.training.schedules import SCHEDULES, Schedule

OptimizerName = Literal["adam", "adamw"]
OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
FUSED_DEVICES = ("cpu", "cuda")  # devices for which torch has a fused Adam
MAX_LEARNING_RATE = 1e30


@dataclass(frozen=True)
class OptimizerOptions:
    """Options of an optimizer, without the learning rate, which a schedule changes."""

    optimizer: OptimizerName
    weight_decay: float

    def __post_init__(self) -> None:  # noqa: D105  # documented in the class docstring
        check(self.optimizer in OPTIMIZERS, "optimizer", self.optimizer, "adam or adamw")
        check(self.weight_decay >= 0, "weight_decay", self.weight_decay, "a number of at least 0")

    def create(self, parameters: Iterable[Tensor], *, lr: float, fused: bool) -> Optimizer:
        """Return an optimizer of the parameters; `fused` asks for torch's fused kernel."""
        options = {"weight_decay": self.weight_decay, "fused": fused or None}
        optimizer: Optimizer = OPTIMIZERS[self.optimizer](parameters, lr=lr, **options)
        return optimizer


def check_training(lr: float, schedule: Schedule, label_smoothing: float) -> None:
    """Raise an OptionError if an option of training is out of range."""
    check(0 <= label_smoothing < 1, "label_smoothing", label_smoothing, "at least 0, below 1")
    check(schedule in SCHEDULES, "schedule", schedule, f"one of {', '.join(SCHEDULES)}")
    expected = f"a number above 0, at most {MAX_LEARNING_RATE:g}"
    check(0 < lr <= MAX_LEARNING_RATE, "lr", lr, expected)
