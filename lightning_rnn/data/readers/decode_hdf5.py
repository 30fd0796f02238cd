"""Script that copies data sets of an HDF5 file to an .npz file.

    python decode_hdf5.py SOURCE.h5 TARGET.npz MAX_CELLS SECONDS NAME ...

Damaged files end or hang the HDF5 library, so that it runs in a process of its own. What is wrong
with the file is the last line of standard error.
"""

import sys
import warnings
from math import prod
from typing import Any

import h5py  # type: ignore[import-untyped]  # has no annotations
import numpy as np

BYTES_PER_CELL = 8
TEXT_OR_NUMBERS = "expected a data set of text or numbers that is stored in this file"


def read(file: Any, name: str, max_cells: int) -> np.ndarray:
    """Return a data set; links and storage in other files, which could be any, are refused."""
    is_in_file = isinstance(file.get(name, getlink=True), h5py.HardLink)
    found = file[name] if is_in_file else "a link"
    if not isinstance(found, h5py.Dataset) or found.is_virtual or found.external:
        sys.exit(f"{name}: {TEXT_OR_NUMBERS}, got another object, a link or parts of other files")
    has_text = h5py.check_string_dtype(found.dtype) is not None
    is_other = found.dtype.kind == "O" or h5py.check_enum_dtype(found.dtype) is not None
    if found.shape is None or (is_other and not has_text):
        sys.exit(f"{name}: {TEXT_OR_NUMBERS}, got {found.dtype} {found.shape}")
    item_bytes = found.dtype.itemsize
    check_size(name, max(found.nbytes, prod(found.chunks or ()) * item_bytes), max_cells)
    if found.dtype.kind != "O":
        return np.asarray(found[()])
    texts = np.asarray(found[()])  # of bytes, the longest of which sets the size of all
    longest = max(map(len, texts.flat), default=0)
    check_size(name, texts.size * longest * np.dtype("U1").itemsize, max_cells)
    return texts.astype(bytes)


def check_size(name: str, num_bytes: int, max_cells: int) -> None:
    """End the process if an array has more cells than `max_cells`."""
    cells = num_bytes // BYTES_PER_CELL
    if cells > max_cells:
        limit = f"at most {max_cells} cells (max_cells raises the limit)"
        sys.exit(f"{name}: expected {limit}, got {cells} of {BYTES_PER_CELL} bytes")


def copy(source: str, target: str, max_cells: int, names: list[str]) -> None:
    """Copy the data sets that have one of the names, of which the first one must exist."""
    with h5py.File(source, "r") as file:
        found = list(file)
        if names[0] not in found:
            sys.exit(f"expected a data set {names[0]!r}, got {', '.join(map(repr, found))}")
        arrays: dict[str, Any] = {}
        for name in [name for name in names if name in found]:
            arrays[name] = read(file, name, max_cells)
    with warnings.catch_warnings(action="ignore"):  # an .npz file has no metadata of types
        np.savez(target, **arrays)


if __name__ == "__main__":
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[4]),) * 2)
    try:
        copy(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[5:])
    except Exception as error:
        sys.exit(f"damaged, or not an HDF5 file ({error})")
