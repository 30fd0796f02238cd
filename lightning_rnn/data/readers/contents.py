"""What a sequence file holds, whatever its format, and the words in which errors speak of it.

Lines are counted from 1, as editors do; rows, sequences and steps from 0, as NumPy does.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lightning_rnn.data.sequences import Sequences
from lightning_rnn.errors import DataError

MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "?")
NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
NUMBERS_ACCEPTED = (
    "accepted are finite float32 numbers, or empty, NaN, NA, null or ? for a missing value"
)
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class FileContents:
    """What a file holds.

    Attributes:
        sequences: N sequences without labels; ids are the file's, or row numbers; groups where they were asked for.
        labels: (N,) object array of canonical class names (see `class_name`), or None where the file has none.
        feature_names: F names, or None for a format without them (anything but long CSV and Parquet).
    """

    sequences: Sequences
    labels: np.ndarray | None
    feature_names: list[str] | None


@dataclass(frozen=True)
class ReadOptions:
    """What to read of a file; a folder made by `pack` needs none of the columns but the features.

    Attributes:
        label_column: CSV, Parquet: column of class names.
        id_column: CSV, Parquet: column that names a row's sequence; each row is then one time step. Without it each
            row is one sequence of a single feature.
        time_column: CSV, Parquet with `id_column`: column that orders the steps of a sequence: numbers, or else text
            (ISO dates) or Parquet's dates; without it they keep the file's order.
        group_column: CSV, Parquet: column of groups. .npz, .npy: any name asks for the array of groups.
        feature_columns: CSV, Parquet: the features, in order; otherwise every column that has no other role.
        only_features: CSV, Parquet: whether a column of no role besides `feature_columns` is an error.
        require_labels: Whether missing labels or groups are an error; if not, one missing label makes `labels` None.
    """

    label_column: str = "label"
    id_column: str | None = None
    time_column: str | None = None
    group_column: str | None = None
    feature_columns: list[str] | None = None
    only_features: bool = False
    require_labels: bool = True


def class_name(raw: object) -> str:
    """Return the one spelling of a class, whichever format it came from.

    Integers, whole floats and text that writes a whole float with a point or an exponent become an integer's digits
    ("1.0000000e+00" is "1", "01" stays "01"); booleans become "true" and "false"; other text is stripped. None, NaN
    and empty text are no label, "".
    """
    if isinstance(raw, bytes):
        raw = raw.decode()
    if isinstance(raw, bool | np.bool_):
        return str(raw).lower()
    text = "" if raw is None else str(raw).strip()
    if text.lower() == "nan":
        return ""
    if isinstance(raw, float | np.floating) or (
        NUMBER.fullmatch(text) and not text.lstrip("+-").isdigit()
    ):
        value = float(text)
        if value.is_integer() and abs(value) < 2**53:  # beyond that, digits would be made up
            return str(int(value))
    return text


def class_names(raw: np.ndarray) -> np.ndarray:
    """Return `class_name` of each of (N,) labels, as an (N,) object array."""
    unique, inverse = np.unique(raw, return_inverse=True)
    return np.array([class_name(value) for value in unique], dtype=object)[inverse]


def sort_classes(names: Iterable[str]) -> list[str]:
    """Return the distinct names, in numeric order if all are numbers, else in text order."""
    distinct = sorted(set(names))
    return (
        sorted(distinct, key=float)
        if all(NUMBER.fullmatch(name) for name in distinct)
        else distinct
    )


def reason(error: BaseException) -> str:
    """Return the first line of a library's error."""
    return next(iter(str(error).splitlines()), "")[:200] or type(error).__name__


def show(value: object) -> str:
    """Return a value as errors quote it."""
    text = repr(str(value))
    return text if len(text) <= 60 else text[:57] + "..."


def listing(names: Iterable[object]) -> str:
    """Return names as errors list them."""
    shown = [show(name) for name in names]
    return ", ".join(shown[:20]) + (f" and {len(shown) - 20} more" if len(shown) > 20 else "")


def row_ids(n: int) -> np.ndarray:
    """Return the ids of sequences without names."""
    return np.arange(n).astype(str).astype(object)


def complete(names: Any, what: str, place: Callable[[int], str], required: bool = True) -> Any:
    """Return the names, or None if some are missing and need not be there."""
    missing = np.flatnonzero(names == "")
    if len(missing) and required:
        raise DataError(
            f"{place(int(missing[0]))}: found no {what}, accepted is any text or number"
        )
    return None if len(missing) else names


def choose_features(has: list[str], wanted: ReadOptions) -> list[str]:
    """Return the features to take of those that there are, in order; refuse a file that has others."""
    asked = has if wanted.feature_columns is None else wanted.feature_columns
    there, asks = set(has), Counter(asked)
    for found, differ in (
        ("no feature", [name for name in asked if name not in there]),
        ("also", [name for name in has if name not in asks] if wanted.only_features else []),
        ("twice", [name for name, count in asks.items() if count > 1]),
    ):
        if differ:
            raise DataError(
                f"features that differ: found {found} {listing(differ)}, accepted are {listing(asked)}"
            )
    return asked
