"""Standardisation and filling of missing values, as part of the network."""

import math

import torch
from torch import Tensor, nn

from lightning_rnn.models.padding import valid_steps
from lightning_rnn.padding import Padding

MAX_DEVIATIONS = 1e4  # limit of standardised values, so that huge numbers overflow nowhere


class Preprocess(nn.Module):
    """Standardises the features and fills missing values with the last value before them.

    Missing values before the first value of a feature are replaced by the training mean. Later
    steps never change earlier ones. The buffers `mean` and `std` (F,) are 0 and 1 at first.
    Standardised values are at most 1e4 in size. The attribute `missing_values` lists numbers that
    stand for a missing value, like NaN.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.missing_values: list[float] = []
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("std", torch.ones(num_features))

    def set_moments(self, mean: Tensor, std: Tensor) -> None:
        """Set the mean and standard deviation (F,) of the training data."""
        self.mean.copy_(mean)
        self.std.copy_(std)

    @property
    def is_fitted(self) -> bool:
        """Whether the statistics differ from those of a new network."""
        return bool((self.mean != 0).any() or (self.std != 1).any())

    def standardise(self, x: Tensor) -> Tensor:
        """Return standardised values, NaN where missing, from raw values (..., F)."""
        for value in self.missing_values:
            x = x.masked_fill(x == value, torch.nan)
        return (x - self.mean) / self.std

    def forward(self, x: Tensor, padding: Padding) -> Tensor:
        """Return (B, T, F) without NaN and zero in padding, from raw values with NaN if missing."""
        x = self.standardise(x)
        if not padding.is_full:
            x = x.masked_fill(~valid_steps(padding.lengths, x.shape[1])[..., None], 0.0)
        # The sum of all values is NaN if any of them is; reading it would stall an accelerator.
        if not padding.is_readable or math.isnan(float(x.detach().sum())):
            x = fill_forward(x)
        return x.clamp(-MAX_DEVIATIONS, MAX_DEVIATIONS)


def fill_forward(x: Tensor) -> Tensor:
    """Replace each NaN of (B, T, F) by the last value before it in its feature, or by 0."""
    is_value = ~x.isnan()
    num_values = is_value.long().cumsum(1)  # (B, T, F), number of values up to each step
    slots = torch.zeros_like(x[:, :1]).repeat(1, x.shape[1] + 1, 1)  # (B, T + 1, F)
    # The n-th value of a feature goes to slot n. All missing values write 0 to slot 0.
    targets = torch.where(is_value, num_values, 0)
    slots = slots.scatter(1, targets, torch.where(is_value, x, 0.0))
    return slots.gather(1, num_values)
