"""Sizes and names that a model takes from its data."""

from dataclasses import dataclass, field

from lightning_rnn.categories import Categories


@dataclass(frozen=True)
class Schema:
    """Sizes and names that a model takes from its data.

    Attributes:
        num_features: F.
        class_names: K names in the order of the codes; the second of two is the positive class.
        feature_names: F names, or None if the features have no names.
        step_names: Names of the columns that hold the time steps of a wide table, or None.
        categories: Categories of the features that are no numbers, in the order of their codes.
    """

    num_features: int
    class_names: list[str]
    feature_names: list[str] | None = None
    step_names: list[str] | None = None
    categories: Categories = field(default_factory=dict)

    @property
    def category_sizes(self) -> list[int]:
        """Number of categories of each feature, 0 for numbers."""
        names = self.feature_names or [""] * self.num_features
        return [len(self.categories.get(name, ())) for name in names]
