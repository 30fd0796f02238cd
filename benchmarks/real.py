"""How accurate is `fit` on real series, beside published methods?

    python -m benchmarks.real FOLDER --seeds 5 --jobs 2
    python -m benchmarks.real FOLDER --name gru --sets CBF,Meat --model.cell gru

FOLDER contains data sets of the UCR and UEA archives: NAME_TRAIN.tsv or .ts and NAME_TEST, in
folders of their own or together. All options that are not of this command are options of `fit`.
Each run trains on the official training split and is tested on the other, in a process of one
thread. Runs are added to `results/real.csv` as they end, and those that are in the file are not run
again: after a kill, the same command continues. Change `--name` after a change of the code.

`published.csv` has the accuracies of other methods on the same splits; columns: set, method and
accuracy. InceptionTime and HIVE-COTE 2: first split of the archive; the sources of the others are
in docs/results.md.
"""

import shutil
import statistics
import tempfile
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.harness import ROOT, append_rows, read_rows
from lightning_rnn.cli.parallel_runs import Run, fit_and_test, run_parallel

CONFIG = ROOT / "configs/files.yaml"
PUBLISHED = Path(__file__).with_name("published.csv")
KEY = ("name", "fit", "configs", "set", "seed")  # columns that identify a run
NAMED_DIFFERENCE = 0.015  # from the best published accuracy, for a name in the figure
Table = dict[str, dict[str, float]]  # accuracy by method and set


def find_sets(folder: Path, chosen: Sequence[str] | None) -> dict[str, tuple[Path, Path]]:
    """Return the files for training and testing of each data set.

    Raises:
        SystemExit: If a file is missing.
    """
    sets = {}
    for train_path in sorted((*folder.rglob("*_TRAIN.ts"), *folder.rglob("*_TRAIN.tsv"))):
        name = train_path.stem.removesuffix("_TRAIN")
        test_path = train_path.with_name(f"{name}_TEST{train_path.suffix}")
        if not test_path.exists():
            raise SystemExit(f"expected {test_path} beside {train_path}")
        sets[name] = (train_path, test_path)
    missing = sorted(set(chosen or ()) - sets.keys())
    if missing or not sets:
        names = ", ".join(missing) or "data sets"
        raise SystemExit(f"expected {names} in {folder}: NAME_TRAIN.tsv or .ts, and NAME_TEST")
    return {name: paths for name, paths in sets.items() if chosen is None or name in chosen}


def labels_of(name: str, fit_args: Sequence[str]) -> dict[str, str]:
    """Return the columns that tell variants apart, with a checksum of all config files."""
    words = [word.rpartition("/")[2] for word in fit_args]  # without the folders of this machine
    configs = b""
    for word in (str(CONFIG), *fit_args):
        path = Path(word.rpartition("=")[2])
        if path.suffix == ".yaml":
            configs += path.read_bytes()
    return {"name": name, "fit": " ".join(words), "configs": f"{zlib.crc32(configs):08x}"}


def timed_run(run: Run) -> dict[str, Any]:
    """Train and test; add the time of both together and delete the folder."""
    wall_start = time.monotonic()
    cpu_start = time.process_time()
    result = fit_and_test(run)
    shutil.rmtree(run.folder)
    result["total_seconds"] = round(time.monotonic() - wall_start, 1)
    result["total_cpu_seconds"] = round(time.process_time() - cpu_start, 1)
    return result


def row_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a finished run; the log loss is that after calibration."""
    row = {name: result[name] for name in ("parameters", "steps", "seconds")}
    row |= {name: result[name] for name in ("total_seconds", "total_cpu_seconds")}
    for name in ("accuracy", "balanced_accuracy", "log_loss"):
        row[name] = round(result[f"test/{name}"], 4)
    return row


def plan_runs(
    folder: Path, sets: dict[str, tuple[Path, Path]], seeds: int, fit_args: Sequence[str]
) -> dict[tuple[str, str], Run]:
    """Return the runs by data set and seed; all sets with the first seed come first."""
    runs = {}
    for seed in range(seeds):
        for name, (train_path, test_path) in sets.items():
            args = [*fit_args, f"--data.train_path={train_path}", f"--data.test_path={test_path}"]
            args += [f"--seed_everything={seed}", f"--data.seed={seed}"]
            runs[name, str(seed)] = Run(folder / f"{name}_{seed}", tuple(args))
    return runs


def do_runs(
    path: Path, runs: dict[tuple[str, str], Run], labels: dict[str, str], jobs: int
) -> None:
    """Do the runs that are not in the file yet, and add them to it."""
    finished = {tuple(row[name] for name in KEY) for row in read_rows(path)}
    tasks = {}
    for (name, seed), run in runs.items():
        columns = labels | {"set": name, "seed": seed}
        if tuple(columns.values()) not in finished:
            tasks[run] = columns
    print(f"{len(tasks)} of {len(runs)} runs to do", flush=True)
    for i, (run, result) in enumerate(run_parallel(timed_run, list(tasks), jobs), start=1):
        row = row_of(result)
        append_rows(path, [tasks[run] | row])
        text = f"accuracy {row['accuracy']:.3f}, {row['total_seconds']:.0f} s"
        print(f"{i}/{len(tasks)}  {run.folder.name}: {text}", flush=True)


def published_table(path: Path) -> Table:
    table: Table = {}
    for row in read_rows(path):
        table.setdefault(row["method"], {})[row["set"]] = float(row["accuracy"])
    return table


def average_ranks(ours: dict[str, float], published: Table) -> tuple[dict[str, float], int]:
    """Return average ranks of us and of the methods that know most sets, and the number of sets.

    Only sets count for which all of these methods have a figure; equal accuracies share a rank.
    """
    counts = {method: len(known.keys() & ours.keys()) for method, known in published.items()}
    most = max(counts.values(), default=0)
    methods = {method: published[method] for method, n in counts.items() if n > most / 2}
    common = [name for name in ours if all(name in known for known in methods.values())]
    if not common:
        return {}, 0
    rows = {"ours": ours, **methods}
    ranks = {}
    for method, own in rows.items():
        places = []
        for name in common:
            better = sum(other[name] > own[name] for other in rows.values())
            equal = sum(other[name] == own[name] for other in rows.values())
            places.append(better + (equal + 1) / 2)
        ranks[method] = statistics.mean(places)
    return ranks, len(common)


def print_sets(rows: Sequence[Mapping[str, str]], published: Table) -> dict[str, list[float]]:
    """Print the accuracies of each set; return ours by set."""
    accuracies: dict[str, list[float]] = {}
    seconds: dict[str, list[float]] = {}
    for row in rows:
        accuracies.setdefault(row["set"], []).append(float(row["accuracy"]))
        seconds.setdefault(row["set"], []).append(float(row["total_seconds"]))
    print("| set | ours | range | s | " + " | ".join(published) + " |")
    print("| --- " * (4 + len(published)) + "|")
    for name, own in sorted(accuracies.items()):
        columns = [name, f"{statistics.mean(own):.3f}", f"{min(own):.3f} to {max(own):.3f}"]
        columns.append(f"{statistics.median(seconds[name]):.0f}")
        for known in published.values():
            columns.append(f"{known[name]:.3f}" if name in known else "-")
        print(f"| {' | '.join(columns)} |")
    return accuracies


def print_methods(ours: dict[str, float], published: Table) -> None:
    """Print how we compare with each method."""
    print(f"\nmean over {len(ours)} sets: {statistics.mean(ours.values()):.3f}\n")
    print("| method | sets | its mean | our mean | won, tied, lost |")
    print("| --- " * 5 + "|")
    for method, known in published.items():
        common = sorted(known.keys() & ours.keys())
        if not common:
            continue
        wins = sum(ours[name] > known[name] for name in common)
        losses = sum(ours[name] < known[name] for name in common)
        means = [statistics.mean(table[name] for name in common) for table in (known, ours)]
        results = f"{wins}, {len(common) - wins - losses}, {losses}"
        print(f"| {method} | {len(common)} | {means[0]:.3f} | {means[1]:.3f} | {results} |")
    ranks, number = average_ranks(ours, published)
    texts = [f"{method} {rank:.2f}" for method, rank in ranks.items()]
    print(f"\naverage rank over {number} sets: {', '.join(texts)}")


def draw(accuracies: dict[str, list[float]], published: Table, path: Path) -> None:
    """Draw our accuracy on each set over the best published one; lines span the seeds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel="best published accuracy", ylabel="ours, mean of the seeds")
    lowest = 1.0
    for name, own in accuracies.items():
        known = [table[name] for table in published.values() if name in table]
        if not known:
            continue
        best = max(known)
        mean = statistics.mean(own)
        axes.plot([best, best], [min(own), max(own)], color="C0", alpha=0.5)
        axes.plot(best, mean, "o", color="C0")
        if abs(mean - best) > NAMED_DIFFERENCE:
            axes.annotate(name, (best, mean), (6, -3), textcoords="offset points", fontsize=7)
        lowest = min(lowest, best, *own)
    axes.plot([lowest, 1], [lowest, 1], color="0.6", linewidth=1)
    axes.set_aspect("equal")
    axes.set_xlim(lowest - 0.01, 1.12)  # with space for the names
    figure.savefig(path)
    print(f"{path.name} drawn", flush=True)


def main(
    folder: Path,
    fit_args: Sequence[str] = (),
    name: str = "default",
    sets: Sequence[str] | None = None,
    seeds: int = 5,
    jobs: int = 2,
    published: Path = PUBLISHED,
    quick: bool = False,
) -> None:
    results = harness.RESULTS / "quick" if quick else harness.RESULTS
    path = results / "real.csv"
    labels = labels_of(name, fit_args)
    found = find_sets(folder, sets)
    with tempfile.TemporaryDirectory() as run_folders:
        runs = plan_runs(Path(run_folders), found, seeds, fit_args)
        do_runs(path, runs, labels, jobs)
    rows = []
    for row in read_rows(path):
        is_variant = all(row[column] == text for column, text in labels.items())
        if is_variant and (row["set"], row["seed"]) in runs:
            rows.append(row)
    table = published_table(published)
    accuracies = print_sets(rows, table)
    ours = {name: round(statistics.mean(own), 3) for name, own in accuracies.items()}
    print_methods(ours, table)
    draw(accuracies, table, results / f"real_{name}.png")


if __name__ == "__main__":
    parser = harness.parser_of(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--name", default="default", help="names the runs in the results")
    parser.add_argument("--sets", type=lambda text: text.split(","), help="default: all")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds, from 0")
    parser.add_argument("--jobs", type=int, default=2, help="number of processes")
    parser.add_argument("--published", type=Path, default=PUBLISHED)
    known_args, fit_arguments = parser.parse_known_args()
    main(fit_args=fit_arguments, **vars(known_args))
