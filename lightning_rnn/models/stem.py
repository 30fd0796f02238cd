"""Strided convolutions in front of the recurrent layers."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from lightning_rnn.distributed import is_distributed
from lightning_rnn.models.padding import valid_steps
from lightning_rnn.padding import Padding


class MaskedBatchNorm(nn.Module):
    """Batch normalisation (Ioffe and Szegedy 2015, arXiv:1502.03167) whose statistics ignore padding.

    The sums run in float32 at least and, in training on several ranks, over all of them, so that regrouping a batch
    changes nothing. A batch with one valid position is allowed: it is normalised to `bias`.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_channels: int, *, momentum: float = 0.1, eps: float = 1e-5) -> None:
        """Set up for C = `num_channels`."""
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))
        self.register_buffer("running_mean", torch.zeros(num_channels))
        self.register_buffer("running_var", torch.ones(num_channels))
        self.momentum, self.eps = momentum, eps

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Normalise.

        Args:
            x: (B, C, T).
            mask: (B, 1, T) bool, true where valid.

        Returns:
            (B, C, T); what stands at invalid positions means nothing.
        """
        if self.training:
            mean, var = self._batch_moments(x, mask)
        else:
            mean, var = self.running_mean, self.running_var
        scale = self.weight * (var + self.eps).rsqrt()
        return (x * scale[:, None] + (self.bias - mean * scale)[:, None]).to(x.dtype)

    def _batch_moments(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        x = x if x.dtype == torch.float64 else x.float()
        count = all_reduce_sum(mask.sum().to(x.dtype))
        mean = all_reduce_sum(x.masked_fill(~mask, 0.0).sum((0, 2))) / count
        centred = (x - mean[:, None]).masked_fill(~mask, 0.0)
        var = all_reduce_sum(centred.square().sum((0, 2))) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            unbiased = var * count / (count - 1).clamp(min=1)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        return mean, var


class _AllReduceSum(torch.autograd.Function):
    """Sum over ranks; each rank's gradient is the sum of all ranks' gradients."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        total = x.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *grads: Tensor) -> Tensor:
        total = grads[0].clone()
        torch.distributed.all_reduce(total)
        return total


def all_reduce_sum(x: Tensor) -> Tensor:
    """Return the sum of `x` over all ranks, differentiably; `x` itself where there is one process."""
    if is_distributed():
        return _AllReduceSum.apply(x)  # type: ignore[no-any-return, no-untyped-call]
    return x


class ConvStem(nn.Module):
    """Two convolutions of kernel 9, stride 2 and padding 4, each with masked batch normalisation and ReLU.

    A length L becomes ceil(L / 2) at each. Convolving in front of recurrent layers follows LSTM-FCN (Karim et al.
    2018, arXiv:1709.05206) in its parts, here in series.
    """

    def __init__(self, num_features: int, *, num_channels: int = 64) -> None:
        """Set up for F = `num_features`."""
        super().__init__()
        widths = (num_features, num_channels, num_channels)
        self.convs = nn.ModuleList(
            nn.Conv1d(i, o, kernel_size=9, stride=2, padding=4, bias=False)
            for i, o in pairwise(widths)
        )
        self.norms = nn.ModuleList(MaskedBatchNorm(num_channels) for _ in self.convs)

    def forward(self, x: Tensor, padding: Padding) -> tuple[Tensor, Padding]:
        """Return (B, ceil(T / 4), C) and its padding, from (B, T, F), zero after each end."""
        x = x.transpose(1, 2)  # (B, F, T)
        lengths = padding.lengths
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = conv(x)
            lengths = (lengths + 1) // 2
            mask = valid_steps(lengths, x.shape[2])[:, None]  # (B, 1, T)
            x = norm(x, mask).relu().masked_fill(~mask, 0.0)
        return x.transpose(1, 2), Padding(lengths, padding.is_full)
