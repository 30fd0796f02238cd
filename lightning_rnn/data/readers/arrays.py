"""Readers of .npz files, .npy files, and folders of .npy files."""

import json
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from lightning_rnn.categories import Categories
from lightning_rnn.data import checks
from lightning_rnn.data.disk_rows import DiskRows
from lightning_rnn.data.readers.checked_folders import CATEGORIES, is_checked, options_of_folder
from lightning_rnn.data.readers.class_names import class_names
from lightning_rnn.data.readers.columns import text_column
from lightning_rnn.data.readers.contents import (
    FILE_NAME,
    NAMES_OF_PATH,
    FileContents,
    ReadOptions,
    choose_features,
    complete,
    first_line,
    join_names,
    quote,
    unexpected,
)
from lightning_rnn.data.sequences import Sequences
from lightning_rnn.errors import DataError

MAX_BYTES_IN_MEMORY = 1 << 27  # larger .npy files stay on disk; batches are faster from memory
NPZ_NAMES = {"values": "X", "lengths": "lengths", "labels": "y", "groups": "groups", "ids": "ids"}
NPY_ROLES = ("lengths", "labels", "groups", "ids")
NAMES_OF = ("features", "steps")
RECORDINGS = "recordings"  # file of the groups in a folder of windows
PLAIN_ARRAY = "an array of plain numbers or text"

Arrays = dict[str, np.ndarray]  # arrays of one file by role: values, lengths, labels, ...
Names = dict[str, str]  # names of these arrays in error messages


def read_npz(path: Path, options: ReadOptions) -> FileContents:
    """Read `X` (N, T, F) or (N, T), or (sum of T_i, F) with `lengths`; and `y`, `groups`, `ids`."""
    if not zipfile.is_zipfile(path):
        raise DataError("damaged, or not a .npz file (not a ZIP archive)")
    arrays: Arrays = {}
    with warnings.catch_warnings(), path.open("rb") as file, np.load(file) as archive:
        warnings.simplefilter("ignore")  # NumPy warns of unusual headers
        if "X" not in archive.files:
            raise unexpected("", "an array 'X'", f"the arrays {join_names(archive.files)}")
        for role, name in NPZ_NAMES.items():
            if name not in archive.files:
                continue
            try:
                arrays[role] = np.asarray(archive[name])
            except (ValueError, MemoryError) as error:  # Python objects, or a wrong size
                got = f"one that cannot be loaded ({first_line(error)})"
                raise unexpected(name, PLAIN_ARRAY, got) from error
    return _contents(arrays, NPZ_NAMES, options)


def read_npy(path: Path, options: ReadOptions) -> FileContents:
    """Read the values, and the arrays that lie beside them.

    For a file `name.npy` these are `name_lengths.npy`, `name_labels.npy`, `name_groups.npy` and
    `name_ids.npy`; for a folder with `values.npy` they are `lengths.npy` etc., and `features.npy`
    with the (F,) names of the features or `steps.npy` with those of the steps of a wide table, and
    `rounding.npy`, see `Sequences`. If its sequences are windows, their groups are in
    `recordings.npy`. Large values stay on disk.
    """
    checked = is_checked(path)
    if path.is_dir():
        options = options_of_folder(path, options)
        roles = ("values", *NPY_ROLES, *NAMES_OF, RECORDINGS, "rounding")
        files = {role: path / f"{role}.npy" for role in roles}
        groups = options.group_column and "groups"  # nothing is taken from the folder's name
        options = replace(options, id_column=None, group_column=groups, label_column="label")
    else:
        files = {role: path.with_stem(f"{path.stem}_{role}") for role in NPY_ROLES}
        files["values"] = path
    arrays: Arrays = {}
    for role, file in files.items():
        if role != "values" and not file.is_file():
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # as above
                # never unpickles, and checks that the file has as many bytes as its header says
                arrays[role] = np.lib.format.open_memmap(file, mode="c")
        except Exception as error:
            got = f"a file that cannot be mapped ({first_line(error)})"
            raise unexpected(file.name, PLAIN_ARRAY, got) from error
    names = {role: file.name for role, file in files.items()}
    contents = _contents(arrays, names, options, checked=checked)
    if not path.is_dir():
        return contents
    return replace(contents, categories=_categories(path / CATEGORIES, contents, options))


def _categories(file: Path, contents: FileContents, options: ReadOptions) -> Categories:
    """Return the categories of the features, which must be those of the model or the options."""
    categories: Categories = {}
    if file.is_file():
        stored = json.loads(file.read_text(encoding="utf-8"))
        categories = {name: stored[name] for name in contents.feature_names or () if name in stored}
    known = options.categories or {}
    if options.model_names is None:
        known = categories | known
    for name in {**categories, **dict.fromkeys(options.category_names)}:
        words = categories.get(name, [])
        if words != known.get(name):
            expected = f"the categories {join_names(known.get(name, []))} (categories of pack)"
            raise unexpected(f"feature {quote(name)}", expected, join_names(words))
    return categories


def _contents(
    arrays: Arrays, names: Names, options: ReadOptions, *, checked: bool = False
) -> FileContents:
    if options.id_column == FILE_NAME:
        arrays = _as_one_sequence(arrays, names)
    values, lengths = _values_and_lengths(arrays, names)  # (sum of T_i, F), (N,)
    count = len(lengths)
    labels = None
    if "labels" in arrays:
        labels = class_names(_checked_names(arrays["labels"], names["labels"], count))
        labels = complete(labels, "a label", "sequence {}".format, options)
    elif options.require_labels and not options.has_labels_elsewhere:
        raise unexpected("", f"an array {names['labels']} of class labels", "none")
    ids = None
    if "ids" in arrays:
        ids = complete(_texts(arrays["ids"], names["ids"], count), "an id", "sequence {}".format)
    marks = options.missing_values
    if checked and "rounding" in arrays:
        rounding = torch.from_numpy(arrays["rounding"])
    else:
        rounding = checks.rounding_of(values, marks)
    feature_names, step_names, ignored = _names_of_columns(arrays, values.shape[1], options)
    columns = None
    if feature_names is not None and feature_names != arrays["features"].tolist():
        columns = [arrays["features"].tolist().index(name) for name in feature_names]
        rounding = rounding[:, columns]
    sequences = Sequences(
        _stored(values, columns, marks),
        lengths,
        groups=_groups(arrays, names, count, options),
        ids=ids,
        rounding=rounding,
        missing_values=marks,
        checked=checked and not marks and columns is None,
    )
    return FileContents(
        sequences,
        labels,
        feature_names,
        step_names=step_names,
        ignored=ignored,
        has_windows=RECORDINGS in arrays,
    )


def _groups(arrays: Arrays, names: Names, count: int, options: ReadOptions) -> np.ndarray | None:
    """Return the (N,) groups if they are asked for; those of windows in any case."""
    if RECORDINGS in arrays:
        return _texts(arrays[RECORDINGS], names[RECORDINGS], count)
    if options.group_column in (None, *NAMES_OF_PATH):
        return None
    if "groups" in arrays:
        groups = _texts(arrays["groups"], names["groups"], count)
        complete(groups, "a group", "sequence {}".format)
        return groups
    if options.require_labels:
        expected = f"None, because there is no array {names['groups']}"
        raise unexpected("group_column", expected, repr(options.group_column))
    return None


def _stored(
    values: np.ndarray, columns: list[int] | None, missing_values: list[float] | None
) -> np.ndarray | DiskRows:
    """Return columns of the values, which stay in their file if they are large."""
    # a copy of a mapping, made if the file is in another order, has no file name
    is_large = values.nbytes > MAX_BYTES_IN_MEMORY
    if is_large and isinstance(values, np.memmap) and values.filename:
        path = Path(str(values.filename))
        return DiskRows(path, values.offset, values.shape, values.dtype, columns, missing_values)
    return values if columns is None else values[:, columns]


def _as_one_sequence(arrays: Arrays, names: Names) -> Arrays:
    """Return the arrays of a file whose values are those of one sequence."""
    values = arrays["values"]
    if values.ndim not in (1, 2) or "lengths" in arrays:
        expected = f"shape (T, F) or (T,), one sequence, as id_column is {FILE_NAME}"
        raise unexpected(names["values"], expected, str(values.shape))
    one = {role: array.reshape(-1) for role, array in arrays.items() if role in NPY_ROLES}
    return one | {"values": values, "lengths": np.array([len(values)])}


def _names_of_columns(
    arrays: Arrays, num_features: int, options: ReadOptions
) -> tuple[list[str] | None, list[str] | None, tuple[str, ...]]:
    """Return the names of the features to read, of the steps, and of the columns not to read."""
    for role in NAMES_OF:
        if role not in arrays:
            continue
        array = arrays[role]
        shape = (num_features,) if role == "features" else (array.size,)
        if array.shape != shape or array.dtype.kind != "U":
            raise unexpected(
                f"{role}.npy", f"text of shape {shape}", f"{array.dtype} {array.shape}"
            )
        if role == "features":
            names, ignored = choose_features(array.tolist(), options)
            return names, None, ignored
        options = replace(options, only_features=True, one_row_per_sequence=True)
        names, ignored = choose_features(array.tolist(), options)
        return None, names, ignored
    if options.feature_columns is not None and options.model_names is None:
        expected = "None, because the features have no names"
        raise unexpected("feature_columns", expected, repr(options.feature_columns))
    return None, None, ()


def _values_and_lengths(arrays: Arrays, names: Names) -> tuple[np.ndarray, np.ndarray]:
    """Return the values as (sum of T_i, F), and the (N,) lengths."""
    values = arrays["values"]
    if values.dtype.kind not in "biuf":
        raise unexpected(names["values"], "real numbers", f"dtype {values.dtype}")
    has_lengths = "lengths" in arrays
    if values.size == 0 or values.ndim not in ((1, 2) if has_lengths else (2, 3)):
        expected = f"shape (N, T, F) or (N, T), or (steps, F) with {names['lengths']}"
        raise unexpected(names["values"], expected, str(values.shape))
    if has_lengths:
        return values.reshape(len(values), -1), arrays["lengths"].reshape(-1)
    count, num_steps = values.shape[:2]
    return values.reshape(count * num_steps, -1), np.full(count, num_steps)


def _checked_names(array: np.ndarray, name: str, count: int) -> np.ndarray:
    """Return (count,) names after checking their shape and dtype."""
    if array.shape != (count,) or array.dtype.kind not in "biufSU":
        expected = f"numbers or text of shape ({count},)"
        raise unexpected(name, expected, f"{array.dtype} {array.shape}")
    if array.dtype.kind == "S":
        try:
            return np.char.decode(array)
        except UnicodeDecodeError as error:
            expected = "UTF-8 text (for Latin-1 store np.char.decode(array, 'latin-1'))"
            raise unexpected(name, expected, f"bytes {error.object!r}") from error
    if array.dtype.kind == "U":
        np.char.encode(array)  # raises for text that could not be written to a file later
    return array


def _texts(array: np.ndarray, name: str, count: int) -> np.ndarray:
    """Return what `text_column` returns; booleans as class names."""
    import polars as pl

    array = _checked_names(array, name, count)
    if array.dtype.kind in "bf":
        return class_names(array)
    return text_column(pl.Series(array.astype(str)), ReadOptions()).to_numpy()
