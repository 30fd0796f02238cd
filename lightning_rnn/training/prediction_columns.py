"""The columns of files of predictions."""

from typing import Any

import torch

from lightning_rnn.data.base_module import SequenceDataModule
from lightning_rnn.evaluation.results import Predictions


def prediction_columns(
    predictions: Predictions, data: SequenceDataModule | None, class_names: list[str], split: str
) -> dict[str, Any]:
    """Return the columns of a file of predictions, with a row for each sequence of a split."""
    index = predictions.index.numpy()
    columns: dict[str, Any] = {"id": index}
    sequences = None if data is None else data.split(split)
    if sequences is not None and sequences.ids is not None:
        columns["id"] = sequences.ids[index].tolist()
    if sequences is not None and sequences.groups is not None:
        columns["group"] = sequences.groups[index].tolist()
    probabilities = predictions.probabilities
    if probabilities.ndim == 1:
        probabilities = torch.stack([1 - probabilities, probabilities], dim=1)
    for k, name in enumerate(class_names):
        columns[f"probability_{name}"] = probabilities[:, k].numpy()
    columns["label"] = [class_names[code] for code in predictions.labels.tolist()]
    true_labels = None if data is None else data.true_labels(split)
    if true_labels is not None:
        columns["true_label"] = [true_labels[row] for row in index]
    for i, states in enumerate(predictions.embeddings.T):
        columns[f"embedding_{i}"] = states.numpy()
    return columns
