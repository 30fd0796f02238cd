"""Sizes and names that a model takes from its data, and the codes of labels."""

from dataclasses import dataclass, field

import torch

from lightning_rnn.categories import Categories
from lightning_rnn.data.readers.class_names import class_codes
from lightning_rnn.data.readers.contents import FileContents, unexpected
from lightning_rnn.data.readers.sources import Paths, data_errors_with_title
from lightning_rnn.data.sequences import Sequences
from lightning_rnn.errors import counted


@dataclass(frozen=True)
class Schema:
    """Sizes and names that a model takes from its data."""

    num_features: int
    class_names: list[str]  # in the order of the codes; the second of two is the positive class
    feature_names: list[str] | None = None
    step_names: list[str] | None = None  # columns that hold the time steps of a wide table
    categories: Categories = field(default_factory=dict)  # of features that are no numbers

    @property
    def category_sizes(self) -> list[int]:
        """Number of categories of each feature, 0 for numbers."""
        names = self.feature_names or [""] * self.num_features
        return [len(self.categories.get(name, ())) for name in names]


def encode(
    file: FileContents, schema: Schema, paths: Paths, *, has_labels: bool = True
) -> Sequences:
    """Return the sequences of a file, which must fit the schema, with the codes of their labels."""
    sequences = file.sequences
    with data_errors_with_title(paths):
        if sequences.num_features != schema.num_features:
            expected = f"{counted(schema.num_features, 'feature')} per step, as in training"
            raise unexpected("", expected, str(sequences.num_features))
        if not has_labels or file.labels is None or sequences.ids is None:
            return sequences
        codes = class_codes(file.labels, sequences.ids, schema.class_names)
    return sequences.replaced(labels=torch.from_numpy(codes))
