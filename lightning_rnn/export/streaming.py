"""Probabilities after every step of many sequences at once, in constant memory for each."""

from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_rnn.errors import DataError, as_array
from lightning_rnn.export.onnx_classifier import check_steps, open_session

if TYPE_CHECKING:
    from lightning_rnn.models.network import SequenceNetwork

Run = Callable[[np.ndarray, list[np.ndarray]], tuple[np.ndarray, list[np.ndarray]]]


class StreamingClassifier:
    """Holds the state of many sequences and takes their next steps.

    What it returns is what the network says of the whole sequence so far. A step counts even if all of its values
    are missing, as more may follow; a finished sequence, by contrast, ends at its last step with a value.

    Attributes:
        num_features: F.
    """

    def __init__(self, model: "str | Path | SequenceNetwork") -> None:
        """Set up.

        Args:
            model: A network (`classifier.network`), or a file that `export --streaming true` has written, which
                needs neither torch nor lightning.

        Raises:
            DataError: A file that cannot be used.
            OptionError: A two-way network, or onnxruntime is not installed.
        """
        opened = _open_file(model) if isinstance(model, str | Path) else _open_network(model)
        self._run, self.num_features, self._state = opened
        self._row_of: dict[Hashable, int] = {}
        self._free: list[int] = []

    def __len__(self) -> int:
        """Return the number of sequences known."""
        return len(self._row_of)

    def update(self, ids: Sequence[Hashable] | np.ndarray, x: Any) -> np.ndarray:
        """Take the next step or steps of some sequences; an id that is not known begins a sequence.

        Args:
            ids: n different names.
            x: (n, F) array of one step each, or a list of n (T_i, F) arrays; raw values, NaN where missing.

        Returns:
            (n,) float32 probabilities of the second class so far, or (n, K).

        Raises:
            DataError: An id twice, another number of ids than of arrays, or values that `OnnxClassifier` refuses; no
                sequence has advanced.
        """
        if len(set(ids)) != len(ids) or len(ids) != len(x) or len(ids) == 0:
            raise DataError(
                f"ids: found {len(ids)} for {len(x)} sequences, accepted are as many, all different"
            )
        arrays = [as_array(row, f"x[{i}]") for i, row in enumerate(x)]
        one_step = arrays[0].ndim == 1
        steps = [check_steps(array[None] if one_step else array, f"x[{i}]", self.num_features)
                 for i, array in enumerate(arrays)]  # fmt: skip
        rows, lengths = self._rows(ids), np.array([len(each) for each in steps])
        result: np.ndarray | None = None
        for t in range(lengths.max()):
            at = np.flatnonzero(lengths > t)
            state = [part[rows[at]] for part in self._state]
            probability, state = self._run(np.stack([steps[i][t] for i in at]), state)
            for part, new in zip(self._state, state, strict=True):
                part[rows[at]] = new
            result = (
                np.empty((len(ids), *probability.shape[1:]), np.float32)
                if result is None
                else result
            )
            result[at] = probability
        assert result is not None
        return result

    def forget(self, ids: Sequence[Hashable] | np.ndarray) -> None:
        """Give back the memory of sequences that have ended; an id used again begins anew.

        Raises:
            DataError: An id that is not known.
        """
        for name in ids:
            if name not in self._row_of:
                plain = name.item() if isinstance(name, np.generic) else name
                raise DataError(f"ids: {plain!r} is not known")
            self._free.append(self._row_of.pop(name))

    def _rows(self, ids: Sequence[Hashable] | np.ndarray) -> np.ndarray:
        """Return each sequence's row of the state, new ones set to zero."""
        new = [name for name in ids if name not in self._row_of]
        capacity = len(self._state[0])
        if len(new) > len(self._free):
            grown = max(2 * capacity, capacity + len(new))
            self._free = [*range(grown - 1, capacity - 1, -1), *self._free]
            self._state = [np.concatenate([p, np.zeros((grown - capacity, *p.shape[1:]), p.dtype)])
                           for p in self._state]  # fmt: skip
        for name in new:
            self._row_of[name] = row = self._free.pop()
            for part in self._state:
                part[row] = 0
        return np.array([self._row_of[name] for name in ids])


def _open_file(path: str | Path) -> tuple[Run, int, list[np.ndarray]]:
    """Return what takes a step, the number of features, and the state of no sequences."""
    session, facts = open_session(path)
    if not facts["streaming"]:
        raise DataError(
            f"{path}: takes whole sequences, accepted is a file of `export --streaming true`"
        )
    given = session.get_inputs()[1:]
    names = [part.name for part in given]
    wanted = ["probability", *(f"next_{name}" for name in names)]

    def run(x: np.ndarray, state: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        probability, *after = session.run(wanted, {"x": x, **dict(zip(names, state, strict=True))})
        return probability, after

    kinds = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}
    return (
        run,
        facts["num_features"],
        [np.zeros((0, *part.shape[1:]), kinds[part.type]) for part in given],
    )


def _open_network(network: "SequenceNetwork") -> tuple[Run, int, list[np.ndarray]]:
    from copy import deepcopy

    import torch

    from lightning_rnn.export.step_network import StepNetwork

    step = StepNetwork(deepcopy(network).cpu().float()).eval()  # the caller's stays as it is

    @torch.inference_mode()
    def run(x: np.ndarray, state: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        logits, *after = step(torch.from_numpy(x), *map(torch.from_numpy, state))
        return step.network.decision.probabilities(logits).numpy(), [part.numpy() for part in after]

    return run, step.num_features, [part.numpy() for part in step.initial_state(0)]
