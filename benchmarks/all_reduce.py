"""How long do two processes on one machine take to average a tensor, from one number to a million?

`torchrun --nproc_per_node 2 -m benchmarks.all_reduce`; medians of 180. By gloo's sum, and as `ranks.average_gradients`
does it: all is sent to all, and each process adds it up.
"""

import statistics
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

from benchmarks.clock import now
from benchmarks.common import save


def median_us(average: Callable[[Tensor], object], size: int) -> str:
    """Return the microseconds of one call."""
    x, seconds = torch.zeros(size), []
    for _ in range(200):
        begin = now()
        average(x)
        seconds.append(now() - begin)
    return f"{statistics.median(seconds[20:]) * 1e6:.0f}"


def gather(x: Tensor) -> Tensor:
    """Average a tensor by sending it to all."""
    found = x.new_empty(dist.get_world_size(), len(x))
    dist.all_gather(list(found), x)
    return torch.mean(found, 0, out=x)


def main() -> None:
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    rows = [
        {"bytes": 4 * size, "sum_us": median_us(dist.all_reduce, size), "sent_to_all_us": median_us(gather, size)}
        for size in (1, 1_153, 17_217, 67_000, 131_072, 262_144, 1_000_000)
    ]
    if dist.get_rank() == 0:
        save("all_reduce", rows)
    dist.barrier()  # who leaves first can keep the other waiting for ever
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
