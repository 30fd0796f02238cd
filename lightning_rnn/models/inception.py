"""Inception blocks in front of the recurrent layers."""

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool1d, max_pool1d, pad

from lightning_rnn.models.padding import valid_steps
from lightning_rnn.models.stem import STRIDE, MaskedBatchNorm, StemOutput, output_lengths
from lightning_rnn.padding import Padding

KERNEL_SIZES = (9, 19, 39)
POOL_SIZE = 3
NUM_FILTERS = 16  # of each kernel size
NUM_BLOCKS = 3


class InceptionBlock(nn.Module):
    """Convolutions of several kernel sizes side by side, with masked batch normalisation.

    The channels are reduced to 16, which 16 filters of each of the sizes 9, 19 and 39 read. Beside
    them, the maximum over three steps is reduced to 16 channels. Values outside of a sequence are
    0. If `causal`, an output depends on the current and earlier inputs only.
    """

    def __init__(self, num_channels: int, *, causal: bool) -> None:
        super().__init__()
        longest = KERNEL_SIZES[-1] - 1
        self.causal = causal
        self.context = (longest // 2, longest // 2)  # inputs before and after the current one
        if causal:
            self.context = (longest, 0)
        self.output_size = NUM_FILTERS * (len(KERNEL_SIZES) + 1)
        self.bottleneck: nn.Module = nn.Identity()
        num_reduced = num_channels
        if num_channels > NUM_FILTERS:
            num_reduced = NUM_FILTERS
            self.bottleneck = nn.Conv1d(num_channels, num_reduced, 1, bias=False)
        self.convs = nn.ModuleList()
        for size in KERNEL_SIZES:
            self.convs.append(nn.Conv1d(num_reduced, NUM_FILTERS, size, bias=False))
        self.pool_conv = nn.Conv1d(num_channels, NUM_FILTERS, 1, bias=False)
        self.norm = MaskedBatchNorm(self.output_size)

    def forward(self, x: Tensor, mask: Tensor, *, is_full: bool) -> Tensor:
        """Return (B, 64, T) from inputs (B, C, T) that are zero outside of a mask (B, 1, T)."""
        convolved = self.convolve(pad(x, self.context))
        output: Tensor = self.norm(convolved, mask, is_full=is_full)
        return output

    def convolve(self, window: Tensor) -> Tensor:
        """Return (B, 64, T) from a window (B, C, T + 38) of inputs with their context."""
        width = window.shape[2] - sum(self.context)
        reduced = self.bottleneck(window)
        parts = []
        for conv, size in zip(self.convs, KERNEL_SIZES, strict=True):
            parts.append(conv(self._seen(reduced, size, width)))
        maxima = max_pool1d(self._seen(window, POOL_SIZE, width), POOL_SIZE, stride=1)
        parts.append(self.pool_conv(maxima))
        return torch.cat(parts, dim=1)

    def _seen(self, window: Tensor, kernel_size: int, width: int) -> Tensor:
        """Return the part of a window that a kernel sees from `width` positions."""
        past = kernel_size - 1 if self.causal else kernel_size // 2
        start = self.context[0] - past
        return window[:, :, start : start + width + kernel_size - 1]


class InceptionStem(nn.Module):
    """Three inception blocks with a shortcut around them, then averages over 4 steps each.

    InceptionTime (Ismail Fawaz et al. 2020, arXiv:1909.04939) has the same blocks, with twice as
    many filters and twice as many blocks. The recurrent layers read the averages. The mean over all
    steps is the summary, which has a head of its own.
    """

    def __init__(self, num_features: int, *, causal: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        num_channels = num_features
        for _ in range(NUM_BLOCKS):
            block = InceptionBlock(num_channels, causal=causal)
            self.blocks.append(block)
            num_channels = block.output_size
        self.shortcut = nn.Conv1d(num_features, num_channels, 1, bias=False)
        self.shortcut_norm = MaskedBatchNorm(num_channels)
        self.output_size = num_channels
        self.summary_size = num_channels

    def forward(self, x: Tensor, padding: Padding) -> StemOutput:
        """Return (B, ceil(T / 4), C) and the summary (B, C) from (B, T, F)."""
        lengths = padding.lengths
        mask = valid_steps(lengths, x.shape[1])[:, None]  # (B, 1, T)
        x = x.transpose(1, 2)
        shortcut = self.shortcut_norm(self.shortcut(x), mask, is_full=padding.is_full)
        for block in self.blocks:
            x = block(x, mask, is_full=padding.is_full)
            if block is self.blocks[-1]:
                x = x + shortcut
            x = x.relu()
            if not padding.is_full:
                x = x.masked_fill(~mask, 0.0)
        summary = x.sum(2) / lengths[:, None]
        padding = Padding(output_lengths(lengths), padding.is_full)
        averages = average_steps(x, lengths).transpose(1, 2)
        return StemOutput(averages, padding, summary)


def average_steps(x: Tensor, lengths: Tensor) -> Tensor:
    """Average 4 steps each of (B, C, T), whose values after the `lengths` (B,) are 0.

    The last average of a sequence is over the 1 to 4 steps that are left.
    """
    averages = avg_pool1d(pad(x, (0, STRIDE - 1)), STRIDE)  # (B, C, ceil(T / 4))
    starts = STRIDE * torch.arange(averages.shape[2], device=x.device)
    num_steps = (lengths[:, None] - starts).clamp(1, STRIDE).to(x.dtype)
    return averages * (STRIDE / num_steps)[:, None]
