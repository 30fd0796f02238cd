"""Finding the run folders below `lightning_logs` and what they contain."""

import re
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from lightning_rnn.data import DATA_MODULES
from lightning_rnn.errors import CheckpointError
from lightning_rnn.training.checkpoint_file import CheckpointFile

# classes that a config.yaml may name without being trusted
HARMLESS_CLASSES = {
    *(f"lightning_rnn.{name}" for name in (*DATA_MODULES, "EarlyStopping")),
    "lightning.pytorch.callbacks.EarlyStopping",
    "lightning.pytorch.callbacks.EMAWeightAveraging",
    "lightning.pytorch.callbacks.LearningRateMonitor",
    "lightning.pytorch.callbacks.Timer",
}


class NoRunError(CheckpointError):
    """Raised when there is no run with a checkpoint."""


def newest_checkpoint(root: Path, names: tuple[str, ...]) -> CheckpointFile:
    """Read a checkpoint of the newest run, that with the highest version, below `root`.

    Of several `names` of files, the first is preferred. A damaged file is reported on stderr, and
    the next one is read.

    Raises:
        NoRunError: If no run has one of the files.
        CheckpointError: If all of them are damaged.
    """
    logs = root / "lightning_logs"
    folders: dict[int, Path] = {}
    for name in names:
        for path in logs.glob(f"version_*/checkpoints/{name}"):
            version = path.parent.parent.name.removeprefix("version_")
            if version.isdigit():
                folders[int(version)] = path.parent
    if not folders:
        raise NoRunError(f"expected a run with {names[0]} under {logs}, got none; give ckpt_path")
    newest = folders[max(folders)]
    paths = [newest / name for name in names if (newest / name).exists()]
    for path, following in pairwise(paths):
        try:
            return CheckpointFile.read(path)
        except CheckpointError as error:
            print(f"damaged: {error}; taking {following.name}", file=sys.stderr)
    return CheckpointFile.read(paths[-1])


def own_config(run_folder: Path, trusted: list[Path]) -> Path | None:
    """Find the `config.yaml` of a run, which continues the run without its options being repeated.

    The file may come from anywhere, as the checkpoint beside it may. It is used only if it names no
    class but a few harmless ones and contains no text that could be the path of a class.

    Returns:
        The file; None if there is none, or if it is one of the `trusted` files of the user.

    Raises:
        CheckpointError: If the file is damaged or names code.
    """
    path = run_folder / "config.yaml"
    if not path.is_file() or any(path.samefile(other) for other in trusted):
        return None
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError):
        content = None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected settings as written by fit, got something else")
    data = {"class_path": class_of(content.get("data"))}
    for name in (*sorted(_code_names(content.get("trainer"))), *_code_names(data)):
        raise CheckpointError(f"{path}: {name!r} names code; config={path} trusts it")
    return path


def class_of(settings: Any) -> Any:
    """Return the class of settings such as `Name` or `{class_path: Name, init_args: ...}`."""
    return settings.get("class_path") if isinstance(settings, dict) else settings


def _code_names(value: Any, key: str = "") -> Iterator[str]:
    """Yield the texts in settings of the Trainer that could make the parser import something."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _code_names(inner, str(name))
    elif isinstance(value, list):
        for inner in value:
            yield from _code_names(inner, key)
    elif isinstance(value, str) and key != "default_root_dir":
        is_word = re.fullmatch(r"[\w/=-]*", value) is not None and key != "class_path"
        if not is_word and value not in HARMLESS_CLASSES:
            yield value
