"""Files that `test` writes into the run folder."""

import copy
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from lightning_rnn.atomic_files import write_and_keep
from lightning_rnn.errors import counted, import_extra
from lightning_rnn.evaluation.figures import new_axes, pixels, save_png, short_names
from lightning_rnn.evaluation.intervals import MAX_RANKED, Interval, confidence_intervals
from lightning_rnn.evaluation.metrics import ClassMetrics, evaluate_classes
from lightning_rnn.evaluation.results import Predictions
from lightning_rnn.training.checkpoint_archive import check_unchanged
from lightning_rnn.training.checkpoint_file import CheckpointFile
from lightning_rnn.training.data_statistics import sequence_data
from lightning_rnn.training.predictions_file import prediction_columns
from lightning_rnn.training.watching import Watcher

MAX_MATRIX = 10  # classes whose confusion counts are printed as a matrix
TENTHS = range(1, 11)  # of each sequence, read by Earliness


class MetricsFile(Callback):
    """Prints the metrics of a test, and writes `test_metrics.json` and `test_predictions.csv`.

    `test_metrics.json` has numbers by name: `test/num_sequences`, `test/accuracy`, the bounds of
    its 95 % interval `test/accuracy_low` and `test/accuracy_high`. Two entries are nested:
    `classes` has the fields of `ClassMetrics` by the name of the class, and `origin` the SHA-256 of
    the `checkpoint` and the fingerprint of the `data`. `test_predictions.csv` has the columns of
    `PredictionsFile`. Earlier files with other content are kept as `test_metrics-1.json` and so on.

    Args:
        run: The checkpoint that is evaluated, in whose run folder the files are written.

    Raises:
        CheckpointError: If the file of the checkpoint has been replaced since it was read.
    """

    def __init__(self, run: CheckpointFile) -> None:
        self.run = run
        self.path = run.run_folder / "test_metrics.json"

    def on_test_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Print the table and write the file."""
        if not trainer.is_global_zero:
            return
        check_unchanged(self.run.path, self.run.checksum)
        evaluation = pl_module.evaluation
        data = sequence_data(trainer)
        sequences = None if data is None else data.split("test")
        groups = None
        if sequences is not None and sequences.groups is not None:
            groups = sequences.groups[evaluation.index.cpu().numpy()]
        decision = pl_module.network.decision
        intervals = confidence_intervals(evaluation, decision, groups)
        metrics: dict[str, Any] = {}
        for name, value in trainer.callback_metrics.items():
            metrics[name] = float(value)
        classes = evaluate_classes(evaluation, decision, pl_module.class_names)
        num_sequences = len(evaluation.labels)
        print(f"test: {counted(num_sequences, 'sequence')}")
        notes = metric_notes(pl_module)
        if evaluation.logits.numel() > MAX_RANKED:
            notes.append(f"no intervals of auroc and average_precision beyond {MAX_RANKED} logits")
        for line in (*metrics_table(metrics, intervals), *notes, *class_tables(classes)):
            print(line)
        metrics["test/num_sequences"] = num_sequences
        metrics["classes"] = {name: asdict(values) for name, values in classes.items()}
        for name, interval in intervals.items():
            metrics[f"test/{name}_low"] = interval.low
            metrics[f"test/{name}_high"] = interval.high
        metrics["origin"] = {"checkpoint": self.run.checksum}
        if sequences is not None:
            metrics["origin"]["data"] = sequences.fingerprint()
        write_and_keep(self.path, json.dumps(metrics, indent=2, sort_keys=True) + "\n")
        print(f"metrics written to {self.path}")
        self._write_predictions(trainer, pl_module)

    def _write_predictions(self, trainer: Trainer, pl_module: Any) -> None:
        import polars

        evaluation = pl_module.evaluation.cpu()
        decision = copy.deepcopy(pl_module.network.decision).cpu()
        predictions = Predictions(
            index=evaluation.index,
            probabilities=decision.probabilities(evaluation.logits),
            labels=decision.predict(evaluation.logits),
            embeddings=evaluation.logits.new_empty(len(evaluation.labels), 0),
        )
        data = sequence_data(trainer)
        columns = prediction_columns(predictions, data, pl_module.class_names, "test")
        labels = evaluation.labels.tolist()
        columns["true_label"] = [pl_module.class_names[code] for code in labels]
        path = self.path.with_name("test_predictions.csv")
        write_and_keep(path, polars.DataFrame(columns).write_csv())
        print(f"predictions written to {path}")


def metrics_table(metrics: dict[str, float], intervals: dict[str, Interval]) -> list[str]:
    """Return lines with the values of `test/accuracy` and so on, and the intervals of `accuracy`.

    The values of `test/accuracy_uncalibrated` and so on get a column of their own.
    """
    suffix = "_uncalibrated"
    has_uncalibrated = any(name.endswith(suffix) for name in metrics)
    last_title = "uncalibrated" if has_uncalibrated else ""
    lines = [f"{'metric':32}{'95 % interval':15}  {last_title}".rstrip()]
    for key in sorted(metrics):
        if not key.startswith("test/") or key.endswith(suffix):
            continue
        name = key.removeprefix("test/")
        bounds = ""
        if name in intervals:
            bounds = f"{intervals[name].low:.4f}-{intervals[name].high:.4f}"
        line = f"{name:20}{metrics[key]:10.4f}  {bounds:15}  "
        if has_uncalibrated:
            value = f"{metrics[key + suffix]:.4f}" if key + suffix in metrics else ""
            line += f"{value:>12}"
        lines.append(line.rstrip())
    return lines


def metric_notes(classifier: Any) -> list[str]:
    """Return lines that say what the metrics of a test mean."""
    averages = "means over the classes, with equal weight"
    if len(classifier.class_names) == 2:
        averages = f"of the positive class, {classifier.class_names[1]!r}"
    weights = ""
    if (classifier.class_weight != 1).any():
        weights = "weighted by class, "
    return [
        f"auroc, average_precision, f1: {averages}",
        f"loss: {weights}before calibration; log_loss: not weighted, after calibration",
    ]


def class_tables(classes: dict[str, ClassMetrics]) -> list[str]:
    """Return lines with the metrics of each class, and with the counts of confusions.

    The counts of more than 10 classes are the 10 most frequent confusions, which take less space.
    """
    names = short_names(list(classes), escape=False)
    width = max(len("class"), *map(len, names)) + 2
    lines = [f"{'class':{width}}{'precision':>9}{'recall':>9}{'f1':>9}{'support':>9}"]
    for name, values in zip(names, classes.values(), strict=True):
        line = f"{name:{width}}"
        for value in (values.precision, values.recall, values.f1):
            line += f"{'-':>9}" if value is None else f"{value:9.4f}"
        lines.append(f"{line}{values.support:9}")
    if len(classes) > MAX_MATRIX:
        confusions = []
        for name, values in classes.items():
            for other, count in values.predicted_as.items():
                if other != name and count > 0:
                    confusions.append((count, name, other))
        confusions.sort(key=lambda confusion: -confusion[0])
        lines.append("most frequent confusions:")
        for count, name, other in confusions[:MAX_MATRIX]:
            lines.append(f"  {count} of {name!r} predicted as {other!r}")
        return lines
    lines.append(f"{'true':{width}}predicted as")
    lines.append(" " * width + "".join(f"{name:>{width}}" for name in names))
    for name, values in zip(names, classes.values(), strict=True):
        counts = "".join(f"{count:>{width}}" for count in values.predicted_as.values())
        lines.append(f"{name:{width}}{counts}")
    return lines


class Earliness(Watcher):
    """Writes accuracy over the share of each sequence that is read, to `earliness.csv` and `.png`.

    Each sequence is cut after ceil(share * length) steps; the network is the same for all shares.

    Raises:
        OptionError: If matplotlib is not installed.
    """

    def __init__(self, folder: Path) -> None:
        import_extra("matplotlib.figure", "figures")
        self.folder = folder
        # correct predictions by share, and sequences
        self._counts = torch.zeros(len(TENTHS) + 1, dtype=torch.int64)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Classify the beginnings of a batch."""
        is_sequence = batch.index >= 0  # other rows only fill the batch of an idle rank
        counts = []
        for tenths in TENTHS:
            lengths = num_steps(batch.lengths, tenths)
            predicted = pl_module.network.decision.predict(pl_module(batch.x, lengths))
            counts.append((predicted == batch.y)[is_sequence].sum())
        counts.append(is_sequence.sum())
        self._counts = self._counts.to(batch.x.device) + torch.stack(counts)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Sum over all ranks and write the files."""
        counts: Any = trainer.strategy.reduce(self._counts, reduce_op="sum")
        self._counts = torch.zeros_like(self._counts)
        if not trainer.is_global_zero:
            return
        accuracy = (counts[:-1].double() / counts[-1].double()).tolist()
        lines = ["share_seen,accuracy"]
        for tenths, value in zip(TENTHS, accuracy, strict=True):
            lines.append(f"{tenths / 10},{value:.6g}")
        path = self.folder / "earliness.csv"
        write_and_keep(path, "\n".join(lines) + "\n")
        print(f"earliness written to {path}")
        with self.contain_failure():
            figure, axes = new_axes("earliness", "share of each sequence seen (%)", "accuracy")
            axes.plot([10 * tenths for tenths in TENTHS], accuracy, marker="o")
            axes.set_xlim(0, 103)
            axes.set_ylim(0, 1.03)
            save_png(pixels(figure), path.with_suffix(".png"))
            print(f"figure written to {path.with_suffix('.png')}")


def num_steps(lengths: Tensor, tenths: int) -> Tensor:
    """Return how many steps so many tenths of each sequence are, (B,) int64, rounded up."""
    return (lengths * tenths + 9) // 10
