"""The command `compare`, which trains and tests several cells on the same data."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_rnn.atomic_files import atomic_write
from lightning_rnn.cli.command_line import CommandLine
from lightning_rnn.cli.commands import summary
from lightning_rnn.cli.parallel_runs import Run, fit_and_test, run_parallel
from lightning_rnn.cli.parser import Parser, own_errors_with_flags
from lightning_rnn.cli.quick_answers import PROGRAM
from lightning_rnn.cli.request import Request, different_settings
from lightning_rnn.errors import OptionError, check, import_extra
from lightning_rnn.evaluation.comparison import comparison_figure, comparison_table, summarize
from lightning_rnn.evaluation.figures import pixels, save_png
from lightning_rnn.models.recurrent import CELLS
from lightning_rnn.training.interrupts import Interrupts

OWN_OPTIONS = ("--cells", "--seeds", "--jobs", "--folder", "--runs")
SET_BY_COMPARE = {  # options of fit, and what to give in their place
    "--model.cell": "--cells",
    "--seed_everything": "--seeds",
    "--trainer.default_root_dir": "--folder",
}


class Rehearsal(CommandLine):
    """Does everything that `fit` does before it trains, and reads the test split."""

    def execute(self) -> None:
        """Check what the command line of `fit` accepts and a comparison does not."""
        world_size = self.trainer.world_size
        check(world_size == 1, "devices", world_size, "1: a run is one process")
        self.datamodule.load("test", None)


def run_compare(args: list[str]) -> None:
    """Parse the options of `compare` and run it."""
    own_args, fit_args = split_args(args)
    text = f"All other options are those of fit: {PROGRAM} fit --help"
    parser = Parser(prog=f"{PROGRAM} compare", description=summary(compare), epilog=text)
    parser.add_function_arguments(compare, as_group=False, skip={"fit_args"})
    options = parser.parse_args(own_args)
    with own_errors_with_flags(options.as_dict()):
        compare(fit_args, **vars(options))


def split_args(args: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split arguments into those of `compare` and those of `fit`."""
    own_args: list[str] = []
    fit_args: list[str] = []
    value_follows = False
    for arg in args:
        name, equals, _ = arg.partition("=")
        if value_follows or name in (*OWN_OPTIONS, "-h", "--help"):
            own_args.append(arg)
            value_follows = not value_follows and name in OWN_OPTIONS and not equals
        else:
            fit_args.append(arg)
    return own_args, fit_args


def compare(
    fit_args: Sequence[str],
    *,
    cells: str = "rnn,lstm,gru,mingru",
    seeds: int = 3,
    jobs: int | None = None,
    folder: str = "comparison",
    runs: str | None = None,
) -> None:
    """Train and test several cells on the same data, or show runs that are tested (--runs).

    Each cell has several seeds. Prints a table and writes runs.csv and accuracy.png. Runs that have
    finished are kept: the same command continues a comparison that was interrupted, and more cells
    or seeds extend it.

    Args:
        fit_args: Options of `fit`.
        cells: Cells to compare, separated by commas.
        seeds: Number of seeds, from 0; they set --seed_everything and --data.seed, unless the
            latter is given on the command line.
        jobs: Number of processes, each with one CPU thread; by default the number of CPU cores.
        folder: Folder to write to, with a run folder for each cell and seed.
        runs: Folder such as lightning_logs, whose tested runs are shown side by side; nothing is
            trained.

    Raises:
        LightningRNNError: If the options or the data cannot be used, or a run fails.
    """
    if runs is not None:
        check(not fit_args, "runs", " ".join(fit_args), "no options of fit beside it")
        from lightning_rnn.cli.run_table import show_runs  # imports polars

        show_runs(Path(runs).expanduser())
        return
    names = cells.split(",")
    expected = f"different ones of {', '.join(CELLS)}, separated by commas"
    check(set(names) <= set(CELLS) and len(set(names)) == len(names), "cells", cells, expected)
    check(seeds >= 1, "seeds", seeds, "an integer of at least 1")
    if jobs is None:
        jobs = os.cpu_count() or 1
    check(jobs >= 1, "jobs", jobs, "an integer of at least 1")
    given = {arg.partition("=")[0] for arg in fit_args}
    for name in sorted(given & SET_BY_COMPARE.keys()):
        raise OptionError(f"is set by compare; give {SET_BY_COMPARE[name]}", name=name)
    request = Request.from_args(["fit", *fit_args])
    own = request.model_class
    check(own is None, "model", own, "none in a comparison, as a class of your own has no cells")
    for name in ("ckpt_path", "init_from"):
        value = getattr(request, name)
        check(value is None, name, value, "none in a comparison, whose runs start from scratch")
    rehearsal = Rehearsal(request, None, None, Interrupts())
    path = Path(folder).expanduser()
    check_folder(path, rehearsal)
    settings = rehearsal.config["data"].get("init_args", {})
    seeds_data = "seed" in settings and "--data.seed" not in given
    planned = []
    for seed in range(seeds):
        for cell in names:
            args = [*fit_args, f"--model.cell={cell}", f"--seed_everything={seed}"]
            if seeds_data:
                args.append(f"--data.seed={seed}")
            planned.append(Run(path / cell / f"seed_{seed}", tuple(args)))
    unfinished = [run for run in planned if run.result() is None]
    print(f"{len(unfinished)} of {len(planned)} runs to do, {jobs} at a time", flush=True)
    for number, (run, result) in enumerate(run_parallel(fit_and_test, unfinished, jobs), start=1):
        text = f"accuracy {result['test/accuracy']:.3f}, {result['seconds']:.1f} s"
        print(f"{number}/{len(unfinished)}  {run.folder}: {text}", flush=True)
    _report(path, planned)


def check_folder(folder: Path, rehearsal: CommandLine) -> None:
    """Write the options into a new folder, or check that they are those of the runs in it."""
    config = rehearsal.parser.dump(rehearsal.config, skip_none=False)
    path = folder / "config.yaml"
    if not folder.exists() or not any(folder.iterdir()):
        with atomic_write(path) as temporary:
            temporary.write_text(config, encoding="utf-8")
        return
    check(path.exists(), "folder", str(folder), "a new folder, or one of a comparison")
    changes = different_settings(path, config)
    if changes:
        message = f"expected a new folder, or the options in {path}, got {'; '.join(changes)}"
        raise OptionError(message, name="folder")


def _report(folder: Path, runs: Sequence[Run]) -> None:
    rows: list[dict[str, Any]] = []
    results: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        cell = run.folder.parent.name
        result = run.result() or {}
        results.setdefault(cell, []).append(result)
        rows.append({"cell": cell, "seed": run.folder.name.removeprefix("seed_"), **result})
    with atomic_write(folder / "runs.csv") as temporary, temporary.open("w", newline="") as file:
        columns = dict.fromkeys(name for row in rows for name in row)
        writer = csv.DictWriter(file, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    summaries = [summarize(cell, of_cell) for cell, of_cell in results.items()]
    for line in comparison_table(summaries):
        print(line)
    print(f"written to {folder / 'runs.csv'}")
    try:
        import_extra("matplotlib.figure", "figures")
    except OptionError as error:
        print(f"no figure: {error}")
        return
    save_png(pixels(comparison_figure(summaries)), folder / "accuracy.png")
    print(f"written to {folder / 'accuracy.png'}")
