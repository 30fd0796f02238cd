"""What do two processes wait for in a step of DistributedDataParallel: for each other, or for the gradients' sum?

`torchrun --nproc_per_node 2 -m benchmarks.waiting`; mid size (T = 100, H = 64, B = 64), LSTM, one thread each. Both
stamp when a step's gradients are ready and when their sum is there, by the machine's one clock.
"""

import statistics
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.clock import now
from benchmarks.common import save
from lightning_rnn.models.network import SequenceNetwork

STEPS, SKIPPED = 220, 20


def step_times(model: nn.Module, steps: int) -> list[float]:
    """Return the seconds of each step."""
    x, lengths, times = torch.randn(64, 100, 1), torch.full((64,), 100), []
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    for _ in range(steps):
        begin = now()
        optimizer.zero_grad()
        model(x, lengths).square().mean().backward()
        optimizer.step()
        times.append(now() - begin)
    return times[SKIPPED:]


def main() -> None:
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    network = SequenceNetwork(input_size=1, num_classes=2, cell="lstm", hidden_size=64)
    alone = statistics.mean(step_times(network, STEPS))
    stamps: list[tuple[float, float]] = []  # gradients ready, their sum there

    def hook(_: None, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        total, ready = bucket.buffer().div_(dist.get_world_size()), now()
        dist.all_reduce(total)  # all gradients are one bucket: there is nothing to do meanwhile
        stamps.append((ready, now()))
        summed: torch.futures.Future[Tensor] = torch.futures.Future()
        summed.set_result(total)
        return summed

    model = DistributedDataParallel(network)
    model.register_comm_hook(None, hook)
    together = statistics.mean(step_times(model, STEPS))
    all_stamps: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(all_stamps, stamps[SKIPPED:])
    if dist.get_rank() == 0:
        steps = [zip(*each, strict=True) for each in zip(*all_stamps, strict=True)]
        apart, summing = zip(
            *((max(ready) - min(ready), max(there) - max(ready)) for ready, there in steps), strict=True
        )
        save("waiting", [
            {"what": what, "mean_ms": f"{statistics.mean(times) * 1e3:.2f}",
             "median_ms": f"{statistics.median(times) * 1e3:.2f}"}
            for what, times in (
                ("a step without the other's gradients", [alone]),
                ("a step with them", [together]),
                ("of it from the quicker's to the slower's gradients", apart),
                ("of it from the slower's gradients to their sum", summing),
            )
        ])  # fmt: skip
    dist.barrier()  # who leaves first can keep the other waiting for ever
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
