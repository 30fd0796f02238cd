"""Reader of HDF5 files."""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from lightning_rnn.data.readers.arrays import NPZ_NAMES, read_npz
from lightning_rnn.data.readers.contents import FileContents, ReadOptions
from lightning_rnn.errors import DataError, import_extra

DECODER = Path(__file__).with_name("decode_hdf5.py")
SECONDS = 10  # of computing that a file may take, and one more for BYTES_PER_SECOND of it
BYTES_PER_SECOND = 10_000_000
MAX_CHARACTERS = 300  # of a message


def read_hdf5(path: Path, options: ReadOptions) -> FileContents:
    """Read data sets of the root group with the names and shapes of the arrays in `read_npz`."""
    import_extra("h5py", "hdf5")
    seconds = SECONDS + path.stat().st_size // BYTES_PER_SECOND
    with TemporaryDirectory() as folder:
        target = Path(folder) / "arrays.npz"
        # -P keeps the modules beside the script from being imported in place of others
        command = [sys.executable, "-P", DECODER, path, target, options.max_cells, seconds]
        words = [str(word) for word in (*command, *NPZ_NAMES.values())]
        child = subprocess.run(words, stderr=subprocess.PIPE, check=False)
        if child.returncode == 0:
            return read_npz(target, options)
        message = child.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        if child.returncode != 1:
            message = "damaged, or not an HDF5 file (the HDF5 library crashed or did not end)"
        raise DataError(message[:MAX_CHARACTERS])
