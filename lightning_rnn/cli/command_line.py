"""The command line: defaults, links, checkpoint precedence, run folders."""

import math
import os
import sys
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse.typing import restricted_number_type
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ProgressBar, TQDMProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_rnn.atomic_files import atomic_write
from lightning_rnn.cli.launchers import launched_world, say, take_launched_world
from lightning_rnn.cli.parser import COMMANDS, PROGRAM, Parser, Typed
from lightning_rnn.data.base_module import SequenceDataModule
from lightning_rnn.errors import OptionError
from lightning_rnn.training.calibrate import Calibrate
from lightning_rnn.training.checkpoint_file import (
    FROM_DATA,
    NoRunError,
    StoredRun,
    newest_run,
    own_config,
)
from lightning_rnn.training.checkpoints import AtomicCheckpointIO, Checkpoints, RandomStates
from lightning_rnn.training.classifier import SMALL, SequenceClassifier
from lightning_rnn.training.earliness import Earliness
from lightning_rnn.training.gradient_flow_probe import GradientFlowProbe
from lightning_rnn.training.interrupts import Interrupts
from lightning_rnn.training.outputs import MetricsFile, PredictionsFile
from lightning_rnn.training.tensorboard import Figures, Throughput
from lightning_rnn.training.terminal import EpochLines, HyperParameters, NextCommands

CKPT_HELP = (
    "Checkpoint, whose settings hold where none are typed; when not given, the best of the newest run.",
    "Run to continue: a checkpoint, last (the newest run's), or auto (as last, but a new run where there is none).",
)
SEED = restricted_number_type("Seed", int, [(">=", 0), ("<", 2**32)])
TRAINER_DEFAULTS: dict[str, Any] = {
    "max_epochs": 10,
    "gradient_clip_val": 1.0,
    "log_every_n_steps": 10,
    "enable_model_summary": False,  # one line of ours says the same
    "enable_autolog_hparams": False,  # logged once, with the metrics they led to
    "num_sanity_val_steps": 0,  # the first validation comes soon enough
    "use_distributed_sampler": False,  # our loaders know their rank
}


def num_features(data: SequenceDataModule) -> int:
    """Return F."""
    return data.schema.num_features


def num_classes(data: SequenceDataModule) -> int:
    """Return K."""
    return len(data.schema.class_names)


def class_names(data: SequenceDataModule) -> list[str]:
    """Return the K names."""
    return data.schema.class_names


def feature_names(data: SequenceDataModule) -> list[str] | None:
    """Return the F names, if there are any."""
    return data.schema.feature_names


class SaveConfig(SaveConfigCallback):
    """Writes `config.yaml` into the run folder, for `fit` alone; Lightning's own could be killed half-way."""

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Write the file."""
        folder = trainer.log_dir if stage == "fit" else None  # a collective call
        if folder is not None and trainer.is_global_zero:
            with atomic_write(Path(folder) / self.config_filename) as beside:
                self.parser.save(self.config, beside, skip_none=False, multifile=False)


class CommandLine(LightningCLI):
    """LightningCLI with a fixed model, a choice of data modules, and settings that come back from checkpoints."""

    def __init__(self, args: list[str], interrupts: Interrupts) -> None:
        """Parse and run."""
        self.interrupts, self.typed = interrupts, Typed(args)
        self.stored = run = self._find_run()
        if (
            self.typed.command == "fit"
            and run
            and (own := own_config(run.folder, self.typed.configs))
        ):
            at = args.index("fit") + 1
            args = [
                *args[:at],
                "--config",
                str(own),
                *args[at:],
            ]  # first, so that all that is typed wins
            self.typed = Typed(args)
        super().__init__(
            SequenceClassifier,
            SequenceDataModule,
            subclass_mode_data=True,
            save_config_callback=SaveConfig,
            seed_everything_default=0,
            parser_class=Parser,
            parser_kwargs={
                "prog": PROGRAM,
                "description": "Trains, watches, judges and ships recurrent sequence classifiers.",
                **{name: {"description": COMMANDS[name]} for name in self.subcommands()},
            },
            auto_configure_optimizers=False,
            args=args,
        )

    def _find_run(self) -> StoredRun | None:
        typed = self.typed
        if typed.command is None or (typed.wants_help and not typed.ckpt_path):
            return None
        if typed.command == "fit" and typed.ckpt_path in ("last", "auto"):
            try:
                run = newest_run(typed.root, ("last.ckpt", "previous.ckpt"))
            except NoRunError:
                if typed.ckpt_path == "last":
                    raise
                say("nothing to continue: starting a new run")
                return None
            say(f"continuing from {run.path}, step {run.step}")
            return run
        if typed.ckpt_path:
            return StoredRun(Path(typed.ckpt_path))
        if typed.command == "fit":
            return None
        run = newest_run(typed.root, ("best.ckpt",))
        say(f"--ckpt_path not given: taking {run.path}")
        return run

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Return the sub-commands with the arguments that are no options; if one was typed, that one alone."""
        ours = {"model", "datamodule", "dataloaders", "train_dataloaders", "val_dataloaders", "weights_only",
                "return_predictions", "ckpt_path", "verbose"}  # fmt: skip
        return {name: ours for name in COMMANDS if self.typed.command in (None, name)}

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the seed; Lightning's own option also takes true, for 0."""
        help_of_seed = (
            "Seed of the weights and of dropout; data and their order follow --data.seed."
        )
        parser.add_argument("--seed_everything", type=SEED, default=0, help=help_of_seed)
        help_of_precision = (
            "Precision of float32 matrix products on an accelerator: high and medium allow TF32."
        )
        kinds = Literal["highest", "high", "medium"]
        parser.add_argument(
            "--matmul_precision", type=kinds, default="highest", help=help_of_precision
        )

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options in the order in which they matter, restore what the checkpoint knows."""
        command, stored = self.typed.command or "fit", self.stored
        parser.add_argument("--ckpt_path", type=str | None, help=CKPT_HELP[command == "fit"])
        if command == "predict":
            parser.add_argument(
                "--output", type=str | None, help="File to write, .csv or .parquet."
            )
            parser.add_argument(
                "--overwrite",
                type=bool,
                default=False,
                help="Whether an existing file is replaced.",
            )
        if command == "test":
            help_of_earliness = (
                "Also judge the beginnings of the sequences; writes earliness.csv and .png."
            )
            parser.add_argument("--earliness", type=bool, default=False, help=help_of_earliness)
        if command != "fit":
            help_of_change = "Accept data settings that differ from those in training."
            parser.add_argument(
                "--allow_data_change", type=bool, default=False, help=help_of_change
            )
        parser.add_lightning_class_args(SequenceClassifier, "model")
        parser.add_lightning_class_args(SequenceDataModule, "data", subclass_mode=True)
        if command == "fit":
            parser.add_lightning_class_args(Checkpoints, "checkpoint")
            parser.add_lightning_class_args(Figures, "figures")
            parser.add_lightning_class_args(GradientFlowProbe, "gradient_flow")
            for source, target in zip(
                (num_features, num_classes, class_names, feature_names), FROM_DATA, strict=True
            ):
                parser.link_arguments("data", f"model.{target}", source, "instantiate")
        if command in ("fit", "validate"):
            parser.add_lightning_class_args(Calibrate, "calibrate")
        if command == "validate":
            parser.set_defaults({"calibrate.when": "never"})  # it judges, unless asked for more
        parser.add_lightning_class_args(self.trainer_class, "trainer")
        parser.set_defaults({f"trainer.{name}": value for name, value in TRAINER_DEFAULTS.items()})
        if self.typed.data_class is None:  # defaults of one class must not leak into another's
            parser.set_defaults({"data": {"class_path": "SyntheticDataModule"}})
        if stored is not None:
            skip = FROM_DATA if command == "fit" else ()
            parser.set_defaults({f"model.{k}": v for k, v in stored.model.items() if k not in skip})
            if stored.data_name and self.typed.data_class in (None, stored.data_name):
                parser.set_defaults(
                    {"data": {"class_path": stored.data_name, "init_args": stored.data}}
                )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse; Lightning's own warns where tests give arguments."""
        try:
            self.config = parser.parse_args(args)
        except OverflowError as error:
            raise OptionError(f"found a number that is too large ({error})") from None
        config = self.config.get(self.config.get("subcommand") or "", {})
        for name in ("model", "data", "checkpoint", "figures", "gradient_flow", "calibrate", "trainer"):
            if name in config and not hasattr(config[name], "as_dict"):
                raise OptionError(
                    f"--{name}: found {config[name]!r}, accepted are settings by name"
                )

    def _parse_ckpt_path(self) -> None:
        """Do nothing: Lightning would put the checkpoint's settings over what the user typed."""

    def before_instantiate_classes(self) -> None:
        """Refuse what no run can have, or what contradicts the checkpoint.

        Raises:
            OptionError: See `StoredRun.check` for the latter.
        """
        config = self.config[self.config["subcommand"]]
        trainer, schedule = config["trainer"], config["model"]["schedule"]
        take_launched_world(trainer)
        for name, value in config["data"].as_dict().get("init_args", {}).items():
            if name.endswith("_path") and isinstance(value, str):  # config.yaml must hold anywhere
                config["data"]["init_args"][name] = os.path.abspath(value)
        for name, refused in (("barebones", True), ("enable_checkpointing", False)):
            if trainer[name] is refused:
                raise OptionError(
                    f"--trainer.{name}: found {refused}, accepted is {not refused}: a run is kept"
                )
        endless = trainer["max_epochs"] == -1 and trainer["max_steps"] == -1
        if self.typed.command == "fit" and endless and schedule != "constant":
            raise OptionError(
                f"--model.schedule: found {schedule!r}, accepted is constant in a run without end"
            )
        config["ckpt_path"] = (
            None if self.stored is None else str(self.stored.path)
        )  # "auto" may have found nothing
        if self.stored is not None:
            self.stored.check(self.config["subcommand"], config)

    def instantiate_classes(self) -> None:
        """Build everything and open the data, so that what is wrong is said before anything is written.

        Raises:
            CheckpointError: Weights that are not the model's.
            DataError: See `SequenceDataModule.load`.
        """
        super().instantiate_classes()
        torch.set_float32_matmul_precision(self._get(self.config, "matmul_precision"))
        if "OMP_NUM_THREADS" not in os.environ and self.model.hparams["hidden_size"] <= SMALL:
            torch.set_num_threads(1)
        if self.stored is not None:
            self.stored.restore(self.model)
        self.datamodule.load(
            str(self.subcommand), None if self.subcommand == "fit" else self.model.schema
        )

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add the run folder's logger, the callbacks and the checkpoint writer to what the user chose."""
        chosen = self._get(self.config_init, "trainer")
        callbacks, bar = _listed(chosen.get("callbacks")), chosen.get("enable_progress_bar")
        if bar is None:
            bar = kwargs["enable_progress_bar"] = sys.stdout.isatty()
        if bar and not any(isinstance(callback, ProgressBar) for callback in callbacks):
            callbacks = [
                *callbacks,
                TQDMProgressBar(refresh_rate=20),
            ]  # the default one costs more than a small step
        ours = self._logger(chosen.get("default_root_dir"))
        if chosen.get("logger") in (None, True):
            kwargs["logger"] = ours
        elif chosen["logger"] is False and ours:
            kwargs["default_root_dir"] = ours.log_dir  # the run has its folder all the same
        kwargs["plugins"] = [*_listed(chosen.get("plugins")), AtomicCheckpointIO()]
        kwargs["callbacks"] = [
            *callbacks,
            *([] if chosen.get("fast_dev_run") else self._callbacks()),
        ]
        trainer = super().instantiate_trainer(**kwargs)
        launched = launched_world()
        if launched and trainer.world_size != math.prod(launched):
            raise OptionError(
                f"world size: found {trainer.world_size}, the launcher started {math.prod(launched)}"
            )
        return trainer

    def _logger(self, root: str | None) -> TensorBoardLogger | Literal[False]:
        stored, is_fit = self.stored, self.subcommand == "fit"
        if is_fit and (stored is None or not stored.in_run):
            return TensorBoardLogger(root or ".", default_hp_metric=False)
        if stored is None or self.subcommand == "predict":
            return False
        folder = stored.folder
        purge_step = (
            stored.step if is_fit else None
        )  # hides what the run had written past its checkpoint
        return TensorBoardLogger(
            folder.parent, "", folder.name, default_hp_metric=False, purge_step=purge_step
        )

    def _callbacks(self) -> list[Any]:
        if self.subcommand == "fit":
            return [
                RandomStates(),
                self.interrupts,
                EpochLines(),
                Throughput(),
                HyperParameters(),
                NextCommands(),
            ]
        assert self.stored is not None
        folder, config, figures = self.stored.folder, self.config[self.subcommand], Figures()
        if self.subcommand == "predict":
            return [PredictionsFile(folder, config["output"], config["overwrite"])]
        if self.subcommand == "validate":
            return [figures]
        figures.folder = folder / "figures"
        early = [Earliness(folder)] if config["earliness"] else []
        return [MetricsFile(folder), figures, *early, HyperParameters()]

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        ours: dict[str, Any] = {
            "weights_only": True,
            "ckpt_path": self.config[subcommand]["ckpt_path"],
        }
        if subcommand == "predict":
            ours["return_predictions"] = False
        if subcommand == "test":
            ours["verbose"] = False  # our table has the intervals, too
        return {**super()._prepare_subcommand_kwargs(subcommand), **ours}


def _listed(chosen: Any) -> list[Any]:
    return chosen if isinstance(chosen, list) else [chosen] if chosen else []
