"""How fast does a folder of .npy files train, and in how much memory, against the same values in memory?

Each is a `fit` of its own process, in turn: `file` on the folder, `memory` on an uncompressed .npz file, `tiny` on a
hundred sequences, whose peak memory is what everything but the data takes. The file cache is warm.
"""

import argparse
import io
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np

from benchmarks.common import HERE, SKIPPED, save

STEPS, FEATURES = 100, 10


def write(folder: Path, sequences: int) -> None:
    """Write the folder `file` and the archives `memory.npz`, equal in content, and `tiny.npz`.

    Piece by piece: the peak memory of a child counts what its parent has when it starts.
    """
    (folder / "file").mkdir()
    labels = np.arange(sequences) % 2
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (sequences, STEPS, FEATURES)}
    )
    with (
        (folder / "file" / "values.npy").open("wb") as file,
        zipfile.ZipFile(folder / "memory.npz", "w") as archive,
    ):
        with archive.open("X.npy", "w", force_zip64=True) as member:
            for out in (file, member):
                out.write(header.getvalue())
            for start in range(0, sequences, 10_000):
                part = values(start, min(10_000, sequences - start))
                for out in (file, member):
                    out.write(part.tobytes())
        with archive.open("y.npy", "w") as member:
            np.save(member, labels)
    np.save(folder / "file" / "labels.npy", labels)
    (folder / "file" / "checked").touch()  # as after `pack`
    np.savez(folder / "tiny.npz", X=values(0, 100), y=labels[:100])


def values(start: int, count: int) -> np.ndarray:
    """Return (count, T, F) numbers from N(0, 1), the first feature slightly above in every other sequence."""
    found = np.random.default_rng(start).standard_normal((count, STEPS, FEATURES), dtype=np.float32)
    found[1::2, :, 0] += 0.1
    return found


def once(folder: Path, what: str, batch_size: int, batches: int, device: str) -> tuple[float, ...]:
    """Return microseconds a sequence, those of the processor (which others slow less), peak MiB and seconds in all."""
    path = folder / (what if what == "file" else f"{what}.npz")
    options = {
        "--data": "FileDataModule", "--data.train_path": path, "--data.val_fraction": 0,
        "--data.batch_size": min(batch_size, 100), "--trainer.max_steps": batches + SKIPPED, "--trainer.max_epochs": -1,
        "--trainer.accelerator": device, "--trainer.callbacks": "benchmarks.clock.BatchTimes",
        "--trainer.logger": "false",
    }  # fmt: skip
    command = [
        sys.executable,
        "-m",
        "lightning_rnn",
        "fit",
        *(str(word) for pair in options.items() for word in pair),
    ]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryDirectory() as cwd:
        begin = time.perf_counter()
        paths = {"PYTHONPATH": str(HERE.parent)}
        process = subprocess.Popen(
            command, cwd=cwd, stdout=out, stderr=subprocess.STDOUT, env=os.environ | paths
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begin
        out.seek(0)
        text = out.read()
    found = re.search(r"batch median (\S+) (\S+)", text)
    if status != 0 or found is None:
        raise RuntimeError(f"{command} ended with {status}: {text}")
    peak = usage.ru_maxrss / (1024 if sys.platform == "linux" else 2**20)
    per_sequence = 1e6 / min(batch_size, 100)
    return float(found[1]) * per_sequence, float(found[2]) * per_sequence, peak, wall


def main(
    gigabytes: float = 0.25,
    runs: int = 3,
    batch_size: int = 64,
    batches: int = 300,
    device: str = "cpu",
) -> None:
    sequences = round(gigabytes * 1e9 / (4 * STEPS * FEATURES))
    found: dict[str, list[tuple[float, ...]]] = {"tiny": [], "memory": [], "file": []}
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), sequences)
        for _ in range(runs):
            for what, results in found.items():
                results.append(once(Path(name), what, batch_size, batches, device))
    medians = {
        what: [statistics.median(column) for column in zip(*r, strict=True)]
        for what, r in found.items()
    }
    rows = []
    for what, (per_sequence, cpu, peak, wall) in medians.items():
        rows.append({
            "what": what, "gigabytes": gigabytes, "batch_size": batch_size, "device": device,
            "us_per_sequence": f"{per_sequence:.1f}" if what != "tiny" else "",  # an epoch of it is one batch
            "ratio": f"{per_sequence / medians['memory'][0]:.2f}" if what != "tiny" else "",
            "cpu_us_per_sequence": f"{cpu:.1f}" if what != "tiny" else "",
            "cpu_ratio": f"{cpu / medians['memory'][1]:.2f}" if what != "tiny" else "",
            "peak_mib": f"{peak:.0f}", "above_tiny_mib": f"{peak - medians['tiny'][2]:.0f}", "wall_s": f"{wall:.1f}",
            "runs": runs,
        })  # fmt: skip
    save("larger_than_memory", rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--batches", type=int, default=300)
    parser.add_argument("--device", default="cpu")
    main(**vars(parser.parse_args()))
