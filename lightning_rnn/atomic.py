"""Files that are written whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Give a file in the same folder, made if needed, that takes the place of `path` if all goes well.

    Args:
        path: The file to write.
        durable: Whether it must outlast a crash of the machine from then on.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)  # of a process of the same number that was killed
    try:
        yield beside
        if durable:
            _synchronise(beside, os.O_RDWR)
        os.replace(beside, path)
        if durable and hasattr(os, "O_DIRECTORY"):  # not every system can
            _synchronise(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    finally:
        beside.unlink(missing_ok=True)


def _synchronise(path: Path, mode: int) -> None:
    handle = os.open(path, mode)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
