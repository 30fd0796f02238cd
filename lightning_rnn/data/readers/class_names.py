"""Class names and missing values: one spelling for each, whatever the format of the file."""

import math
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from lightning_rnn.data.readers.contents import unexpected

if TYPE_CHECKING:
    import polars as pl

NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
# in lower case; "-" is not one of them, because "+" and "-" are common classes
MISSING_WORDS = ("", "?", "na", "n/a", "#n/a", "<na>", "nan", "null", "none")


def is_missing(text: str) -> bool:
    """Return whether text stands for a missing label, id, group, time or value."""
    return text.strip().lower() in MISSING_WORDS


def known_text(column: "pl.Series") -> "pl.Series":
    """Return stripped text, null where it stands for a missing value."""
    text = column.str.strip_chars()
    return text.set(text.str.to_lowercase().is_in(MISSING_WORDS), None)


def class_name(raw: object) -> str:
    """Return the canonical name of a class.

    Numbers with a point or an exponent become the shortest text of the same number, without the
    point if they are whole; plus signs are removed; integers keep leading zeros, which codes have.
    Booleans, also as text, become "true" and "false". Other text is stripped. A missing value
    (see `MISSING_WORDS`) is no label: "".

    Example:
        >>> [class_name(raw) for raw in (1.0, "1.0e+00", "+1", "0.50", "01", "True", "NA")]
        ['1', '1', '1', '0.5', '01', 'true', '']
    """
    if isinstance(raw, bytes):
        raw = raw.decode()
    text = str(raw).strip()
    if is_missing(text):
        return ""
    if text.lower() in ("true", "false"):
        return text.lower()
    if NUMBER.fullmatch(text):
        return _number_name(text)
    return text


def _number_name(text: str) -> str:
    digits = text.lstrip("+-")
    if digits.isdigit():
        is_negative = text.startswith("-") and int(digits) != 0
        return f"-{digits}" if is_negative else digits
    value = float(text)
    if not math.isfinite(value):
        return text
    if value.is_integer() and abs(value) < 2**53:  # larger ones have no exact digits
        return str(int(value))
    return repr(value)


def class_names(raw: np.ndarray) -> np.ndarray:
    """Return `class_name` of (N,) labels, as an (N,) object array."""
    unique, inverse = np.unique(raw, return_inverse=True)
    names = np.array([class_name(value) for value in unique], dtype=object)
    return names[inverse]


def sort_classes(names: Iterable[str]) -> list[str]:
    """Return the distinct names, in numeric order if all are numbers, else in text order."""
    distinct = sorted(set(names))
    if all(NUMBER.fullmatch(name) for name in distinct):
        return sorted(distinct, key=float)
    return distinct


def check_not_continuous(labels: np.ndarray) -> None:
    """Raise a DataError if (N,) class names look like numbers to predict, not like classes.

    They do if all are numbers, and at least ten of them differ, and there are fewer than two
    sequences per class on average, or fewer than ten if some numbers are not whole; also if all
    differ and some are not whole.
    """
    distinct = set(labels.tolist())
    if not all(NUMBER.fullmatch(name) for name in distinct):
        return
    is_whole = all(float(name).is_integer() for name in distinct)
    sequences_per_class = len(labels) / len(distinct)
    is_many = len(distinct) >= 10 and sequences_per_class < (2 if is_whole else 10)
    all_differ = not is_whole and len(distinct) == len(labels) >= 3
    if is_many or all_differ:
        got = f"{len(distinct)} different numbers in {len(labels)} sequences"
        raise unexpected("labels", "classes", f"{got}, which look like a number to predict")
