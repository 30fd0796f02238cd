"""What a checkpoint must contain, beside weights and settings, to be read and to be continued."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from packaging.version import InvalidVersion, Version
from torch import Tensor

from lightning_rnn.data import DATA_MODULES
from lightning_rnn.errors import CheckpointError
from lightning_rnn.training.classifier import SequenceClassifier
from lightning_rnn.training.conditions import CONDITIONS, THREADS
from lightning_rnn.training.optimizers import create_optimizer
from lightning_rnn.training.random_states import random_state
from lightning_rnn.training.train_metrics import SUMS

OLDEST_LIGHTNING = Version("2.6")
MAX_THREADS = 4096
MAX_SIZE = 1 << 62  # bytes; stands for that of a tensor without values, or a sparse one
# Examples of entries. A dict must have the keys of its example. All items of a list must be like
# the only item of its example. A tuple, or a list in its place, must have as many items as its
# example, each like the item there. A number must be at least 0.
ENTRIES: dict[str, Any] = {
    "epoch": 0,
    "global_step": 0,
    "metrics": {},
    "loops": {},
    "callbacks": {},
    "optimizer_states": [{"state": {}, "param_groups": [{"params": [0]}]}],
    "lr_schedulers": [{}],
    CONDITIONS: {},
    "gradients": [[]],
    "ending": {"reason": "", "rules": "", "num_epochs": 0},
    SUMS: torch.zeros(1, 3, dtype=torch.float64),
}
DATA_STATE = {
    "settings": {},
    "fingerprints": {},
    "loader": {"epoch": 0, "position": 0, "batches": 1, "order": ""},
}
REQUIRED = ("epoch", "loops", "callbacks", "optimizer_states", "lr_schedulers")
LOOPS = ("fit_loop", "validate_loop", "test_loop", "predict_loop")


def check_entries(path: Path, content: dict[str, Any]) -> None:
    """Raise a CheckpointError if an entry has another type or structure than `fit` gives it.

    The tensors may not be larger than the file: a view can claim any size.
    """
    for name, example in ENTRIES.items():
        if name in content:
            _check_like(path, name, content[name], example)
    for name, value in content.get("metrics", {}).items():
        if not isinstance(name, str) or not isinstance(value, int | float):
            raise _unexpected(path, f"metrics.{name}", "a number with a name", value)
    version = content["pytorch-lightning_version"]
    if not _is_current(version):
        expected = f"a version of Lightning from {OLDEST_LIGHTNING}"
        raise _unexpected(path, "pytorch-lightning_version", expected, version)
    num_threads = content.get(CONDITIONS, {}).get(THREADS, 1)
    if num_threads not in range(1, MAX_THREADS + 1):
        raise _unexpected(path, f"{CONDITIONS}.{THREADS}", f"1 to {MAX_THREADS}", num_threads)
    tensors: dict[tuple[int, torch.Size], int] = {}
    _add_sizes(content, tensors, set())
    if sum(tensors.values()) > path.stat().st_size:
        message = "expected dense tensors, no larger than the file, got others"
        raise CheckpointError(f"{path}: {message}")


def _is_current(version: str) -> bool:
    """Return whether Lightning reads a checkpoint of a version as it is, without converting it."""
    try:
        return Version(version) >= OLDEST_LIGHTNING
    except InvalidVersion:
        return False


def check_loops(path: Path, content: dict[str, Any], trainer: Trainer) -> None:
    """Raise a CheckpointError if the states of the loops are not those of a Trainer."""
    loops = {name: getattr(trainer, name).state_dict() for name in LOOPS}
    if "loops" in content:
        _check_like(path, "loops", content["loops"], loops)


def check_resumable(path: Path, content: dict[str, Any], model: SequenceClassifier) -> None:
    """Raise a CheckpointError if a checkpoint lacks what is needed to continue exactly."""
    for name in REQUIRED:
        if name not in content:
            raise CheckpointError(f"{path}: expected a checkpoint to continue, got no {name}")
    checkpoints = {"monitor": "", "is_best": True}
    callbacks = {"RandomStates": {"ranks": [random_state()]}, "Checkpoints": checkpoints}
    _check_like(path, "callbacks", content["callbacks"], callbacks)
    if not content["callbacks"]["RandomStates"]["ranks"]:
        raise CheckpointError(f"{path}: callbacks.RandomStates: expected a state, got none")
    for name in DATA_MODULES:
        if name in content:
            _check_like(path, name, content[name], DATA_STATE)
    configure: Any = model.configure_optimizers
    if configure.__func__ is SequenceClassifier.configure_optimizers:  # not the user's optimizer
        for state in content["optimizer_states"]:
            _check_optimizer(path, state, model)
    progress = content["loops"]["fit_loop"]["epoch_loop.automatic_optimization.optim_progress"]
    num_steps = progress["optimizer"]["step"]["total"]["completed"]
    if num_steps != content["global_step"]:
        expected = f"{num_steps}, the steps of its loop"
        raise _unexpected(path, "global_step", expected, content["global_step"])


def _check_optimizer(path: Path, state: dict[str, Any], model: SequenceClassifier) -> None:
    """Compare the state of an optimizer with that of a new one, whose switches are off."""
    example = create_optimizer(model, fused=False).state_dict()["param_groups"][0]
    numbers = {name: value for name, value in example.items() if type(value) in (float, tuple)}
    switches = {name: value for name, value in example.items() if value is False}
    for group in state["param_groups"]:
        optional = {name: 0.0 for name in ("initial_lr", "scheduled_lr") if name in group}
        _check_like(path, "optimizer_states", group, numbers | optional)
        for name in switches:
            if group.get(name) is not False and name not in ("amsgrad", "decoupled_weight_decay"):
                raise _unexpected(path, f"optimizer_states.{name}", "False", group.get(name))
    parameters = dict(enumerate(model.parameters()))
    for index, tensors in state["state"].items():
        if index not in parameters:
            raise _unexpected(path, "optimizer_states", f"{len(parameters)} parameters", index)
        like = parameters[index].detach()
        moments = {"step": torch.tensor(0.0), "exp_avg": like, "exp_avg_sq": like}
        _check_like(path, f"optimizer_states.{index}", tensors, moments)


def _check_like(path: Path, where: str, value: Any, example: Any) -> None:
    if example is None:
        return
    accepted = {int: (int, float), float: (int, float), tuple: (list, tuple)}
    if type(value) not in accepted.get(type(example), (type(example),)):
        raise _unexpected(path, where, type(example).__name__, value)
    if isinstance(example, dict):
        for name, inner in example.items():
            if name not in value:
                raise CheckpointError(f"{path}: {where}: expected an entry {name}, got none")
            _check_like(path, f"{where}.{name}", value[name], inner)
    elif isinstance(example, list):
        for i, item in enumerate(value if example else []):
            _check_like(path, f"{where}[{i}]", item, example[0])
    elif isinstance(example, tuple):
        if len(value) != len(example):
            raise _unexpected(path, where, f"{len(example)} items", len(value))
        for item, inner in zip(value, example, strict=True):
            _check_like(path, where, item, inner)
    elif isinstance(example, Tensor) and not _is_like(value, example, any_rows=where == SUMS):
        raise _unexpected(path, where, f"{example.dtype} {tuple(example.shape)}", value)
    elif type(example) in (int, float) and not 0 <= value < 2**63:
        raise _unexpected(path, where, "a number of at least 0", value)


def _is_like(value: Tensor, example: Tensor, *, any_rows: bool) -> bool:
    if value.is_floating_point() != example.is_floating_point():
        return False
    return value.shape == example.shape or (any_rows and value.shape[1:] == example.shape[1:])


def _add_sizes(value: Any, tensors: dict[tuple[int, torch.Size], int], seen: set[int]) -> None:
    """Note the bytes of all tensors in a nested value, each value once."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        if value.is_meta or value.layout != torch.strided:
            tensors[0, value.shape] = MAX_SIZE
        else:
            tensors[value.data_ptr(), value.shape] = value.nbytes
    elif isinstance(value, dict):
        for inner in value.values():
            _add_sizes(inner, tensors, seen)
    elif isinstance(value, list | tuple):
        for inner in value:
            _add_sizes(inner, tensors, seen)


def _unexpected(path: Path, where: str, expected: str, got: Any) -> CheckpointError:
    text = type(got).__name__
    if isinstance(got, int | float | str):
        text = f"{got!r}"[:60]
    elif isinstance(got, Tensor):
        text = f"{got.dtype} {tuple(got.shape)}"
    return CheckpointError(f"{path}: {where}: expected {expected}, got {text}")
