"""Applying a trained model to arrays, without a Trainer."""

from collections.abc import Callable, MutableMapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_rnn.categories import CategoryCodes
from lightning_rnn.data.loader import EvalSampler, SequenceLoader
from lightning_rnn.data.schema import Schema
from lightning_rnn.data.sequences import Sequences
from lightning_rnn.errors import DataError, check, counted
from lightning_rnn.models.network import SequenceNetwork
from lightning_rnn.padding import Padding


class InferenceMixin:
    """Predictions of a model from arrays."""

    network: SequenceNetwork
    schema: Schema
    hparams: MutableMapping[str, Any]

    def __repr__(self) -> str:
        """Return the arguments that describe the network, whose layers `model.network` lists."""
        names = ["input_size", "class_names"]
        network = getattr(self, "network", None)
        if network is None or network.encoder is None:
            names += ["cell", "hidden_size"]
        shown = [f"{name}={self.hparams[name]!r}" for name in names]
        return f"{type(self).__name__}({', '.join(shown)})"

    @property
    def class_names(self) -> list[str]:
        """K names in the order of the class codes."""
        self._check_sizes()
        return self.schema.class_names

    def predict_proba(self, x: Any) -> np.ndarray:
        """Predict probabilities from raw values, on the device of the model.

        Args:
            x: (N, T, F) array, (T, F) array for one sequence, or a list of (T_i, F) arrays; NaN
                where a value is missing; names of categories.

        Returns:
            (N,) float32 probabilities of the second of two classes, or (N, K).

        Raises:
            DataError: If the shape, dtype or number of features is wrong, a value is infinite, or a
                category was not in the training data.
            OptionError: If the model was created without sizes and has not been trained.
        """
        return self._infer(x, self._probabilities)

    def predict(self, x: Any) -> np.ndarray:
        """Predict class names (N,) from raw values; see `predict_proba`."""
        codes = self._infer(x, self._predictions)
        names: np.ndarray = np.array(self.class_names)[codes]
        return names

    def embed(self, x: Any) -> np.ndarray:
        """Return the pooled states (N, D H) that the head classifies; see `predict_proba`."""
        self._check_sizes()
        return self._infer(x, self.network.embed)

    @torch.inference_mode()
    def _infer(self, x: Any, function: Callable[[Tensor, Padding], Tensor]) -> np.ndarray:
        """Return what a function computes for each sequence, in evaluation mode.

        The function takes the values (B, T, F) of a batch and their padding, and returns B rows.
        """
        self._check_sizes()
        network = self.network
        missing_values = network.preprocess.missing_values
        sequences = Sequences.from_arrays(self._encoded(x), missing_values=missing_values)
        if sequences.num_features != network.input_size:
            got = sequences.num_features
            raise DataError(f"x: expected {counted(network.input_size, 'feature')}, got {got}")
        parameter = next(network.parameters())
        was_training = network.training
        network.eval()
        rows = []
        results = []
        for batch in SequenceLoader(sequences, EvalSampler(sequences.lengths, batch_size=1)):
            result = function(batch.x.to(parameter), batch.padding.to(parameter.device))
            rows.append(batch.index)
            results.append(result.cpu())
        network.train(was_training)
        order = torch.cat(rows).argsort()
        return torch.cat(results)[order].numpy()

    def _check_sizes(self) -> None:
        is_known = hasattr(self, "network")
        check(is_known, "input_size and num_classes", None, "numbers, or a model that is trained")

    def _encoded(self, x: Any) -> Any:
        """Return arrays with the codes of categories, if any feature has some."""
        if not self.schema.categories:
            return x
        if isinstance(x, np.ndarray) and x.ndim == 2:
            x = x[None]
        encode = CategoryCodes(self.schema.feature_names, self.schema.categories)
        return [encode(sequence, f"x[{i}]") for i, sequence in enumerate(x)]

    def _probabilities(self, x: Tensor, padding: Padding) -> Tensor:
        return self.network.decision.probabilities(self.network(x, padding))

    def _predictions(self, x: Tensor, padding: Padding) -> Tensor:
        return self.network.decision.predict(self.network(x, padding))
