"""Do networks learn as well when sequences of like length share a batch?

`python -m benchmarks.buckets NAME [--first SEED] [--seeds N] FIT_ARGUMENT...` trains with these arguments of `fit`, in
buckets and without, over seeds; one seed is one of weights, data and order alike. Writes mean test accuracies, and the
mean of the paired differences with its standard error.
"""

import argparse
import io
import json
import statistics
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from benchmarks.common import save
from lightning_rnn.__main__ import main as program


def accuracy(fit: list[str], buckets: bool, seed: int) -> float:
    """Return the test accuracy of one run."""
    chosen = ["--data.buckets", str(buckets).lower(), "--seed_everything", str(seed), "--data.seed", str(seed)]
    with tempfile.TemporaryDirectory() as folder:
        shared = ["--trainer.accelerator", "cpu", "--trainer.logger", "false", "--trainer.default_root_dir", folder]
        _run(["fit", *fit, *chosen, *shared])
        _run(["test", "--ckpt_path", str(next(Path(folder).rglob("best.ckpt"))), *shared])
        return float(json.loads(next(Path(folder).rglob("test_metrics.json")).read_text())["test/accuracy"])


def _run(command: list[str]) -> None:
    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        status = program(command)
    if status:
        raise RuntimeError(f"{command} ended with {status}: {printed.getvalue()}")


def main(name: str, fit: list[str], first: int = 0, seeds: int = 20) -> None:
    found: dict[bool, list[float]] = {False: [], True: []}
    for seed in range(first, first + seeds):
        for buckets, accuracies in found.items():
            accuracies.append(accuracy(fit, buckets, seed))
        print(seed, found[False][-1], found[True][-1], flush=True)
    differences = [ours - plain for plain, ours in zip(found[False], found[True], strict=True)]
    save(f"buckets_{name}", [{
        "data": name, "fit": " ".join(word.rpartition("/")[2] for word in fit),
        "seeds": f"{first} to {first + seeds - 1}", "shuffled": f"{statistics.mean(found[False]):.4f}",
        "in_buckets": f"{statistics.mean(found[True]):.4f}", "difference": f"{statistics.mean(differences):+.4f}",
        "standard_error": f"{statistics.stdev(differences) / seeds**0.5:.4f}",
    }])  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("name", help="of the case, for the file of results")
    parser.add_argument("--first", type=int, default=0, help="seed")
    parser.add_argument("--seeds", type=int, default=20)
    known, fit_arguments = parser.parse_known_args()
    main(fit=fit_arguments, **vars(known))
