"""How long do two processes on one machine take for the gradients of one weight to a million?

`torchrun --nproc_per_node 2 -m benchmarks.all_reduce`; medians of 180. By gloo's sum, and by `SharedGradients`.
"""

import statistics
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import nn

from benchmarks.clock import now
from benchmarks.common import save
from lightning_rnn.distributed import share_gradients


def median_us(average: Callable[[], object]) -> str:
    """Return the microseconds that a call takes."""
    seconds = []
    for _ in range(200):
        begin = now()
        average()
        seconds.append(now() - begin)
    return f"{statistics.median(seconds[20:]) * 1e6:.0f}"


def row(size: int) -> dict[str, object]:
    """Return a row of the results, for the gradients of so many weights."""
    weight = nn.Parameter(torch.zeros(size))
    weight.grad = torch.zeros(size)
    shared = share_gradients([weight])
    assert shared is not None, "processes do not share memory here"
    in_ring = median_us(lambda: dist.all_reduce(weight.grad))
    return {"bytes": 4 * size, "sum_us": in_ring, "shared_us": median_us(shared.average)}


def main() -> None:
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    rows = [row(size) for size in (1, 1_153, 17_217, 67_000, 131_072, 262_144, 1_000_000)]
    if dist.get_rank() == 0:
        save("all_reduce", rows)
    dist.barrier()  # who leaves first can keep the other waiting for ever
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
