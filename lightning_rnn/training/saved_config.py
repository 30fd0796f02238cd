"""The `config.yaml` of a run, which is checked for names of code, as it may come from anyone."""

import re
from collections.abc import Iterator, Set
from datetime import timedelta
from importlib import import_module
from os import PathLike
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml
from lightning.fabric.plugins import ClusterEnvironment
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.accelerators import Accelerator
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins import CheckpointIO, LayerSync, Precision
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.strategies import Strategy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lightning_rnn.data.base_module import SequenceDataModule
from lightning_rnn.errors import CheckpointError

TRUSTED_PACKAGES = ("lightning.", "lightning_rnn.", "torch.optim.")
TRUSTED_KINDS = (
    *(Callback, Logger, Profiler, Strategy, Accelerator),
    *(CheckpointIO, ClusterEnvironment, LayerSync, Precision),
    SequenceDataModule,
    *(Optimizer, LRScheduler),
)
# types of arguments for which a text is never taken for the name of a class or function
PLAIN_TYPES = {str, int, float, bool, dict, list, NoneType, timedelta, Path, PathLike}


def own_config(run_folder: Path, trusted: list[Path], typed: Set[str]) -> Path | None:
    """Find the `config.yaml` of a run, which continues the run without its options being repeated.

    It is used only if all classes that it names are callbacks, loggers, profilers, strategies,
    plugins, optimizers and data modules of Lightning, torch or this package, or among those that
    the user has `typed` again; for others a CheckpointError is raised. Returns None if there is no
    such file, or if it is one of the `trusted` files of the user.
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
    names = [*_code_of_arguments(Trainer, content.get("trainer")), *_code(content.get("data"))]
    model = content.get("model")
    if not isinstance(model, dict) or "class_path" in model:  # a class of the user's own
        names += _code(model)
    for group in ("optimizer", "lr_scheduler"):
        names += _code(content.get(group))
    for name in names:
        if name not in typed:
            hint = f"give this option again, or config={path}, which trusts it"
            raise CheckpointError(f"{path}: {name!r} names code; {hint}")
    return path


def _code_of_arguments(owner: type, arguments: Any) -> Iterator[str]:
    """Yield the names of untrusted code in the arguments of a trusted class."""
    if not isinstance(arguments, dict):
        yield from _code(arguments)
        return
    try:
        hints = get_type_hints(owner.__init__)  # type: ignore[misc]  # of the class itself
    except NameError:  # some are imported for type checkers only
        hints = {}
    for name, value in arguments.items():
        if name not in hints or not _is_plain(hints[name]):
            yield from _code(value)


def _is_plain(hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return True
    parts = get_args(hint)
    if parts:
        return all(_is_plain(part) for part in parts if part is not Ellipsis)
    return isinstance(hint, type) and hint in PLAIN_TYPES


def _code(value: Any) -> Iterator[str]:
    """Yield the names of untrusted code in a value where a class or function may be named."""
    if isinstance(value, dict) and "class_path" in value:
        name = str(value["class_path"])
        owner = _trusted_class(name)
        if owner is None:
            yield name
        for key, inner in value.items():
            if key == "init_args" and owner is not None:
                yield from _code_of_arguments(owner, inner)
            elif key != "class_path":
                yield from _code(inner)
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _code(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _code(inner)
    elif isinstance(value, str):
        is_word = re.fullmatch(r"[\w:=-]*", value) is not None
        if not is_word and _trusted_class(value) is None:
            yield value


def _trusted_class(name: str) -> type | None:
    """Return the class of this name if it is harmless to create; only trusted code is imported."""
    module_name, _, class_name = name.rpartition(".")
    if not f"{module_name}.".startswith(TRUSTED_PACKAGES):
        return None
    try:
        found = getattr(import_module(module_name), class_name, None)
    except ImportError:
        return None
    if not isinstance(found, type) or not issubclass(found, TRUSTED_KINDS):
        return None
    return found if f"{found.__module__}.".startswith(TRUSTED_PACKAGES) else None
