"""Readers of .npz files, of .npy files, and of folders of .npy files."""

import math
import os
import warnings
import zipfile
from pathlib import Path

import numpy as np

from lightning_rnn.data.disk_rows import DiskRows
from lightning_rnn.data.readers.contents import (
    FileContents,
    ReadOptions,
    choose_features,
    class_names,
    complete,
    listing,
    reason,
    row_ids,
)
from lightning_rnn.data.sequences import Sequences
from lightning_rnn.errors import DataError

IN_MEMORY = (
    1 << 27
)  # bytes of values up to which they are kept in memory, where a batch is gathered faster
CHECKED = "checked"  # file in a folder of .npy files, see `is_checked`
DEFLATE_LIMIT = 1032  # no deflate stream grows more than this when unpacked


def read_npz(path: Path, wanted: ReadOptions) -> FileContents:
    """`X` (N, T, F) or (N, T), or (sum of T_i, F) with `lengths`; optional `y`, `groups`, `ids`."""
    titles = {"values": "X", "lengths": "lengths", "labels": "y", "groups": "groups", "ids": "ids"}
    with zipfile.ZipFile(path) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's, about odd headers
        found = [name.removesuffix(".npy") for name in archive.namelist()]
        if "X" not in found:
            raise DataError(f"found arrays {listing(found)}, accepted is an array 'X'")
        arrays = {role: _unpack(archive, name) for role, name in titles.items() if name in found}
    return _from_arrays(arrays, titles, wanted)


def _unpack(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Read one array, after checking that its header claims no more than the archive can hold."""
    info = archive.getinfo(f"{name}.npy")
    packed = min(info.compress_size, os.stat(archive.filename or "").st_size)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if info.file_size > min(DEFLATE_LIMIT * (packed + 64), memory):
        raise DataError(
            f"{name}: claims {info.file_size} bytes, more than memory or {packed} packed bytes can hold"
        )
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise DataError(f"{name}: found .npy version {version}, accepted are (1, 0) and (2, 0)")
        read_header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read_header(file)
        if dtype.hasobject:
            raise DataError(f"{name}: found Python objects, accepted are plain numbers and text")
        if (
            min(shape, default=0) < 0
            or math.prod(shape) * dtype.itemsize != info.file_size - file.tell()
        ):
            raise DataError(
                f"{name}: found {info.file_size} bytes, but the header claims shape {shape} of {dtype}"
            )
        file.seek(0)
        return np.asarray(np.lib.format.read_array(file, allow_pickle=False))


def read_npy(path: Path, wanted: ReadOptions) -> FileContents:
    """Open the values, large ones to be read when needed, and what is beside them.

    `lengths`, `labels`, `groups` and `ids` are files `name_lengths.npy` beside `name.npy`, or in a folder
    `lengths.npy` beside `values.npy`; a folder may also have `features`, the (F,) names.
    """
    roles = ("lengths", "labels", "groups", "ids")
    if path.is_dir():
        files = {role: path / f"{role}.npy" for role in ("values", *roles, "features")}
    else:
        files = {"values": path} | {role: path.with_stem(f"{path.stem}_{role}") for role in roles}
    arrays: dict[str, np.ndarray] = {}
    for role, file in files.items():
        if role == "values" or file.is_file():
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    arrays[role] = np.lib.format.open_memmap(
                        file, mode="c"
                    )  # never pickles; checks the size
            except Exception as error:
                raise DataError(
                    f"{file.name} cannot be mapped as numbers or text ({reason(error)})"
                ) from error
    return _from_arrays(
        arrays, {role: file.name for role, file in files.items()}, wanted, is_checked(path)
    )


def is_checked(folder: Path) -> bool:
    """Tell whether the folder's values were found finite and trimmed when it was made, and are the same since."""
    try:
        return (folder / CHECKED).stat().st_mtime_ns >= (folder / "values.npy").stat().st_mtime_ns
    except OSError:
        return False


def _from_arrays(
    arrays: dict[str, np.ndarray],
    titles: dict[str, str],
    wanted: ReadOptions,
    checked: bool = False,
) -> FileContents:
    values, lengths = arrays["values"], arrays.get("lengths")
    if values.dtype.kind not in "biuf":
        raise DataError(
            f"{titles['values']}: found dtype {values.dtype}, accepted are real numbers"
        )
    if values.size == 0 or values.ndim not in ((2, 3) if lengths is None else (1, 2)):
        accepted = f"(N, T, F), (N, T), or (steps, F) with {titles['lengths']}"
        accepted = (
            accepted if lengths is None else f"(steps, F), because there is {titles['lengths']}"
        )
        raise DataError(f"{titles['values']}: found shape {values.shape}, accepted is {accepted}")
    if lengths is None:
        lengths = np.full(len(values), values.shape[1])
        values = values.reshape(-1, values.shape[2] if values.ndim == 3 else 1)  # (N * T, F)
    elif lengths.ndim != 1 or lengths.dtype.kind not in "iu" or not 0 < len(lengths) <= len(values):
        raise DataError(
            f"{titles['lengths']}: found {lengths.dtype} {lengths.shape}, accepted are (N,) integers"
        )
    elif lengths.max() > len(values):  # also keeps their sum from overflowing
        raise DataError(
            f"{titles['lengths']}: found {lengths.max()}, accepted is at most {len(values)}, all steps"
        )
    texts: dict[str, np.ndarray] = {}
    roles = ("labels", "ids") if wanted.group_column is None else ("labels", "ids", "groups")
    for role in [role for role in roles if role in arrays]:
        found = arrays[role]
        if found.shape != lengths.shape or found.dtype.kind not in "biufSU":
            accepted = f"({len(lengths)},) numbers or text"
            raise DataError(
                f"{titles[role]}: found {found.dtype} {found.shape}, accepted is {accepted}"
            )
        if found.dtype.kind == "U":
            np.char.encode(found)  # raises for what could not be written to any file later
        texts[role] = (
            class_names(found) if role == "labels" or found.dtype.kind in "bf" else _texts(found)
        )
        texts[role] = complete(
            texts[role], role[:-1], "sequence {}".format, role != "labels" or wanted.require_labels
        )
    if wanted.require_labels and wanted.group_column is not None and "groups" not in texts:
        raise DataError(
            f"group_column: found {wanted.group_column!r}, accepted only with {titles['groups']}"
        )
    if wanted.require_labels and "labels" not in texts:
        raise DataError(f"found no class labels, accepted is an array {titles['labels']}")
    ids = texts["ids"] if "ids" in texts else row_ids(len(lengths))
    values, names = values.reshape(len(values), -1), None  # (sum of T_i, F)
    columns = None
    if "features" in arrays:
        names, columns = _feature_names(arrays["features"], values.shape[1], wanted)
    sequences = Sequences(
        _stored(values, columns), lengths, groups=texts.get("groups"), ids=ids, checked=checked
    )
    return FileContents(sequences, texts.get("labels"), names)


def _feature_names(
    found: np.ndarray, num_features: int, wanted: ReadOptions
) -> tuple[list[str], list[int] | None]:
    """Return the names of the features to take, and their columns unless they are all, in order."""
    if found.shape != (num_features,) or found.dtype.kind != "U":
        raise DataError(
            f"features.npy: found {found.dtype} {found.shape}, accepted is ({num_features},) text"
        )
    names = found.tolist()
    chosen = choose_features(names, wanted)
    return chosen, None if chosen == names else [names.index(name) for name in chosen]


def _stored(values: np.ndarray, columns: list[int] | None) -> np.ndarray | DiskRows:
    """Return the values, or what reads them from their file when needed."""
    # a copy of a mapping, made where the file has another order, has no file name
    if isinstance(values, np.memmap) and values.filename and values.nbytes > IN_MEMORY:
        path = Path(str(values.filename))
        return DiskRows(
            path, offset=values.offset, shape=values.shape, dtype=values.dtype, columns=columns
        )
    return values if columns is None else values[:, columns]


def _texts(array: np.ndarray) -> np.ndarray:
    return np.char.strip(
        np.char.decode(array) if array.dtype.kind == "S" else array.astype(str)
    ).astype(object)
