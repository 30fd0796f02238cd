"""`compare --runs`: the tested runs of a folder side by side."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from lightning_rnn.errors import DataError, check
from lightning_rnn.evaluation.comparison import paired_p_value
from lightning_rnn.evaluation.saved_metrics import SavedMetrics

RUNS_PER_TABLE = 4
MAX_WIDTH = 26  # characters of a value
NO_SETTINGS = ("ckpt_path", "run_name", "trainer.default_root_dir")  # where a run is


@dataclass(frozen=True)
class EvaluatedRun:
    """What `fit` and `test` have left in a run folder.

    Attributes:
        name: Path of the folder below that of all runs.
        settings: Settings of `config.yaml` by name, such as `model.cell`.
        metrics: Content of `test_metrics.json`.
        is_correct: (N,) which test sequences are classified correctly, and
        groups: (N,) names of their groups, or their numbers; None where `test_predictions.csv` is
            not that of the metrics.
    """

    name: str
    settings: dict[str, str]
    metrics: SavedMetrics
    is_correct: np.ndarray | None
    groups: np.ndarray | None

    @classmethod
    def read(cls, folder: Path, name: str) -> "EvaluatedRun":
        """Read the files of a run folder."""
        metrics = SavedMetrics.read(folder / "test_metrics.json")
        config = folder / "config.yaml"
        content = {}
        try:
            if config.is_file():
                content = yaml.safe_load(config.read_text(encoding="utf-8"))
        except (ValueError, yaml.YAMLError):
            raise DataError(f"{config}: expected settings as written by fit") from None
        settings = {key: value for key, value in _flatten(content) if key not in NO_SETTINGS}
        is_correct, groups = _read_predictions(folder / "test_predictions.csv")
        accuracy = metrics.metrics["accuracy"].value
        if is_correct is not None and abs(is_correct.mean() - accuracy) > 1e-6:
            is_correct = None
        return cls(name, settings, metrics, is_correct, groups)

    @property
    def rank(self) -> tuple[float, float]:
        """Accuracy, and for equal ones the log loss; the best run has the largest."""
        metrics = self.metrics.metrics
        return metrics["accuracy"].value, -metrics["log_loss"].value

    def difference(self, best: "EvaluatedRun") -> str:
        """Describe how the accuracy differs from that of the best run on the same sequences."""
        difference = f"{self.rank[0] - best.rank[0]:+.4f}"
        if self.is_correct is None or best.is_correct is None:
            return difference
        _, units = np.unique(self.groups, return_inverse=True)
        paired = self.is_correct.astype(int) - best.is_correct.astype(int)
        by_group = np.bincount(units, weights=paired).astype(int)
        return f"{difference} (p = {paired_p_value(by_group.tolist()):.2g})"


def show_runs(folder: Path) -> None:
    """Print the runs of a folder that are tested.

    Raises:
        OptionError: If there is none.
        DataError: If a file of metrics is damaged.
    """
    paths = [path.parent for path in folder.rglob("test_metrics.json")]
    check(bool(paths), "runs", str(folder), "a folder with runs that test has evaluated")
    names = sorted((str(path.relative_to(folder)) for path in paths), key=_natural)
    runs = [EvaluatedRun.read(folder / name, name) for name in names]
    for start in range(0, len(runs), RUNS_PER_TABLE):
        for line in table(runs, slice(start, start + RUNS_PER_TABLE)):
            print(line)
        print()
    print("*: the highest accuracy of the runs with the same test data; its choice is optimistic")
    print("p: paired test (random signs) of the same accuracy, for a single pair of runs")
    tested = set(paths)
    untested = {path.parents[1] for path in folder.rglob("checkpoints/best.ckpt")} - tested
    for path in sorted(untested):
        print(f"not tested: {path}")


def table(runs: Sequence[EvaluatedRun], shown: slice) -> Iterator[str]:
    """Yield lines with a column for each of the shown runs."""
    best: dict[str, EvaluatedRun] = {}  # by test data
    for run in runs:
        data = run.metrics.origin.get("data", run.name)
        if data not in best or run.rank > best[data].rank:
            best[data] = run
    rows = [["run"], ["test data"], ["sequences"], ["difference from *"]]
    for run in runs[shown]:
        data = run.metrics.origin.get("data", run.name)
        is_best = run is best[data]
        cells = [
            f"* {run.name}" if is_best else run.name,
            str(list(best).index(data) + 1),
            str(run.metrics.num_sequences),
            "" if is_best else run.difference(best[data]),
        ]
        for row, cell in zip(rows, cells, strict=True):
            row.append(cell)
    settings = dict.fromkeys(name for run in runs for name in run.settings)
    for name in settings:
        if len({run.settings.get(name) for run in runs}) > 1:
            rows.append([name, *(run.settings.get(name, "") for run in runs[shown])])
    metrics = dict.fromkeys(name for run in runs for name in run.metrics.metrics)
    for name in metrics:
        rows.append([name, *(str(run.metrics.metrics.get(name, "")) for run in runs[shown])])
    for first, *cells in rows:
        texts = [f"{_shorten(cell):{MAX_WIDTH}}" for cell in cells]
        yield "  ".join([f"{first:32}", *texts]).rstrip()


def _read_predictions(path: Path) -> tuple[np.ndarray | None, np.ndarray | None]:
    import polars

    if not path.is_file():
        return None, None
    try:
        frame = polars.read_csv(path, infer_schema=False)
        is_correct = (frame["label"] == frame["true_label"]).to_numpy()
    except polars.exceptions.PolarsError:
        raise DataError(f"{path}: expected predictions as written by test") from None
    groups = np.arange(len(frame))
    if "group" in frame.columns:
        groups = frame["group"].to_numpy()
    return is_correct, groups


def _shorten(text: str) -> str:
    """Return a text of at most 26 characters, without some in the middle of a longer one."""
    if len(text) <= MAX_WIDTH:
        return text
    return f"{text[:12]}…{text[-13:]}"


def _flatten(settings: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    if not isinstance(settings, dict):
        yield prefix.removesuffix("."), str(settings)
        return
    for name, value in settings.items():
        key = prefix if name == "init_args" else f"{prefix}{name}."
        yield from _flatten(value, key)


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts version_2 before version_10."""
    parts = re.split(r"(\d+)", name)
    return [(int(part) if part.isdecimal() else -1, part) for part in parts]
