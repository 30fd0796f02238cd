"""Early stopping that checks its metric before training starts."""

from typing import Any, get_args

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch import callbacks as lightning_callbacks

from lightning_rnn.errors import check
from lightning_rnn.training.checkpoints import Monitor

TRAIN_METRICS = ("train/loss", "train/accuracy")


class EarlyStopping(lightning_callbacks.EarlyStopping):
    """Lightning's `EarlyStopping` for the metrics of this package.

    A metric that is never logged is refused before training, and a resumed run uses the patience of
    its own configuration instead of that of the checkpoint. It takes the same arguments.

    Example:
        >>> from lightning_rnn import EarlyStopping
        >>> EarlyStopping(monitor="val/loss", patience=5).patience
        5
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that the metric will be logged."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        if trainer.limit_val_batches:
            known = (*get_args(Monitor), *TRAIN_METRICS)
            expected = f"one of {', '.join(known)}"
        else:
            known = TRAIN_METRICS
            expected = f"one of {', '.join(known)}, as there is no validation split"
        check(self.monitor in known, "EarlyStopping.monitor", self.monitor, expected)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the metric, unless the run ends before its first validation."""
        is_logged = any(name.startswith("val/") for name in trainer.callback_metrics)
        if is_logged or self.monitor in TRAIN_METRICS:
            super().on_train_epoch_end(trainer, pl_module)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore everything except the patience."""
        super().load_state_dict({**state_dict, "patience": self.patience})
