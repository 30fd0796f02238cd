"""Applying a trained model to arrays, without a Trainer."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_rnn.data.loader import EvalSampler, SequenceLoader
from lightning_rnn.data.sequences import Sequences
from lightning_rnn.errors import DataError
from lightning_rnn.padding import Padding


@torch.inference_mode()
def infer(model: Any, x: Any, function: Callable[[Tensor, Padding], Tensor]) -> np.ndarray:
    """Return what a function computes for each sequence; see `SequenceClassifier.predict_proba`.

    The function takes the values (B, T, F) of a batch and their padding, and returns B rows. The
    model, a `SequenceClassifier`, is in evaluation mode meanwhile, on its own device.
    """
    sequences = Sequences.from_arrays(x)
    expected = model.schema.num_features
    if sequences.num_features != expected:
        raise DataError(f"x: expected {expected} features, got {sequences.num_features}")
    parameter = next(model.parameters())
    was_training = model.training
    model.eval()
    rows = []
    results = []
    for batch in SequenceLoader(sequences, EvalSampler(sequences.lengths, batch_size=1)):
        result = function(batch.x.to(parameter), batch.padding.to(parameter.device))
        rows.append(batch.index)
        results.append(result.cpu())
    model.train(was_training)
    order = torch.cat(rows).argsort()
    return torch.cat(results)[order].numpy()
