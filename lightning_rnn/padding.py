"""Where the sequences of a padded batch end."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


def is_tracing() -> bool:
    """Return whether torch records a graph for export, in which nothing may depend on values."""
    jit: Any = torch.jit  # whose function has no types
    return bool(jit.is_tracing())


@dataclass(eq=False)  # not frozen: part of a SequenceBatch, see there
class Padding:
    """Lengths of the sequences of a padded batch (B, T, ...), and whether any step is padding.

    Attributes:
        lengths: (B,) int64, number of steps of each sequence, from 1 to T.
        is_full: Whether every sequence is known to have T steps. Masks, gathers and reordering are
            then skipped. False means "not known": the result is the same, only slower.
    """

    lengths: Tensor
    is_full: bool = False

    @classmethod
    def of(cls, lengths: Tensor, width: int) -> "Padding":
        """Describe a batch of width T, from its lengths (B,).

        Example:
            >>> Padding.of(torch.tensor([3, 3]), width=3).is_full
            True
            >>> Padding.of(torch.tensor([3, 1]), width=3).is_full
            False
        """
        padding = cls(lengths)
        if not padding.is_readable:
            return padding
        return cls(lengths, is_full=int(lengths.min()) == width)

    @property
    def is_readable(self) -> bool:
        """Whether Python may read the lengths, which stalls an accelerator and freezes a graph."""
        is_compiling = torch.compiler.is_compiling()
        return self.lengths.is_cpu and not is_tracing() and not is_compiling

    def to(self, device: torch.device, *, non_blocking: bool = False) -> "Padding":
        """Return the padding with its lengths on a device."""
        return Padding(self.lengths.to(device, non_blocking=non_blocking), self.is_full)
