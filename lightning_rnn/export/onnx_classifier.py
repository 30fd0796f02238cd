"""Predictions from an exported ONNX file, with numpy and onnxruntime but without torch."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lightning_rnn.categories import CategoryCodes
from lightning_rnn.errors import DataError, as_array, import_extra
from lightning_rnn.export.onnx_metadata import METADATA_KEY, Metadata, has_valid_digest

MAX_BATCH_STEPS = 1 << 16  # limit of B * T, padding included
EXPECTED = "expected a file as written by export_onnx"
NUMERIC_KINDS = "biuf"  # of dtypes


def open_session(path: str | Path, *, streaming: bool) -> tuple[Any, Metadata]:
    """Return the onnxruntime session and the metadata of an exported file.

    Raises:
        DataError: If the file is missing, damaged or changed, or not for single steps
            (`streaming`) or for whole sequences.
        OptionError: If onnxruntime is not installed.
    """
    onnxruntime = import_extra("onnxruntime", "export")
    if not Path(path).is_file():
        raise DataError(f"{path}: expected a file written by export_onnx, got no such file")
    content = Path(path).read_bytes()
    if not has_valid_digest(content):
        got = "one that is damaged, changed, or of another program"
        raise DataError(f"{path}: {EXPECTED}, got {got}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # a second one slows small recurrent networks down
    options.log_severity_level = 4  # errors are raised, they need not be printed
    try:
        providers = ["CPUExecutionProvider"]  # without a second try with the same one
        session = onnxruntime.InferenceSession(content, options, providers, enable_fallback=False)
        outputs = {output.name: output.shape for output in session.get_outputs()}
        metadata = Metadata.from_json(
            session.get_modelmeta().custom_metadata_map[METADATA_KEY],
            num_features=session.get_inputs()[0].shape[-1],
            num_classes=[*outputs["logits"], 2][1],  # (B,) or (B, K)
        )
    except Exception as error:  # onnxruntime has no public exception classes
        raise _unexpected(path, error) from None
    if metadata.streaming != streaming:
        kinds = {True: "a file for single steps", False: "a file for whole sequences"}
        message = f"expected {kinds[streaming]}, got {kinds[not streaming]}"
        raise DataError(f"{path}: {message}")
    return session, metadata


def run_graph(session: Any, path: Path, outputs: list[str], inputs: dict[str, Any]) -> list[Any]:
    """Return outputs of the graph of a file; a DataError if it cannot be computed."""
    try:
        values: list[Any] = session.run(outputs, inputs)
    except Exception as error:  # as above
        raise _unexpected(path, error) from None
    return values


def _unexpected(path: str | Path, error: Exception) -> DataError:
    reason = str(error).partition("\n")[0][:200]
    return DataError(f"{path}: {EXPECTED}, got {reason!r}")


def category_codes(metadata: Metadata, accept_unknown: bool) -> CategoryCodes:
    """Return the codes of the categories of an exported file."""
    categories = metadata.categories
    return CategoryCodes(metadata.feature_names, categories, accept_unknown=accept_unknown)


class OnnxClassifier:
    """Classifier of raw sequences that runs an exported ONNX file, without torch and lightning.

    Args:
        path: File written by `export_onnx` or by the command `export`.
        unknown_categories: Whether a category that is not one of `categories` is read as unknown,
            rather than being an error.

    Attributes:
        class_names: K names in the order of the columns of `predict_proba`.
        feature_names: F names, or None.
        categories: Categories of the features that are no numbers.
        num_features: Number of features F.
        missing_values: Numbers that stand for missing values, like NaN.
        version: Version of this package that wrote the file.
        temperature: Temperature by which the graph divides the logits.
        threshold: For two classes, the probability above which `predict` returns the second one.

    Raises:
        DataError: If the file is missing, damaged, or not one of `export_onnx` for whole sequences.
        OptionError: If onnxruntime is not installed.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from lightning_rnn import OnnxClassifier, SequenceNetwork, export_onnx
        >>> network = SequenceNetwork(input_size=1, num_classes=2)
        >>> network.decision.set(threshold=0.0)  # always predict the second class
        >>> path = tempfile.mkdtemp() + "/model.onnx"
        >>> _ = export_onnx(network, path, class_names=["down", "up"])
        >>> classifier = OnnxClassifier(path)
        >>> sequences = [np.array([[0.3], [1.2]]), np.array([[-0.4]])]  # (T_i, F) each
        >>> classifier.predict_proba(sequences).shape
        (2,)
        >>> classifier.predict(sequences)
        array(['up', 'up'], dtype='<U4')
    """

    def __init__(self, path: str | Path, *, unknown_categories: bool = False) -> None:
        self._session, metadata = open_session(path, streaming=False)
        self.path = Path(path)
        self.class_names = metadata.class_names
        self.feature_names = metadata.feature_names
        self.categories = metadata.categories
        self._encode = category_codes(metadata, unknown_categories)
        self.num_features = metadata.num_features
        self.missing_values = np.array(metadata.missing_values, np.float32)
        self.version = metadata.version
        self.temperature = metadata.temperature
        self.threshold = metadata.threshold

    def __repr__(self) -> str:
        """Return a description of the model."""
        sizes = f"num_features={self.num_features}, class_names={self.class_names}"
        return f"OnnxClassifier({str(self.path)!r}, {sizes})"

    def predict_proba(self, x: Any) -> np.ndarray:
        """Compute class probabilities from raw values.

        Args:
            x: (N, T, F) array, or list of (T_i, F) arrays, or of (T_i,) arrays for one feature. NaN
                where missing; names of categories. As in training, a sequence ends at its last step
                with a value.

        Returns:
            (N,) float32 probabilities of the second class for two classes, (N, K) for more.

        Raises:
            DataError: If a sequence has a wrong shape or dtype, no step, or an infinite value.
        """
        return self._run("probability", x)

    def predict(self, x: Any) -> np.ndarray:
        """Return (N,) names of the predicted classes, as strings; see `predict_proba`."""
        names: np.ndarray = np.array(self.class_names)[self._run("label", x)]
        return names

    def _run(self, output: str, x: Any) -> np.ndarray:
        """Return one output of the graph for N sequences, (N, ...)."""
        values, lengths = self._check(x)
        starts = lengths.cumsum() - lengths
        lengths = self._without_trailing_missing(values, lengths)
        order = np.argsort(lengths, kind="stable")
        results = []
        for rows in _batches(order, lengths[order]):
            steps = np.arange(lengths[rows].max())
            exists = steps < lengths[rows, None]  # (B, T)
            padded = np.zeros((*exists.shape, self.num_features), np.float32)
            padded[exists] = values[(starts[rows, None] + steps)[exists]]
            inputs = {"x": padded, "lengths": lengths[rows]}
            (outputs,) = run_graph(self._session, self.path, [output], inputs)
            results.append(outputs)
        sorted_results = np.concatenate(results)
        result = np.empty_like(sorted_results)
        result[order] = sorted_results
        return result

    def _check(self, x: Any) -> tuple[np.ndarray, np.ndarray]:
        if isinstance(x, np.ndarray) and x.ndim != 3:
            expected = f"shape (N, T, {self.num_features}) or a list of arrays"
            raise DataError(f"x: expected {expected}, got shape {x.shape}")
        if len(x) == 0:
            raise DataError("x: expected at least one sequence, got none")
        return join_sequences(x, self._encode, self.num_features)

    def _without_trailing_missing(self, values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Return the lengths up to the last steps with a value, at least 1."""
        is_missing = np.isnan(values)
        if len(self.missing_values):
            is_missing |= np.isin(values, self.missing_values)
        numbers = np.arange(1, len(values) + 1)
        numbers[is_missing.all(axis=1)] = 0
        starts = lengths.cumsum() - lengths
        shortened: np.ndarray = np.maximum.reduceat(numbers, starts) - starts
        return shortened.clip(min=1)


def join_sequences(
    x: Any, encode: CategoryCodes, num_features: int
) -> tuple[np.ndarray, np.ndarray]:
    """Convert N sequences to one (sum of T_i, F) float32 array and (N,) lengths.

    Args:
        x: (N, T, F) array, or list of (T_i, F) arrays, or of (T_i,) arrays for one feature.
        encode: Codes of the categories.
        num_features: Number of features F.

    Raises:
        DataError: If a sequence has a wrong shape or dtype, no step, or an infinite value.
    """
    if isinstance(x, np.ndarray):
        x = as_array(x, "x")  # refuses masked arrays
    is_numeric = isinstance(x, np.ndarray) and x.dtype.kind in NUMERIC_KINDS
    if is_numeric and not encode.has_categories:  # whose names may be numbers
        _check_sequence(x[0], 0, num_features)
        values = x.reshape(-1, num_features)
        lengths = np.full(len(x), x.shape[1])
    else:
        arrays = []
        for i, sequence in enumerate(x):
            if encode.has_categories:
                sequence = encode(sequence, f"x[{i}]")
            arrays.append(_check_sequence(sequence, i, num_features))
        values = np.concatenate(arrays)
        lengths = np.array(list(map(len, arrays)))
    with np.errstate(over="ignore"):
        values = values.astype(np.float32, copy=False)
    infinite = np.flatnonzero(np.isinf(values).any(axis=1))
    if len(infinite):
        i = np.searchsorted(lengths.cumsum(), infinite[0], side="right")
        expected = "finite float32 numbers, or NaN where missing"
        raise DataError(f"x[{i}]: expected {expected}, got an infinite value")
    return values, lengths


def _check_sequence(x: Any, i: int, num_features: int) -> np.ndarray:
    """Convert sequence i to a (T, F) array of numbers."""
    array = x if type(x) is np.ndarray else as_array(x, f"x[{i}]")
    if array.ndim == 1 and num_features == 1:
        array = array[:, None]
    if array.dtype.kind not in NUMERIC_KINDS:
        raise DataError(f"x[{i}]: expected numbers, got dtype {array.dtype}")
    if array.ndim != 2 or array.shape[1] != num_features or len(array) == 0:
        expected = f"shape (T, {num_features}) with T of at least 1"
        raise DataError(f"x[{i}]: expected {expected}, got {array.shape}")
    return array


def _batches(order: np.ndarray, lengths: np.ndarray) -> Iterator[np.ndarray]:
    """Yield parts of `order`, with padding of at most `MAX_BATCH_STEPS` unless of a single row.

    `lengths` are those of the rows in this order, ascending.
    """
    start = 0
    while start < len(order):
        lengths_ahead = lengths[start : start + MAX_BATCH_STEPS]
        num_steps = lengths_ahead * np.arange(1, len(lengths_ahead) + 1)
        count = max(1, int(np.searchsorted(num_steps, MAX_BATCH_STEPS, side="right")))
        yield order[start : start + count]
        start += count
