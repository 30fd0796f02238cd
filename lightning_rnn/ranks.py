"""What the processes of a run tell each other."""

import os
import platform
import secrets
import select
import time
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

FEW = 2**21  # bytes of gradients of all ranks together; more are averaged in parts while others are computed
LINE = 64  # bytes that processors share at once
PATIENCE = 0.05  # seconds for which a rank looks for the others' gradients without a pause


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


class SharedGradients:
    """Averages gradients over all ranks of one machine, through memory that they share.

    Each rank writes its own there, says so, and looks until all have. Waiting for a message a process falls asleep,
    which on a virtual machine costs more than the average itself; see docs/performance.md.
    """

    def __init__(self, weights: list[nn.Parameter], memory: Tensor, rank: int, processes: list[int]) -> None:
        """Set up with what `share_gradients` finds: memory of all, and handles of all ranks' processes."""
        ranks = len(processes)
        self._weights, self._rank, self._turn = weights, rank, 0
        self._turns = memory[: ranks * LINE].view(torch.int64).view(ranks, -1)[:, 0].numpy()  # each writes its own
        self._gradients = memory[ranks * LINE :].view(weights[0].dtype).view(2, ranks, -1)
        self._ended = select.poll()
        for process in processes:
            self._ended.register(process, select.POLLIN)

    def average(self) -> None:
        """Replace each gradient by its mean over the ranks, which all call this.

        Raises:
            RuntimeError: A rank has ended.
        """
        weights = [weight for weight in self._weights if weight.grad is not None]
        sizes = [weight.numel() for weight in weights]
        self._turn += 1
        gradients = self._gradients[self._turn % 2, :, : sum(sizes)]  # while the other half may still be read
        torch.cat([weight.grad.flatten() for weight in weights], out=gradients[self._rank])  # type: ignore[union-attr]  # no None is left
        self._turns[self._rank] = self._turn
        self._wait()
        for weight, average in zip(weights, torch.split(gradients.mean(0), sizes), strict=True):
            weight.grad = average.view_as(weight)

    def _wait(self) -> None:
        until = time.monotonic() + PATIENCE
        while self._turns.min() < self._turn:
            if time.monotonic() < until:
                os.sched_yield()
            elif self._ended.poll(1):  # in a millisecond
                raise RuntimeError("a process of this run has ended before its time")


def can_share() -> bool:
    """Tell whether this is Linux, on processors that see what another one writes in the order in which it does."""
    return platform.machine() == "x86_64" and hasattr(os, "memfd_create") and hasattr(os, "pidfd_open")


def share_gradients(weights: list[nn.Parameter]) -> SharedGradients | None:
    """Return what averages gradients of one type on CPUs, None where ranks do not share memory; a collective call."""
    rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
    size = ranks * (LINE + 2 * sum(weight.nbytes for weight in weights))
    name, file = secrets.token_hex(), -1
    if can_share() and rank == 0:
        file = os.memfd_create(name)  # goes with the last process that has it
        os.truncate(file, size)
    told = from_all((os.getpid(), file, name))
    pid, number, name = told[0]
    shared = None
    with suppress(OSError):  # rank 0 has no such file, or is on another machine or in another container
        path = f"/proc/{pid}/fd/{number}"
        if name in os.readlink(path):
            memory = torch.from_file(path, shared=True, size=size, dtype=torch.uint8)
            shared = SharedGradients(weights, memory, rank, [os.pidfd_open(pid) for pid, _, _ in told])
    everywhere = all(from_all(shared is not None))
    if file >= 0:
        os.close(file)
    return shared if everywhere else None
