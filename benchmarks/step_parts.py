"""Where do the microseconds of a training step go, at the published size?

The parts of the plain loop and ours are timed alone; `fit` as a whole beside them, without validation and checkpoints
in the time: what is left over is Lightning's loop.
"""

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import torch
from lightning_rnn.training.adam import lean_step
from torch import nn
from torch.nn.functional import binary_cross_entropy, binary_cross_entropy_with_logits
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.clock import now
from benchmarks.common import epoch_times, save
from lightning_rnn import SequenceClassifier, SyntheticDataModule
from lightning_rnn.data.sequences import SequenceBatch
from lightning_rnn.models.recurrent import CellName

STEPS = 32  # of an epoch


def part(run: Callable[[], Any], times: int = 300) -> float:
    """Return microseconds of one call."""
    found = []
    for _ in range(times):
        begin = now()
        run()
        found.append(now() - begin)
    return statistics.median(found[10:]) * 1e6


def parts(cell: CellName) -> dict[str, float]:
    """Return microseconds a step of each part."""
    torch.set_num_threads(1)
    data = SyntheticDataModule()
    loader = data.train_dataloader()
    batch: SequenceBatch = next(iter(loader))
    assert batch.y is not None
    x, y = batch.x, batch.y.float()
    collating = DataLoader(
        TensorDataset(torch.randn(1000, 10, 1), torch.zeros(1000, 1)), batch_size=32, shuffle=True
    )
    rnn, head = {"rnn": nn.RNN, "lstm": nn.LSTM}[cell](1, 32, batch_first=True), nn.Linear(32, 1)
    model = SequenceClassifier(cell=cell)
    plain_weights, weights = [*rnn.parameters(), *head.parameters()], [*model.parameters()]

    def plain() -> None:
        output = torch.sigmoid(head(rnn(x)[0][:, -1]))
        binary_cross_entropy(output, y[:, None]).backward()

    def ours() -> None:
        binary_cross_entropy_with_logits(model.network(x, batch.lengths), y).backward()

    def norm() -> None:
        gradients = [weight.grad.flatten() for weight in weights if weight.grad is not None]
        float(torch.linalg.vector_norm(torch.cat(gradients)))

    plain()
    ours()
    adam = torch.optim.Adam(weights, fused=True)
    adam.step()
    return {
        "plain: batch": part(lambda: list(collating), 20) / STEPS,
        "plain: forward and backward": part(plain),
        "plain: Adam": part(torch.optim.Adam(plain_weights).step),
        "ours: batch": part(lambda: list(loader), 60) / STEPS,
        "ours: forward and backward": part(ours),
        "ours: gradient norm": part(norm),
        "torch's step of Adam, fused": part(adam.step),
        "ours: Adam, its kernel": part(lean_step(adam)),
    }


def main(runs: int = 3) -> None:
    rows = []
    cells: tuple[CellName, ...] = ("rnn", "lstm")
    for cell in cells:
        found = parts(cell)
        command = ["-m", "lightning_rnn", "fit", "--model.cell", cell, "--trainer.max_epochs", "20"]
        for name, more in (
            ("ours: fit", []),
            ("ours: fit without validation", ["--trainer.limit_val_batches", "0"]),
        ):
            seconds = [statistics.median(epoch_times([*command, *more])[1:]) for _ in range(runs)]
            found[name] = statistics.median(seconds) / STEPS * 1e6
        rows += [
            {"cell": cell, "part": name, "us_per_step": f"{value:.0f}"}
            for name, value in found.items()
        ]
    save("step_parts", rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    main(**vars(parser.parse_args()))
