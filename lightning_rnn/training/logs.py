"""Writing metrics to Lightning and to the loggers."""

from collections.abc import Iterable, Mapping
from typing import Any

from lightning.pytorch import LightningModule
from torch import Tensor

# the maximum of equal numbers is exact, their mean over three ranks is not
EQUAL_ON_ALL_RANKS: dict[str, Any] = {"sync_dist": True, "reduce_fx": "max"}


def log_epoch(module: LightningModule, values: Mapping[str, Any], *, step: int | None) -> None:
    """Log metrics at the end of an epoch; accuracies also appear in the progress bar.

    Args:
        module: The module in whose hook this is called.
        values: Metrics by name, equal on all ranks.
        step: Number of the optimizer step that the metrics belong to: they are written to the
            loggers at once. None leaves writing to Lightning.
    """
    logger = None if step is None else False  # None: as Lightning decides
    for name, value in values.items():
        in_bar = name.endswith("/accuracy")
        module.log(name, value, prog_bar=in_bar, logger=logger, **EQUAL_ON_ALL_RANKS)
    if step is not None and not module.trainer.sanity_checking:
        write_to_loggers(module.loggers, values, step)


def write_to_loggers(
    loggers: Iterable[Any], values: Mapping[str, float | Tensor], step: int
) -> None:
    """Write numbers to all loggers at once.

    `self.log` writes the metrics of an epoch only after the checkpoint of that epoch is saved: if
    the process is killed in between, they are missing from the history of the resumed run.
    """
    numbers = {name: float(value) for name, value in values.items()}
    for logger in loggers:
        logger.log_metrics(numbers, max(0, step))
