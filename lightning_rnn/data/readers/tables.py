"""Reader of CSV and Parquet files with one row per time step or one row per sequence."""

import math
import re
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lightning_rnn.categories import Categories
from lightning_rnn.data.readers.class_names import known_text
from lightning_rnn.data.readers.columns import (
    category_codes,
    check_not_nested,
    class_column,
    find_categories,
    possible_classes,
    text_column,
)
from lightning_rnn.data.readers.contents import (
    FINITE_NUMBERS,
    NAMES_OF_PATH,
    FileContents,
    ReadOptions,
    choose_features,
    complete,
    join_names,
    quote,
    row_ids,
    unexpected,
)
from lightning_rnn.data.readers.table_rows import Rows
from lightning_rnn.data.readers.times import time_keys
from lightning_rnn.data.sequences import Sequences

if TYPE_CHECKING:
    import polars as pl

TEXT_OR_TIME = re.compile(r"[^\W\d_]|[0-9][:/_-][0-9]")
NO_FEATURE = (
    "id_column, time_column, group_column or category_columns must name a column of ids, times, "
    "groups or categories"
)


def table_contents(
    rows: Rows, options: ReadOptions, time_kind: str | None = None
) -> tuple[FileContents, np.ndarray]:
    """Form sequences from all rows of some sequences, whose times are of the kind of the file.

    Returns the sequences in the order of their first rows, and the (N,) numbers of these rows.
    """
    features, ignored = feature_columns(rows.frame, options)
    categories = find_categories(rows.frame, options)
    values, remainders = _feature_values(rows, features, categories, options)  # (rows, F), (2, F)
    frame = rows.frame.drop(features)
    rows = replace(rows, frame=frame)  # frees the memory of the text
    labels = _labels(rows, options)
    groups = None
    if options.group_column is not None and options.group_column in frame.columns:
        groups = complete(text_column(frame[options.group_column], options), "a group", rows.place)
    ids = _ids(rows, options)
    if _is_wide(rows, ids, options):
        names_of: dict[str, Any] = {"feature_names": None, "step_names": features}
        first_rows = np.arange(len(ids))
        label_rows = first_rows  # of the labels of all rows
        lengths = np.full(len(ids), len(features))
        values = values.reshape(-1, 1)  # (N * T, 1)
        remainders = remainders.max(1, keepdims=True)
    else:
        names_of = {"feature_names": features, "categories": categories}
        owners = label_rows = _owners(ids)
        if labels is not None and not options.require_labels:
            label_rows = _owners(ids, preferred=labels != "")
        if options.window_length is None:
            _check_constant(labels, "label", label_rows, rows)
        _check_constant(groups, "group", owners, rows)
        order = np.argsort(owners, kind="stable")
        if options.time_column is not None:
            order, time_kind = _order_by_time(rows, options, owners, time_kind)
        if (order[1:] < order[:-1]).any():
            values = values[order]
        num_rows = np.bincount(owners)  # of the sequence that starts with each row
        first_rows = np.flatnonzero(num_rows)
        lengths = num_rows[first_rows]
    ids = np.asarray(ids[first_rows], dtype=object)
    groups = _pick(groups, first_rows)
    marks = options.missing_values
    sequences = Sequences(values, lengths, groups=groups, ids=ids, missing_values=marks)
    sequences.rounding[3:] = torch.from_numpy(remainders)
    if options.window_length is not None:
        names_of["step_labels"] = _pick(labels, order)
        labels = None
    picked = _pick(labels, label_rows[first_rows])
    contents = FileContents(sequences, picked, **names_of, time_kind=time_kind, ignored=ignored)
    return contents, rows.numbers[first_rows]


def _labels(rows: Rows, options: ReadOptions) -> "pl.Series | None":
    """Return the (rows,) class names, None without them."""
    # files to predict need not be in the folder of their class
    has_labels = options.require_labels or options.label_column not in NAMES_OF_PATH
    if options.label_column not in rows.frame.columns or not has_labels:
        return None
    names = class_column(rows.frame[options.label_column], options)
    labels: pl.Series = complete(names, "a label in every row", rows.place, options)
    return labels


def _ids(rows: Rows, options: ReadOptions) -> Any:
    """Return the (rows,) ids of the rows' sequences."""
    if options.id_column is not None:
        return complete(text_column(rows.frame[options.id_column], options), "an id", rows.place)
    if rows.are_steps:
        return rows.numbers.astype(str).astype(object)
    return row_ids(len(rows.numbers))


def _is_wide(rows: Rows, ids: Any, options: ReadOptions) -> bool:
    """Return whether each row is a whole sequence; see `ReadOptions.one_row_per_sequence`."""
    is_wide = options.one_row_per_sequence
    if options.window_length is not None or rows.are_steps:
        return False
    if options.id_column is None:
        if is_wide is False:
            expected = "a column, because the model was trained on rows of one time step"
            raise unexpected("id_column", expected, "None")
        return True
    is_repeated = ids.is_duplicated() & ~ids.is_first_distinct()
    if is_wide is None:
        has_steps = options.time_column is not None or options.category_names
        return not has_steps and not is_repeated.any()
    if is_wide and is_repeated.any():
        row = int(is_repeated.arg_true()[0])
        expected = "a new id, because the model was trained on rows of whole sequences"
        raise unexpected(rows.place(row), expected, quote(ids[row]))
    return is_wide


def _pick(column: "pl.Series | None", rows: np.ndarray) -> np.ndarray | None:
    return None if column is None else column[rows].to_numpy()


def feature_columns(
    frame: "pl.DataFrame", options: ReadOptions
) -> tuple[list[str], tuple[str, ...]]:
    """Return what `choose_features` returns; raise a DataError if a column is missing."""
    columns = frame.columns
    required = {"id_column": options.id_column, "time_column": options.time_column}
    if options.require_labels and options.labels_path is None:
        required["label_column"] = options.label_column
    if options.require_labels:
        required["group_column"] = options.group_column
    for option, name in required.items():
        if name is not None and name not in columns:
            expected = f"one of the columns {join_names(columns)}"
            found = re.search("[;|\t]", "".join(columns))
            if found:
                expected += f" (if they are more, set separator={found[0]!r})"
            if option == "label_column":
                expected += " (or labels_path, or folder_name)"
                possible = possible_classes(frame, options)
                if possible:
                    expected += f", of which {join_names(possible)} may be classes"
            raise unexpected(option, expected, quote(name))
    has_role = {options.label_column, options.group_column, *required.values()}
    available = [name for name in columns if name not in has_role]
    chosen = choose_features(available, options)
    if not available:
        expected = "at least one column of a feature"
        raise unexpected("", expected, f"only the columns {join_names(columns)}")
    for name in options.category_names:
        if name not in chosen[0]:
            expected = f"some of the features {join_names(chosen[0])}"
            raise unexpected("category_columns", expected, quote(name))
    return chosen


def _feature_values(
    rows: Rows, features: list[str], categories: Categories, options: ReadOptions
) -> tuple[np.ndarray, np.ndarray]:
    """Return (rows, F) float64, NaN where a cell is missing, and what `_remainders` returns."""
    import polars as pl

    if categories and options.id_column is None and not rows.are_steps:
        raise unexpected("id_column", "a column, as there are columns of categories", "None")
    values = np.empty((rows.frame.height, len(features)), dtype=np.float64)
    remainders = np.full((2, len(features)), -math.inf)
    for i, name in enumerate(features):
        if name in categories:
            values[:, i] = category_codes(rows, name, categories[name], options)
            continue
        column = rows.frame[name]
        is_number = column.dtype.is_numeric() or column.dtype in (pl.Boolean, pl.Null)
        if not rows.is_text and not is_number:
            expected = "numbers or booleans"
            if not column.dtype.is_nested():
                expected += f"; {NO_FEATURE}"
            raise unexpected(f"column {quote(name)}", expected, str(column.dtype))
        cells = column
        numbers = cells.cast(pl.Float64, strict=False)
        if rows.is_text and (options.decimal_comma or not _are_finite(numbers)):
            cells = known_text(column)
            if options.decimal_comma:  # a point, as in 1.234,5, makes the cell invalid
                cells = cells.str.replace_all(".", "_", literal=True)
                cells = cells.str.replace(",", ".", literal=True)
            numbers = cells.cast(pl.Float64, strict=False)
        is_infinite = numbers.cast(pl.Float32).is_infinite()
        is_refused = cells.is_not_null() & (numbers.is_null() | is_infinite)
        if rows.is_text:
            is_refused |= numbers.is_nan()  # such as +nan, which is not in the list of words
        if is_refused.any():
            row = int(is_refused.arg_true()[0])
            expected = FINITE_NUMBERS
            if rows.is_text and re.search("[0-9],[0-9]", column[row]):
                expected += "; for decimal commas set decimal_comma=True"
            elif rows.is_text and TEXT_OR_TIME.search(column[row]) and numbers[row] is None:
                expected += f"; {NO_FEATURE}"
            place = f"{rows.place(row)}, column {quote(name)}"
            raise unexpected(place, expected, quote(column[row]))
        values[:, i] = numbers.fill_null(math.nan).to_numpy()
        if (np.abs(values[:, i]) >= 2**53).any():
            remainders[:, i] = _remainders(cells, values[:, i], options)
    return values, remainders


def _remainders(
    cells: "pl.Series", numbers: np.ndarray, options: ReadOptions
) -> tuple[float, float]:
    """Return rows 3 and 4 of `rounding`, see `Sequences`, of cells and their (rows,) numbers.

    They are minus infinity unless all numbers are the same in float64.
    """
    import polars as pl

    marks = np.array(options.missing_values or [], dtype=np.float32)
    is_known = ~np.isnan(numbers) & ~np.isin(numbers.astype(np.float32), marks)
    known = np.unique(numbers[is_known])
    if len(known) != 1:
        return -math.inf, -math.inf
    words = cells.filter(pl.Series(is_known)).cast(pl.String).unique()
    found = [float(Fraction(word) - Fraction(known[0])) for word in words]
    return -min(found), max(found)


def _are_finite(numbers: "pl.Series") -> bool:
    return numbers.null_count() == 0 and bool(numbers.is_finite().all())


def parse_times(rows: Rows, options: ReadOptions, kind: str | None) -> tuple[np.ndarray, str]:
    """Return (rows,) sortable keys of the times and their kind, which must be the given one."""
    assert options.time_column is not None
    column = rows.frame[options.time_column]
    check_not_nested(column)
    name = quote(column.name)
    return time_keys(column, kind, options, lambda row: f"{rows.place(row)}, column {name}")


def _owners(ids: "pl.Series", preferred: "pl.Series | None" = None) -> np.ndarray:
    """Return for each row the first row with the same id: a preferred one, if there is any."""
    import polars as pl

    frame = pl.DataFrame({"id": ids, "row": np.arange(len(ids))})
    owner = pl.col("row").min().over("id")
    if preferred is not None:
        frame = frame.with_columns(preferred.alias("is_preferred"))
        owner = pl.coalesce(pl.col("row").filter("is_preferred").min().over("id"), owner)
    return frame.select(owner).to_series().to_numpy()


def _order_by_time(
    rows: Rows, options: ReadOptions, owners: np.ndarray, kind: str | None
) -> tuple[np.ndarray, str]:
    """Return the rows sorted by sequence, then by time, and the kind of the times."""
    keys, kind = parse_times(rows, options, kind)
    order = np.lexsort((keys, owners))
    is_repeated = (np.diff(owners[order]) == 0) & (np.diff(keys[order]) == 0)
    if is_repeated.any():
        first, second = order[is_repeated.argmax() :][:2].tolist()
        repeated = rows.frame[second].select(options.id_column, options.time_column).row(0)
        got = "id {} and time {}".format(*map(quote, repeated))
        got += f" as in {rows.place(first)}"
        raise unexpected(rows.place(second), "one row for each id and time", got)
    return order, kind


def _check_constant(column: "pl.Series | None", what: str, owners: np.ndarray, rows: Rows) -> None:
    """Check that labels or groups are the same in all rows of a sequence, where not missing."""
    if column is None:
        return
    first_values = column[owners]
    is_different = ((column != first_values) & (column != "") & (first_values != "")).to_numpy()
    if is_different.any():
        row = int(is_different.argmax())
        first = int(owners[row])
        expected = f"{what} {quote(column[first])} as in {rows.place(first)}"
        expected += ", which has the same id"
        raise unexpected(rows.place(row), expected, quote(column[row]))
