"""Reading `test_metrics.json`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_rnn.errors import DataError

PREFIX = "test/"


@dataclass(frozen=True)
class SavedMetric:
    """A metric, the bounds of its 95 % interval, and its value before calibration, if any."""

    name: str
    value: float
    low: float | None
    high: float | None
    uncalibrated: float | None

    def __str__(self) -> str:
        """Return the value with its interval."""
        if self.low is None or self.high is None:
            return f"{self.value:.4f}"
        return f"{self.value:.4f} ({self.low:.4f}-{self.high:.4f})"


@dataclass(frozen=True)
class SavedMetrics:
    """The content of the file.

    Attributes:
        metrics: Metrics by name, in alphabetical order.
        num_sequences: Number of test sequences.
        classes: The fields of `ClassMetrics` by the name of the class.
        origin: Checksum of the checkpoint, and fingerprint of the test data.
    """

    metrics: dict[str, SavedMetric]
    num_sequences: int
    classes: dict[str, dict[str, Any]]
    origin: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> "SavedMetrics":
        """Read the file.

        Raises:
            DataError: If `test` has not written it.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            classes = content["classes"]
            origin = content["origin"]
            num_sequences = content[f"{PREFIX}num_sequences"]
            values = {
                key.removeprefix(PREFIX): float(value)
                for key, value in content.items()
                if key.startswith(PREFIX)
            }
        except (ValueError, TypeError, KeyError, AttributeError):
            raise DataError(f"{path}: expected metrics as written by test") from None
        if not {"accuracy", "log_loss"} <= values.keys():
            raise DataError(f"{path}: expected an accuracy and a log loss")
        metrics = {}
        for name, value in sorted(values.items()):
            suffix = name.rpartition("_")[2]
            if suffix in ("low", "high", "uncalibrated", "resamples", "sequences"):
                continue
            others = [values.get(f"{name}_{end}") for end in ("low", "high", "uncalibrated")]
            metrics[name] = SavedMetric(name, value, *others)
        return cls(metrics, num_sequences, classes, origin)
