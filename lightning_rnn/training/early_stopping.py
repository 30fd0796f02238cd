"""Early stopping that checks its metric before training and keeps the patience the user asked for."""

from typing import Any, get_args

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch import callbacks as lightning_callbacks

from lightning_rnn.errors import check
from lightning_rnn.training.checkpoints import Monitor


class EarlyStopping(lightning_callbacks.EarlyStopping):
    """Lightning's, but a resumed run has the patience its user asks for, and a metric that never comes is refused."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Look for the metric before training.

        Raises:
            OptionError: A metric that is not logged, or one of validation where there is none.
        """
        super().setup(trainer, pl_module, stage)
        known = [
            *(get_args(Monitor) if trainer.limit_val_batches else ()),
            "train/loss",
            "train/accuracy",
        ]
        accepted = f"one of {', '.join(known)}" + (
            "" if trainer.limit_val_batches else ", as there is no validation"
        )
        check(
            stage != "fit" or self.monitor in known, "EarlyStopping.monitor", self.monitor, accepted
        )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look, but not in a run of so few steps that it ends before its first validation."""
        if self.monitor.startswith("train/") or any(
            name.startswith("val/") for name in trainer.callback_metrics
        ):
            super().on_train_epoch_end(trainer, pl_module)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore all but the patience."""
        super().load_state_dict({**state_dict, "patience": self.patience})
