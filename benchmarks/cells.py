"""What does one training step of each cell cost, from short sequences to long ones?

Forward and backward of one layer, H = 64, two features, loss on the last state; torch's own layers beside ours.
"""

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.clock import now
from benchmarks.common import save
from lightning_rnn.models.recurrent import CELLS, RecurrentLayer

TORCHS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


def step(layer: nn.Module, x: torch.Tensor) -> Callable[[], None]:
    def run() -> None:
        output = layer(x)
        output = output if isinstance(output, torch.Tensor) else output[0]
        output[:, -1].sum().backward()

    return run


def main(
    runs: int = 5, device: str = "cpu", hidden: int = 64, threads: int = 1, quick: bool = False
) -> None:
    torch.set_num_threads(threads)
    sizes = [(100, 64), (1024, 32), (4096, 16)] + (
        [] if device == "cpu" else [(512, 64), (16384, 16)]
    )
    rows: list[dict[str, Any]] = []
    for steps, batch in sizes[:2] if quick else sizes:
        x = torch.randn(batch, steps, 2, device=device)
        candidates = {f"torch {name}": step(make(2, hidden, batch_first=True).to(device), x)
                      for name, make in TORCHS.items()}  # fmt: skip
        candidates |= {name: step(RecurrentLayer(name, 2, hidden).to(device), x) for name in CELLS}
        found: dict[str, list[float]] = {name: [] for name in candidates}
        for number in range(runs + 1):
            for name, run in candidates.items():
                begin = now()
                run()
                if number > 0:  # the first one warms up
                    found[name].append(now() - begin)
        for name, seconds in found.items():
            against = [a / b for a, b in zip(seconds, found["torch lstm"], strict=True)]
            rows.append({
                "cell": name, "T": steps, "B": batch, "H": hidden, "device": device, "threads": threads,
                "ms": f"{statistics.median(seconds) * 1e3:.1f}", "ratio_to_lstm": f"{statistics.median(against):.2f}",
                "runs": runs,
            })  # fmt: skip
    save("cells" if device == "cpu" else "cells_cuda", rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    main(**vars(parser.parse_args()))
