"""The loss of each sequence, and what it weighs."""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from lightning_rnn.errors import check


def cross_entropies(
    logits: Tensor, y: Tensor, *, reduction: Literal["none", "mean"] = "none"
) -> Tensor:
    """Return (B,) cross entropies in nats, or their mean, in float32 at least; binary for (B,) logits."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    if logits.ndim == 1:
        return binary_cross_entropy_with_logits(logits, y.to(logits), reduction=reduction)
    return cross_entropy(logits, y, reduction=reduction)


def class_weight(
    num_classes: int,
    pos_weight: float | None,
    class_weights: Literal["balanced"] | list[float] | None,
) -> Tensor:
    """Return (K,) weights; for balanced ones, ones until the data is known.

    Raises:
        OptionError: Weights that do not fit the classes.
    """
    if pos_weight is not None:
        check(num_classes == 2, "pos_weight", pos_weight, f"none with {num_classes} classes")
        check(class_weights is None, "pos_weight", pos_weight, "none together with class_weights")
        check(0 < pos_weight < math.inf, "pos_weight", pos_weight, "a finite number above 0")
        return torch.tensor([1.0, pos_weight])
    if isinstance(class_weights, list):
        fits = len(class_weights) == num_classes and all(0 < w < math.inf for w in class_weights)
        check(fits, "class_weights", class_weights, f"{num_classes} numbers above 0")
        return torch.tensor(class_weights, dtype=torch.float32)
    check(
        class_weights in (None, "balanced"), "class_weights", class_weights, "balanced or numbers"
    )
    return torch.ones(num_classes)
