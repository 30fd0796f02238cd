"""Communication between the processes of a distributed run."""

from typing import Any

import torch


def is_distributed() -> bool:
    """Return whether this process belongs to a `torch.distributed` process group."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def gather_objects(value: Any) -> list[Any]:
    """Return the picklable values of all ranks, in rank order; a collective call."""
    if not is_distributed():
        return [value]
    gathered = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(gathered, value)
    return gathered
