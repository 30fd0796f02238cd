"""What the processes of a run tell each other."""

from typing import Any

import torch


def are_several() -> bool:
    """Tell whether this process is one of a group."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def from_all(value: Any) -> list[Any]:
    """Return the value of each rank; a collective call."""
    if not are_several():
        return [value]
    found = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, value)
    return found
