"""Probabilities after every step of many sequences at once, in constant memory for each."""

from collections.abc import Hashable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_rnn.categories import CategoryCodes
from lightning_rnn.errors import DataError, as_array, counted
from lightning_rnn.export.onnx_classifier import (
    category_codes,
    join_sequences,
    open_session,
    run_graph,
)

if TYPE_CHECKING:
    from lightning_rnn.models.network import SequenceNetwork

Ids = Sequence[Hashable] | np.ndarray
State = list[np.ndarray]  # parts of the state of B sequences, (B, ...) each
DTYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}


class StreamingClassifier:
    """Classifier of many sequences that takes their steps as they arrive.

    After each step it returns the probabilities that the network computes for the sequence so far.
    A step counts even if all of its values are missing, as more may follow. By contrast,
    `OnnxClassifier` and `SequenceClassifier` end a sequence at its last step with a value.

    Args:
        model: File written by `export_onnx` with `streaming=True`, which needs neither torch nor
            lightning; or a network, which is copied and takes the codes of categories.
        unknown_categories: Whether a category that was not in the training file is read as unknown,
            rather than being an error.

    Attributes:
        num_features: Number of features F.
        class_names: K names in the order of the class codes; the codes as text for a network.

    Raises:
        DataError: If the file is missing, damaged, or not one of `export_onnx` for single steps.
        OptionError: If the network is bidirectional, or onnxruntime is not installed.

    Example:
        >>> import numpy as np
        >>> from lightning_rnn import SequenceNetwork, StreamingClassifier
        >>> stream = StreamingClassifier(SequenceNetwork(input_size=1, num_classes=2))
        >>> stream.update(["ward 3", "ward 7"], np.array([[0.3], [-0.4]])).shape  # one step of each
        (2,)
        >>> stream.update(["ward 3"], [np.array([[1.2], [0.1], [0.7]])]).shape  # three more steps
        (1,)
        >>> stream.forget(["ward 7"])
        >>> stream
        StreamingClassifier(num_features=1, class_names=['0', '1'], sequences=1)
    """

    def __init__(
        self, model: "str | Path | SequenceNetwork", *, unknown_categories: bool = False
    ) -> None:
        self._model: _OnnxSteps | _TorchSteps
        if isinstance(model, str | Path):
            self._model = _OnnxSteps(model, unknown_categories)
        else:
            self._model = _TorchSteps(model)
        self.num_features = self._model.num_features
        self.class_names = self._model.class_names
        self._state = self._model.empty_state
        self._row_of: dict[Hashable, int] = {}
        self._free_rows: list[int] = []

    def __len__(self) -> int:
        """Return the number of sequences that have begun and were not forgotten."""
        return len(self._row_of)

    def __repr__(self) -> str:
        """Return a description of the model."""
        sizes = f"num_features={self.num_features}, class_names={self.class_names}"
        return f"StreamingClassifier({sizes}, sequences={len(self)})"

    def update(self, ids: Ids, x: Any) -> np.ndarray:
        """Take the next step or steps of some sequences.

        Args:
            ids: n different names. An unknown name begins a new sequence.
            x: (n, F) array of one step each, or list of n (T_i, F) arrays; raw values, NaN where
                missing; names of categories.

        Returns:
            Probabilities after the last step of each sequence: (n,) float32 of the second of two
            classes, or (n, K).

        Raises:
            DataError: If the ids are not one for each sequence and all different, or `x` cannot be
                used. No sequence then advances.
        """
        different = len(set(ids))
        if not len(x) == len(ids) == different > 0:
            got = f"{len(ids)}, {different} of them different, for {counted(len(x), 'sequence')}"
            raise DataError(f"ids: expected one different id for each sequence, got {got}")
        if isinstance(x, np.ndarray) and x.ndim == 2:
            x = x[:, None]  # (n, 1, F)
        elif as_array(x[0], "x[0]").ndim == 1:
            x = [as_array(values, f"x[{i}]")[None] for i, values in enumerate(x)]
        values, lengths = join_sequences(x, self._model.encode, self.num_features)
        starts = lengths.cumsum() - lengths
        rows = self._rows_of(ids)
        num_classes = len(self.class_names)
        shape = (len(rows),) if num_classes == 2 else (len(rows), num_classes)
        probabilities = np.empty(shape, np.float32)
        for t in range(lengths.max()):
            active = np.flatnonzero(lengths > t)
            x_t = values[starts[active] + t]
            state = [part[rows[active]] for part in self._state]
            probabilities[active], next_state = self._model.step(x_t, state)
            for part, next_part in zip(self._state, next_state, strict=True):
                part[rows[active]] = next_part
        return probabilities

    def forget(self, ids: Ids) -> None:
        """Free the state of sequences that have ended; an id used again begins a new sequence.

        Raises:
            DataError: If an id is unknown.
        """
        for name in ids.tolist() if isinstance(ids, np.ndarray) else ids:
            if name not in self._row_of:
                raise DataError(f"ids: expected a sequence that has begun, got {name!r}")
            self._free_rows.append(self._row_of.pop(name))

    def _rows_of(self, ids: Ids) -> np.ndarray:
        """Return the row of the state of each sequence; a new sequence gets a row of zeros."""
        new = [name for name in ids if name not in self._row_of]
        capacity = len(self._state[0])
        if len(new) > len(self._free_rows):
            num_rows = max(capacity, len(new))
            self._free_rows.extend(range(capacity, capacity + num_rows))
            for i, part in enumerate(self._state):
                rows = np.zeros((num_rows, *part.shape[1:]), part.dtype)
                self._state[i] = np.concatenate([part, rows])
        for name in new:
            self._row_of[name] = self._free_rows.pop()
        new_rows = [self._row_of[name] for name in new]
        for part in self._state:
            part[new_rows] = 0
        return np.array([self._row_of[name] for name in ids])


class _OnnxSteps:
    """Runs a file for single steps with onnxruntime."""

    def __init__(self, path: str | Path, unknown_categories: bool) -> None:
        self._session, metadata = open_session(path, streaming=True)
        self._path = Path(path)
        self.encode = category_codes(metadata, unknown_categories)
        self.num_features = metadata.num_features
        self.class_names = metadata.class_names
        parts = self._session.get_inputs()[1:]  # the first input is x
        self.empty_state = [np.zeros((0, *part.shape[1:]), DTYPES[part.type]) for part in parts]
        self._inputs = ["x", *(part.name for part in parts)]
        self._outputs = ["probability", *(f"next_{part.name}" for part in parts)]

    def step(self, x: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        """Return probabilities (B,) or (B, K) and the new state, from raw values (B, F)."""
        inputs = dict(zip(self._inputs, [x, *state], strict=True))
        probability, *next_state = run_graph(self._session, self._path, self._outputs, inputs)
        return probability, next_state


class _TorchSteps:
    """Runs a copy of a network with torch; has the methods of `_OnnxSteps`."""

    def __init__(self, network: "SequenceNetwork") -> None:
        from lightning_rnn.export.step_network import StepNetwork

        self.encode = CategoryCodes(None, {})
        self._network = StepNetwork(deepcopy(network).cpu().float()).eval()
        self.num_features = network.input_size
        self.class_names = list(map(str, range(network.num_classes)))
        self.empty_state = [part.numpy() for part in self._network.initial_state(0).values()]

    def step(self, x: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        import torch

        with torch.inference_mode():
            logits, *parts = self._network(*map(torch.from_numpy, (x, *state)))
            probability = self._network.network.decision.probabilities(logits)
        return probability.numpy(), [part.numpy() for part in parts]
