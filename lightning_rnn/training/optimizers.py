"""Optimizers, and the values that the options of training may have."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch.optim import Optimizer

from lightning_rnn.errors import check

OptimizerName = Literal["adam", "adamw"]
OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
FUSED_DEVICES = ("cpu", "cuda")  # devices for which torch has a fused Adam
MAX_LEARNING_RATE = 1e30


def check_training(settings: Mapping[str, Any]) -> None:
    """Raise an OptionError if a number for training is out of range."""
    decay = settings["weight_decay"]
    check(decay >= 0, "weight_decay", decay, "a number of at least 0")
    smoothing = settings["label_smoothing"]
    check(0 <= smoothing < 1, "label_smoothing", smoothing, "at least 0, below 1")
    lr = settings["lr"]
    expected = f"a number above 0, at most {MAX_LEARNING_RATE:g}"
    check(0 < lr <= MAX_LEARNING_RATE, "lr", lr, expected)


def create_optimizer(model: Any, *, fused: bool) -> Optimizer:
    """Return the optimizer of a `SequenceClassifier`; `fused` asks for torch's fused kernel."""
    optimizer: Optimizer = OPTIMIZERS[model.hparams["optimizer"]](
        model.parameters(),
        lr=model.lr,
        weight_decay=model.hparams["weight_decay"],
        fused=fused or None,
    )
    return optimizer
