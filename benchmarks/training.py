"""How fast does `fit` train?

    python -m benchmarks.training --case mid         # without --case: all but wide
    python -m benchmarks.training --case wide --device cuda

published: the published script, against the default `fit`; 1,000 sequences of 10 steps.
mid: the best plain loop, against `fit`; 4,096 sequences of 100 steps, H = 64, B = 64.
wide: the same with 8,192 sequences of 512 steps, H = 256, B = 256.
ragged: an LSTM over packed sequences, against `fit`; 2,400 sequences of 6 to 92 steps.
ranks: one process, against two that share the sequences; the LSTM of `mid`.
monitoring: `fit` without TensorBoard and calibration, by default, and with figures in each epoch.
small: the training steps alone, against `fit` with `configs/files.yaml`, with and without a
    validation file; 2,000 steps on 20 sequences of 24 steps, three steps an epoch.
sizes: 10,000 sequences of 10 steps, against 1,000, 100,000 and 1,000,000; B = 256.

`fit` validates after each epoch, writes TensorBoard events and checkpoints, and prints its usual
lines.
"""

import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.harness import ROOT, Side, card_suffix, compare, options_of, save

CASES = ("published", "mid", "ragged", "ranks", "monitoring", "small", "sizes")
CELLS = ("rnn", "lstm", "gru")
FIT = ["-m", "lightning_rnn", "fit"]
BASELINE = ["-m", "benchmarks.baselines"]
TINY = {"steps": 5, "sequences": 64, "hidden": 4, "batch": 32, "epochs": 2}
MID = {"steps": 100, "sequences": 4096, "hidden": 64, "batch": 64, "epochs": 10}
WIDE = {"steps": 512, "sequences": 8192, "hidden": 256, "batch": 256, "epochs": 3}


def flags(options: dict[str, object]) -> list[str]:
    return [f"--{name}={value}" for name, value in options.items()]


def published(cell: str, epochs: int) -> list[Side]:
    script = [*BASELINE, "published", *flags({"cell": cell, "epochs": epochs})]
    fit = [*FIT, *flags({"model.cell": cell, "trainer.max_epochs": epochs})]
    return [Side("published script", script, 1000), Side("fit", fit, 1000)]


def fit_side(name: str, cell: str, shape: dict[str, int], **trainer: object) -> Side:
    """Return a `fit` of the same work as the loop `best`."""
    options: dict[str, object] = {
        "model.cell": cell,
        "model.hidden_size": shape["hidden"],
        "data.length": shape["steps"],
        "data.num_train": shape["sequences"],
        "data.num_val": shape["sequences"] // 4,
        "data.batch_size": shape["batch"],
        "trainer.max_epochs": shape["epochs"],
    }
    options |= {f"trainer.{option}": value for option, value in trainer.items()}
    return Side(name, [*FIT, *flags(options)], shape["sequences"])


def fixed_length(cell: str, shape: dict[str, int], device: str) -> list[Side]:
    loop = [*BASELINE, "best", *flags({"cell": cell, "device": device, **shape})]
    fit = fit_side("fit", cell, shape, accelerator=device.replace("cuda", "gpu"))
    return [Side("best plain loop", loop, shape["sequences"]), fit]


def ranks(shape: dict[str, int]) -> list[Side]:
    one = fit_side("1 rank", "lstm", shape, accelerator="cpu")
    two = fit_side("2 ranks", "lstm", shape, accelerator="cpu", devices=2, strategy="ddp")
    return [one, two]


def write_ragged(path: Path, sequences: int, seed: int) -> None:
    """Write sequences of 6 to 92 steps with 13 features, the shape of the spoken digits."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(6, 93, sequences)
    y = rng.integers(0, 2, sequences)
    x = rng.standard_normal((lengths.sum(), 13), dtype=np.float32)
    x += 0.2 * np.repeat(y, lengths)[:, None].astype(np.float32)
    np.savez(path, X=x, lengths=lengths, y=y)


def ragged(folder: Path, direction: str, sequences: int, epochs: int) -> list[Side]:
    train_path = folder / "train.npz"
    val_path = folder / "val.npz"
    write_ragged(train_path, sequences, seed=0)
    write_ragged(val_path, sequences // 4, seed=1)
    packed = [*BASELINE, "packed", str(train_path), f"--epochs={epochs}"]
    options = {
        "preset": "tutorial",
        "data.train_path": train_path,
        "data.val_path": val_path,
        "data.batch_size": 64,
        "model.cell": "lstm",
        "model.hidden_size": 64,
        "trainer.max_epochs": epochs,
    }
    fit = [*FIT, *flags(options)]
    if direction == "two-way":
        packed.append("--bidirectional")
        fit.append("--model.bidirectional=true")
    return [Side("packed sequences", packed, sequences), Side("fit", fit, sequences)]


def monitoring(epochs: int) -> list[Side]:
    fit = [*FIT, f"--config={ROOT / 'configs/lstm.yaml'}", f"--trainer.max_epochs={epochs}"]
    without = [*fit, "--trainer.logger=false", "--calibrate.when=never"]
    every_epoch = [*fit, "--figures.every_n_epochs=1", "--gradient_flow.every_n_epochs=1"]
    return [
        Side("without", without, 1000),
        Side("default", fit, 1000),
        Side("figures in each epoch", every_epoch, 1000),
    ]


def small(folder: Path, steps: int) -> list[Side]:
    """Return the sides without a number of sequences, as not every epoch prints a line."""
    rng = np.random.default_rng(0)
    y = np.arange(20) % 2
    for name in ("train", "val"):
        x = rng.standard_normal((20, 24, 1), dtype=np.float32) + 0.8 * (2 * y[:, None, None] - 1)
        np.savez(folder / f"{name}.npz", X=x, y=y)
    config = ROOT / "configs/files.yaml"
    train_path = folder / "train.npz"
    alone = [*BASELINE, "steps", str(config), str(train_path), f"--steps={steps}"]
    options = {"config": config, "data.train_path": train_path, "trainer.max_steps": steps}
    fit = [*FIT, *flags(options)]
    return [
        Side("steps alone", alone, 0),
        Side("fit", [*fit, f"--data.val_path={folder / 'val.npz'}"], 0),
        Side("fit without validation", fit, 0),
    ]


def size(sequences: int) -> Side:
    options = {
        "data.num_train": sequences,
        "data.num_val": sequences // 10,
        "data.batch_size": 256,
        "trainer.max_epochs": 8 if sequences <= 10_000 else 2,
    }
    return Side(f"{sequences:,} sequences", [*FIT, *flags(options)], sequences)


def comparisons(case: str, folder: Path, device: str, quick: bool) -> dict[str, list[Side]]:
    """Return the sides to compare, by title."""
    epochs = 2 if quick else 10
    shape = WIDE if case == "wide" else MID
    if quick:
        shape = TINY
    if case == "published":
        return {f"published {cell}": published(cell, epochs) for cell in ("rnn", "lstm")}
    if case == "ragged":
        sequences = 64 if quick else 2400
        directions = ("one-way", "two-way")
        return {f"ragged {name}": ragged(folder, name, sequences, epochs) for name in directions}
    sides_of = {
        "ranks": partial(ranks, shape),
        "monitoring": partial(monitoring, epochs),
        "small": partial(small, folder, 20 if quick else 2000),
    }
    if case in sides_of:
        return {case: sides_of[case]()}
    if case == "sizes":
        numbers = (100, 10) if quick else (10_000, 1_000, 100_000, 1_000_000)
        return {case: [size(number) for number in numbers]}
    return {f"{case} {cell}": fixed_length(cell, shape, device) for cell in CELLS}


def main(case: str | None = None, runs: int = 5, device: str = "cpu", quick: bool = False) -> None:
    for name in CASES if case is None else (case,):
        rows = []
        with tempfile.TemporaryDirectory() as folder:
            for title, sides in comparisons(name, Path(folder), device, quick).items():
                rows += compare(title, sides, runs, warm_up=0 if quick else 1)
        save(f"training_{name}{card_suffix(device)}", rows, quick=quick)


if __name__ == "__main__":
    parser = options_of(__doc__, runs=5)
    parser.add_argument("--case", choices=[*CASES, "wide"])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    main(**vars(parser.parse_args()))
