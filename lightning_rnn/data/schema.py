"""Sizes and names that a model takes from its data."""

from dataclasses import dataclass


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
