"""Values that stay in their file."""

import os
import weakref
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_rnn.errors import DataError


class DiskRows:
    """(rows, F) numbers in a file, with as much of a tensor's interface as `Sequences` needs.

    Rows are read when asked for and then forgotten. A mapping would do the same with fewer lines, but its pages count
    as the process's memory for as long as they are in the file cache, and a file that shrinks ends the process.

    Attributes:
        shape: (rows, F).
    """

    ndim = 2
    dtype = torch.float32

    def __init__(
        self,
        path: Path,
        *,
        offset: int,
        shape: tuple[int, int],
        dtype: Any,
        columns: list[int] | None = None,
    ) -> None:
        """Open.

        Args:
            path: The file.
            offset: Bytes in front of the first row.
            shape: (rows, features) in the file, row by row.
            dtype: NumPy's dtype of the numbers in the file; float32 is what comes out.
            columns: The F features, in order; when not given, all.

        Raises:
            OSError: The file cannot be opened.
        """
        self._arguments = {"offset": offset, "shape": shape, "dtype": dtype, "columns": columns}
        self.shape = (shape[0], shape[1] if columns is None else len(columns))
        self._path, self._offset, self._columns = path, offset, columns
        self._dtype, self._stored_features = np.dtype(dtype), shape[1]
        self._file = os.open(path, os.O_RDONLY)  # stays with this file where another takes its name
        weakref.finalize(self, os.close, self._file)

    def __reduce__(self) -> tuple[Any, ...]:
        """Open again in another process, where a file has another number."""
        return partial(DiskRows, **self._arguments), (self._path,)

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.shape[0]

    def __getitem__(self, rows: slice) -> Tensor:
        """Return adjacent rows."""
        return self.index_select(0, torch.arange(*rows.indices(len(self))))

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """Read rows as `Tensor.index_select` would.

        Args:
            dim: 0.
            index: (M,) int64 rows; adjacent ones are read together, a repeated one is read once.

        Returns:
            (M, F) float32.

        Raises:
            DataError: The file has become shorter.
        """
        rows = index.numpy()
        step = np.diff(rows, prepend=-2)
        repeated = None
        if not step.all():  # padding repeats a sequence's last row
            repeated = np.cumsum(step != 0) - 1
            rows = rows[step != 0]
            step = np.diff(rows, prepend=-2)
        found = np.empty((len(rows), self._stored_features), dtype=self._dtype)
        buffer, size = (
            found.reshape(-1).view(np.uint8).data,
            self._stored_features * self._dtype.itemsize,
        )
        begins = np.flatnonzero(step != 1)
        places = (rows[begins] * size + self._offset).tolist()
        bounds = [*(begins * size).tolist(), len(buffer)]
        for place, begin, end in zip(places, bounds, bounds[1:], strict=False):
            if os.preadv(self._file, (buffer[begin:end],), place) != end - begin:
                raise DataError(f"{self._path}: found its end at byte {os.fstat(self._file).st_size}, accepted is a "
                                "file that stays as it is")  # fmt: skip
        found = found if self._columns is None else found[:, self._columns]
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite
            found = found.astype(np.float32, copy=False)
        return torch.from_numpy(found if repeated is None else found[repeated])
