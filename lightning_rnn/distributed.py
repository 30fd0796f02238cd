"""Communication between the processes of a distributed run."""

import gc
import os
from typing import Any, TextIO

import torch


def process_rank() -> int:
    """Return the rank of this process according to its environment; needs no Trainer."""
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        value = os.environ.get(name, "")
        if value.isdigit():
            return int(value)
    return 0


def print_once(text: str, file: TextIO | None = None) -> None:
    """Print a line in the process of rank 0 only."""
    if process_rank() == 0:
        print(text, file=file, flush=True)


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


def leave_process_group() -> None:
    """Destroy the process group, if there is one, which ends its threads.

    A thread of gloo that still frees a tensor while the interpreter shuts down aborts the process.
    """
    if is_distributed():
        gc.collect()  # the Trainer, which refers to the group
        torch.distributed.destroy_process_group()
