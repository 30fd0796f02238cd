"""Sizes and names that a model takes from its data, and the data in its terms."""

from dataclasses import dataclass

import torch

from lightning_rnn.data.readers.contents import FileContents
from lightning_rnn.data.sequences import Sequences
from lightning_rnn.errors import DataError


@dataclass(frozen=True)
class Schema:
    """Sizes and names that a model takes from its data.

    Attributes:
        num_features: F.
        class_names: K names in the order of the codes; the second of two is the positive class.
        feature_names: F names, or None if the features have no names.
        step_names: Names of the columns that hold the time steps of a wide table, or None.
    """

    num_features: int
    class_names: list[str]
    feature_names: list[str] | None = None
    step_names: list[str] | None = None


def encode(file: FileContents, schema: Schema, title: str, *, has_labels: bool = True) -> Sequences:
    """Return the sequences of a file, with the codes of their labels if it has any.

    Raises:
        DataError: If the number of features or a label is not that of the schema; with the title
            of the file.
    """
    sequences = file.sequences
    if sequences.num_features != schema.num_features:
        expected = f"{schema.num_features} features per step, as in training"
        raise DataError(f"{title}: expected {expected}, got {sequences.num_features}")
    if not has_labels or file.labels is None or sequences.ids is None:
        return sequences
    code_of = {name: code for code, name in enumerate(schema.class_names)}
    codes: list[int] = []
    for label, sequence in zip(file.labels, sequences.ids, strict=True):
        if label not in code_of:
            expected = f"a label seen in training ({', '.join(schema.class_names)})"
            place = f"{title}: sequence {sequence!r}"
            raise DataError(f"{place}: expected {expected}, got {label!r}")
        codes.append(code_of[label])
    return sequences.with_labels(torch.tensor(codes))
