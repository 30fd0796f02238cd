"""Standardisation and the rule for missing values, kept in the network so that it takes raw values."""

import math

import torch
from torch import Tensor, nn

from lightning_rnn.models.padding import valid_steps
from lightning_rnn.padding import Padding


class Preprocess(nn.Module):
    """Standardises with the training data's moments, then carries the last value seen over missing ones.

    Before a feature's first value its training mean stands in. The rule is causal: later steps never change
    earlier ones.

    Attributes:
        mean: (F,) buffer.
        std: (F,) buffer.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, num_features: int) -> None:
        """Set up with mean 0 and deviation 1; `set_moments` gives the real ones."""
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("std", torch.ones(num_features))

    def set_moments(self, mean: Tensor, std: Tensor) -> None:
        """Take mean and standard deviation (F,) of the training data."""
        self.mean.copy_(mean)
        self.std.copy_(std)

    def forward(self, x: Tensor, padding: Padding) -> Tensor:
        """Return (B, T, F), free of NaN and zero after each sequence's end, from raw (B, T, F)."""
        x = (x - self.mean) / self.std
        if not padding.is_full:
            x = x.masked_fill(~valid_steps(padding.lengths, x.shape[1])[..., None], 0.0)
        # a NaN anywhere makes the sum NaN
        if not padding.is_readable or math.isnan(float(x.detach().sum())):
            x = fill_forward(x)
        return x


def fill_forward(x: Tensor) -> Tensor:
    """Replace each NaN by the last value before it in its feature, or by 0 where there is none.

    Args:
        x: (B, T, F).

    Returns:
        (B, T, F) without NaN.
    """
    seen = ~x.isnan()
    slot = seen.long().cumsum(
        1
    )  # (B, T, F): how many values have been seen, so the number of the last one
    table = torch.zeros_like(x[:, :1]).expand(-1, x.shape[1] + 1, -1).contiguous()
    # the n-th value goes to slot n; missing ones share slot 0, which is what stands in before the first
    table = table.scatter(1, torch.where(seen, slot, 0), torch.where(seen, x, 0.0))
    return table.gather(1, slot)
