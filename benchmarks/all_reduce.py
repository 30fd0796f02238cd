"""How long do two processes on one machine take to add up a tensor, from one number to a million?

`torchrun --nproc_per_node 2 -m benchmarks.all_reduce`; medians of 180.
"""

import statistics

import torch
import torch.distributed as dist

from benchmarks.clock import now
from benchmarks.common import save


def main() -> None:
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    rows = []
    for size in (1, 1_153, 17_217, 67_000, 1_000_000):
        x, seconds = torch.zeros(size), []
        for _ in range(200):
            begin = now()
            dist.all_reduce(x)
            seconds.append(now() - begin)
        rows.append({"bytes": 4 * size, "us": f"{statistics.median(seconds[20:]) * 1e6:.0f}"})
    if dist.get_rank() == 0:
        save("all_reduce", rows)
    dist.barrier()  # who leaves first can keep the other waiting for ever
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
