"""Random states of all ranks as part of a checkpoint."""

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_rnn.distributed import gather_objects


class RandomStates(Callback):
    """Saves and restores the states of the random number generators of every rank."""

    def __init__(self) -> None:
        self._loaded: list[dict[str, Any]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the states of this rank; in a new run, give each rank its own dropout masks."""
        if trainer.global_rank < len(self._loaded):
            _set_random_state(self._loaded[trainer.global_rank])
        elif trainer.global_rank > 0:
            torch.manual_seed(torch.initial_seed() + trainer.global_rank)

    def state_dict(self) -> dict[str, Any]:
        """Return the states of all ranks; a collective call, like saving a checkpoint."""
        return {"ranks": gather_objects(random_state())}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the states until training starts, because the set-up draws random numbers too."""
        self._loaded = state_dict["ranks"]


def random_state() -> dict[str, Any]:
    """Return the generator states as tensors and numbers, which load with `weights_only=True`."""
    python_version, python_numbers, python_gauss = random.getstate()
    _, keys, position, has_gauss, cached_gauss = np.random.get_state()
    numpy_keys = torch.from_numpy(np.asarray(keys, dtype=np.int64))
    state = {
        "torch": torch.get_rng_state(),
        "python": (python_version, torch.tensor(python_numbers), python_gauss),
        "numpy": (numpy_keys, int(position), int(has_gauss), float(cached_gauss)),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    python_version, python_numbers, python_gauss = state["python"]
    random.setstate((python_version, tuple(python_numbers.tolist()), python_gauss))
    keys, position, has_gauss, cached_gauss = state["numpy"]
    numpy_keys = keys.numpy().astype(np.uint32)
    np.random.set_state(("MT19937", numpy_keys, position, has_gauss, cached_gauss))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
