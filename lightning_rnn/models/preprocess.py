"""Standardisation, filling of missing values and encoding of categories, within the network."""

import math

import torch
from torch import Tensor, nn

from lightning_rnn.errors import DataError, check, counted
from lightning_rnn.models.padding import valid_steps
from lightning_rnn.padding import Padding, is_tracing

MAX_DEVIATIONS = 1e4  # limit of standardised values, so that huge numbers overflow nowhere


class Preprocess(nn.Module):
    """Standardises the features and fills missing values with the last value before them.

    Missing values before the first value of a feature are replaced by the training mean. Later
    steps never change earlier ones. The buffers `mean` and `std` (F,) are 0 and 1 at first.
    Standardised values are at most 1e4 in size. The attribute `missing_values` lists numbers that
    stand for a missing value, like NaN.

    The codes 1, ..., K of a feature of categories become one-hot vectors of size K if K is at most
    `embedding_size`, or else trained vectors of that size. The code 0 becomes a vector of zeros; it
    stands for an unknown category, and for missing values before the first value. The argument
    `category_sizes` has the number of categories of each feature, 0 for numbers.
    """

    mean: Tensor
    std: Tensor
    numbers: Tensor

    def __init__(
        self,
        num_features: int,
        category_sizes: list[int] | None = None,
        embedding_size: int = 32,
    ) -> None:
        super().__init__()
        self.category_sizes: dict[int, int] = {}  # by position of the feature
        for i, size in enumerate(category_sizes or []):
            if size > 0:
                self.category_sizes[i] = size
        self.output_size = num_features - len(self.category_sizes)
        self.embeddings = nn.ModuleDict()
        for i, size in self.category_sizes.items():
            self.output_size += min(size, embedding_size)
            if size > embedding_size:
                self.embeddings[str(i)] = nn.Embedding(size + 1, embedding_size, padding_idx=0)
        self.has_numbers = len(self.category_sizes) < num_features
        if self.category_sizes:
            numbers = [i for i in range(num_features) if i not in self.category_sizes]
            indices = torch.tensor(numbers, dtype=torch.int64)
            self.register_buffer("numbers", indices, persistent=False)
        self.missing_values: list[float] = []
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("std", torch.ones(num_features))

    def set_moments(self, mean: Tensor, std: Tensor) -> None:
        """Set the mean and standard deviation (F,) of the training data."""
        self.mean.copy_(mean)
        self.std.copy_(std)

    @property
    def is_fitted(self) -> bool:
        """Whether the statistics differ from those of a new network, or there are none."""
        return not self.has_numbers or bool((self.mean != 0).any() or (self.std != 1).any())

    def standardise(self, x: Tensor) -> Tensor:
        """Return standardised values, NaN where missing, from raw values (..., F)."""
        for value in self.missing_values:
            x = x.masked_fill(x == value, torch.nan)
        return (x - self.mean) / self.std

    def forward(self, x: Tensor, padding: Padding) -> Tensor:
        """Return (B, T, F) without NaN and zero in padding, from raw values with NaN if missing."""
        if not is_tracing() and x.shape[2] != len(self.mean):  # one feature would be broadcast
            expected = f"{counted(len(self.mean), 'feature')} per step"
            raise DataError(f"x: expected {expected}, got {x.shape[2]}")
        x = self.standardise(x)
        if not padding.is_full:
            x = x.masked_fill(~valid_steps(padding.lengths, x.shape[1])[..., None], 0.0)
        # The sum of all values is NaN if any of them is; reading it would stall an accelerator.
        if not padding.is_readable or math.isnan(float(x.detach().sum())):
            x = fill_forward(x)
        return self.encode(x)

    def encode(self, x: Tensor) -> Tensor:
        """Return limited and encoded values (..., `output_size`) of values without NaN (..., F)."""
        if not self.category_sizes:
            return x.clamp(-MAX_DEVIATIONS, MAX_DEVIATIONS)
        parts: list[Tensor] = []
        if self.has_numbers:
            numbers = x.index_select(-1, self.numbers)
            parts.append(numbers.clamp(-MAX_DEVIATIONS, MAX_DEVIATIONS))
        largest_code = 2 / torch.finfo(x.dtype).eps  # above it, integers are rounded
        for i, size in self.category_sizes.items():
            expected = f"a type that holds the codes of {size} categories"
            check(size <= largest_code, "precision", x.dtype, expected)
            codes = x[..., i]
            if str(i) in self.embeddings:
                is_known = (codes > 0) & (codes <= size)
                parts.append(self.embeddings[str(i)](torch.where(is_known, codes, 0).long()))
            else:
                all_codes = torch.arange(1, size + 1, device=x.device)
                parts.append((codes[..., None] == all_codes).to(x.dtype))
        return torch.cat(parts, dim=-1)


def fill_forward(x: Tensor) -> Tensor:
    """Replace each NaN of (B, T, F) by the last value before it in its feature, or by 0."""
    is_value = ~x.isnan()
    num_values = is_value.long().cumsum(1)  # (B, T, F), number of values up to each step
    slots = torch.zeros_like(x[:, :1]).repeat(1, x.shape[1] + 1, 1)  # (B, T + 1, F)
    # The n-th value of a feature goes to slot n. All missing values write 0 to slot 0.
    targets = torch.where(is_value, num_values, 0)
    slots = slots.scatter(1, targets, torch.where(is_value, x, 0.0))
    return slots.gather(1, num_values)
