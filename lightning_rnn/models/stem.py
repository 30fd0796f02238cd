"""Strided convolutions in front of the recurrent layers."""

from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, pad

from lightning_rnn.distributed import is_distributed
from lightning_rnn.models.padding import valid_steps
from lightning_rnn.padding import Padding

STRIDE = 4  # steps of the input per step of the output, of all stems
Lengths = TypeVar("Lengths", int, Tensor)


@dataclass(eq=False)
class StemOutput:
    """Output of a stem for a batch."""

    x: Tensor  # (B, T, C) inputs of the recurrent layers, zero in padding
    padding: Padding  # of x
    summary: Tensor  # (B, S) features of whole sequences; S may be 0


def output_lengths(lengths: Lengths) -> Lengths:
    """Return the lengths of a stem's output sequences from those of its input sequences."""
    return (lengths + STRIDE - 1) // STRIDE


class MaskedBatchNorm(nn.Module):
    """Batch normalisation (Ioffe and Szegedy 2015, arXiv:1502.03167) that ignores padding.

    y = weight (x - mean) / sqrt(var + eps) + bias. In training, with N valid positions on all
    ranks,

        mean = sum(x) / N and var = sum((x - mean)^2) / N, at least in float32,
        running_mean += momentum (mean - running_mean),
        running_var += momentum (N / (N - 1) var - running_var);

    in evaluation, mean and var are the running ones. A single valid position results in y = bias.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_channels: int, *, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))
        self.register_buffer("running_mean", torch.zeros(num_channels))
        self.register_buffer("running_var", torch.ones(num_channels))
        self.momentum = momentum
        self.eps = eps

    def forward(self, x: Tensor, mask: Tensor, *, is_full: bool = False) -> Tensor:
        """Normalise `x` (B, C, T); `mask` (B, 1, T) is true at valid positions.

        The values at other positions of the result are meaningless. `is_full` says that the mask is
        known to be true everywhere, for which torch has a faster function.
        """
        if is_full and mask.numel() > 1 and not is_distributed():
            return batch_norm(
                x,
                self.running_mean,
                self.running_var,
                self.weight,
                self.bias,
                training=self.training,
                momentum=self.momentum,
                eps=self.eps,
            )
        if self.training:
            mean, var = self._batch_moments(x, mask)
        else:
            mean, var = self.running_mean, self.running_var
        scale = self.weight * (var + self.eps).rsqrt()
        return (x * scale[:, None] + (self.bias - mean * scale)[:, None]).to(x.dtype)

    def _batch_moments(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance (C,) of a batch, and update the running ones."""
        if x.dtype != torch.float64:
            x = x.float()
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
    """Sum over ranks; the gradient of each rank is the sum of the gradients of all ranks."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return _AllReduceSum.forward(ctx, *grads)


def all_reduce_sum(x: Tensor) -> Tensor:
    """Return the differentiable sum of `x` over all ranks; `x` itself in a single-process run."""
    if not is_distributed():
        return x
    total: Tensor = _AllReduceSum.apply(x)  # type: ignore[no-untyped-call]  # untyped in torch
    return total


class ConvStem(nn.Module):
    """Two convolutions of kernel size 9 and stride 2, with masked batch normalisation and ReLU.

    Each of them shortens a sequence from L to ceil(L / 2) steps. LSTM-FCN (Karim et al. 2018,
    arXiv:1709.05206) has the same blocks, parallel to the recurrent layer.
    """

    def __init__(self, num_features: int, *, num_channels: int = 64) -> None:
        super().__init__()
        self.output_size = num_channels
        self.summary_size = 0
        self.convs = nn.ModuleList()
        self.norms = nn.ModuleList()
        for size in (num_features, num_channels):
            conv = nn.Conv1d(size, num_channels, kernel_size=9, stride=2, padding=4, bias=False)
            self.convs.append(conv)
            self.norms.append(MaskedBatchNorm(num_channels))

    def forward(self, x: Tensor, padding: Padding) -> StemOutput:
        """Return (B, ceil(T / 4), C), without a summary, from (B, T, F)."""
        x = x.transpose(1, 2)  # (B, F, T)
        lengths = padding.lengths
        for conv, norm in zip(self.convs, self.norms, strict=True):
            if self.training and x.shape[2] == 1:
                # of a single step, torch 2.13 returns arbitrary weight gradients in bfloat16 on CPU
                x = pad(x, (0, 1))  # as many outputs, with the same values
            x = conv(x)
            lengths = (lengths + 1) // 2
            mask = valid_steps(lengths, x.shape[2])[:, None]  # (B, 1, T)
            x = norm(x, mask, is_full=padding.is_full).relu()
            if not padding.is_full:
                x = x.masked_fill(~mask, 0.0)
        padding = Padding(lengths, padding.is_full)
        return StemOutput(x.transpose(1, 2), padding, x.new_zeros(x.shape[0], 0))
