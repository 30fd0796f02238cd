"""Operations on padded batches that never look past a sequence's end."""

from typing import Any

import torch
from torch import Tensor


def is_tracing() -> bool:
    """Tell whether the network is being written down for export, where nothing may depend on values."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]  # torch exports it without a type


def can_ask(values: Tensor) -> bool:
    """Tell whether Python may look at values: an accelerator would stop for the answer, a trace would freeze it."""
    return values.is_cpu and not is_tracing()


def valid_steps(lengths: Tensor, width: int) -> Tensor:
    """Return (B, T) bool, true inside each sequence."""
    return torch.arange(width, device=lengths.device) < lengths[:, None]


def unless_full(lengths: Tensor, width: int) -> Tensor | None:
    """Return the lengths; None where Python can tell that every sequence is as long as the batch is wide.

    The operations below take this None for "every sequence is": what they then leave out costs as much as the cells of
    a small network.
    """
    return None if can_ask(lengths) and int(lengths.min()) == width else lengths


def longest_first(lengths: Tensor | None) -> Tensor | None:
    """Return the order (B,) by descending length; None where all are alike or Python cannot ask."""
    if lengths is None or not can_ask(lengths):
        return None
    return lengths.argsort(descending=True, stable=True)


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


def flip_sequences(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Reverse each sequence inside its length; what lies beyond stays where it is.

    Args:
        x: (B, T, H).
        lengths: (B,), or None; see `unless_full`.

    Returns:
        (B, T, H).
    """
    if lengths is None:
        return x.flip(1)
    steps = torch.arange(x.shape[1], device=x.device)
    mirrored = lengths[:, None] - 1 - steps  # (B, T), negative beyond the end
    mirrored = torch.where(mirrored >= 0, mirrored, steps)
    if is_tracing():
        return x.gather(1, mirrored[..., None].expand_as(x))
    rows = mirrored + x.shape[1] * torch.arange(len(x), device=x.device)[:, None]
    flipped: Tensor = OwnInverse.apply(x.flatten(0, 1), rows.flatten())  # type: ignore[no-untyped-call]  # as above
    return flipped.view_as(x)


def last_step(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Return (B, H), each sequence's last step of (B, T, H)."""
    if lengths is None:
        return x[:, -1]
    return x.gather(1, (lengths - 1)[:, None, None].expand(-1, 1, x.shape[2]))[:, 0]
