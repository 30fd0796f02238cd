"""Which cell learns what, and how much depends on its starting weights?

    python -m benchmarks.study --jobs 2              # about half an hour on 2 cores
    python -m benchmarks.study --question longer

defaults: the test accuracy of `delayed_recall` after 10 epochs of 4,000 sequences.
lengths: up to which length does a cell learn a task, and with how many sequences?
longer: trained at lengths up to 40, does it hold at 40 to 256?
published: how many sequences and seconds to the criteria of Hochreiter and Schmidhuber (1997)?

A case is a cell with its starting weights, a task, a length and a seed. Cases run in parallel, in
processes of one thread. But for `defaults`, each epoch has 640 new sequences, the learning rate is
constant, and training ends when few enough validation sequences are wrong. All else is the default
of `fit`. Results are added to `results/study.csv` as they arrive, and a case that is in the file is
not run again: after a kill, the same command continues. At the end, the figures are drawn.
"""

import itertools
import logging
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.harness import append_rows, read_rows
from benchmarks.study_figures import FIGURES
from lightning_rnn.cli.parallel_runs import run_parallel

CELLS = ("rnn", "lstm", "gru", "mingru")
STARTS = ("torch", "chrono")  # values of `initialization`
NEW_SEQUENCES = 640  # per epoch
LONGER = (40, 64, 96, 128, 192, 256)


@dataclass(frozen=True)
class Case:
    """One training.

    Attributes:
        max_sequences: Number of training sequences after which a case has failed.
        num_val: Number of validation sequences.
        max_wrong: How many of them may be wrong; None to train on the same 4,000 sequences instead.
    """

    question: str
    task: str
    min_length: int
    length: int
    cell: str
    initialization: str
    seed: int
    max_sequences: int = 25_600
    num_val: int = 1000
    max_wrong: int | None = 10

    def key(self) -> tuple[str, ...]:
        """Return what identifies the case in the file, where None is empty."""
        return tuple("" if value is None else str(value) for value in asdict(self).values())


def cases(question: str) -> Iterator[Case]:
    """Return the cases of a question; those of the first seed come first."""
    if question == "defaults":
        for seed, length, cell in itertools.product(range(5), (50, 200), CELLS):
            task = "delayed_recall"
            yield Case(question, task, length, length, cell, "chrono", seed, 40_000, max_wrong=None)
    if question == "lengths":
        tasks = ("delayed_recall", "temporal_order", "adding")
        grid = itertools.product(range(3), tasks, (25, 50, 100, 200), CELLS, STARTS)
        for seed, task, length, cell, start in grid:
            yield Case(question, task, length, length, cell, start, seed)
    if question == "longer":
        tasks = {"parity": 1, "delayed_recall": 1, "temporal_order": 10}
        grid = itertools.product(range(5), tasks.items(), CELLS, STARTS)
        for seed, (task, shortest), cell, start in grid:
            yield Case(question, task, shortest, 40, cell, start, seed, 38_400, 2560, 2)
    if question == "published":
        tasks = {  # shortest and longest sequence, most training sequences, most wrong ones
            "temporal_order": (100, 110, 32_000, 1),
            "temporal_order_6b": (100, 110, 64_000, 2),
            "adding": (100, 100, 32_000, 25),
        }
        grid = itertools.product(range(5), tasks.items(), CELLS, STARTS)
        for seed, (task, (shortest, longest, most, wrong)), cell, start in grid:
            yield Case(question, task, shortest, longest, cell, start, seed, most, 2560, wrong)


QUESTIONS = ("defaults", "lengths", "longer", "published")


def data_options(case: Case) -> dict[str, Any]:
    options: dict[str, Any] = {"task": case.task, "seed": case.seed, "num_val": case.num_val}
    options |= {"length": case.length, "min_length": case.min_length}
    if case.max_wrong is None:
        return options | {"num_train": case.max_sequences // 10}
    return options | {"num_train": NEW_SEQUENCES, "fresh": True}


def train(case: Case, model: Any, data: Any) -> tuple[Any, dict[str, Any]]:
    """Train; return the Trainer, and the columns about the training."""
    from lightning.pytorch import Trainer

    from lightning_rnn import EarlyStopping

    callbacks = []
    if case.max_wrong is not None:
        target = 1 - (case.max_wrong + 0.5) / case.num_val
        limits = {"patience": case.max_sequences, "stopping_threshold": target}
        callbacks.append(EarlyStopping("val/accuracy", mode="max", **limits))
    sequences = data.settings["num_train"]
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=case.max_sequences // sequences,
        gradient_clip_val=1.0,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    wall_start = time.perf_counter()
    cpu_start = time.process_time()
    trainer.fit(model, data)
    wrong = round(case.num_val * (1 - float(trainer.callback_metrics["val/accuracy"])))
    return trainer, {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "sequences": trainer.current_epoch * sequences,
        "seconds": round(time.perf_counter() - wall_start, 2),
        "cpu_seconds": round(time.process_time() - cpu_start, 2),
        "learned": case.max_wrong is not None and wrong <= case.max_wrong,
    }


def run_case(case: Case) -> list[dict[str, Any]]:
    """Train and test; return a row for each length of test sequences."""
    from lightning.pytorch import seed_everything

    from lightning_rnn import SequenceClassifier, SyntheticDataModule

    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    seed_everything(case.seed)
    schedule = "cosine" if case.max_wrong is None else "constant"
    model = SequenceClassifier(
        cell=case.cell, initialization=case.initialization, schedule=schedule
    )
    options = data_options(case)
    data = SyntheticDataModule(**options)
    trainer, columns = train(case, model, data)
    tests = {f"{case.min_length} to {case.length}": data}
    if case.question == "longer":
        for length in LONGER:
            lengths = {"length": length, "min_length": length, "num_test": 2560}
            tests[str(length)] = SyntheticDataModule(**{**options, **lengths})
    rows = []
    for lengths, test_data in tests.items():
        (metrics,) = trainer.test(model, test_data, verbose=False)
        columns |= {"test_lengths": lengths, "accuracy": round(metrics["test/accuracy"], 4)}
        rows.append(asdict(case) | columns)
    return rows


def quick_cases(plan: list[Case]) -> list[Case]:
    """Return the shorter cases of one cell and one seed, with little training."""
    tiny = {"max_sequences": 1280, "num_val": 64}
    few = [case for case in plan if case.seed == 0 and case.cell == "rnn" and case.length <= 110]
    return [Case(**{**asdict(case), **tiny}) for case in few]


def main(questions: list[str], jobs: int = 2, quick: bool = False) -> None:
    folder = harness.RESULTS
    pictures = Path(__file__).parents[1] / "docs"
    if quick:
        folder = folder / "quick"
        pictures = folder
    path = folder / "study.csv"
    finished = {tuple(row[name] for name in Case.__annotations__) for row in read_rows(path)}
    plan = [case for question in questions for case in cases(question)]
    if quick:
        plan = quick_cases(plan)
    to_do = [case for case in plan if case.key() not in finished]
    print(f"{len(plan)} cases, {len(to_do)} to do", flush=True)
    for number, (case, rows) in enumerate(run_parallel(run_case, to_do, jobs), start=1):
        append_rows(path, rows)
        words = (case.question, case.task, case.length, case.cell, case.initialization, case.seed)
        end = f"{rows[0]['sequences']} sequences, {rows[0]['seconds']} s, {rows[-1]['accuracy']}"
        print(f"{number}/{len(to_do)}  {' '.join(map(str, words))}: {end}", flush=True)
    keys = {case.key() for case in plan}
    rows = [row for row in read_rows(path) if tuple(row[n] for n in Case.__annotations__) in keys]
    for question in questions:
        draw = FIGURES[question]
        draw([row for row in rows if row["question"] == question], pictures)


if __name__ == "__main__":
    parser = harness.parser_of(__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it works")
    parser.add_argument("--jobs", type=int, default=2, help="number of processes")
    parser.add_argument("--question", choices=QUESTIONS, help="default: all")
    given = parser.parse_args()
    chosen = QUESTIONS if given.question is None else (given.question,)
    main(list(chosen), given.jobs, given.quick)
