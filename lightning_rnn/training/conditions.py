"""What a run depends on without an option of its own, as part of a checkpoint."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

CONDITIONS = "conditions"  # entry of a checkpoint
THREADS = "threads"  # condition of a run on the CPU; `ThreadChoice` has restored it


class Conditions(Callback):
    """Stores what changes the rounding of a run, and says what is different when it is resumed."""

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Store the conditions."""
        checkpoint[CONDITIONS] = conditions_of(trainer)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Warn of conditions that differ from those of the checkpoint, where training goes on."""
        if trainer.state.fn != "fit":
            return
        stored = checkpoint.get(CONDITIONS, {})
        for name, value in conditions_of(trainer).items():
            if name in stored and stored[name] != value:
                rank_zero_warn(
                    f"the checkpoint was trained with {name} {stored[name]}, this run has {value} "
                    "and will not end exactly like an uninterrupted run"
                )


def conditions_of(trainer: Trainer) -> dict[str, Any]:
    """Return what changes the rounding of a run, by name."""
    conditions = {
        "world size": trainer.world_size,
        "device": trainer.strategy.root_device.type,
        "precision": str(trainer.precision),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul_precision": torch.get_float32_matmul_precision(),
    }
    if trainer.strategy.root_device.type == "cpu":
        conditions[THREADS] = torch.get_num_threads()
    if trainer.strategy.root_device.type == "cuda":
        conditions["TF32 in cuDNN"] = torch.backends.cudnn.allow_tf32
        conditions["cuDNN benchmark"] = torch.backends.cudnn.benchmark
    return conditions
