"""The report of a test: one HTML file, without scripts, that needs no network."""

import base64
import platform
import shlex
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from lightning_rnn.atomic_files import write_and_keep
from lightning_rnn.data.report import class_counts, length_range, missing_values
from lightning_rnn.evaluation.saved_metrics import metric_texts, read_metrics, read_predictions
from lightning_rnn.training.checkpoint_file import CheckpointFile
from lightning_rnn.training.data_statistics import sequence_data
from lightning_rnn.training.outputs import metric_notes
from lightning_rnn.training.settings import changed_first
from lightning_rnn.training.tensorboard import Figures
from lightning_rnn.training.watching import Watcher

PACKAGES = ("lightning_rnn", "torch", "lightning", "torchmetrics", "numpy")
NUM_MISTAKES = 20


class Report(Watcher):
    """Writes `report.html` from the files of the callbacks `MetricsFile` and `Figures` before it.

    An earlier report that differs is kept as `report-1.html` and so on.

    Args:
        run: The checkpoint that is evaluated.
        figures: The callback that saves the figures.
        args: Arguments of the program.
    """

    def __init__(self, run: CheckpointFile, figures: Figures, args: list[str]) -> None:
        self.run = run
        self.figures = figures
        self.command = shlex.join(["python", "-m", "lightning_rnn", *args])

    def on_test_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Write the file."""
        if not trainer.is_global_zero:
            return
        with self.contain_failure():
            path = self.run.run_folder / "report.html"
            write_and_keep(path, render("report.html", self._content(trainer, pl_module)))
            print(f"report written to {path}")

    def _content(self, trainer: Trainer, classifier: Any) -> dict[str, Any]:
        folder = self.run.run_folder
        saved = read_metrics(folder)
        data = sequence_data(trainer)
        sequences = None if data is None else data.split("test")
        schema = classifier.schema
        names = schema.feature_names or [f"{schema.num_features} without names"]
        of_data = {"features": ", ".join(names)}
        if sequences is not None:
            of_data["steps"] = length_range(sequences.lengths)
            of_data["classes"] = class_counts(sequences, classifier.class_names)
            of_data["missing values"] = missing_values(sequences)
            of_data["fingerprint"] = saved["origin"]["data"]
        images = {}
        for path in self.figures.saved:
            images[path.stem] = base64.b64encode(path.read_bytes()).decode()
        data_settings = getattr(data, "settings", {})
        settings, _ = changed_first(classifier.hparams, data_settings, type(data))
        config = ""
        if (folder / "config.yaml").is_file():
            config = (folder / "config.yaml").read_text(encoding="utf-8")
        mistakes, num_mistakes = confident_mistakes(folder, classifier.class_names)
        return {
            "report": self,
            "saved": saved,
            "metrics": metric_texts(saved),
            "notes": metric_notes(classifier),
            "data": of_data,
            "settings": settings,
            "config": config,
            "images": images,
            "mistakes": mistakes,
            "num_mistakes": num_mistakes,
            "versions": versions(),
        }


def render(template: str, content: dict[str, Any], **options: Any) -> str:
    """Fill in a template of this package; all values are escaped for HTML."""
    from jinja2 import Environment

    text = (files("lightning_rnn.training") / f"{template}.jinja").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, **options)
    return environment.from_string(text).render(content)


def confident_mistakes(folder: Path, class_names: list[str]) -> tuple[list[tuple[Any, ...]], int]:
    """Return id, true and predicted class and its probability of the 20 most confident mistakes.

    The second value is the number of all mistakes.
    """
    from polars import Float64, coalesce, col, when

    frame = read_predictions(folder)
    columns = [name for name in frame.columns if name.startswith("probability_")]
    of_class = []
    for name, column in zip(class_names, columns, strict=True):
        probability = col(column).cast(Float64)
        of_class.append(when(col("label") == name).then(probability))
    wrong = frame.filter(col("label") != col("true_label"))
    rows = wrong.select("id", "true_label", "label", probability=coalesce(of_class).round(4))
    first = rows.sort("probability", descending=True).head(NUM_MISTAKES)
    return first.rows(), len(rows)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that matter."""
    found = {name: version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **found, "system": platform.platform()}
