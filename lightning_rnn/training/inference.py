"""Applying a trained model to arrays, without a Trainer."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_rnn.data.loader import EvalSampler, SequenceLoader
from lightning_rnn.data.sequences import Sequences
from lightning_rnn.errors import DataError


@torch.inference_mode()
def infer(
    model: nn.Module, x: Any, function: Callable[[Tensor], Tensor], num_features: int
) -> np.ndarray:
    """Return a function of the logits of each sequence; see `SequenceClassifier.predict_proba`.

    The function takes logits, (B,) or (B, K), and returns a tensor with B rows. The model takes
    (x, padding); it runs in evaluation mode on its own device.
    """
    sequences = Sequences.from_arrays(x)
    if sequences.num_features != num_features:
        raise DataError(f"x: expected {num_features} features, got {sequences.num_features}")
    parameter = next(model.parameters())
    was_training = model.training
    model.eval()
    rows = []
    results = []
    for batch in SequenceLoader(sequences, EvalSampler(sequences.lengths, batch_size=1)):
        logits = model(batch.x.to(parameter), batch.padding.to(parameter.device))
        rows.append(batch.index)
        results.append(function(logits).cpu())
    model.train(was_training)
    order = torch.cat(rows).argsort()
    return torch.cat(results)[order].numpy()
