"""Arrays from what a caller gives."""

from typing import Any

import numpy as np

from lightning_rnn.errors import DataError


def as_array(x: Any, name: str) -> np.ndarray:
    """Return x as an array, without a copy where it is one.

    Raises:
        DataError: Nested lists of different lengths.
    """
    try:
        return np.asarray(x)
    except ValueError:
        raise DataError(f"{name}: found nested lists of different lengths, accepted is a table") from None
