"""Operations on padded batches that never look past a sequence's end."""

from typing import Any

import torch
from torch import Tensor

from lightning_rnn.padding import Padding


def is_tracing() -> bool:
    """Tell whether the network is being written down for export, where nothing may depend on values."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]  # torch exports it without a type


def valid_steps(lengths: Tensor, width: int) -> Tensor:
    """Return (B, T) bool, true inside each sequence."""
    return torch.arange(width, device=lengths.device) < lengths[:, None]


class OwnInverse(torch.autograd.Function):
    """Rows in another order, which undoes itself: going back is the same quick copy, where autograd would add rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor) -> Tensor:
        """Return the rows of x (N, H) in the order `rows` (N,)."""
        ctx.save_for_backward(rows)
        return x.index_select(0, rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Return the gradient of x."""
        (rows,) = ctx.saved_tensors
        return OwnInverse.apply(grad, rows), None  # type: ignore[no-untyped-call]  # torch's `apply` has no types


def flip_sequences(x: Tensor, padding: Padding) -> Tensor:
    """Reverse each sequence inside its length; what lies beyond stays where it is.

    Args:
        x: (B, T, H).
        padding: Number of steps of each sequence.

    Returns:
        (B, T, H).
    """
    if padding.is_full:
        return x.flip(1)
    steps = torch.arange(x.shape[1], device=x.device)
    mirrored = padding.lengths[:, None] - 1 - steps  # (B, T), negative beyond the end
    mirrored = torch.where(mirrored >= 0, mirrored, steps)
    if is_tracing():
        return x.gather(1, mirrored[..., None].expand_as(x))
    rows = mirrored + x.shape[1] * torch.arange(len(x), device=x.device)[:, None]
    flipped: Tensor = OwnInverse.apply(x.flatten(0, 1), rows.flatten())  # type: ignore[no-untyped-call]  # as above
    return flipped.view_as(x)


def last_step(x: Tensor, padding: Padding) -> Tensor:
    """Return (B, H), each sequence's last step of (B, T, H)."""
    if padding.is_full:
        return x[:, -1]
    return x.gather(1, (padding.lengths - 1)[:, None, None].expand(-1, 1, x.shape[2]))[:, 0]
