"""Readers of .npz files and of memory-mapped .npy files."""

import math
import os
import warnings
import zipfile
from pathlib import Path

import numpy as np

from lightning_rnn.data.contents import FileContents, Wanted, class_names, complete, listing, reason, row_ids
from lightning_rnn.data.sequences import Sequences
from lightning_rnn.errors import DataError

DEFLATE_LIMIT = 1032  # no deflate stream grows more than this when unpacked


def read_npz(path: Path, wanted: Wanted) -> FileContents:
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
        raise DataError(f"{name}: claims {info.file_size} bytes, more than memory or {packed} packed bytes can hold")
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise DataError(f"{name}: found .npy version {version}, accepted are (1, 0) and (2, 0)")
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(file)
        if dtype.hasobject:
            raise DataError(f"{name}: found Python objects, accepted are plain numbers and text")
        if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != info.file_size - file.tell():
            raise DataError(f"{name}: found {info.file_size} bytes, but the header claims shape {shape} of {dtype}")
        file.seek(0)
        return np.asarray(np.lib.format.read_array(file, allow_pickle=False))


def read_npy(path: Path, wanted: Wanted) -> FileContents:
    """Map the values; `name_lengths.npy`, `_labels`, `_groups` and `_ids` beside `name.npy` are used if they exist."""
    files = {role: path.with_stem(f"{path.stem}_{role}") for role in ("lengths", "labels", "groups", "ids")}
    files = {"values": path} | files
    arrays: dict[str, np.ndarray] = {}
    for role, file in files.items():
        if role == "values" or file.is_file():
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    arrays[role] = np.lib.format.open_memmap(file, mode="c")  # never pickles; checks the size
            except Exception as error:
                raise DataError(f"{file.name} cannot be mapped as numbers or text ({reason(error)})") from error
    return _from_arrays(arrays, {role: file.name for role, file in files.items()}, wanted)


def _from_arrays(arrays: dict[str, np.ndarray], titles: dict[str, str], wanted: Wanted) -> FileContents:
    values, lengths = arrays["values"], arrays.get("lengths")
    if values.dtype.kind not in "biuf":
        raise DataError(f"{titles['values']}: found dtype {values.dtype}, accepted are real numbers")
    if values.size == 0 or values.ndim not in ((2, 3) if lengths is None else (1, 2)):
        accepted = f"(N, T, F), (N, T), or (steps, F) with {titles['lengths']}"
        accepted = accepted if lengths is None else f"(steps, F), because there is {titles['lengths']}"
        raise DataError(f"{titles['values']}: found shape {values.shape}, accepted is {accepted}")
    if lengths is None:
        lengths = np.full(len(values), values.shape[1])
        values = values.reshape(-1, values.shape[2] if values.ndim == 3 else 1)  # (N * T, F)
    elif lengths.ndim != 1 or lengths.dtype.kind not in "iu" or not 0 < len(lengths) <= len(values):
        raise DataError(f"{titles['lengths']}: found {lengths.dtype} {lengths.shape}, accepted are (N,) integers")
    elif lengths.max() > len(values):  # also keeps their sum from overflowing
        raise DataError(f"{titles['lengths']}: found {lengths.max()}, accepted is at most {len(values)}, all steps")
    texts: dict[str, np.ndarray] = {}
    roles = ("labels", "ids") if wanted.group_column is None else ("labels", "ids", "groups")
    for role in [role for role in roles if role in arrays]:
        found = arrays[role]
        if found.shape != lengths.shape or found.dtype.kind not in "biufSU":
            accepted = f"({len(lengths)},) numbers or text"
            raise DataError(f"{titles[role]}: found {found.dtype} {found.shape}, accepted is {accepted}")
        if found.dtype.kind == "U":
            np.char.encode(found)  # raises for what could not be written to any file later
        texts[role] = class_names(found) if role == "labels" or found.dtype.kind in "bf" else _texts(found)
        texts[role] = complete(texts[role], role[:-1], "sequence {}".format, role != "labels" or wanted.require_labels)
    if wanted.require_labels and wanted.group_column is not None and "groups" not in texts:
        raise DataError(f"group_column: found {wanted.group_column!r}, accepted only with {titles['groups']}")
    if wanted.require_labels and "labels" not in texts:
        raise DataError(f"found no class labels, accepted is an array {titles['labels']}")
    ids = texts["ids"] if "ids" in texts else row_ids(len(lengths))
    sequences = Sequences(values.reshape(len(values), -1), lengths, groups=texts.get("groups"), ids=ids)
    return FileContents(sequences, texts.get("labels"), None)


def _texts(array: np.ndarray) -> np.ndarray:
    return np.char.strip(np.char.decode(array) if array.dtype.kind == "S" else array.astype(str)).astype(object)
