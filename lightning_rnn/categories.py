"""Names of classes and categories, one spelling for each, and the codes of categories."""

import math
import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import numpy as np

from lightning_rnn.errors import DataError, as_array

NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
# in lower case; C writes "-nan"; "-" is no such word, because "+" and "-" are common classes
MISSING_WORDS = ("", "?", "na", "n/a", "#n/a", "<na>", "nan", "-nan", "null", "none")

Categories = dict[str, list[str]]  # by feature, in the order of their codes 1, 2, ...


def is_missing(text: str) -> bool:
    """Return whether text stands for a missing label, id, group, time or value."""
    return text.strip().lower() in MISSING_WORDS


def class_name(raw: object) -> str:
    """Return the canonical name of a class or category.

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


def quoted(name: str) -> str:
    """Return a class name as lists in messages show it: in quotes if it has punctuation of lists.

    Example:
        >>> [quoted("up"), quoted("up, then down")]
        ['up', "'up, then down'"]
    """
    return repr(str(name)) if re.search("[,;:()'\"]", name) or not name.isprintable() else name


def join_classes(names: Iterable[str]) -> str:
    """Return class names separated by commas."""
    return ", ".join(map(quoted, names))


def _number_name(text: str) -> str:
    digits = text.lstrip("+-")
    if digits.isdigit():
        is_negative = text.startswith("-") and int(digits) != 0
        return f"-{digits}" if is_negative else digits
    value = float(text)
    if not math.isfinite(value):
        return text
    if value.is_integer() and abs(value) < 1e22:
        return str(int(Decimal(text)) if value else 0)  # a float has exact digits up to 2^53
    return repr(value)


class CategoryCodes:
    """Replaces the categories in arrays by their codes: 1, 2, ..., and NaN where missing.

    Other categories are an error, or with `accept_unknown` have the code 0.

    Example:
        >>> encode = CategoryCodes(["speed", "gait"], {"gait": ["run", "walk"]})
        >>> encode([[0.5, "walk"], [1.5, "run"], [2.0, None]], "x").tolist()
        [[0.5, 2.0], [1.5, 1.0], [2.0, nan]]
    """

    def __init__(
        self,
        feature_names: list[str] | None,
        categories: Categories,
        *,
        accept_unknown: bool = False,
    ) -> None:
        self.accept_unknown = accept_unknown
        self._code_of: dict[str, dict[str, float]] = {}
        for feature, words in categories.items():
            codes = range(1, len(words) + 1)
            self._code_of[feature] = {"": math.nan, **dict(zip(words, codes, strict=True))}
        self._feature_names = feature_names or []
        self.has_categories = bool(categories)

    def __call__(self, x: Any, name: str) -> Any:
        """Return a sequence (T, F) or (T,), called `name`, as numbers; `x` itself without any."""
        if not self.has_categories:
            return x
        array = as_array(x, name)
        num_features = len(self._feature_names)
        if array.ndim == 1 and num_features == 1:
            array = array[:, None]
        if array.ndim != 2 or array.shape[1] != num_features:
            raise DataError(f"{name}: expected shape (T, {num_features}), got {array.shape}")
        numbers = np.empty(array.shape)
        for i, feature in enumerate(self._feature_names):
            code_of = self._code_of.get(feature)
            for t, value in enumerate(array[:, i]):
                where = f"{name}, step {t}, feature {feature!r}"
                numbers[t, i] = self._number(value, code_of, where)
        return numbers

    def _number(self, value: Any, code_of: dict[str, float] | None, where: str) -> float:
        if code_of is not None:
            code = code_of.get(class_name(value), 0.0)
            if code == 0.0 and not self.accept_unknown:
                expected = "a category seen in training, or unknown_categories=True"
                raise DataError(f"{where}: expected {expected}, got {str(value)!r}")
            return code
        try:
            return math.nan if value is None else float(value)
        except (TypeError, ValueError):
            raise DataError(f"{where}: expected a number, got {value!r}") from None
