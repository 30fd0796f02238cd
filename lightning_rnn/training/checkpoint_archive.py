"""Checking the file of a checkpoint: a ZIP archive whose checksums torch does not compare."""

import zipfile
from pathlib import Path

from lightning_rnn.atomic_files import sha256
from lightning_rnn.errors import CheckpointError


def check_archive(path: Path) -> None:
    """Raise a ValueError if a file is no intact archive as `torch.save` writes it.

    Every byte that holds a value has a checksum. Entries are neither compressed nor do they share
    bytes, so that reading them takes no more memory than the file has bytes.
    """
    if not zipfile.is_zipfile(path):  # the older format of torch is a bare pickle
        raise ValueError("not a zip archive")
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        num_bytes = sum(entry.file_size for entry in entries)
        is_compressed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
        if is_compressed or num_bytes > path.stat().st_size:
            raise ValueError("its entries are compressed or overlap")
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"the checksum of {damaged} is wrong")


def check_unchanged(path: Path, checksum: str) -> None:
    """Raise a CheckpointError if a file has another SHA-256: a run may have replaced it."""
    if sha256(path) != checksum:
        message = "expected the same file to the end of the evaluation, got a new one; try again"
        raise CheckpointError(f"{path}: {message}")


def is_intact(path: Path) -> bool:
    """Return whether a file can be read and passes `check_archive`."""
    try:
        check_archive(path)
    except Exception:  # zipfile raises many types, depending on the damage
        return False
    return True
