"""The report of a test: one HTML file, without scripts, that needs no network."""

import base64
import copy
import platform
import shlex
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from lightning.pytorch import Trainer

from lightning_rnn.atomic_files import write_and_keep
from lightning_rnn.data.report import class_counts, length_range, missing_values
from lightning_rnn.data.sequences import Sequences
from lightning_rnn.evaluation.metrics import WeightedMetrics
from lightning_rnn.evaluation.plots_sequences import confident_mistakes_first
from lightning_rnn.evaluation.saved_metrics import SavedMetrics
from lightning_rnn.training.checkpoint_file import CheckpointFile
from lightning_rnn.training.data_statistics import sequence_data
from lightning_rnn.training.outputs import MetricsFile, metric_notes
from lightning_rnn.training.settings import settings_of
from lightning_rnn.training.tensorboard import Figures
from lightning_rnn.training.watching import Watcher

PACKAGES = ("lightning_rnn", "torch", "lightning", "torchmetrics", "numpy")
NUM_MISTAKES = 20


class Report(Watcher):
    """Writes `report.html`; an earlier one that differs is kept as `report-1.html` and so on.

    Args:
        run: The checkpoint that is evaluated.
        metrics: The callback that writes the metrics, which comes before this one.
        figures: The callback that saves the figures, which comes before this one.
        args: Arguments of the program.
    """

    def __init__(
        self, run: CheckpointFile, metrics: MetricsFile, figures: Figures, args: list[str]
    ) -> None:
        self.run = run
        self.metrics_file = metrics
        self.figures = figures
        self.args = args

    def on_test_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Write the file."""
        if not trainer.is_global_zero:
            return
        with self.contain_failure():
            path = self.metrics_file.path.with_name("report.html")
            write_and_keep(path, render("report.html", self._content(trainer, pl_module)))
            print(f"report written to {path}")

    def _content(self, trainer: Trainer, classifier: Any) -> dict[str, Any]:
        data = sequence_data(trainer)
        sequences = None if data is None else data.split("test")
        is_weighted = bool((classifier.class_weight != 1).any())
        images = {}
        for path in self.figures.saved:
            title = path.stem.removeprefix("test_").replace("_", " ")
            images[title] = base64.b64encode(path.read_bytes()).decode()
        config = self.run.run_folder / "config.yaml"
        return {
            "title": self.run.run_folder.name,
            "checkpoint": self.run,
            "metrics": SavedMetrics.read(self.metrics_file.path),
            "notes": metric_notes(classifier.class_names, is_weighted=is_weighted),
            "data": describe(sequences, classifier),
            "settings": settings_of(classifier, data),
            "config": config.read_text(encoding="utf-8") if config.is_file() else "",
            "images": images,
            "mistakes": mistakes_of(classifier, sequences),
            "command": shlex.join(["python", "-m", "lightning_rnn", *self.args]),
            "versions": versions(),
        }


def render(template: str, content: dict[str, Any], **options: Any) -> str:
    """Fill in a template of this package; all values are escaped for HTML."""
    from jinja2 import Environment

    text = (files("lightning_rnn.training") / f"{template}.jinja").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, **options)
    return environment.from_string(text).render(content)


def describe(sequences: Sequences | None, classifier: Any) -> dict[str, str]:
    """Describe a test split by name of the property."""
    schema = classifier.schema
    names = schema.feature_names or []
    description = {"features": f"{schema.num_features}: {', '.join(names)}".removesuffix(": ")}
    if sequences is None:
        return description
    return {
        "sequences": str(len(sequences)),
        "steps": length_range(sequences.lengths),
        "classes": class_counts(sequences, schema.class_names),
        **description,
        "missing": missing_values(sequences),
        "fingerprint": sequences.fingerprint(),
    }


def mistakes_of(classifier: Any, sequences: Sequences | None) -> list[tuple[Any, ...]]:
    """Return the most confident mistakes: sequence, steps, true and predicted class, probability.

    Without `sequences`, a sequence is named by its row, and its steps are not known.
    """
    evaluation = classifier.evaluation.cpu()
    metrics = WeightedMetrics(evaluation, copy.deepcopy(classifier.network.decision).cpu())
    rows = []
    for i, confidence in confident_mistakes_first(metrics, NUM_MISTAKES):
        if metrics.is_correct[i]:
            break
        row = int(evaluation.index[i])
        name: Any = row
        steps: Any = ""
        if sequences is not None:
            steps = int(sequences.lengths[row])
            if sequences.ids is not None:
                name = sequences.ids[row]
        true = classifier.class_names[metrics.labels[i]]
        predicted = classifier.class_names[metrics.predicted[i]]
        rows.append((name, steps, true, predicted, confidence))
    return rows


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that matter."""
    found = {name: version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **found, "system": platform.platform()}
