"""Operations on padded batches that never look past a sequence's end."""

from typing import Any

import torch
from torch import Tensor


def valid_steps(lengths: Tensor, width: int) -> Tensor:
    """Return (B, T) bool, true inside each sequence."""
    return torch.arange(width, device=lengths.device) < lengths[:, None]


def is_full(lengths: Tensor, width: int) -> bool:
    """Tell whether no sequence is shorter than the batch, where asking is cheap.

    An accelerator would have to stop for the answer, and a trace would freeze it: there it is no.
    """
    asks = lengths.device.type == "cpu" and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return asks and int(lengths.min()) == width


def longest_first(lengths: Tensor, width: int) -> Tensor | None:
    """Return the order (B,) by descending length; None where all are alike or asking is not cheap."""
    asks = lengths.device.type == "cpu" and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return lengths.argsort(descending=True, stable=True) if asks and int(lengths.min()) < width else None


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
        return OwnInverse.apply(grad, rows), None  # type: ignore[no-untyped-call]


def flip_sequences(x: Tensor, lengths: Tensor) -> Tensor:
    """Reverse each sequence inside its length; what lies beyond stays where it is.

    Args:
        x: (B, T, H).
        lengths: (B,).

    Returns:
        (B, T, H).
    """
    if is_full(lengths, x.shape[1]):
        return x.flip(1)
    steps = torch.arange(x.shape[1], device=x.device)
    mirrored = lengths[:, None] - 1 - steps  # (B, T), negative beyond the end
    mirrored = torch.where(mirrored >= 0, mirrored, steps)
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return x.gather(1, mirrored[..., None].expand_as(x))
    rows = mirrored + x.shape[1] * torch.arange(len(x), device=x.device)[:, None]
    flipped: Tensor = OwnInverse.apply(x.flatten(0, 1), rows.flatten())  # type: ignore[no-untyped-call]
    return flipped.view_as(x)


def last_step(x: Tensor, lengths: Tensor) -> Tensor:
    """Return (B, H), each sequence's last step of (B, T, H)."""
    if is_full(lengths, x.shape[1]):
        return x[:, -1]
    return x.gather(1, (lengths - 1)[:, None, None].expand(-1, 1, x.shape[2]))[:, 0]
