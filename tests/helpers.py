"""What several test modules share."""

import numpy as np
import torch

from lightning_rnn.evaluation.metrics import Evaluation


def outcome(logits, y):
    logits, y = torch.as_tensor(logits, dtype=torch.float32), torch.as_tensor(y)
    return Evaluation(torch.arange(len(y)), logits, y, torch.arange(len(y)) + 0.5)


def random_outcome(num_classes, n, seed, scale=2.0):
    """Logits that know something of the labels, ties among them; every class is there."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % num_classes)
    shape = (n,) if num_classes == 2 else (n, num_classes)
    hint = 2.0 * y - 1 if num_classes == 2 else np.eye(num_classes)[y]
    return outcome(np.round(scale * rng.normal(size=shape) + hint, 1) + 0.03, y)
