"""`compare --runs`: the tested runs of a folder side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars
import yaml

from lightning_rnn.cli.request import named_settings
from lightning_rnn.data.readers.sources import natural_order
from lightning_rnn.errors import DataError, check, counted
from lightning_rnn.evaluation.comparison import paired_p_value
from lightning_rnn.evaluation.saved_metrics import metric_texts, read_metrics, read_predictions

RUNS_PER_TABLE = 4


@dataclass(frozen=True)
class EvaluatedRun:
    """What `fit` and `test` have left in a run folder; `settings` are those of `config.yaml`."""

    name: str
    settings: dict[str, str]
    metrics: dict[str, Any]
    predictions: polars.DataFrame

    @classmethod
    def read(cls, folder: Path, name: str) -> "EvaluatedRun":
        """Read the files; a DataError if they are damaged or of different tests."""
        metrics = read_metrics(folder)
        predictions = read_predictions(folder)
        num_correct = int((predictions["label"] == predictions["true_label"]).sum())
        num_sequences = metrics["test/num_sequences"]
        is_same_test = abs(num_correct - metrics["test/accuracy"] * num_sequences) < 0.5
        if len(predictions) != num_sequences or not is_same_test:
            raise DataError(f"{folder}: expected files of the same test, got others; test again")
        config = folder / "config.yaml"
        try:
            content = yaml.safe_load(config.read_text("utf-8")) if config.is_file() else {}
        except (ValueError, yaml.YAMLError):
            raise DataError(f"{config}: expected settings as written by fit") from None
        return cls(name, dict(named_settings(content)), metrics, predictions)

    @property
    def data(self) -> str:
        """What runs on the same test sequences have in common; a test may be of some only."""
        fingerprint = self.metrics["origin"].get("data", self.name)
        return f"{fingerprint} {len(self.predictions)}"

    @property
    def rank(self) -> tuple[float, float]:
        """Accuracy, and for equal ones the log loss; the best run has the largest."""
        return self.metrics["test/accuracy"], -self.metrics["test/log_loss"]

    def difference(self, best: "EvaluatedRun") -> str:
        """Describe how the accuracy differs from that of the best run on the same sequences."""
        group = polars.int_range(len(self.predictions)).alias("group")
        if "group" in self.predictions.columns:
            group = polars.col("group")
        correct = polars.col("label") == polars.col("true_label")
        both = self.predictions.select(group, own=correct.cast(int)).with_columns(
            best=best.predictions.select(correct.cast(int)).to_series()
        )
        by_group = both.group_by("group").agg((polars.col("own") - polars.col("best")).sum())
        p_value = paired_p_value(by_group["own"].to_list())
        difference = self.metrics["test/accuracy"] - best.metrics["test/accuracy"]
        return f"{difference:+.4f} (p = {p_value:.2g})"


def show_runs(folder: Path) -> None:
    """Print the runs of a folder that are tested.

    Raises:
        OptionError: If there is none.
        DataError: If a file is damaged.
    """
    names = [path.parent.relative_to(folder) for path in folder.rglob("test_metrics.json")]
    check(bool(names), "runs", str(folder), "a folder with runs that test has evaluated")
    runs = []
    for name in sorted(names, key=natural_order):
        runs.append(EvaluatedRun.read(folder / name, str(name)))
    rows = table(runs)
    options: dict[str, Any] = {
        "tbl_hide_dataframe_shape": True,
        "tbl_hide_column_data_types": True,
        "tbl_formatting": "NOTHING",
        "tbl_width_chars": 1000,
        "tbl_rows": -1,
        "tbl_cols": -1,
        "fmt_str_lengths": 40,
    }
    with polars.Config(**options):
        for start in range(0, len(rows), RUNS_PER_TABLE):
            part = polars.DataFrame(rows[start : start + RUNS_PER_TABLE])
            print(part.transpose(include_header=True, header_name="run", column_names="run"))
    print(
        "*: the most accurate of the runs with the same test data; its accuracy is too optimistic"
    )
    print("p: p-value of a paired test of equal accuracy, not corrected for several pairs")
    for path in sorted(folder.rglob("checkpoints/best.ckpt"), key=natural_order):
        if not (path.parents[1] / "test_metrics.json").exists():
            print(f"not tested: {path.parents[1]}")


def table(runs: Sequence[EvaluatedRun]) -> list[dict[str, str]]:
    """Return for each run what differs in the settings, and the metrics."""
    best: dict[str, EvaluatedRun] = {}  # by test data
    for run in sorted(runs, key=lambda run: run.rank):
        best[run.data] = run
    settings: dict[str, set[str | None]] = {}  # values by name
    metrics: dict[str, str] = {}
    for run in runs:
        metrics |= dict.fromkeys(metric_texts(run.metrics), "")
        for name in run.settings:
            settings[name] = {other.settings.get(name) for other in runs}
    rows = []
    for run in runs:
        is_best = run is best[run.data]
        row = {"run": f"* {run.name}" if is_best else run.name}
        size = counted(run.metrics["test/num_sequences"], "sequence")
        row["test data"] = f"{run.data[:8]}, {size}"
        row["difference from *"] = "" if is_best else run.difference(best[run.data])
        for name, values in settings.items():
            if len(values) > 1:
                row[name] = run.settings.get(name, "")
        rows.append(row | metrics | metric_texts(run.metrics))
    return rows
