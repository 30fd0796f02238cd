"""What the user reads while a run goes on."""

import shlex
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_rnn.data.base_module import SequenceDataModule
from lightning_rnn.data.loader import TrainSampler
from lightning_rnn.data.report import class_counts, length_range, missing_values
from lightning_rnn.training.classifier import SequenceClassifier

EPOCH_METRICS = ("train/loss", "train/accuracy", "val/loss", "val/accuracy")


class EpochLines(Callback):
    """Prints one line an epoch, above the progress bar where there is one, and at the end what to do next."""

    def __init__(self) -> None:
        """Set up."""
        self._pending: str | None = None
        self._start = 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what is trained on what, and start the clock."""
        self._start = time.monotonic()
        data = trainer.datamodule  # type: ignore[attr-defined]
        if trainer.is_global_zero and isinstance(data, SequenceDataModule):
            parts = {
                name: part for name in ("train", "val") if (part := data.split(name)) is not None
            }
            sizes = ", ".join(f"{len(part)} {name}" for name, part in parts.items())
            lengths = torch.cat([part.lengths for part in parts.values()])
            width, names = data.schema.num_features, data.schema.class_names
            print(
                f"data: {sizes} sequences; steps: {length_range(lengths)}; features: {width}; classes: {', '.join(names)}"
            )
            for name, part in parts.items():
                print(f"      {name}: {class_counts(part, names)}; {missing_values(part)}")
            print(
                f"model: {sum(p.numel() for p in pl_module.parameters()):,} parameters", flush=True
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say how much of the batches is padding, where lengths differ."""
        sampler = getattr(trainer.train_dataloader, "batch_sampler", None)
        if (
            trainer.is_global_zero
            and isinstance(sampler, TrainSampler)
            and (padding := sampler.padding())
        ):
            _print_above_bar(trainer, f"padding: {padding:.1%} of the steps in training batches")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line of the epoch before: only now are all its metrics there."""
        self._print_epoch(trainer)
        of_all = "" if trainer.max_epochs in (None, -1) else f"/{trainer.max_epochs}"
        self._pending = f"epoch {trainer.current_epoch + 1}{of_all}"

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the last epoch's line and the next commands."""
        self._print_epoch(trainer)
        if trainer.is_global_zero:
            print(
                f"trained to step {trainer.global_step} in {time.monotonic() - self._start:.1f} s"
            )

    def _print_epoch(self, trainer: Trainer) -> None:
        if self._pending is None or not trainer.is_global_zero:
            return
        metrics = trainer.callback_metrics
        values = [(name, float(metrics[name])) for name in EPOCH_METRICS if name in metrics]
        parts = [
            f"{name} {value:{'.4f' if abs(value) < 1000 else '.3g'}}" for name, value in values
        ]
        line, self._pending = "  ".join([self._pending, *parts]), None
        _print_above_bar(trainer, line)


def _print_above_bar(trainer: Trainer, line: str) -> None:
    bar = trainer.progress_bar_callback
    bar.print(line) if isinstance(bar, TQDMProgressBar) else print(line, flush=True)


class NextCommands(Callback):
    """Says at the end of `fit` where the run lies and what to type next."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Ask all ranks for the run folder."""
        self._log_dir = trainer.log_dir  # a collective call

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Print the commands last; also where there was nothing left to train."""
        if stage != "fit" or self._log_dir is None or not trainer.is_global_zero:
            return
        folder = Path(self._log_dir)
        best = folder / "checkpoints" / "best.ckpt"
        print(f"run folder: {folder}")
        if not best.exists():
            print("nothing was trained: there is no checkpoint")
            return
        content = torch.load(best, map_location="cpu", weights_only=True)
        metrics = "  ".join(
            f"{k} {content['metrics'][k]:.4f}" for k in EPOCH_METRICS if k in content["metrics"]
        )
        print(f"best: epoch {content['epoch'] + 1}, step {content['global_step']}  {metrics}")
        commands = [
            f"python -m lightning_rnn {name} --ckpt_path {shlex.quote(str(best))}"
            for name in _ready(trainer)
        ]
        if isinstance(trainer.logger, TensorBoardLogger):
            commands.append(f"tensorboard --logdir {shlex.quote(str(folder.parent))}")
        print("next: " + "\n      ".join(commands), flush=True)


def _ready(trainer: Trainer) -> list[str]:
    """Return the commands that need no other data than the run's settings name."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    settings = data.settings if isinstance(data, SequenceDataModule) else {}
    tests = "test_path" not in settings or settings["test_path"] or settings["test_fraction"]
    predicts = tests or settings["predict_path"]
    return [
        *(["test"] if tests else []),
        *(["predict"] if predicts else []),
        *([] if tests else ["validate"]),
    ]


class HyperParameters(Callback):
    """Shows the settings with the metrics they led to in TensorBoard's HParams tab."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log with the last metrics of training and validation."""
        if not isinstance(trainer.logger, TensorBoardLogger) or not isinstance(
            pl_module, SequenceClassifier
        ):
            return
        settings: dict[str, Any] = {
            k: v for k, v in pl_module.hparams.items() if not k.startswith("_")
        }
        data = trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(data, SequenceDataModule):
            settings |= {f"data/{name}": value for name, value in data.settings.items()}
        found = trainer.callback_metrics or pl_module.stored_metrics  # nothing was left to train
        metrics = {
            f"hp/{name.replace('/', '_')}": float(value)
            for name, value in found.items()
            if not name.endswith("_step")
        }
        trainer.logger.log_hyperparams(settings, metrics, step=trainer.global_step)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log with the test metrics."""
        self.on_fit_end(trainer, pl_module)
