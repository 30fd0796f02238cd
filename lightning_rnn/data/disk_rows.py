"""Rows of numbers that are read from their file when they are needed."""

import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_rnn.errors import DataError


class DiskRows:
    """(rows, F) numbers in a file, with the part of a tensor's interface that `Sequences` uses.

    Unlike a memory mapping, it keeps nothing in memory, and a file that becomes shorter raises an
    error instead of ending the process. The numbers are converted to float32, with NaN in place of
    `missing_values`.
    """

    ndim = 2
    dtype = torch.float32

    def __init__(
        self,
        path: Path,
        offset: int,  # bytes before the first row
        shape: tuple[int, ...],  # (rows, features) in the file
        dtype: Any,  # of the numbers in the file
        columns: list[int] | None = None,  # indices of the features to return; None for all
        missing_values: list[float] | None = None,
    ) -> None:
        self._arguments = (path, offset, shape, dtype, columns, missing_values)
        self.shape = (shape[0], shape[1] if columns is None else len(columns))
        self._path = path
        self._offset = offset
        self._columns = columns
        self._dtype = np.dtype(dtype)
        self._missing_values = np.array(missing_values or [], dtype=np.float32)
        self._stored_features = shape[1]
        self._file = os.open(path, os.O_RDONLY)  # kept, so that a replaced file is not noticed
        weakref.finalize(self, os.close, self._file)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the arguments, since a file descriptor is valid in one process only."""
        return DiskRows, self._arguments

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.shape[0]

    def __getitem__(self, rows: slice) -> Tensor:
        """Return a slice of the rows."""
        return self.index_select(0, torch.arange(*rows.indices(len(self))))

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """Return rows `index` (M,) int64 as (M, F) float32, like `Tensor.index_select`; `dim` is 0.

        Repeated neighbours (the padding of a batch repeats a sequence's last row) are read once.
        Each run of consecutive rows is read by one system call into its place in a buffer.
        """
        is_new = np.diff(index.numpy(), prepend=-1) != 0
        rows = index.numpy()[is_new]
        found = np.empty((len(rows), self._stored_features), dtype=self._dtype)
        buffer = found.reshape(-1).view(np.uint8).data
        row_bytes = self._stored_features * self._dtype.itemsize
        starts = np.flatnonzero(np.diff(rows, prepend=-2) != 1)
        ends = np.append(starts, len(rows))[1:]
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            run = buffer[start * row_bytes : end * row_bytes]
            place = self._offset + int(rows[start]) * row_bytes
            if os.preadv(self._file, (run,), place) != len(run):
                expected = "a file that does not change while it is used"
                got = f"its end at byte {os.fstat(self._file).st_size}"
                raise DataError(f"{self._path}: expected {expected}, got {got}")
        if self._columns is not None:
            found = found[:, self._columns]
        with np.errstate(over="ignore"):  # numbers too large for float32 become infinite
            found = found.astype(np.float32, copy=False)
        if len(self._missing_values):
            found[np.isin(found, self._missing_values)] = np.nan
        if not is_new.all():
            found = found[np.cumsum(is_new) - 1]
        return torch.from_numpy(found)
