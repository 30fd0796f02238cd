"""Operations on padded batches that never look past a sequence's end."""

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
    return x.gather(1, torch.where(mirrored >= 0, mirrored, steps)[..., None].expand_as(x))


def last_step(x: Tensor, lengths: Tensor) -> Tensor:
    """Return (B, H), each sequence's last step of (B, T, H)."""
    if is_full(lengths, x.shape[1]):
        return x[:, -1]
    return x.gather(1, (lengths - 1)[:, None, None].expand(-1, 1, x.shape[2]))[:, 0]
