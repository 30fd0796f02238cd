"""The command line: defaults, links, checkpoint precedence, run folders, exit codes."""

import argparse
import logging
import re
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ProgressBar, TQDMProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_rnn.callbacks.checkpoints import AtomicCheckpointIO, Checkpoints
from lightning_rnn.callbacks.outputs import PredictionsFile, TestMetricsFile
from lightning_rnn.callbacks.terminal import EpochLines, HyperParameters, NextCommands
from lightning_rnn.classifier import ARCHITECTURE, SequenceClassifier
from lightning_rnn.data.modules import DATA_MODULES, SequenceDataModule
from lightning_rnn.errors import CheckpointError, LightningRNNError, OptionError

PROGRAM = "lightning_rnn"
COMMANDS = ("fit", "validate", "test", "predict")
FROM_DATA = ("input_size", "num_classes", "class_names", "feature_names")
NOISE = ("💡 Tip", "TPU available", "GPU available: False", "Restoring states", "Loaded model", "`Trainer.fit` stopped")
TRAINER_DEFAULTS: dict[str, Any] = {
    "max_epochs": 10,
    "gradient_clip_val": 1.0,
    "log_every_n_steps": 10,
    "enable_model_summary": False,  # one line of ours says the same
    "num_sanity_val_steps": 0,  # the first validation comes soon enough
    "use_distributed_sampler": False,  # our loaders know their rank
}


class StoredRun:
    """A checkpoint's settings and the run folder it belongs to.

    Attributes:
        path: The checkpoint.
        folder: The run folder, or the checkpoint's own where it lies in none.
        model: The model's hyper-parameters.
        data_name: `SyntheticDataModule`, `FileDataModule`, or None for a user's own class.
        data: The data module's settings.
    """

    def __init__(self, path: Path) -> None:
        """Read a checkpoint's settings.

        Raises:
            CheckpointError: The file is missing or no checkpoint of this package.
        """
        self.path = path.absolute()
        inside = self.path.parent.name == "checkpoints"
        self.folder = self.path.parent.parent if inside else self.path.parent
        content = load_checkpoint(path)
        self.model: dict[str, Any] = content["hyper_parameters"]
        self.data_name = next((name for name in DATA_MODULES if name in content), None)
        self.data: dict[str, Any] = content[self.data_name]["settings"] if self.data_name else {}


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint, executing nothing in it.

    Args:
        path: The file.

    Returns:
        Its content, with hyper-parameters and weights in it.

    Raises:
        CheckpointError: The file is missing, damaged, or no checkpoint of this package.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise CheckpointError(f"{path}: found {found}, accepted is a checkpoint file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the broken part does
        raise CheckpointError(f"{path}: not a readable checkpoint ({type(error).__name__})") from None
    keys = ("hyper_parameters", "state_dict")
    if not isinstance(content, dict) or not all(isinstance(content.get(key), dict) for key in keys):
        raise CheckpointError(f"{path}: found no model of this package in it")
    return content


def newest_run(root: Path) -> Path:
    """Return the best checkpoint of the newest run under `root`/lightning_logs.

    Raises:
        CheckpointError: There is none.
    """
    runs = (root / "lightning_logs").glob("version_*/checkpoints/best.ckpt")
    numbered = [(int(path.parts[-3][8:]), path) for path in runs if path.parts[-3][8:].isdigit()]
    if not numbered:
        raise CheckpointError(
            f"no run with a best checkpoint under {root / 'lightning_logs'}; accepted is --ckpt_path FILE"
        )
    return max(numbered)[1]


class Typed:
    """What must be known of the arguments before they are parsed: a checkpoint changes the parser's defaults."""

    def __init__(self, args: list[str]) -> None:
        """Look through command line and config files; malformed ones are left to the real parser."""
        self.command = next((arg for arg in args if arg in COMMANDS), None)
        scanner = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
        for name in ("--ckpt_path", "--data", "--data.class_path", "--trainer.default_root_dir"):
            scanner.add_argument(name)
        scanner.add_argument("-c", "--config", action="append", default=[])
        try:
            found = vars(scanner.parse_known_args(args)[0])
        except argparse.ArgumentError:
            found = {"config": []}
        self.config: dict[str, Any] = {}
        for path in found["config"]:
            self._merge(self._read(path))
        data = self.config.get("data")
        data_class = data.get("class_path") if isinstance(data, dict) else data
        trainer = self.config.get("trainer")
        root = trainer.get("default_root_dir") if isinstance(trainer, dict) else None
        self.ckpt_path: str | None = found.get("ckpt_path") or self.config.get("ckpt_path")
        self.root = Path(found.get("trainer.default_root_dir") or root or ".")
        typed_class = found.get("data.class_path") or found.get("data") or data_class
        self.data_class = typed_class.rsplit(".", 1)[-1] if isinstance(typed_class, str) else None
        self.wants_help = bool({"-h", "--help", "--print_config"} & {arg.split("=")[0] for arg in args})

    def _read(self, path: str) -> dict[str, Any]:
        try:
            content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            return {}
        if not isinstance(content, dict):
            return {}
        nested = content.get(self.command)
        return nested if isinstance(nested, dict) else content

    def _merge(self, content: dict[str, Any]) -> None:
        self.config |= content


class Parser(LightningArgumentParser):
    """A parser whose errors are one message."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the message, in our words.

        Raises:
            OptionError: Always.
        """
        raise OptionError(_in_our_words(message))


class SaveConfig(SaveConfigCallback):
    """Writes `config.yaml` into the run folder, for `fit` alone."""

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Write the file."""
        if stage == "fit" and trainer.logger is not None:
            super().setup(trainer, pl_module, stage)


class CommandLine(LightningCLI):
    """LightningCLI with a fixed model, a choice of data modules, and settings that come back from checkpoints."""

    def __init__(self, args: list[str]) -> None:
        """Parse and run."""
        self.typed = Typed(args)
        self.stored = self._find_run()
        super().__init__(
            SequenceClassifier,
            SequenceDataModule,
            subclass_mode_data=True,
            save_config_callback=SaveConfig,
            save_config_kwargs={"overwrite": True},
            trainer_defaults=TRAINER_DEFAULTS,
            seed_everything_default=0,
            parser_class=Parser,
            parser_kwargs={"prog": PROGRAM, "description": __doc_of_program__},
            auto_configure_optimizers=False,
            args=args,
        )

    def _find_run(self) -> StoredRun | None:
        typed = self.typed
        if typed.command is None or (typed.wants_help and not typed.ckpt_path):
            return None
        if typed.ckpt_path:
            return StoredRun(Path(typed.ckpt_path))
        if typed.command == "fit":
            return None
        run = StoredRun(newest_run(typed.root))
        print(f"--ckpt_path not given: taking {run.path}")
        return run

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Return the sub-commands with the arguments that are no options; if one was typed, that one alone."""
        ours = {"model", "datamodule", "dataloaders", "train_dataloaders", "val_dataloaders", "weights_only",
                "return_predictions"}  # fmt: skip
        return {name: ours for name in COMMANDS if self.typed.command in (None, name)}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add our options, link what `fit` takes from the data, restore what the checkpoint knows."""
        if self.typed.data_class is None:  # defaults of one class must not leak into another's
            parser.set_defaults({"data": {"class_path": "SyntheticDataModule"}})
        if self.typed.command in (None, "fit"):
            parser.add_lightning_class_args(Checkpoints, "checkpoint")
            parser.link_arguments("data", "model.input_size", lambda data: data.schema.num_features, "instantiate")
            parser.link_arguments("data", "model.num_classes", lambda data: len(data.schema.class_names), "instantiate")
            parser.link_arguments("data", "model.class_names", lambda data: data.schema.class_names, "instantiate")
            parser.link_arguments("data", "model.feature_names", lambda data: data.schema.feature_names, "instantiate")
        if self.typed.command == "predict":
            parser.add_argument("--output", type=str | None, help="File to write, .csv or .parquet.")
            parser.add_argument("--overwrite", type=bool, default=False, help="Whether an existing file is replaced.")
        if self.stored is None:
            return
        parser.add_argument(
            "--allow_data_change", type=bool, default=False, help="Accept data settings that differ from training's."
        )
        skip = FROM_DATA if self.typed.command == "fit" else ()
        parser.set_defaults({f"model.{k}": v for k, v in self.stored.model.items() if k not in skip})
        if self.stored.data_name and self.typed.data_class in (None, self.stored.data_name):
            parser.set_defaults({"data": {"class_path": self.stored.data_name, "init_args": self.stored.data}})

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse; Lightning's own warns where tests give arguments."""
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Do nothing: Lightning would put the checkpoint's settings over what the user typed."""

    def before_instantiate_classes(self) -> None:
        """Refuse what contradicts the checkpoint.

        Raises:
            OptionError: Another architecture, or other data settings than the checkpoint's.
        """
        config = self.config[self.config["subcommand"]]
        if self.stored is None:
            return
        config["ckpt_path"] = str(self.stored.path)
        for name in (*FROM_DATA, *ARCHITECTURE):
            if name in config["model"] and name in self.stored.model:
                self._compare(f"--model.{name}", config["model"][name], self.stored.model[name], "")
        data_class = DATA_MODULES.get(config["data"]["class_path"].rsplit(".", 1)[-1])
        if data_class is None or data_class.__name__ != self.stored.data_name or config["allow_data_change"]:
            return
        for name in sorted(data_class.pinned):
            stored = self.stored.data.get(name)
            self._compare(f"--data.{name}", config["data"]["init_args"][name], stored, ", or --allow_data_change true")

    def _compare(self, option: str, found: Any, stored: Any, otherwise: str) -> None:
        if found != stored:
            assert self.stored is not None
            raise OptionError(f"{option}: found {found!r}, accepted is {stored!r} as in {self.stored.path}{otherwise}")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add the run folder's logger, the callbacks and the checkpoint writer to what the user chose."""
        command = str(self.subcommand)
        chosen = self._get(self.config_init, "trainer")
        callbacks = chosen.get("callbacks") or []
        callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
        if chosen.get("enable_progress_bar") is None:
            kwargs["enable_progress_bar"] = sys.stdout.isatty()
        bar = kwargs.get("enable_progress_bar", chosen.get("enable_progress_bar"))
        if bar and not any(isinstance(callback, ProgressBar) for callback in callbacks):
            callbacks = [*callbacks, TQDMProgressBar(refresh_rate=20)]  # the default one costs more than a small step
        if chosen.get("logger") in (None, True):
            kwargs["logger"] = self._logger(chosen.get("default_root_dir"))
        plugins = chosen.get("plugins") or []
        kwargs["plugins"] = [*(plugins if isinstance(plugins, list) else [plugins]), AtomicCheckpointIO()]
        kwargs["callbacks"] = [*callbacks, *([] if chosen.get("fast_dev_run") else self._callbacks(command))]
        return super().instantiate_trainer(**kwargs)

    def _logger(self, root: str | None) -> TensorBoardLogger | bool:
        if self.subcommand == "fit":
            return TensorBoardLogger(root or ".", default_hp_metric=False)
        if self.subcommand == "predict" or self.stored is None:
            return False
        folder = self.stored.folder
        return TensorBoardLogger(folder.parent, name="", version=folder.name, default_hp_metric=False)

    def _callbacks(self, command: str) -> list[Any]:
        if command == "fit":
            return [EpochLines(), HyperParameters(), NextCommands()]
        assert self.stored is not None
        if command == "test":
            return [TestMetricsFile(self.stored.folder), HyperParameters()]
        if command == "predict":
            config = self.config["predict"]
            return [PredictionsFile(self.stored.folder, config["output"], config["overwrite"])]
        return []

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        extra = {"return_predictions": False} if subcommand == "predict" else {}
        return {**super()._prepare_subcommand_kwargs(subcommand), "weights_only": True, **extra}


__doc_of_program__ = "Trains, watches, judges and ships recurrent sequence classifiers."


def _in_our_words(message: str) -> str:
    """Say what jsonargparse said in one line: option, what was found, what is accepted."""
    match = re.search(r'Parser key "([^"]*)":?', message)
    option = f"--{match[1]}: " if match else ""
    causes = [line.strip(" -") for line in message.splitlines() if line.lstrip().startswith("- ")]
    causes = [line for line in causes if "NoneType" not in line and "a path but" not in line]
    text = "; ".join(causes) or " ".join(message.split())
    text = re.sub(r'^Parser key "[^"]*":? ?', "", text)
    text = re.sub(
        r"Expected an? (?:<class '([\w.]+)'>|typing\.(.*?))\. Got value: (.*)", r"found \3, accepted is \1\2", text
    )
    text = re.sub(r"Literal\[(.*?)\]", r"one of \1", text)
    text = re.sub(
        r"Expected a dot import path string: (\S+)", rf"found \1, accepted is one of {', '.join(DATA_MODULES)}", text
    )
    return option + text


def find_cause(error: BaseException) -> LightningRNNError | None:
    """Return our error behind one that a library has wrapped around it."""
    link: BaseException | None = error
    while link is not None and not isinstance(link, LightningRNNError):
        link = link.__cause__ or link.__context__
    return link


def _tells(starts: tuple[str, ...], record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(starts)


def _quieten() -> None:
    """Silence what a user can do nothing about, or what our own lines say."""
    # Lightning's own call of a deprecated function
    warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated")
    # evaluation needs none of the callbacks that trained
    warnings.filterwarnings("ignore", message="Be aware that when using `ckpt_path`, callbacks used to create")
    for name, starts in (
        ("lightning.pytorch.utilities.rank_zero", NOISE),
        ("lightning.fabric.utilities.seed", ("Seed set",)),
    ):
        logging.getLogger(name).addFilter(partial(_tells, starts))


def run(args: list[str]) -> int:
    """Run the command line; see `lightning_rnn.__main__.main`."""
    _quieten()
    try:
        CommandLine(args)
    except Exception as error:
        ours = find_cause(error)
        if ours is None and not isinstance(error, MisconfigurationException | OSError):
            raise
        print(f"{PROGRAM}: error: {ours or error}", file=sys.stderr)
        return ours.exit_code if ours else 1
    return 0
