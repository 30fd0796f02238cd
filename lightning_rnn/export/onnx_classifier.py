"""Predictions from an exported file; needs numpy and onnxruntime, neither torch nor lightning."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from lightning_rnn.errors import DataError, as_array, import_extra

METADATA = "lightning_rnn"  # the file's entry with all that is not in its graph
BATCH_STEPS = 1 << 16  # B * T run together


def open_session(path: str | Path) -> tuple[Any, dict[str, Any]]:
    """Open an exported file.

    Args:
        path: The file.

    Returns:
        The onnxruntime session, on one thread (a second costs small recurrent networks more than it brings), and
        the file's metadata.

    Raises:
        DataError: The file is missing, damaged, or was not written by `export`.
        OptionError: onnxruntime is not installed.
    """
    runtime = import_extra("onnxruntime", "export")
    if not Path(path).is_file():
        raise DataError(f"{path}: no such file, accepted is a file that `export` has written")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # errors
    try:
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        facts = json.loads(session.get_modelmeta().custom_metadata_map[METADATA])
    except KeyError:
        raise DataError(
            f"{path}: found an ONNX file of another program, accepted is one of `export`"
        ) from None
    except Exception as error:  # onnxruntime's own kinds
        raise DataError(
            f"{path}: not a readable ONNX file ({str(error).splitlines()[0][:200]})"
        ) from None
    return session, facts


class OnnxClassifier:
    """Classifies raw sequences with a file that `export` has written.

    Attributes:
        class_names: K names in the order of the columns of `predict_proba`.
        feature_names: F names, or None.
        num_features: F.
        version: Version of this package that wrote the file.
        temperature: By which the graph divides logits.
        threshold: Of two classes, the probability above which the graph decides for the second.
    """

    def __init__(self, path: str | Path) -> None:
        """Open a file.

        Raises:
            DataError: Not a file of `export`, or one that takes single steps.
            OptionError: onnxruntime is not installed.
        """
        self._session, facts = open_session(path)
        if facts["streaming"]:
            raise DataError(
                f"{path}: takes single steps, as was asked of `export`; accepted by StreamingClassifier"
            )
        self.class_names: list[str] = facts["class_names"]
        self.feature_names: list[str] | None = facts["feature_names"]
        self.num_features: int = facts["num_features"]
        self.version: str = facts["version"]
        self.temperature: float = facts["temperature"]
        self.threshold: float = facts["threshold"]

    def predict_proba(self, x: Any) -> np.ndarray:
        """Classify raw values.

        Args:
            x: (N, T, F) array, or a list of (T_i, F) arrays; a list may hold (T_i,) arrays of one feature. NaN where
                missing. Steps at the end without any value do not count, as in training.

        Returns:
            (N,) float32 probabilities of the second class, or (N, K).

        Raises:
            DataError: A wrong shape, dtype or number of features, no step, or an infinite value.
        """
        return self._run("probability", x)

    def predict(self, x: Any) -> list[str]:
        """Return the names of the N decided classes; see `predict_proba`."""
        return [self.class_names[code] for code in self._run("label", x)]

    def _run(self, output: str, x: Any) -> np.ndarray:
        if isinstance(x, np.ndarray) and x.ndim != 3:
            raise DataError(
                f"x: found shape {x.shape}, accepted is (N, T, {self.num_features}) or a list"
            )
        rows = [
            _without_empty_end(check_steps(row, f"x[{i}]", self.num_features))
            for i, row in enumerate(x)
        ]
        if not rows:
            raise DataError("x: found no sequence, accepted is at least one")
        lengths = np.array([len(row) for row in rows])
        order = np.argsort(lengths, kind="stable")
        found: list[Any] = [None] * len(rows)
        start = 0
        while start < len(rows):  # batches of like lengths
            stop = start + 1
            while stop < len(rows) and lengths[order[stop]] * (stop + 1 - start) <= BATCH_STEPS:
                stop += 1
            chosen = order[start:stop]
            batch = np.zeros((len(chosen), lengths[chosen[-1]], self.num_features), np.float32)
            for place, row in enumerate(chosen):
                batch[place, : lengths[row]] = rows[row]
            (values,) = self._session.run([output], {"x": batch, "lengths": lengths[chosen]})
            for row, value in zip(chosen, values, strict=True):
                found[row] = value
            start = stop
        return np.stack(found)


def check_steps(x: Any, name: str, num_features: int) -> np.ndarray:
    """Return (T, F) float32 of one sequence.

    Raises:
        DataError: A wrong shape, dtype or number of features, no step, or an infinite value.
    """
    steps = as_array(x, name)
    steps = steps[:, None] if steps.ndim == 1 and num_features == 1 else steps
    if steps.dtype.kind not in "biuf":
        raise DataError(f"{name}: found dtype {steps.dtype}, accepted are numbers")
    if steps.ndim != 2 or steps.shape[1] != num_features or len(steps) == 0:
        raise DataError(
            f"{name}: found shape {steps.shape}, accepted is (T, {num_features}), T at least 1"
        )
    with np.errstate(over="ignore"):
        steps = steps.astype(np.float32, copy=False)
    if np.isinf(steps).any():
        raise DataError(
            f"{name}: found an infinite value, accepted are finite float32 numbers, or NaN where missing"
        )
    return steps


def _without_empty_end(steps: np.ndarray) -> np.ndarray:
    """Cut off the steps at the end in which every feature is missing; one step always stays."""
    seen = np.flatnonzero(~np.isnan(steps).all(1))
    return steps[: int(seen[-1]) + 1 if len(seen) else 1]
