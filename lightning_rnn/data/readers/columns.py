"""Columns of text: names of sequences and classes, and codes of categories."""

import math
from typing import TYPE_CHECKING

import numpy as np

from lightning_rnn.categories import NUMBER, Categories, class_name
from lightning_rnn.data.readers.class_names import known_text, sort_classes
from lightning_rnn.data.readers.contents import ReadOptions, join_names, quote, unexpected
from lightning_rnn.data.readers.table_rows import Rows
from lightning_rnn.errors import check

if TYPE_CHECKING:
    import polars as pl


def text_column(column: "pl.Series", options: ReadOptions) -> "pl.Series":
    """Return stripped text, "" where it is missing; floats are spelt as classes are.

    Text such as 7.0 (or 7,0) becomes 7: whole numbers are written so if one of them is missing.
    """
    import polars as pl

    if column.dtype.is_float():
        return class_column(column, ReadOptions())
    check_not_nested(column)
    if column.dtype.is_integer():
        return column.cast(pl.String).fill_null("")
    text = known_text(column.cast(pl.String)).fill_null("")
    mark = "," if options.decimal_comma else "[.]"
    return text.str.replace(f"^([+-]?[0-9]+){mark}0+$", "${1}")


def class_column(column: "pl.Series", options: ReadOptions) -> "pl.Series":
    """Return canonical class names, "" where they are missing."""
    import polars as pl

    check_not_nested(column)
    text = column.cast(pl.String).fill_null("").str.strip_chars()
    unique = text.unique()
    names: list[str] = []
    for name in unique:
        with_point = name.replace(",", ".")
        is_number = options.decimal_comma and NUMBER.fullmatch(with_point)
        names.append(class_name(with_point if is_number else name))
    if names == unique.to_list():
        return text
    return text.replace_strict(unique, pl.Series(names, dtype=pl.String))


def check_not_nested(column: "pl.Series") -> None:
    """Raise a DataError if the cells are neither text nor numbers."""
    if column.dtype.is_nested() or str(column.dtype) in ("Binary", "Object"):
        raise unexpected(f"column {quote(column.name)}", "text or numbers", str(column.dtype))


def possible_classes(frame: "pl.DataFrame", options: ReadOptions) -> list[str]:
    """Return the columns whose values repeat, are no decimals, and do not change within an id."""
    import polars as pl

    roles = [options.id_column, options.time_column, options.group_column]
    names: list[str] = []
    for name in [name for name in frame.columns if name not in roles]:
        values = frame[name].cast(pl.String, strict=False).drop_nulls()
        is_repeated = 2 <= values.n_unique() <= len(values) / 2
        if not is_repeated or values.str.contains("[0-9][.,][0-9]").any():
            continue
        if options.id_column in frame.columns:
            pairs = frame.select(options.id_column, name)
            if pairs.n_unique() > pairs[options.id_column].n_unique():
                continue
        names.append(name)
    return names


def find_categories(frame: "pl.DataFrame", options: ReadOptions) -> Categories:
    """Return the categories of each column that has some: the given ones, or else those found."""
    categories = dict(options.categories or {})
    for name in options.category_names:
        if name not in categories:
            words = set(class_column(frame[name], options).unique())
            categories[name] = sort_classes(words - {""})
    return categories


def category_codes(
    rows: Rows, name: str, categories: list[str], options: ReadOptions
) -> np.ndarray:
    """Return (rows,) codes: 1, 2, ... of the categories, 0 of others, NaN where missing."""
    import polars as pl

    words = class_column(rows.frame[name], options)
    is_unknown = ~words.is_in([*categories, ""])
    if is_unknown.any() and not options.unknown_categories:
        row = int(is_unknown.arg_true()[0])
        expected = f"one of the categories {join_names(categories)} (or unknown_categories=True)"
        raise unexpected(f"{rows.place(row)}, column {quote(name)}", expected, quote(words[row]))
    codes = pl.Series([math.nan, *range(1, len(categories) + 1)], dtype=pl.Float64, strict=False)
    return words.replace_strict(["", *categories], codes, default=0.0).to_numpy()


def check_categories(categories: Categories, missing_values: list[float]) -> None:
    """Check that a training file has categories, and that their codes stand for nothing else."""
    for name, words in categories.items():
        if not words:
            raise unexpected(f"column {quote(name)}", "categories", "only missing values")
    largest = max([-1, *map(len, categories.values())])
    for value in missing_values:
        expected = f"numbers other than 0 to {largest}, the codes of categories"
        check(not 0 <= value <= largest, "missing_values", value, expected)
