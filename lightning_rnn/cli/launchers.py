"""Processes started by torchrun or SLURM: how many there are."""

import math
import os
from typing import Any

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from lightning_rnn.errors import OptionError, check

UNSET = {"devices": ("auto", 1, "1"), "num_nodes": (1,)}  # values that do not contradict a launcher


def launched_world() -> tuple[int, int] | None:
    """Return (processes per node, nodes) if torchrun or SLURM started the processes, else None."""
    if TorchElasticEnvironment.detect():
        total = int(os.environ["WORLD_SIZE"])
        per_node = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = total // per_node
    elif SLURMEnvironment.detect() and int(os.environ["SLURM_NTASKS"]) > 1:
        total = int(os.environ["SLURM_NTASKS"])
        nodes = int(os.environ.get("SLURM_NNODES", 1))
        per_node = total // nodes
    else:
        return None
    if per_node * nodes != total:
        message = f"expected as many processes on each node, got {total} in all, {per_node} on one"
        raise OptionError(message, name="world size")
    return per_node, nodes


def apply_launched_world(trainer: dict[str, Any]) -> None:
    """Set the numbers of devices and nodes in settings of the Trainer to those of the launcher.

    Without them, each process would train a model of its own. Raises an OptionError if the settings
    contradict the launcher.
    """
    world = launched_world()
    if world is None:
        return
    for name, launched in zip(("devices", "num_nodes"), world, strict=True):
        agrees = trainer[name] in (*UNSET[name], launched, str(launched))
        check(agrees, name, trainer[name], f"{launched}, the number that the launcher started")
        trainer[name] = launched
    if trainer["strategy"] == "auto" and world != (1, 1):
        trainer["strategy"] = "ddp"


def check_world_size(world_size: int) -> None:
    """Check that the Trainer has as many processes as the launcher has started, if there is one."""
    world = launched_world()
    if world is not None:
        size = math.prod(world)
        check(world_size == size, "world size", world_size, f"{size} as launched")
