"""Do networks learn as well with another value of an option, sequences of like length in a batch or bfloat16?

`python -m benchmarks.accuracy NAME OPTION VALUE OTHER [--first SEED] [--seeds N] [--device cpu|gpu] FIT_ARGUMENT...`
trains with these arguments of `fit` and both values, `data.buckets false true` for instance, over seeds; one seed is
one of weights, data and order alike. Writes mean test accuracies, and the mean of the paired differences with its
standard error.
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


def accuracy(fit: list[str], seed: int, device: str) -> float:
    """Return the test accuracy of one run."""
    chosen = ["--seed_everything", str(seed), "--data.seed", str(seed)]
    with tempfile.TemporaryDirectory() as folder:
        shared = [
            "--trainer.accelerator",
            device,
            "--trainer.logger",
            "false",
            "--trainer.default_root_dir",
            folder,
        ]
        _run(["fit", *fit, *chosen, *shared])
        _run(["test", "--ckpt_path", str(next(Path(folder).rglob("best.ckpt"))), *shared])
        return float(
            json.loads(next(Path(folder).rglob("test_metrics.json")).read_text())["test/accuracy"]
        )


def _run(command: list[str]) -> None:
    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        status = program(command)
    if status:
        raise RuntimeError(f"{command} ended with {status}: {printed.getvalue()}")


def main(
    name: str,
    option: str,
    value: str,
    other: str,
    fit: list[str],
    first: int = 0,
    seeds: int = 20,
    device: str = "cpu",
) -> None:
    found: list[tuple[float, float]] = []
    for seed in range(first, first + seeds):
        one, two = (
            accuracy([*fit, f"--{option}", chosen], seed, device) for chosen in (value, other)
        )
        found.append((one, two))
        print(seed, one, two, flush=True)
    differences = [two - one for one, two in found]
    means = [statistics.mean(accuracies) for accuracies in zip(*found, strict=True)]
    save(f"accuracy_{name}", [{
        "case": name, "fit": " ".join(word.rpartition("/")[2] for word in fit), "device": device, "option": option,
        "value": value, "other": other, "seeds": f"{first} to {first + seeds - 1}", "accuracy": f"{means[0]:.4f}",
        "others_accuracy": f"{means[1]:.4f}", "difference": f"{statistics.mean(differences):+.4f}",
        "standard_error": f"{statistics.stdev(differences) / seeds**0.5:.4f}",
    }])  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("name", help="of the case, for the file of results")
    parser.add_argument("option", help="of fit, without its dashes")
    parser.add_argument("value")
    parser.add_argument("other")
    parser.add_argument("--first", type=int, default=0, help="seed")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    known, fit_arguments = parser.parse_known_args()
    main(fit=fit_arguments, **vars(known))
