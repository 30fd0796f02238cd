"""What do two processes wait for in a step that averages their gradients: for each other, or for the gradients?

`torchrun --nproc_per_node 2 -m benchmarks.waiting`; mid size (T = 100, H = 64, B = 64), LSTM, one thread each. Steps
without each other's gradients, with DistributedDataParallel and with `SharedGradients` take turns, a few at a time.
With the last, both processes stamp when their gradients are ready and when the averages are there, by the machine's
one clock.
"""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.clock import now
from benchmarks.common import ratio, save
from lightning_rnn.distributed import share_gradients
from lightning_rnn.models.network import SequenceNetwork

ROUNDS, STEPS, SKIPPED = (
    60,
    8,
    3,
)  # so many rounds of so many steps each; the first rounds do not count


def stepping(model: nn.Module, then: Callable[[], None]) -> Callable[[], None]:
    """Return a training step, which calls a function when it has its gradients."""
    x, lengths = torch.randn(64, 100, 1), torch.full((64,), 100)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)

    def step() -> None:
        optimizer.zero_grad()
        model(x, lengths).square().mean().backward()
        then()
        optimizer.step()

    return step


def row(what: str, seconds: Sequence[float], to_first: float | None = None) -> dict[str, str]:
    """Return a row of the results."""
    mean, median = statistics.mean(seconds), statistics.median(seconds)
    found = {"mean_ms": f"{mean * 1e3:.2f}", "median_ms": f"{median * 1e3:.2f}"}
    return {"what": what, **found, "ratio": "" if to_first is None else f"{to_first:.2f}"}


def main() -> None:
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    alone, wrapped, ours = (
        SequenceNetwork(input_size=1, num_classes=2, cell="lstm", hidden_size=64) for _ in range(3)
    )
    shared, stamps = share_gradients(list(ours.parameters())), []
    assert shared is not None, "processes do not share memory here"

    def averaged() -> None:
        ready = now()
        shared.average()
        stamps.append((ready, now()))

    ways = {
        "for itself": stepping(alone, lambda: None),
        "with DistributedDataParallel": stepping(DistributedDataParallel(wrapped), lambda: None),
        "with SharedGradients": stepping(ours, averaged),
    }
    seconds: dict[str, list[float]] = {what: [] for what in ways}
    for _ in range(ROUNDS):
        for what, step in ways.items():
            dist.barrier()
            begin = now()
            for _ in range(STEPS):
                step()
            seconds[what].append((now() - begin) / STEPS)
    of_all: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(of_all, (seconds, stamps))
    if dist.get_rank() == 0:
        slower = {
            what: [max(pair) for pair in zip(*(one[what] for one, _ in of_all), strict=True)]
            for what in ways
        }
        steps = [zip(*each, strict=True) for each in zip(*(one for _, one in of_all), strict=True)]
        apart, averaging = zip(*((max(a) - min(a), max(b) - max(a)) for a, b in steps), strict=True)
        first = slower["for itself"][SKIPPED:]
        rows = [
            row(what, found[SKIPPED:], ratio(found[SKIPPED:], first))
            for what, found in slower.items()
        ]
        begun = SKIPPED * STEPS
        rows.append(row("of it from the quicker's to the slower's gradients", apart[begun:]))
        rows.append(row("of it from the slower's gradients to the averages", averaging[begun:]))
        save("waiting", rows)
    dist.barrier()  # who leaves first can keep the other waiting for ever
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
