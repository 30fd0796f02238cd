"""Applying a trained model to arrays, without a Trainer."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_rnn.data.loader import EvalSampler, SequenceLoader
from lightning_rnn.data.sequences import Sequences
from lightning_rnn.errors import DataError
from lightning_rnn.models.network import SequenceNetwork


@torch.inference_mode()
def infer(network: SequenceNetwork, x: Any, function: Callable[[Tensor], Tensor]) -> np.ndarray:
    """Return a function of the logits of each sequence; see `SequenceClassifier.predict_proba`.

    The function takes logits, (B,) or (B, K), and returns a tensor with B rows. The network
    runs in evaluation mode on its own device.
    """
    sequences = Sequences.from_arrays(x, missing_values=network.preprocess.missing_values)
    if sequences.num_features != network.input_size:
        got = sequences.num_features
        raise DataError(f"x: expected {network.input_size} features, got {got}")
    parameter = next(network.parameters())
    was_training = network.training
    network.eval()
    rows = []
    results = []
    for batch in SequenceLoader(sequences, EvalSampler(sequences.lengths, batch_size=1)):
        logits = network(batch.x.to(parameter), batch.padding.to(parameter.device))
        rows.append(batch.index)
        results.append(function(logits).cpu())
    network.train(was_training)
    order = torch.cat(rows).argsort()
    return torch.cat(results)[order].numpy()
