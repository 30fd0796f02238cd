"""Continuing the `metrics.csv` of Lightning's CSVLogger."""

import csv
import os
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger

KEPT = "metrics.kept.csv"


class CsvHistory(Callback):
    """Writes the rows that `keep_rows` has kept, before the first step that is logged again."""

    def __init__(self, first_step: int) -> None:
        self.first_step = first_step

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the rows before all that is logged now."""
        for logger in _csv_loggers(trainer):
            kept = Path(logger.log_dir) / KEPT
            if not kept.is_file():
                continue
            with kept.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            for row in rows:
                step = int(row.pop("step"))
                if step < self.first_step:
                    values: dict[str, Any] = {
                        name: float(value) for name, value in row.items() if value
                    }
                    logger.log_metrics(values, step)
            logger.save()
            kept.unlink()


def keep_rows(trainer: Trainer) -> None:
    """Rename the file of each CSVLogger before training; Lightning would delete it."""
    for logger in _csv_loggers(trainer):
        path = Path(logger.log_dir) / "metrics.csv"
        kept = path.with_name(KEPT)
        if path.is_file() and not kept.is_file():  # it is there if a process was killed before
            os.replace(path, kept)


def _csv_loggers(trainer: Trainer) -> list[CSVLogger]:
    """Return the loggers that write in this process."""
    loggers = trainer.loggers if trainer.is_global_zero else []
    return [logger for logger in loggers if isinstance(logger, CSVLogger)]
