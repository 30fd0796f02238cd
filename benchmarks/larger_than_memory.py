"""How fast does a folder of .npy files train, and in how much RAM, against an .npz file?

Three sides: `memory` reads an uncompressed .npz file, `file` the folder, and `tiny` a hundred
sequences, whose peak memory is what everything but the data needs. The file cache is warm.
"""

import tempfile
import zipfile
from pathlib import Path

import numpy as np

from benchmarks.harness import Side, compare, options_of, save
from lightning_rnn.data.readers.checked_folders import mark_as_checked

STEPS = 100
FEATURES = 10
CHUNK = 10_000  # sequences written at a time; the peak memory of a child counts that of its parent
TINY = 100


def random_sequences(start: int, count: int) -> np.ndarray:
    """Return (count, T, F) normal values; one feature of every other sequence is shifted."""
    rng = np.random.default_rng(start)
    x = rng.standard_normal((count, STEPS, FEATURES), dtype=np.float32)
    x[1::2, :, 0] += 0.1
    return x


def write_files(folder: Path, sequences: int) -> None:
    """Write the folder `file`, `memory.npz` with the same content, and `tiny.npz`."""
    labels = np.arange(sequences) % 2
    header = {"descr": "<f4", "fortran_order": False, "shape": (sequences, STEPS, FEATURES)}
    (folder / "file").mkdir()
    with (folder / "file/values.npy").open("wb") as values:
        np.lib.format.write_array_header_1_0(values, header)
        for start in range(0, sequences, CHUNK):
            values.write(random_sequences(start, min(CHUNK, sequences - start)).tobytes())
    np.save(folder / "file/labels.npy", labels)
    mark_as_checked(folder / "file")  # as `pack` does: the values need no check
    with zipfile.ZipFile(folder / "memory.npz", "w") as archive:
        archive.write(folder / "file/values.npy", "X.npy")
        archive.write(folder / "file/labels.npy", "y.npy")
    np.savez(folder / "tiny.npz", X=random_sequences(0, TINY), y=labels[:TINY])


def side(name: str, path: Path, batches: int, batch_size: int, device: str) -> Side:
    """Return a `fit` of three epochs, each of the first batches of a new random order."""
    options = {
        "preset": "tutorial",
        "data.train_path": path,
        "data.val_fraction": 0,
        "data.batch_size": batch_size,
        "trainer.max_epochs": 3,
        "trainer.limit_train_batches": batches,
        "trainer.accelerator": device,
        "trainer.logger": "false",
    }
    flags = [f"--{option}={value}" for option, value in options.items()]
    return Side(name, ["-m", "lightning_rnn", "fit", *flags], sequences=batches * batch_size)


def main(
    gigabytes: float = 4.0,
    runs: int = 3,
    batch_size: int = 64,
    batches: int = 300,
    device: str = "cpu",
    quick: bool = False,
) -> None:
    if quick:
        gigabytes, batches = 0.004, 10
    sequences = round(gigabytes * 1e9 / (4 * STEPS * FEATURES))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder, sequences)
        sides = [
            side("memory", folder / "memory.npz", batches, batch_size, device),
            side("file", folder / "file", batches, batch_size, device),
            side("tiny", folder / "tiny.npz", 1, min(batch_size, TINY), device),
        ]
        rows = compare(f"{gigabytes} GB", sides, runs, warm_up=0)
    save("larger_than_memory", rows, quick=quick)


if __name__ == "__main__":
    parser = options_of(__doc__, runs=3)
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--batches", type=int, default=300, help="per epoch")
    parser.add_argument("--device", default="cpu")
    main(**vars(parser.parse_args()))
