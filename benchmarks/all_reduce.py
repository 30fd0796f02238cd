"""How long do two processes on one machine take for the gradients of one weight to a million?

`torchrun --nproc_per_node 2 -m benchmarks.all_reduce`; medians of 180. By gloo's sum, and by `average_gradients`, where
all is sent to all and each process adds it up.
"""

import statistics
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import nn

from benchmarks.clock import now
from benchmarks.common import save
from lightning_rnn.ranks import average_gradients


def median_us(average: Callable[[nn.Parameter], object], size: int) -> str:
    """Return the microseconds in which the gradients of so many weights are averaged."""
    weight, seconds = nn.Parameter(torch.zeros(size)), []
    weight.grad = torch.zeros(size)
    for _ in range(200):
        begin = now()
        average(weight)
        seconds.append(now() - begin)
    return f"{statistics.median(seconds[20:]) * 1e6:.0f}"


def main() -> None:
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    rows = [
        {
            "bytes": 4 * size,
            "sum_us": median_us(lambda weight: dist.all_reduce(weight.grad), size),
            "sent_to_all_us": median_us(lambda weight: average_gradients([weight]), size),
        }
        for size in (1, 1_153, 17_217, 67_000, 131_072, 262_144, 1_000_000)
    ]
    if dist.get_rank() == 0:
        save("all_reduce", rows)
    dist.barrier()  # who leaves first can keep the other waiting for ever
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
