"""What the processes of a run tell each other."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

FEW = 2**19  # bytes of gradients of all ranks together; of more, a ring's sum is quicker


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


def average_gradients(weights: Iterable[nn.Parameter]) -> None:
    """Average gradients over all ranks; a collective call.

    Gloo passes a sum on from rank to rank, twice around, and DistributedDataParallel prepares for gradients that come
    one by one. Few gradients cost a step less in one message: every rank gets those of all and adds them up, in the
    order of ranks.
    """
    weights = [weight for weight in weights if weight.grad is not None]
    own = torch.cat([weight.grad.flatten() for weight in weights])  # type: ignore[union-attr]  # no None is left
    found = own.new_empty(torch.distributed.get_world_size(), len(own))
    torch.distributed.all_gather(list(found), own)
    averages = torch.split(found.mean(0), [weight.numel() for weight in weights])
    for weight, average in zip(weights, averages, strict=True):
        weight.grad = average.view_as(weight)
