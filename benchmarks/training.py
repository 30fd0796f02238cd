"""How long does `fit` train, against plain loops for the same work?

Each case runs both in turns of five epochs, as processes with one thread. Ours validates in each epoch, writes
TensorBoard events and checkpoints and prints what it always does; what the plain loops do is said in their files. The
first epoch of a turn does not count, see `turns`.
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.common import ratio, save
from benchmarks.turns import counted, taking_turns


class Case(NamedTuple):
    """Commands to compare: arguments of `python` each, without the number of epochs."""

    name: str
    epochs: int
    plain: list[str]
    ours: list[str]


def seed(cell: str) -> Case:
    """The published experiment, against the published loop: N = 1,000, T = 10, H = 32, B = 32."""
    return Case(
        f"seed {cell}",
        15,
        ["-m", "benchmarks.plain_seed", cell, "{epochs}"],
        ["--model.cell", cell],
    )


def fixed(
    name: str,
    cell: str,
    *,
    epochs: int = 3,
    steps: int,
    train: int,
    hidden: int = 64,
    batch: int = 64,
    device: str,
) -> Case:
    """Sequences of one length, against the best plain loop; a quarter as many are for validation."""
    val = train // 4
    plain = [
        "-m",
        "benchmarks.plain_best",
        cell,
        *map(str, (steps, train, val, hidden, batch)),
        "{epochs}",
        device,
    ]
    ours = {
        "--model.cell": cell, "--model.hidden_size": hidden, "--data.length": steps, "--data.num_train": train,
        "--data.num_val": val, "--data.batch_size": batch, "--trainer.accelerator": device.replace("cuda", "gpu"),
    }  # fmt: skip
    return Case(
        f"{name} {cell}", epochs, plain, [str(word) for pair in ours.items() for word in pair]
    )


def ragged(folder: Path, bidirectional: bool, buckets: bool = False) -> Case:
    """Lengths 6 to 92 and F = 13, as the spoken digits have, against packing and collating; H = 64, B = 64."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 2400), ("val", 600)):
        lengths, y = rng.integers(6, 93, count), rng.integers(0, 2, count)
        x = (
            rng.standard_normal((lengths.sum(), 13), dtype=np.float32)
            + np.repeat(y, lengths)[:, None] * 0.2
        )
        np.savez(folder / f"{part}.npz", X=x.astype(np.float32), lengths=lengths, y=y)
    train, val = str(folder / "train.npz"), str(folder / "val.npz")
    plain = [
        "-m",
        "benchmarks.plain_packed",
        train,
        "64",
        "64",
        "{epochs}",
        str(int(bidirectional)),
    ]
    ours = {
        "--data": "FileDataModule", "--data.train_path": train, "--data.val_path": val, "--data.batch_size": "64",
        "--model.cell": "lstm", "--model.hidden_size": "64", "--model.bidirectional": str(bidirectional).lower(),
        "--data.buckets": str(buckets).lower(),
    }  # fmt: skip
    words = [word for pair in ours.items() for word in pair]
    name = (
        f"ragged lstm {'two-way' if bidirectional else 'one-way'}{', buckets' if buckets else ''}"
    )
    return Case(name, 10, plain, words)


def compare(case: Case, runs: int) -> dict[str, Any]:
    """Run both in turn and return a row of results."""
    fit = ["-m", "lightning_rnn", "fit", "--trainer.max_epochs", str(case.epochs), *case.ours]
    both = {
        "plain": ([[word.format(epochs=case.epochs) for word in case.plain]], 1),
        "ours": ([[*fit, "--trainer.callbacks+=benchmarks.clock.InTurns"]], 1),
    }
    plain, ours = [], []
    for _ in range(runs):
        seconds = taking_turns(both, case.epochs)
        plain.extend(seconds["plain"])
        ours.extend(seconds["ours"])
    spread = [a / b for a, b in zip(ours, plain, strict=True)]
    print(f"{case.name}: {ratio(ours, plain):.2f}", flush=True)
    return {
        "case": case.name,
        "plain_ms_per_epoch": f"{statistics.median(plain) / counted(case.epochs) * 1e3:.1f}",
        "ours_ms_per_epoch": f"{statistics.median(ours) / counted(case.epochs) * 1e3:.1f}",
        "ratio": f"{ratio(ours, plain):.2f}",
        "lowest_ratio": f"{min(spread):.2f}",
        "highest_ratio": f"{max(spread):.2f}",
        "runs": runs,
    }


def main(runs: int = 5, device: str = "cpu", only: str = "", more: bool = False) -> None:
    with tempfile.TemporaryDirectory() as folder:
        cases = [
            *(seed(cell) for cell in ("rnn", "lstm")),
            # as many epochs as by default: of the first three, two are looked into for gradients through time; so below
            *(
                fixed("mid", cell, epochs=10, steps=100, train=4096, device=device)
                for cell in ("rnn", "lstm", "gru")
            ),
            *(ragged(Path(folder), bidirectional) for bidirectional in (False, True)),
        ]
        if more:
            cases += [ragged(Path(folder), False, buckets=True)]
            cases += [
                fixed("long", cell, steps=1000, train=512, device=device)
                for cell in ("rnn", "lstm", "gru")
            ]
        if device != "cpu":
            cases = [fixed("wide", cell, steps=512, train=8192, hidden=256, batch=256, device=device)
                     for cell in ("rnn", "lstm", "gru")]  # fmt: skip
        rows = [compare(case, runs) for case in cases if only in case.name]
    words = [
        "training",
        *([device] if device != "cpu" else []),
        *([only.replace(" ", "_")] if only else []),
    ]
    save("_".join(words), rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument(
        "--more", action="store_true", help="also longer sequences, and batches of like length"
    )
    main(**vars(parser.parse_args()))
