"""Stratified k-fold cross-validation, with all options of `fit`.

    python examples/folds.py --folds 5 --data.train_path vitals.csv --data.id_column patient \
        --data.time_column hour --data.label_column outcome --model.cell gru

With --data.group_column, a group lies in one fold. In each fold, --data.val_fraction of all
sequences is for validation, and the rest for training. The folder then contains

- predictions.csv: for each sequence its id, fold and true label, and the prediction of the model
  that has not seen it, with the probabilities of all classes;
- metrics.csv: each metric of `test` in each fold, its mean, and a 95 % interval of the mean;
- fold_0, fold_1, ...: the runs.

Folds that are finished are not run again: the same command continues.
"""

import argparse
import csv
import logging
import math
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning_rnn.__main__ import main as run_program
from lightning_rnn.atomic_files import atomic_write
from lightning_rnn.cli.compare import Rehearsal, check_folder
from lightning_rnn.cli.parallel_runs import Run, fit_and_test, run_parallel
from lightning_rnn.cli.request import Request, find_initial_weights
from lightning_rnn.errors import LightningRNNError, OptionError, check
from lightning_rnn.evaluation.comparison import T_QUANTILES
from lightning_rnn.training.interrupts import Interrupts

SET_BY_FOLDS = {  # options of fit, and what to give in their place
    "--data.num_folds": "--folds",
    "--data.fold": "--folds",
    "--trainer.default_root_dir": "--folder",
    "--ckpt_path": "--folder, which continues",
}


def interval_of_mean(name: str, results: Sequence[Mapping[str, float]]) -> tuple[float, float]:
    """Return a 95 % interval of the mean of a metric over k folds.

    Each bound is the one that is farther from the mean of

    - Student's t interval. The models share training sequences, so that the variance of the mean is
      not s^2 / k but s^2 (1 / k + 1 / (k - 1)) (Nadeau and Bengio 2003, Machine Learning 52).
    - the combined intervals of the folds (Zou and Donner 2008, Statistics in Medicine 27), which
      are not empty where the metric is the same in all folds, such as 1.
    """
    k = len(results)
    values = [result[name] for result in results]
    quantile = T_QUANTILES[min(k - 1, len(T_QUANTILES)) - 1]
    margin = quantile * statistics.stdev(values) * math.sqrt(1 / k + 1 / (k - 1))
    squares_below = sum((result[name] - result[f"{name}_low"]) ** 2 for result in results)
    squares_above = sum((result[f"{name}_high"] - result[name]) ** 2 for result in results)
    mean = statistics.mean(values)
    low = mean - max(margin, math.sqrt(squares_below) / k)
    high = mean + max(margin, math.sqrt(squares_above) / k)
    is_loss = name.endswith("loss")
    return max(0.0, low), high if is_loss else min(1.0, high)


def cross_validate(fit_args: Sequence[str], *, num_folds: int, jobs: int, folder: Path) -> None:
    """Train, test and predict each fold that is not finished, then write the tables."""
    check(jobs >= 1, "jobs", jobs, "an integer of at least 1")
    given = {arg.partition("=")[0] for arg in fit_args}
    for name in sorted(given & SET_BY_FOLDS.keys()):
        raise OptionError(f"is set by this script; give {SET_BY_FOLDS[name]}", name=name)
    args = [*fit_args, f"--data.num_folds={num_folds}"]
    request = Request.from_args(["fit", *args])
    rehearsal = Rehearsal(request, None, find_initial_weights(request, None), Interrupts())
    check_folder(folder, rehearsal)
    runs = []
    for fold in range(num_folds):
        runs.append(Run(folder / f"fold_{fold}", (*args, f"--data.fold={fold}")))
    unfinished = [run for run in runs if run.result() is None]
    print(f"{len(unfinished)} of {num_folds} folds to do, {jobs} at a time", flush=True)
    for run, result in run_parallel(fit_and_test, unfinished, jobs):
        accuracy = result["test/accuracy"]
        print(f"{run.folder}: accuracy {accuracy:.3f}, {result['seconds']:.1f} s", flush=True)
    write_predictions(folder, runs)
    write_metrics(folder, runs)


def write_predictions(folder: Path, runs: Sequence[Run]) -> None:
    """Predict the test sequences of each fold and join the tables."""
    rows: list[list[str]] = []
    for fold, run in enumerate(runs):
        table = run.folder / "predictions.csv"
        if not table.exists():
            checkpoint = next(run.folder.rglob("best.ckpt"))
            options = (f"--ckpt_path={checkpoint}", f"--output={table}")
            if run_program(["predict", *options]) != 0:
                raise LightningRNNError(f"no predictions of {checkpoint}")
        with table.open(newline="", encoding="utf-8") as file:
            header, *predictions = csv.reader(file)
        rows.extend([str(fold), *row] for row in predictions)
    write_table(folder / "predictions.csv", [["fold", *header], *rows])


def write_metrics(folder: Path, runs: Sequence[Run]) -> None:
    """Print and write the mean and the interval of each metric."""
    results = [run.result() or {} for run in runs]
    found = dict.fromkeys(name for result in results for name in result)
    names = [name.removesuffix("_low") for name in found if name.endswith("_low")]
    rows: list[list[object]] = []
    print(f"{'':24}{'mean':>9}  95 % interval")
    for name in names:
        if any(f"{name}_low" not in result for result in results):
            print(f"{name}: undefined in some of the folds")
            continue
        mean = statistics.mean(result[name] for result in results)
        low, high = interval_of_mean(name, results)
        print(f"{name:24}{mean:9.4f}  {low:.4f} to {high:.4f}")
        rows.append([name, mean, low, high, *(result[name] for result in results)])
    columns = [f"fold_{fold}" for fold in range(len(runs))]
    write_table(folder / "metrics.csv", [["metric", "mean", "low", "high", *columns], *rows])


def write_table(path: Path, rows: Sequence[Sequence[object]]) -> None:
    """Write a CSV file."""
    with atomic_write(path) as temporary, temporary.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    print(f"written to {path}")


def main() -> None:
    """Parse the options and run the folds."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="All other options are those of fit: python -m lightning_rnn fit --help",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--folds", type=int, default=5, help="number of folds")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count(), help="number of processes, of one thread each"
    )
    parser.add_argument("--folder", type=Path, default=Path("folds"), help="folder to write to")
    args, fit_args = parser.parse_known_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    try:
        folder = args.folder.expanduser()
        cross_validate(fit_args, num_folds=args.folds, jobs=args.jobs, folder=folder)
    except LightningRNNError as error:
        print(f"folds.py: error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
