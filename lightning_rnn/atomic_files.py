"""Writing files atomically: a file is either replaced as a whole or left unchanged."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` if the block succeeds.

    The temporary file lies in the same folder, which is created if needed. If the block raises, the
    temporary file is removed and `path` stays as it was. A `durable` file is flushed to disk, so
    that it survives a crash of the machine.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with atomic_write(folder / "metrics.json") as temporary:
        ...     _ = temporary.write_text("{}")
        >>> (folder / "metrics.json").read_text()
        '{}'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)  # left by a killed process that had the same number
    try:
        yield temporary
        if durable:
            _sync(temporary, os.O_RDWR)
        os.replace(temporary, path)
        if durable and hasattr(os, "O_DIRECTORY"):  # not available on Windows
            _sync(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if error.errno is not None and error.filename is None:  # a full disk has no name
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_and_keep(path: Path, text: str) -> None:
    """Write a file; an earlier one with other content is renamed to `name-1` and so on."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
        if path.exists() and path.read_bytes() != temporary.read_bytes():
            number = 1
            while path.with_stem(f"{path.stem}-{number}").exists():
                number += 1
            kept = path.rename(path.with_stem(f"{path.stem}-{number}"))
            print(f"the earlier {path.name}, which differs, is kept as {kept.name}")


def remove_drafts(folder: Path, pattern: str) -> None:
    """Remove what killed processes have left of files with names such as `*.ckpt`."""
    for draft in folder.glob(f".{pattern}.*"):
        number = draft.suffix.removeprefix(".")
        if number.isdecimal() and not is_alive(int(number)):
            draft.unlink(missing_ok=True)


def is_alive(pid: int) -> bool:
    """Return whether a process of this machine is running; True if that cannot be found out."""
    if os.name != "posix":  # on Windows, the query would end the process
        return True
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # of another user, or a system without /proc
        return True
    return state != "Z"  # ended, but its parent has not asked for its exit code


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
