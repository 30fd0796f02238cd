"""Writing metrics to Lightning and to the loggers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_rnn.evaluation.metrics import EPOCH_METRICS, evaluate
from lightning_rnn.training.validation_interval import is_last_step

# in the line of an epoch, and in the history of the estimator
SHOWN_METRICS = ("train/loss", "train/accuracy", "val/loss", "val/accuracy")
MAX_SORTED_CLASSES = 20  # at each validation of `fit`: AUROC sorts the sequences for each class


def shown_path(path: Path) -> Path:
    """Return a path for messages: relative to the working folder if it lies below it."""
    folder = Path.cwd()
    return path.relative_to(folder) if path.is_relative_to(folder) else path


def last_step(trainer: Trainer) -> int:
    """Return the index of the last optimizer step, the step of scalars at the end of an epoch."""
    return max(0, trainer.global_step - 1)


def log_epoch(module: LightningModule, split: str, metrics: Mapping[str, Any]) -> None:
    """Log metrics, equal on all ranks, in a hook at the end of an epoch.

    During training they are written to the loggers at once. `self.log` writes them only after the
    checkpoint of the epoch is saved: if the process is killed in between, they are missing from the
    history of the resumed run. Accuracies also appear in the progress bar.
    """
    values = {f"{split}/{name}": value for name, value in metrics.items()}
    is_fitting = module.trainer.state.fn == "fit"
    logger = False if is_fitting else None  # None: as Lightning decides
    # over ranks: the maximum of equal numbers is exact, the mean of three is not
    options: dict[str, Any] = {"logger": logger, "sync_dist": True, "reduce_fx": "max"}
    for name, value in values.items():
        module.log(name, value, prog_bar=name.endswith("/accuracy"), **options)
    if is_fitting and not module.trainer.sanity_checking:
        write_to_loggers(module.trainer, values)


def log_validation(module: Any) -> None:
    """Log the metrics of a validation.

    With more than 20 classes, `fit` computes AUROC only at its end, or if a callback monitors it.
    """
    trainer = module.trainer
    names: tuple[str, ...] = EPOCH_METRICS
    monitored = [getattr(callback, "monitor", None) for callback in trainer.callbacks]
    is_within_fit = trainer.state.fn == "fit" and not is_last_step(trainer)
    has_many_classes = len(module.class_names) > MAX_SORTED_CLASSES
    if is_within_fit and has_many_classes and "val/auroc" not in monitored:
        names = tuple(name for name in names if name != "auroc")
    log_epoch(module, "val", evaluate(module.evaluation, module.network.decision, names))


def write_to_loggers(trainer: Trainer, values: Mapping[str, float | Tensor]) -> None:
    """Write numbers of the last optimizer step to all loggers at once."""
    numbers = {name: float(value) for name, value in values.items()}
    for logger in trainer.loggers:
        logger.log_metrics(numbers, last_step(trainer))
