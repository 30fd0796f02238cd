"""How processes on CPUs average their gradients."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

FEW = 2**19  # bytes of gradients of all ranks together, up to which it is quicker to send them all to all


def share_gradients(model: nn.Module | None) -> None:
    """Have a model's ranks average small gradients by `average_few`, where they compute on CPUs."""
    if isinstance(model, DistributedDataParallel) and model.device_type == "cpu":
        model.register_comm_hook(None, average_few)


def average_few(group: Any, bucket: dist.GradBucket) -> Future[Tensor]:  # type: ignore[name-defined]  # not in its stub
    """Average a bucket of gradients over all ranks; a communication hook of DistributedDataParallel.

    Gloo passes a sum on from rank to rank, twice around. A few gradients cost less once around: every rank gets those
    of all and adds them up, in the order of ranks.
    """
    gradients, ranks = bucket.buffer(), dist.get_world_size(group)
    if ranks * gradients.nbytes > FEW:
        return allreduce_hook(group, bucket)
    found = gradients.new_empty(ranks, len(gradients))
    dist.all_gather(list(found), gradients, group)
    average: Future[Tensor] = Future()
    average.set_result(torch.mean(found, 0, out=gradients))
    return average
