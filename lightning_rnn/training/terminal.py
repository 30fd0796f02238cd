"""What `fit` prints: the data, a line per epoch, and what to do next."""

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
from lightning_rnn.training.data_statistics import sequence_data

EPOCH_METRICS = ("train/loss", "train/accuracy", "val/loss", "val/accuracy")
READABLE_LIMIT = 1000  # metrics from here on are printed with three digits


class EpochLines(Callback):
    """Prints the data and the model, then one line per epoch."""

    def __init__(self) -> None:
        self._epoch: str | None = None  # whose line is still to be printed
        self._start = 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Describe the data and the model."""
        self._start = time.monotonic()
        data = sequence_data(trainer)
        if not trainer.is_global_zero or data is None:
            return
        _print_data(data)
        num_parameters = sum(parameter.numel() for parameter in pl_module.parameters())
        device = str(pl_module.device)
        if device == "cpu":
            device = f"cpu (threads: {torch.get_num_threads()})"
        print(f"model: {num_parameters:,} parameters; device: {device}", flush=True)
        weights: Any = pl_module.class_weight
        if (weights != 1).any():
            pairs = zip(data.class_names, weights.tolist(), strict=True)
            text = ", ".join(f"{name} {weight:.4g}" for name, weight in pairs)
            print(f"class weights: {text}", flush=True)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the share of padding, if the lengths differ."""
        sampler = getattr(trainer.train_dataloader, "batch_sampler", None)
        if not trainer.is_global_zero or not isinstance(sampler, TrainSampler):
            return
        padding = sampler.padding()
        if padding > 0:
            _print(trainer, f"padding: {padding:.1%} of the steps in training batches")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line of the epoch before, all of whose metrics are known now."""
        self._print_epoch(trainer)
        total = "" if trainer.max_epochs in (None, -1) else f"/{trainer.max_epochs}"
        self._epoch = f"epoch {trainer.current_epoch + 1}{total}"

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line of the last epoch."""
        self._print_epoch(trainer)
        if trainer.is_global_zero:
            seconds = time.monotonic() - self._start
            print(f"trained to step {trainer.global_step} in {seconds:.1f} s")

    def _print_epoch(self, trainer: Trainer) -> None:
        if self._epoch is not None and trainer.is_global_zero:
            _print(trainer, f"{self._epoch}{_format_metrics(trainer.callback_metrics)}")
        self._epoch = None


class NextCommands(Callback):
    """Prints where the run folder is and which commands come next, at the end of `fit`."""

    def __init__(self) -> None:
        self._log_dir: str | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Determine the run folder; a collective call."""
        self._log_dir = trainer.log_dir

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Print the commands, even if there was nothing left to train."""
        if stage != "fit" or self._log_dir is None or not trainer.is_global_zero:
            return
        folder = Path(self._log_dir)
        best = folder / "checkpoints" / "best.ckpt"
        print(f"run folder: {folder}")
        if not best.exists():
            print("nothing was trained: there is no checkpoint")
            return
        content = torch.load(best, map_location="cpu", weights_only=True)
        metrics = _format_metrics(content["metrics"])
        print(f"best: epoch {content['epoch'] + 1}, step {content['global_step']}{metrics}")
        suffix = f"--ckpt_path {shlex.quote(str(best))}"
        names = _available_commands(trainer)
        commands = [f"python -m lightning_rnn {name} {suffix}" for name in names]
        if isinstance(trainer.logger, TensorBoardLogger):
            commands.append(f"tensorboard --logdir {shlex.quote(str(folder.parent))}")
        print("next: " + "\n      ".join(commands), flush=True)


class HyperParameters(Callback):
    """Logs settings and the metrics they led to for TensorBoard's HParams tab."""

    def on_fit_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Log the settings with the last metrics of training and validation, or of the test."""
        if not isinstance(trainer.logger, TensorBoardLogger):
            return
        settings = {k: value for k, value in pl_module.hparams.items() if not k.startswith("_")}
        data = sequence_data(trainer)
        if data is not None:
            settings |= {f"data/{name}": value for name, value in data.settings.items()}
        metrics = {}
        # nothing has been logged if there was nothing left to train
        for name, value in (trainer.callback_metrics or pl_module.checkpoint_metrics).items():
            if not name.endswith("_step"):
                metrics[f"hp/{name.replace('/', '_')}"] = float(value)
        trainer.logger.log_hyperparams(settings, metrics, step=trainer.global_step)

    on_test_end = on_fit_end


def _print_data(data: SequenceDataModule) -> None:
    splits = {}
    for name in ("train", "val"):
        sequences = data.split(name)
        if sequences is not None:
            splits[name] = sequences
    sizes = ", ".join(f"{len(sequences)} {name}" for name, sequences in splits.items())
    lengths = torch.cat([sequences.lengths for sequences in splits.values()])
    print(
        f"data: {sizes} sequences; steps: {length_range(lengths)}; "
        f"features: {data.num_features}; classes: {', '.join(data.class_names)}"
    )
    for name, sequences in splits.items():
        counts = class_counts(sequences, data.class_names)
        print(f"      {name}: {counts}; {missing_values(sequences)}")
    for finding in data.findings():
        print(f"suspicious: {finding}")


def _format_metrics(metrics: Any) -> str:
    text = ""
    for name in EPOCH_METRICS:
        if name in metrics:
            value = float(metrics[name])
            digits = ".4f" if abs(value) < READABLE_LIMIT else ".3g"
            text += f"  {name} {value:{digits}}"
    return text


def _available_commands(trainer: Trainer) -> list[str]:
    """Return the commands that need no data beyond those of the run; else one that needs a file."""
    data = sequence_data(trainer)
    if data is None or "test_path" not in data.settings:
        return ["test", "predict"]
    if data.settings["test_path"] or data.settings["test_fraction"]:
        return ["test", "predict"]
    names = ["predict"] if data.settings["predict_path"] else []
    if data.split("val") is not None:
        names.append("validate")
    return names or ["predict --data.predict_path FILE"]


def _print(trainer: Trainer, line: str) -> None:
    """Print a line, above the progress bar if there is one."""
    bar = trainer.progress_bar_callback
    if isinstance(bar, TQDMProgressBar):
        bar.print(line)
    else:
        print(line, flush=True)
