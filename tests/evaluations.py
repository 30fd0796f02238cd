"""Evaluations for tests."""

import numpy as np
import torch

from lightning_rnn.evaluation.results import Evaluation


def make_evaluation(logits, labels):
    """Return an evaluation whose losses are 0.5, 1.5, ..."""
    logits = torch.as_tensor(logits, dtype=torch.float32)
    labels = torch.as_tensor(labels)
    index = torch.arange(len(labels))
    return Evaluation(index, logits, labels, losses=index + 0.5)


def random_evaluation(num_classes, n, seed, scale=2.0):
    """Return informative logits with ties among them; every class occurs."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % num_classes)
    if num_classes == 2:
        noise = rng.normal(size=n)
        signal = 2.0 * labels - 1
    else:
        noise = rng.normal(size=(n, num_classes))
        signal = np.eye(num_classes)[labels]
    return make_evaluation(np.round(scale * noise + signal, 1) + 0.03, labels)
