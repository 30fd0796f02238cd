"""Does another value of an option change the accuracy, and by how much more than the seed does?

    python -m benchmarks.accuracy NAME OPTION VALUE OTHER [--device cpu|cuda] FIT_ARGUMENT...

trains with the given arguments of `fit` and with both values (`data.buckets false true`, for
instance), once per seed; the seed sets weights, data and order. Writes the mean test accuracies
and the mean of the paired differences with its standard error.
"""

import io
import json
import statistics
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from benchmarks.harness import card_suffix, options_of, save
from lightning_rnn.__main__ import main as run_command_line


def run(command: list[str]) -> None:
    """Run a command in this process.

    Raises:
        RuntimeError: If it fails.
    """
    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        exit_code = run_command_line(command)
    if exit_code != 0:
        raise RuntimeError(f"{command} failed: {printed.getvalue()}")


def accuracy_of(fit: list[str], seed: int, device: str) -> float:
    """Train, test, and return the test accuracy."""
    seeds = [f"--seed_everything={seed}", f"--data.seed={seed}"]
    with tempfile.TemporaryDirectory() as folder:
        trainer = [f"--trainer.accelerator={device}", f"--trainer.default_root_dir={folder}"]
        trainer.append("--trainer.logger=false")
        run(["fit", *fit, *seeds, *trainer])
        checkpoint = next(Path(folder).rglob("best.ckpt"))
        run(["test", f"--ckpt_path={checkpoint}", *trainer])
        metrics = json.loads(next(Path(folder).rglob("test_metrics.json")).read_text())
    return float(metrics["test/accuracy"])


def main(
    name: str,
    option: str,
    value: str,
    other: str,
    fit: list[str],
    first: int = 0,
    runs: int = 20,
    device: str = "cpu",
    quick: bool = False,
) -> None:
    accuracies = []
    others = []
    for seed in range(first, first + runs):
        accuracies.append(accuracy_of([*fit, f"--{option}={value}"], seed, device))
        others.append(accuracy_of([*fit, f"--{option}={other}"], seed, device))
        print(seed, accuracies[-1], others[-1], flush=True)
    differences = [after - before for before, after in zip(accuracies, others, strict=True)]
    error = statistics.stdev(differences) / runs**0.5 if runs > 1 else float("nan")
    words = [word.rpartition("/")[2] for word in fit]  # without the folders of this machine
    row = {
        "case": name,
        "fit": " ".join(words),
        "device": device,
        "option": option,
        "value": value,
        "other": other,
        "seeds": f"{first} to {first + runs - 1}",
        "accuracy": f"{statistics.mean(accuracies):.4f}",
        "others_accuracy": f"{statistics.mean(others):.4f}",
        "difference": f"{statistics.mean(differences):+.4f}",
        "standard_error": f"{error:.4f}",
    }
    save(f"accuracy_{name}{card_suffix(device)}", [row], quick=quick)


if __name__ == "__main__":
    parser = options_of(__doc__, runs=20)
    parser.add_argument("name", help="names the file of results")
    parser.add_argument("option", help="option of fit, without its dashes")
    parser.add_argument("value")
    parser.add_argument("other")
    parser.add_argument("--first", type=int, default=0, help="first seed; one per run")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    known, fit_arguments = parser.parse_known_args()
    main(fit=fit_arguments, **vars(known))
