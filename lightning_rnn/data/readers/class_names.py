"""Class names and missing values in columns and arrays."""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from lightning_rnn.categories import MISSING_WORDS, NUMBER, class_name, join_classes
from lightning_rnn.data.readers.contents import unexpected

if TYPE_CHECKING:
    import polars as pl

NUMBER_LIKE = re.compile(r"(?=.*[0-9])(\d|[\W_])+")  # such as 5 %, 0,5 or 2024-01-31


def known_text(column: "pl.Series") -> "pl.Series":
    """Return stripped text, null where it stands for a missing value."""
    text = column.str.strip_chars()
    return text.set(text.str.to_lowercase().is_in(MISSING_WORDS), None)


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


def order_classes(labels: np.ndarray, positive: str | None) -> list[str]:
    """Return the names of at least two classes in the order of their codes.

    The positive one of two classes is the last, by default the last in sorted order. Raises a
    DataError if there is one class only, or the labels look like numbers to predict.
    """
    check_not_continuous(labels)
    names = sort_classes(labels)
    if len(names) < 2:
        raise unexpected("", "at least two classes", f"only {names[0]!r}")
    if positive is not None:
        if positive not in names or len(names) != 2:
            expected = f"two classes, one of them the positive_class {positive!r}"
            raise unexpected("", expected, join_classes(names))
        names.remove(positive)
        names.append(positive)
    return names


def class_codes(labels: np.ndarray, ids: np.ndarray, class_names: list[str]) -> np.ndarray:
    """Return the (N,) codes of labels; a DataError names the sequence of one that has none."""
    code_of = {name: code for code, name in enumerate(class_names)}
    codes = np.array([code_of.get(label, -1) for label in labels])
    unknown = np.flatnonzero(codes < 0)
    if len(unknown):
        expected = f"a label seen in training ({join_classes(class_names)})"
        row = unknown[0]
        raise unexpected(f"sequence {ids[row]!r}", expected, repr(labels[row]))
    return codes


def check_not_continuous(labels: np.ndarray) -> None:
    """Raise a DataError if (N,) class names look like numbers to predict, not like classes.

    They do if all are numbers, perhaps with a sign such as % or a decimal comma, and at least ten
    of them differ, and there are fewer than two sequences per class on average, or fewer than ten
    if some numbers are not whole; also if all differ and some are not whole.
    """
    distinct = set(labels.tolist())
    if not all(NUMBER.fullmatch(name) or NUMBER_LIKE.fullmatch(name) for name in distinct):
        return
    is_whole = not any(re.search("[.,][0-9]|e-", name) for name in distinct)
    sequences_per_class = len(labels) / len(distinct)
    is_many = len(distinct) >= 10 and sequences_per_class < (2 if is_whole else 10)
    all_differ = not is_whole and len(distinct) == len(labels) >= 3
    if is_many or all_differ:
        got = f"{len(distinct)} different numbers in {len(labels)} sequences"
        raise unexpected("labels", "classes", f"{got}, which look like a number to predict")
