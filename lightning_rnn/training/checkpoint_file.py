"""Run folders and the checkpoints in them."""

import inspect
import re
import sys
import zipfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import yaml

from lightning_rnn.cli.parser import class_of
from lightning_rnn.data import DATA_MODULES
from lightning_rnn.errors import CheckpointError, OptionError
from lightning_rnn.training.classifier import ARCHITECTURE, SequenceClassifier

FROM_DATA = ("input_size", "num_classes", "class_names", "feature_names")  # arguments of the model
HARMLESS = {f"lightning_rnn.{name}" for name in (*DATA_MODULES, "EarlyStopping")} | {
    f"lightning.pytorch.callbacks.{name}"
    for name in ("EarlyStopping", "EMAWeightAveraging", "LearningRateMonitor", "Timer")
}


class StoredRun:
    """A checkpoint's settings and the run folder it belongs to.

    Attributes:
        path: The checkpoint.
        folder: The run folder, or the checkpoint's own where it lies in none.
        in_run: Whether it lies in a run folder.
        weights: The model's state.
        step: Optimiser steps done.
        model: The model's hyper-parameters.
        data_name: `SyntheticDataModule`, `FileDataModule`, or None for a user's own class.
        data: The data module's settings; none for a user's own class.
        parts: What the checkpoint has an entry for, the data module under its class's plain name.
    """

    def __init__(self, path: Path) -> None:
        """Read a checkpoint's settings.

        Raises:
            CheckpointError: The file is missing or no checkpoint of this package.
        """
        self.path = path.absolute()
        self.in_run = self.path.parent.name == "checkpoints"
        self.folder = self.path.parent.parent if self.in_run else self.path.parent
        content = load_checkpoint(path)
        self.model: dict[str, Any] = content["hyper_parameters"]
        self.parts = frozenset(content)
        self.data_name = next((name for name in DATA_MODULES if name in content), None)
        self.data: dict[str, Any] = content[self.data_name]["settings"] if self.data_name else {}
        self.weights: dict[str, Any] = content["state_dict"]
        self.step: int = content["global_step"]

    def restore(self, model: SequenceClassifier) -> None:
        """Give a model the checkpoint's weights.

        Raises:
            CheckpointError: They are not that model's.
        """
        try:
            model.load_state_dict(self.weights)
        except Exception as error:  # whatever is in the file
            reason = str(error).strip().rpartition("\n")[2].strip()
            raise CheckpointError(
                f"{self.path}: its weights are not this model's ({reason[:200]})"
            ) from None

    def check(self, command: str, config: Any) -> None:
        """Compare what a command is to do with what the checkpoint knows.

        Args:
            command: fit, validate, test or predict.
            config: The command's settings.

        Raises:
            OptionError: Another architecture, or other data settings than the checkpoint's.
        """
        model, data_name = config["model"], config["data"]["class_path"].rsplit(".", 1)[-1]
        for name in (*FROM_DATA, *ARCHITECTURE):
            if name in model and name in self.model:
                self._compare(f"{name}", model[name], self.model[name])
        settings = config["data"].as_dict().get("init_args", {})
        if command == "fit":
            if data_name not in self.parts:
                self._compare(
                    "data", data_name, self.data_name or "the class that it was trained with"
                )
            # all but the places of files, whose content is compared
            names, otherwise = (
                frozenset(name for name in self.data if not name.endswith(("_path", "on_device"))),
                "",
            )
        elif data_name != self.data_name or config["allow_data_change"]:
            return
        else:
            names, otherwise = (
                DATA_MODULES[data_name].identity_settings,
                ", or --allow_data_change true",
            )
        for name in sorted(names & settings.keys()):
            self._compare(f"{name}", settings[name], self.data.get(name), otherwise)

    def _compare(self, option: str, found: Any, stored: Any, otherwise: str = "") -> None:
        if found != stored:
            raise OptionError(
                f"{option}: found {found!r}, accepted is {stored!r} as in {self.path}{otherwise}"
            )


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint, executing and importing nothing in it.

    Args:
        path: The file.

    Returns:
        Its content; hyper-parameters and data settings are arguments of our classes, JSON values all.

    Raises:
        CheckpointError: The file is missing, damaged, or no checkpoint of this package.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise CheckpointError(f"{path}: found {found}, accepted is a checkpoint file")
    try:
        if not zipfile.is_zipfile(path):  # the older format is a bare pickle
            raise ValueError("not a zip archive")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the broken part does
        reason = next(iter(str(error).splitlines()), "")[:80]
        raise CheckpointError(
            f"{path}: not a readable checkpoint ({type(error).__name__}: {reason})"
        ) from None
    keys = {"hyper_parameters": dict, "state_dict": dict, "global_step": int}
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), kind) for key, kind in keys.items()
    ):
        raise CheckpointError(f"{path}: found no model of this package in it")
    if not 0 <= content["global_step"] < 2**63:
        raise CheckpointError(
            f"{path}: found step {content['global_step']}, accepted is one of at least 0"
        )
    _check_arguments(path, "hyper_parameters", content["hyper_parameters"], SequenceClassifier)
    _check_model(path, content["hyper_parameters"], content["state_dict"])
    for name, kind in DATA_MODULES.items():
        if name in content:
            settings = content[name].get("settings") if isinstance(content[name], dict) else None
            _check_arguments(path, name, settings, kind)
    return content


def _check_model(path: Path, arguments: dict[str, Any], weights: dict[str, Any]) -> None:
    """Refuse settings of which no model can be made, or not that of the weights, before memory is taken for it."""
    layers = arguments.get("num_layers", 1)
    if isinstance(layers, int) and layers > len(weights):
        raise CheckpointError(
            f"{path}: found {layers} layers in its settings, fewer in its weights"
        )
    try:
        with torch.device("meta"):
            wanted = {
                name: value.shape
                for name, value in SequenceClassifier(**arguments).state_dict().items()
            }
        found = {name: value.shape for name, value in weights.items()}
    except Exception as error:  # whatever wrong types do
        raise CheckpointError(
            f"{path}: no model can be made of its settings ({str(error)[:120]!r})"
        ) from None
    if wanted != found:
        differ = {name for name in {*wanted, *found} if wanted.get(name) != found.get(name)}
        raise CheckpointError(f"{path}: its weights are not this model's ({min(map(str, differ))})")


def _check_arguments(path: Path, title: str, found: Any, kind: type) -> None:
    """Refuse what is no argument of a class or no plain value: nothing else may reach the parser."""
    if not isinstance(found, dict):
        raise CheckpointError(
            f"{path}: {title} holds {type(found).__name__}, accepted are settings by name"
        )
    unknown = set(found) - set(inspect.signature(kind).parameters)
    if unknown:
        raise CheckpointError(
            f"{path}: {title} has {min(map(repr, unknown))}, accepted are arguments of {kind.__name__}"
        )
    for name, value in found.items():
        items = value if isinstance(value, list) else [value]
        if not all(item is None or type(item) in (bool, int, float, str) for item in items):
            raise CheckpointError(
                f"{path}: {title}.{name} holds {type(value).__name__}, accepted are plain values"
            )


def newest_run(root: Path, names: tuple[str, ...]) -> StoredRun:
    """Return the newest run under `root`/lightning_logs, by the first of its checkpoints that is whole.

    Args:
        root: Folder with `lightning_logs` in it.
        names: Checkpoint files, the preferred one first; a damaged one is named and the next one is taken.

    Raises:
        CheckpointError: There is no run with one of them, or none of them is whole.
    """
    logs = root / "lightning_logs"
    folders = {
        path.parent.parent for name in names for path in logs.glob(f"version_*/checkpoints/{name}")
    }
    numbered = [(int(folder.name[8:]), folder) for folder in folders if folder.name[8:].isdigit()]
    if not numbered:
        raise NoRunError(
            f"no run with a checkpoint ({names[0]}) under {logs}; accepted is --ckpt_path FILE"
        )
    found = [max(numbered)[1] / "checkpoints" / name for name in names]
    found = [path for path in found if path.exists()]
    for path, after in pairwise(found):
        try:
            return StoredRun(path)
        except CheckpointError as error:
            print(f"damaged: {error}; taking {after.name}", file=sys.stderr)
    return StoredRun(found[-1])


class NoRunError(CheckpointError):
    """There is nothing to continue from."""


def own_config(folder: Path, typed: list[Path]) -> Path | None:
    """Return a run's config.yaml, so that continuing it needs no option typed again.

    It lies beside a checkpoint, which may come from a stranger: it is used only if it names no code but a few
    harmless classes and holds no text that could be taken for a path to code. One that was typed needs no more.

    Raises:
        CheckpointError: It names code; typing `--config` would trust it.
    """
    path = folder / "config.yaml"
    if not path.is_file() or any(path.samefile(other) for other in typed):
        return None
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError):
        content = None
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path}: found no settings, accepted is the file that fit has written"
        )
    data = {"class_path": class_of(content.get("data"))}
    foreign = [*sorted(_code_in(content.get("trainer"))), *_code_in(data)]
    if foreign:
        raise CheckpointError(
            f"{path}: found {foreign[0]!r}, which names code; type --config {path} to trust it"
        )
    return path


def _code_in(value: Any, key: str = "") -> Iterator[str]:
    """Yield the texts under a Trainer's settings that could make the parser import something."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _code_in(inner, str(name))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _code_in(inner, key)
    elif isinstance(value, str) and key != "default_root_dir":
        harmless = value in HARMLESS if key == "class_path" else re.fullmatch(r"[\w/=-]*", value)
        if not harmless:
            yield value
