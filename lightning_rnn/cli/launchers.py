"""The processes that torchrun or SLURM has started: which one this is, and how many there are."""

import os
from typing import Any

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from lightning_rnn.errors import OptionError


def process_rank() -> int:
    """Return this process's rank as the environment tells it, before there is a Trainer."""
    names = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
    return int(next((os.environ[name] for name in names if os.environ.get(name, "").isdigit()), 0))


def say(text: str) -> None:
    """Print a line, on one process of them all."""
    if process_rank() == 0:
        print(text, flush=True)


def launched_world() -> tuple[int, int] | None:
    """Return (processes on each node, nodes) where torchrun or SLURM has started the processes."""
    if TorchElasticEnvironment.detect():
        here, total = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    elif SLURMEnvironment.detect() and int(os.environ["SLURM_NTASKS"]) > 1:
        total, nodes = int(os.environ["SLURM_NTASKS"]), int(os.environ.get("SLURM_NNODES", 1))
        if total % nodes:
            raise OptionError(
                f"world: found {total} tasks on {nodes} nodes; accepted are as many on each node"
            )
        here = total // nodes
    else:
        return None
    if total % here:
        raise OptionError(
            f"world: found {total} processes, {here} on this node; accepted are as many on each node"
        )
    return here, total // here


def take_launched_world(trainer: dict[str, Any]) -> None:
    """Put the launcher's numbers into the Trainer's settings, which would else train that many separate models.

    Raises:
        OptionError: Typed numbers that contradict the launcher's.
    """
    world = launched_world()
    if world is None:
        return
    for name, unset, found in (
        ("devices", ("auto", 1, "1"), world[0]),
        ("num_nodes", (1,), world[1]),
    ):
        if trainer[name] not in (*unset, found, str(found)):
            raise OptionError(
                f"--trainer.{name}: found {trainer[name]!r}, accepted is {found}, which the launcher started"
            )
        trainer[name] = found
    if trainer["strategy"] == "auto" and world != (1, 1):
        trainer["strategy"] = "ddp"
