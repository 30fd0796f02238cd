"""Class names: one spelling for each class, whatever the format of the file."""

import re
from collections.abc import Iterable

import numpy as np

NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "?")


def class_name(raw: object) -> str:
    """Return the canonical name of a class.

    Integers, whole floats and text that writes a whole float with a point or an exponent become the
    digits of an integer ("1.0000000e+00" is "1", "01" stays "01"). Booleans become "true" and
    "false". Other text is stripped. None, NaN and empty text are no label: "".

    Example:
        >>> class_name(1.0), class_name("1.0e+00"), class_name(True), class_name(" walk ")
        ('1', '1', 'true', 'walk')
    """
    if isinstance(raw, bytes):
        raw = raw.decode()
    if isinstance(raw, bool | np.bool_):
        return str(raw).lower()
    text = "" if raw is None else str(raw).strip()
    if text.lower() == "nan":
        return ""
    is_float = isinstance(raw, float | np.floating)
    if is_float or (NUMBER.fullmatch(text) and not text.lstrip("+-").isdigit()):
        value = float(text)
        if value.is_integer() and abs(value) < 2**53:  # larger ones have no exact digits
            return str(int(value))
    return text


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
