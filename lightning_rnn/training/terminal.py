"""What `fit` prints: the data, a line per epoch, and what to do next."""

import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger

# tensorboard has no type hints for its messages
from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
from tensorboard.plugins.hparams import api_pb2 as hparams  # type: ignore[import-untyped]
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import (  # type: ignore[import-untyped]
    HParamsPluginData,
)
from tqdm import tqdm  # type: ignore[import-untyped]  # has no annotations

from lightning_rnn.categories import join_classes, quoted
from lightning_rnn.data.base_module import SequenceDataModule
from lightning_rnn.data.loader import TrainSampler
from lightning_rnn.data.report import class_counts, length_range, missing_values
from lightning_rnn.training.checkpoints import Checkpoints
from lightning_rnn.training.data_statistics import sequence_data
from lightning_rnn.training.logs import SHOWN_METRICS, shown_path
from lightning_rnn.training.run_end import ending_of
from lightning_rnn.training.settings import changed_first, own_classes
from lightning_rnn.training.validation_interval import (
    ends_epoch,
    epochs_per_validation,
    is_last_step,
    is_report_due,
)

MAX_LINES = 30  # of epochs, about
READABLE_LIMIT = 1000  # metrics from here on are printed with three digits


class EpochLines(Callback):
    """Prints the data and the model, a line for each epoch, and why the run has ended.

    If the run has more than 30 validations, some epochs are left out, more and more of them, so
    that there are about 30 lines. A line has the metrics that were measured in its epoch.
    """

    def __init__(self) -> None:
        self._line: str | None = None  # without the metrics of the training
        self._num_epochs = 0  # until the last line
        self._validation = ""  # metrics of the last validation of the epoch
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
        frozen = ", all but the head frozen" if pl_module.hparams["freeze"] else ""
        print(f"model: {num_parameters:,} parameters{frozen}; device: {device}", flush=True)
        weights: Any = pl_module.class_weight
        if (weights != 1).any():
            pairs = zip(data.class_names, weights.tolist(), strict=True)
            text = ", ".join(f"{quoted(name)} {weight:.4g}" for name, weight in pairs)
            print(f"class weights: {text}", flush=True)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the share of padding, how often there is a validation, and of which weights."""
        self._num_epochs = trainer.current_epoch
        if not trainer.is_global_zero:
            return
        sampler = getattr(trainer.train_dataloader, "batch_sampler", None)
        if isinstance(sampler, TrainSampler) and sampler.padding() > 0:
            _print(f"padding: {sampler.padding():.1%} of the steps in training batches")
        epochs = trainer.check_val_every_n_epoch
        if trainer.limit_val_batches and epochs is not None and epochs > 1:
            num_steps = epochs * trainer.num_training_batches
            _print(f"validation: every {epochs} epochs ({num_steps} batches)")
        for callback in trainer.callbacks:  # type: ignore[attr-defined]  # undeclared
            if isinstance(callback, WeightAveraging):
                name = type(callback).__name__
                text = "validation and checkpoints use the averaged weights, train/loss others"
                _print(f"{name}: {text}")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the metrics."""
        if trainer.sanity_checking:
            return
        self._validation = _format_metrics(_of_split(trainer.callback_metrics, "val"))
        if not ends_epoch(trainer):
            self._validation += f" (at step {trainer.global_step})"

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the line of the epoch, whose training metrics are not yet known."""
        epoch = trainer.current_epoch + 1
        if is_last_step(trainer) or self._is_due(trainer, epoch):
            self._line = f"epoch {epoch}"
            if trainer.max_epochs not in (None, -1):
                self._line += f"/{trainer.max_epochs}"
            if trainer.max_steps != -1:
                self._line += f", step {trainer.global_step}/{trainer.max_steps}"
            self._num_epochs = epoch
        else:
            self._validation = ""

    def _is_due(self, trainer: Trainer, epoch: int) -> bool:
        if not is_report_due(trainer):
            return False
        spacing = epochs_per_validation(trainer, trainer.num_training_batches)
        num_epochs = trainer.estimated_stepping_batches / trainer.num_training_batches
        if num_epochs <= MAX_LINES * spacing:
            return True
        return epoch >= self._num_epochs + max(
            spacing, min(self._num_epochs // 3, num_epochs // 12)
        )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line of the epoch before, all of whose metrics are known now."""
        self._print_epoch(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line of the last epoch, and which rule has ended the run."""
        self._print_epoch(trainer)
        if trainer.is_global_zero:
            seconds = time.monotonic() - self._start
            print(f"trained to step {trainer.global_step} in {seconds:.1f} s; {ending_of(trainer)}")

    def _print_epoch(self, trainer: Trainer) -> None:
        if self._line is not None and trainer.is_global_zero:
            train = _format_metrics(_of_split(trainer.callback_metrics, "train"))
            _print(f"{self._line}{train}{self._validation}")
        self._line = None
        self._validation = ""


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
        folder = shown_path(Path(self._log_dir))
        best = folder / "checkpoints" / "best.ckpt"
        if not best.exists():
            print("nothing was trained: there is no checkpoint")
            return
        print(f"run folder: {folder}")
        content = torch.load(best, map_location="cpu", weights_only=True)
        metrics = _format_metrics(_decisive(content["metrics"]))
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, Checkpoints):
                metrics = f" ({callback.rule}){metrics}"
        print(f"best: epoch {content['epoch'] + 1}, step {content['global_step']}{metrics}")
        data = sequence_data(trainer)
        suffix = f"--ckpt_path {shlex.quote(str(best))}{own_classes(pl_module, data)}"
        names = _available_commands(trainer)
        commands = [f"python -m lightning_rnn {name} {suffix}" for name in names]
        if isinstance(trainer.logger, TensorBoardLogger):
            commands.append(f"tensorboard --logdir {shlex.quote(str(folder.parent))}")
        print("next: " + "\n      ".join(commands), flush=True)


class HyperParameters(Callback):
    """Logs settings, changed ones first, and their metrics, as for TensorBoard's HParams tab."""

    def on_fit_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Log the settings with the metrics of `best.ckpt`."""
        best = Path(trainer.log_dir or ".") / "checkpoints" / "best.ckpt"  # a collective call
        metrics = pl_module.checkpoint_metrics  # if nothing was trained
        step = trainer.global_step
        if best.exists() and trainer.is_global_zero:
            content = torch.load(best, map_location="cpu", weights_only=True)
            metrics = _decisive(content["metrics"])
            step = content["global_step"]
        self._log(trainer, pl_module, metrics, step)

    def on_test_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Log the settings with the metrics of the test."""
        self._log(trainer, pl_module, trainer.callback_metrics, pl_module.checkpoint_step)

    def _log(self, trainer: Trainer, pl_module: Any, metrics: Mapping[str, Any], step: int) -> None:
        data = sequence_data(trainer)
        settings, num_changed = changed_first(
            pl_module.hparams, getattr(data, "settings", {}), type(data)
        )
        scalars = {f"hp/{name.replace('/', '_')}": float(value) for name, value in metrics.items()}
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                if trainer.is_global_zero:
                    # before Lightning's description, as TensorBoard reads the first one
                    summary = _summary_of_settings(settings, num_changed, scalars)
                    logger.experiment.file_writer.add_summary(summary)
                logger.log_hyperparams(settings, scalars, step=step)
            else:
                logger.log_hyperparams(settings)
                logger.log_metrics(scalars, step)


def _summary_of_settings(
    settings: Mapping[str, Any], num_changed: int, metrics: Mapping[str, float]
) -> Summary:
    """Describe the columns of TensorBoard's HParams tab; it shows those first that differ."""
    infos = []
    for i, (name, value) in enumerate(settings.items()):
        kind = hparams.DATA_TYPE_STRING
        if isinstance(value, int | float):
            kind = hparams.DATA_TYPE_FLOAT64
        infos.append(hparams.HParamInfo(name=name, type=kind, differs=i < num_changed))
    metric_infos = [hparams.MetricInfo(name=hparams.MetricName(tag=tag)) for tag in metrics]
    experiment = hparams.Experiment(hparam_infos=infos, metric_infos=metric_infos)
    content = HParamsPluginData(experiment=experiment)
    description = metadata.create_summary_metadata(content)
    return Summary(value=[Summary.Value(tag=metadata.EXPERIMENT_TAG, metadata=description)])


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
        f"features: {data.num_features}; classes: {join_classes(data.class_names)}"
    )
    for name, sequences in splits.items():
        counts = class_counts(sequences, data.class_names)
        print(f"      {name}: {counts}; {missing_values(sequences)}")
    for finding in data.findings():
        print(f"suspicious: {finding}")


def _format_metrics(metrics: Mapping[str, Any]) -> str:
    text = ""
    for name in SHOWN_METRICS:
        if name in metrics:
            value = float(metrics[name])
            digits = ".4f" if abs(value) < READABLE_LIMIT else ".3g"
            text += f"  {name} {value:{digits}}"
    return text


def _of_split(metrics: Mapping[str, Any], split: str) -> dict[str, Any]:
    return {name: value for name, value in metrics.items() if name.startswith(f"{split}/")}


def _decisive(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics of the validation; without one, those of the training epoch."""
    return _of_split(metrics, "val") or _of_split(metrics, "train")


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


def _print(line: str) -> None:
    """Print a line, above the progress bar if there is one."""
    tqdm.write(line)
    sys.stdout.flush()
