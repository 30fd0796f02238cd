"""Run folders below `lightning_logs`: creating, locking and finding them."""

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

from lightning_rnn.distributed import print_once, process_rank
from lightning_rnn.errors import CheckpointError, check
from lightning_rnn.training.checkpoint_file import CheckpointFile, ModelClass

MAX_NAMES = 5  # of runs that a message lists


class NoRunError(CheckpointError):
    """Raised when there is no run with a checkpoint."""


def newest_checkpoint(
    root: Path, names: tuple[str, ...], model_class: ModelClass
) -> CheckpointFile:
    """Read a checkpoint of the newest run, that with the highest version, below `root`.

    Of several `names` of files, the first is preferred. What is skipped is reported on stderr:
    newer runs without a checkpoint, and damaged files. A NoRunError is raised if no run has one of
    the files, another CheckpointError if all of them are damaged.
    """
    logs = root / "lightning_logs"
    skipped: list[str] = []
    paths: list[Path] = []
    for _, folder in sorted(_numbered_folders(logs), reverse=True):
        checkpoints = [folder / "checkpoints" / name for name in names]
        paths = [path for path in checkpoints if os.path.lexists(path)]
        if paths:
            break
        skipped.append(folder.name)
    if not paths:
        raise NoRunError(f"expected a run with {names[0]} under {logs}, got none; give ckpt_path")
    if skipped:
        text = f"skipped runs without {names[0]}: {', '.join(skipped[:MAX_NAMES])}"
        print_once(text, file=sys.stderr)
    for path, following in pairwise(paths):
        try:
            return CheckpointFile.read(path, model_class)
        except CheckpointError as error:
            print_once(f"damaged: {error}; taking {following.name}", file=sys.stderr)
    return CheckpointFile.read(paths[-1], model_class)


def _numbered_folders(logs: Path) -> list[tuple[int, Path]]:
    """Return the numbers and paths of the run folders in a folder, with and without a name."""
    folders = []
    for path in logs.glob("version_*"):
        match = re.fullmatch("version_([0-9]+)(_.+)?", path.name)
        if match:
            folders.append((int(match[1]), path))
    return folders


@contextmanager
def new_run_folder(
    root: Path, has_trained: Callable[[], bool], name: str | None = None
) -> Iterator[Path]:
    """Create a run folder below `root` and lock it; remove it if the block has trained nothing.

    Its number is higher than that of all others, and a `name` follows the number. Processes that
    start at the same time get different folders. Ranks other than 0 create none.

    Raises:
        OptionError: If the name has other characters than letters, digits, `.`, `_` and `-`.
    """
    logs = root / "lightning_logs"
    if process_rank() > 0:
        yield logs / "version_0"  # not used: the folder is that of rank 0
        return
    suffix = ""
    if name is not None:
        is_valid = re.fullmatch(r"[\w.-]+", name) is not None
        check(is_valid, "run_name", name, "letters, digits, '.', '_' and '-'")
        suffix = f"_{name}"
    created = [path for path in (logs, *logs.parents) if not path.exists()]
    number = max((number for number, _ in _numbered_folders(logs)), default=-1) + 1
    while True:
        folder = logs / f"version_{number}{suffix}"
        try:
            folder.mkdir(parents=True)
            break
        except FileExistsError:
            logs.mkdir(exist_ok=True)  # raises if it is a file
            number += 1
    try:
        with locked(folder):
            yield folder
    finally:
        if not has_trained() and not any(folder.glob("checkpoints/*.ckpt")):
            shutil.rmtree(folder, ignore_errors=True)
        for path in (folder, *created):
            with suppress(OSError):  # not empty, or removed
                path.rmdir()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a run folder; the lock ends with the block or with the process, however it ends.

    Only rank 0 locks. Does nothing on Windows and on file systems that have no locks. Raises a
    CheckpointError if another process has locked it.
    """
    try:
        import fcntl
    except ModuleNotFoundError:
        yield
        return
    if process_rank() > 0:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        message = "expected a run that has ended, got one that is being trained by another process"
        raise CheckpointError(f"{folder}: {message}") from None
    except OSError:
        pass
    try:
        yield
    finally:
        os.close(descriptor)
