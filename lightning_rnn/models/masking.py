"""Operations on padded batches that never look past a sequence's end."""

import torch
from torch import Tensor


def valid_steps(lengths: Tensor, width: int) -> Tensor:
    """Return (B, T) bool, true inside each sequence."""
    return torch.arange(width, device=lengths.device) < lengths[:, None]


def flip_sequences(x: Tensor, lengths: Tensor) -> Tensor:
    """Reverse each sequence inside its length; what lies beyond stays where it is.

    Args:
        x: (B, T, H).
        lengths: (B,).

    Returns:
        (B, T, H).
    """
    steps = torch.arange(x.shape[1], device=x.device)
    mirrored = lengths[:, None] - 1 - steps  # (B, T), negative beyond the end
    return x.gather(1, torch.where(mirrored >= 0, mirrored, steps)[..., None].expand_as(x))


def last_step(x: Tensor, lengths: Tensor) -> Tensor:
    """Return (B, H), each sequence's last step of (B, T, H)."""
    return x.gather(1, (lengths - 1)[:, None, None].expand(-1, 1, x.shape[2]))[:, 0]
