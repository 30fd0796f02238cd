"""Do networks learn as well when sequences of like length share a batch?

Trains with `configs/files.yaml` on a data set of yours, with and without, over seeds; one seed is one of weights, split
and order alike. Writes test accuracies and the mean of the paired differences with its standard error.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.common import HERE, save


def accuracy(train: Path, test: Path, buckets: bool, seed: int) -> float:
    """Return the test accuracy of one run."""
    shared = ["--trainer.accelerator", "cpu", "--trainer.logger", "false"]
    paths = ["--data.train_path", str(train.resolve()), "--data.test_path", str(test.resolve())]
    chosen = ["--data.buckets", str(buckets).lower(), "--seed_everything", str(seed), "--data.seed", str(seed)]
    program = [sys.executable, "-m", "lightning_rnn"]
    with tempfile.TemporaryDirectory() as folder:
        config = ["--config", str(HERE.parent / "configs" / "files.yaml")]
        for command in ([*program, "fit", *config, *paths, *chosen, *shared], [*program, "test", *shared]):
            subprocess.run(command, cwd=folder, check=True, capture_output=True)
        return float(json.loads(next(Path(folder).rglob("test_metrics.json")).read_text())["test/accuracy"])


def main(name: str, train: Path, test: Path, seeds: int = 20) -> None:
    found: dict[bool, list[float]] = {False: [], True: []}
    for seed in range(seeds):
        for buckets, accuracies in found.items():
            accuracies.append(accuracy(train, test, buckets, seed))
        print(seed, found[False][-1], found[True][-1], flush=True)
    differences = [with_ - without for without, with_ in zip(found[False], found[True], strict=True)]
    save(f"buckets_{name}", [{
        "data": name, "seeds": seeds, "shuffled": f"{statistics.mean(found[False]):.4f}",
        "in_buckets": f"{statistics.mean(found[True]):.4f}", "difference": f"{statistics.mean(differences):+.4f}",
        "standard_error": f"{statistics.stdev(differences) / seeds**0.5:.4f}",
    }])  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="of the data set, for the file of results")
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--seeds", type=int, default=20)
    main(**vars(parser.parse_args()))
