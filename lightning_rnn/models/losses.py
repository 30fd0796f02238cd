"""Loss functions and class weights."""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from lightning_rnn.categories import join_classes
from lightning_rnn.errors import check


def cross_entropies(logits: Tensor, y: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Return cross entropies (B,) in nats, in float32 or float64.

    Args:
        logits: (B,) of the second of two classes, or (B, K).
        y: (B,) int64, class codes.
        label_smoothing: Probability that the target spreads evenly over all classes (Szegedy et al.
            2016, arXiv:1512.00567, section 7).
    """
    if logits.dtype != torch.float64:
        logits = logits.float()
    if logits.ndim == 1:
        target = y.to(logits) * (1 - label_smoothing) + label_smoothing / 2
        return binary_cross_entropy_with_logits(logits, target, reduction="none")
    return cross_entropy(logits, y, reduction="none", label_smoothing=label_smoothing)


def training_loss(
    head_logits: Tensor, y: Tensor, weights: Tensor, *, label_smoothing: float
) -> Tensor:
    """Return the mean loss () of the heads (M, B) or (M, B, K), times the `weights` (B,)."""
    losses = []
    for logits in head_logits:
        losses.append(cross_entropies(logits, y, label_smoothing=label_smoothing) * weights)
    return torch.stack(losses).mean()


def class_weight(
    class_names: list[str],
    pos_weight: float | None,
    class_weights: Literal["balanced"] | list[float] | dict[str, float] | None,
) -> Tensor:
    """Return the weight of each class in the loss, (K,) float32; 1 by default.

    The arguments are those of `SequenceClassifier`; the weights are 1 if balanced, until the data
    are known. Raises an OptionError if they do not fit the classes.
    """
    num_classes = len(class_names)
    if pos_weight is not None:
        check(num_classes == 2, "pos_weight", pos_weight, f"none with {num_classes} classes")
        check(class_weights is None, "pos_weight", pos_weight, "none together with class_weights")
        check(0 < pos_weight < math.inf, "pos_weight", pos_weight, "a finite number above 0")
        return torch.tensor([1.0, pos_weight])
    if isinstance(class_weights, dict):
        weight_of = {str(name): weight for name, weight in class_weights.items()}  # YAML has 1: 3
        unknown = sorted(set(weight_of) - set(class_names))
        check(not unknown, "class_weights", unknown, f"names among {join_classes(class_names)}")
        class_weights = [weight_of.get(name, 1.0) for name in class_names]
    if isinstance(class_weights, list):
        fits = len(class_weights) == num_classes and all(0 < w < math.inf for w in class_weights)
        check(fits, "class_weights", class_weights, f"{num_classes} finite numbers above 0")
        return torch.tensor(class_weights, dtype=torch.float32)
    is_known = class_weights is None or class_weights == "balanced"
    check(is_known, "class_weights", class_weights, "balanced, or numbers by name or in a list")
    return torch.ones(num_classes)
