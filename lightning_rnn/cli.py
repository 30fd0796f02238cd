"""The command line: defaults, links, checkpoint precedence, run folders, exit codes."""

import logging
import os
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse.typing import restricted_number_type
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ProgressBar, TQDMProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_rnn.arguments import COMMANDS, EXTRA_COMMANDS, PROGRAM, Parser, Typed, run_extra
from lightning_rnn.callbacks.checkpoints import AtomicCheckpointIO, Checkpoints, RandomStates
from lightning_rnn.callbacks.decide import Decide
from lightning_rnn.callbacks.earliness import Earliness
from lightning_rnn.callbacks.interrupts import Interrupts
from lightning_rnn.callbacks.memory import MemoryProbe
from lightning_rnn.callbacks.outputs import PredictionsFile, TestMetricsFile
from lightning_rnn.callbacks.overhead import NoProfiler, drop_overhead
from lightning_rnn.callbacks.tensorboard import Figures, Throughput
from lightning_rnn.callbacks.terminal import EpochLines, HyperParameters, NextCommands
from lightning_rnn.classifier import ARCHITECTURE, SMALL, SequenceClassifier
from lightning_rnn.data import DATA_MODULES
from lightning_rnn.data.modules import SequenceDataModule
from lightning_rnn.errors import CheckpointError, LightningRNNError, OptionError
from lightning_rnn.runs import NoRunError, StoredRun, newest_run, own_config

CKPT_HELP = (
    "Checkpoint, whose settings hold where none are typed; when not given, the best of the newest run.",
    "Run to continue: a checkpoint, last (the newest run's), or auto (as last, but a new run where there is none).",
)
FROM_DATA = ("input_size", "num_classes", "class_names", "feature_names")
NOISE = ("💡 Tip", "TPU available", "GPU available: False", "Restor", "Loaded model", "`Trainer.fit` stopped")
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
    """Writes `config.yaml` into the run folder, for `fit` alone."""

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Write the file."""
        if stage == "fit":
            super().setup(trainer, pl_module, stage)


class CommandLine(LightningCLI):
    """LightningCLI with a fixed model, a choice of data modules, and settings that come back from checkpoints."""

    def __init__(self, args: list[str], interrupts: Interrupts) -> None:
        """Parse and run."""
        self.interrupts = interrupts
        self.typed = Typed(args)
        self.stored = self._find_run()
        if self.typed.command == "fit" and self.stored is not None:
            own = own_config(self.stored.folder, self.typed.configs)
            if own is not None:
                at = args.index("fit") + 1
                args = [*args[:at], "--config", str(own), *args[at:]]  # first, so that all that is typed wins
                self.typed = Typed(args)
        super().__init__(
            SequenceClassifier,
            SequenceDataModule,
            subclass_mode_data=True,
            save_config_callback=SaveConfig,
            save_config_kwargs={"overwrite": True},
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
                _say("nothing to continue: starting a new run")
                return None
            _say(f"continuing from {run.path}, step {run.step}")
            return run
        if typed.ckpt_path:
            return StoredRun(Path(typed.ckpt_path))
        if typed.command == "fit":
            return None
        run = newest_run(typed.root, ("best.ckpt",))
        _say(f"--ckpt_path not given: taking {run.path}")
        return run

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Return the sub-commands with the arguments that are no options; if one was typed, that one alone."""
        ours = {"model", "datamodule", "dataloaders", "train_dataloaders", "val_dataloaders", "weights_only",
                "return_predictions", "ckpt_path", "verbose"}  # fmt: skip
        return {name: ours for name in COMMANDS if self.typed.command in (None, name)}

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the seed; Lightning's own option also takes true, for 0."""
        help_of_seed = "Seed of the weights and of dropout; data and their order follow --data.seed."
        parser.add_argument("--seed_everything", type=SEED, default=0, help=help_of_seed)
        help_of_precision = "Precision of float32 matrix products on an accelerator: high and medium allow TF32."
        kinds = Literal["highest", "high", "medium"]
        parser.add_argument("--matmul_precision", type=kinds, default="highest", help=help_of_precision)

    def setup_parser(self, *args: Any, **kwargs: Any) -> None:
        """Put our descriptions in place of Lightning's."""
        super().setup_parser(*args, **kwargs)
        commands: Any = self.parser._subcommands_action
        for action in commands._choices_actions:
            action.help = COMMANDS[action.dest]
        for name, (description, _) in EXTRA_COMMANDS.items():
            commands._choices_actions.append(commands._ChoicesPseudoAction(name, (), description))

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options in the order in which they matter, restore what the checkpoint knows."""
        command, stored = self.typed.command or "fit", self.stored
        parser.add_argument("--ckpt_path", type=str | None, help=CKPT_HELP[command == "fit"])
        if command == "predict":
            parser.add_argument("--output", type=str | None, help="File to write, .csv or .parquet.")
            parser.add_argument("--overwrite", type=bool, default=False, help="Whether an existing file is replaced.")
        if command == "test":
            help_of_earliness = "Also judge the beginnings of the sequences; writes earliness.csv and .png."
            parser.add_argument("--earliness", type=bool, default=False, help=help_of_earliness)
        if command != "fit":
            help_of_change = "Accept data settings that differ from those in training."
            parser.add_argument("--allow_data_change", type=bool, default=False, help=help_of_change)
        parser.add_lightning_class_args(SequenceClassifier, "model")
        parser.add_lightning_class_args(SequenceDataModule, "data", subclass_mode=True)
        if command == "fit":
            parser.add_lightning_class_args(Checkpoints, "checkpoint")
            parser.add_lightning_class_args(Figures, "figures")
            parser.add_lightning_class_args(MemoryProbe, "memory")
            for source, target in zip((num_features, num_classes, class_names, feature_names), FROM_DATA, strict=True):
                parser.link_arguments("data", f"model.{target}", source, "instantiate")
        if command in ("fit", "validate"):
            parser.add_lightning_class_args(Decide, "decide")
        if command == "validate":
            parser.set_defaults({"decide.when": "never"})  # it judges, unless asked for more
        parser.add_lightning_class_args(self.trainer_class, "trainer")
        parser.set_defaults({f"trainer.{name}": value for name, value in TRAINER_DEFAULTS.items()})
        if self.typed.data_class is None:  # defaults of one class must not leak into another's
            parser.set_defaults({"data": {"class_path": "SyntheticDataModule"}})
        if stored is not None:
            skip = FROM_DATA if command == "fit" else ()
            parser.set_defaults({f"model.{k}": v for k, v in stored.model.items() if k not in skip})
            if stored.data_name and self.typed.data_class in (None, stored.data_name):
                parser.set_defaults({"data": {"class_path": stored.data_name, "init_args": stored.data}})

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse; Lightning's own warns where tests give arguments."""
        try:
            self.config = parser.parse_args(args)
        except OverflowError as error:
            raise OptionError(f"found a number that is too large ({error})") from None
        config = self.config.get(self.config.get("subcommand") or "", {})
        for name in ("model", "data", "checkpoint", "figures", "memory", "decide", "trainer"):
            if name in config and not hasattr(config[name], "as_dict"):
                raise OptionError(f"--{name}: found {config[name]!r}, accepted are settings by name")

    def _parse_ckpt_path(self) -> None:
        """Do nothing: Lightning would put the checkpoint's settings over what the user typed."""

    def before_instantiate_classes(self) -> None:
        """Refuse what contradicts the checkpoint.

        Raises:
            OptionError: Another architecture, or other data settings than the checkpoint's.
        """
        config = self.config[self.config["subcommand"]]
        take_launched_world(config["trainer"])
        for name, value in config["data"].as_dict().get("init_args", {}).items():
            if name.endswith("_path") and isinstance(value, str):  # config.yaml must hold anywhere
                config["data"]["init_args"][name] = os.path.abspath(value)
        trainer, schedule = config["trainer"], config["model"]["schedule"]
        for name, refused in (("barebones", True), ("enable_checkpointing", False)):
            if trainer[name] is refused:
                raise OptionError(f"--trainer.{name}: found {refused}, accepted is {not refused}: a run is kept")
        endless = trainer["max_epochs"] == -1 and trainer["max_steps"] == -1
        if self.typed.command == "fit" and endless and schedule != "constant":
            raise OptionError(f"--model.schedule: found {schedule!r}, accepted is constant in a run without end")
        if self.stored is None:
            config["ckpt_path"] = None  # "auto" has found nothing
            return
        config["ckpt_path"] = str(self.stored.path)
        for name in (*FROM_DATA, *ARCHITECTURE):
            if name in config["model"] and name in self.stored.model:
                self._compare(f"--model.{name}", config["model"][name], self.stored.model[name], "")
        data_class = DATA_MODULES.get(config["data"]["class_path"].rsplit(".", 1)[-1])
        settings, stored = config["data"].as_dict().get("init_args", {}), self.stored.data
        if self.typed.command == "fit":  # all but the places of files, whose content is compared
            names, otherwise = {name for name in stored if not name.endswith(("_path", "on_device"))}, ""
            self._compare("--data", config["data"]["class_path"].rsplit(".", 1)[-1], self.stored.data_name, "")
        else:
            names, otherwise = getattr(data_class, "pinned", set()), ", or --allow_data_change true"
        if data_class is None or data_class.__name__ != self.stored.data_name or config.get("allow_data_change"):
            return
        for name in sorted(names & set(settings)):
            self._compare(f"--data.{name}", settings[name], stored.get(name), otherwise)

    def _compare(self, option: str, found: Any, stored: Any, otherwise: str) -> None:
        if found != stored:
            assert self.stored is not None
            raise OptionError(f"{option}: found {found!r}, accepted is {stored!r} as in {self.stored.path}{otherwise}")

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
            try:
                self.model.load_state_dict(self.stored.weights)
            except Exception as error:  # whatever is in the file
                reason = str(error).strip().rpartition("\n")[2].strip()
                raise CheckpointError(
                    f"{self.stored.path}: its weights are not this model's ({reason[:200]})"
                ) from None
        drop_overhead(self.trainer, self.model)
        self.datamodule.load(str(self.subcommand), None if self.subcommand == "fit" else self.model.schema)

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
        ours = self._logger(chosen.get("default_root_dir"))
        if chosen.get("logger") in (None, True):
            kwargs["logger"] = ours
        elif chosen["logger"] is False and isinstance(ours, TensorBoardLogger):
            kwargs["default_root_dir"] = ours.log_dir  # the run has its folder all the same
        plugins = chosen.get("plugins") or []
        kwargs["plugins"] = [*(plugins if isinstance(plugins, list) else [plugins]), AtomicCheckpointIO()]
        kwargs["callbacks"] = [*callbacks, *([] if chosen.get("fast_dev_run") else self._callbacks(command))]
        if not chosen.get("profiler"):
            kwargs["profiler"] = NoProfiler()
        trainer = super().instantiate_trainer(**kwargs)
        launched = launched_world()
        if launched and trainer.world_size != launched[0] * launched[1]:
            raise OptionError(
                f"world size: found {trainer.world_size}, the launcher started {launched[0] * launched[1]}"
            )
        return trainer

    def _logger(self, root: str | None) -> TensorBoardLogger | bool:
        if self.subcommand == "fit":
            if self.stored is None or not self.stored.in_run:
                return TensorBoardLogger(root or ".", default_hp_metric=False)
            purge_step: int | None = self.stored.step  # hides what the run had written past its checkpoint
        elif self.subcommand == "predict" or self.stored is None:
            return False
        else:
            purge_step = None
        folder = self.stored.folder
        return TensorBoardLogger(
            folder.parent, name="", version=folder.name, default_hp_metric=False, purge_step=purge_step
        )

    def _callbacks(self, command: str) -> list[Any]:
        if command == "fit":
            return [RandomStates(), self.interrupts, EpochLines(), Throughput(), HyperParameters(), NextCommands()]
        assert self.stored is not None
        if command == "test":
            figures = Figures()
            figures.folder = self.stored.folder / "figures"
            early = [Earliness(self.stored.folder)] if self.config["test"]["earliness"] else []
            return [TestMetricsFile(self.stored.folder), figures, *early, HyperParameters()]
        if command == "predict":
            config = self.config["predict"]
            return [PredictionsFile(self.stored.folder, config["output"], config["overwrite"])]
        return [Figures()]

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        ours: dict[str, Any] = {"weights_only": True, "ckpt_path": self.config[subcommand]["ckpt_path"]}
        if subcommand == "predict":
            ours["return_predictions"] = False
        if subcommand == "test":
            ours["verbose"] = False  # our table has the intervals, too
        return {**super()._prepare_subcommand_kwargs(subcommand), **ours}


def process_rank() -> int:
    """Return this process's rank as the environment tells it, before there is a Trainer."""
    names = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
    return int(next((os.environ[name] for name in names if os.environ.get(name, "").isdigit()), 0))


def _say(text: str) -> None:
    if process_rank() == 0:
        print(text, flush=True)


def launched_world() -> tuple[int, int] | None:
    """Return (processes on each node, nodes) where torchrun or SLURM has started the processes."""
    if TorchElasticEnvironment.detect():
        here, total = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    elif SLURMEnvironment.detect() and int(os.environ["SLURM_NTASKS"]) > 1:
        total = int(os.environ["SLURM_NTASKS"])
        here = total // int(os.environ.get("SLURM_NNODES", 1))
    else:
        return None
    if total % here:
        raise OptionError(f"world: found {total} processes, {here} on this node; accepted are as many on each node")
    return here, total // here


def take_launched_world(trainer: dict[str, Any]) -> None:
    """Put the launcher's numbers into the Trainer's settings, which would else train that many separate models.

    Raises:
        OptionError: Typed numbers that contradict the launcher's.
    """
    world = launched_world()
    if world is None:
        return
    for name, unset, found in (("devices", ("auto", 1, "1"), world[0]), ("num_nodes", (1,), world[1])):
        if trainer[name] not in (*unset, found, str(found)):
            raise OptionError(
                f"--trainer.{name}: found {trainer[name]!r}, accepted is {found}, which the launcher started"
            )
        trainer[name] = found
    if trainer["strategy"] == "auto" and world != (1, 1):
        trainer["strategy"] = "ddp"


def find_cause(error: BaseException) -> LightningRNNError | None:
    """Return our error behind one that a library has wrapped around it."""
    link: BaseException | None = error
    while link is not None and not isinstance(link, LightningRNNError):
        link = link.__cause__ or link.__context__
    return link


def _is_refusal(error: Exception) -> bool:
    """Tell whether Lightning itself, not something beneath it, refuses a value."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    raised_in = trace.tb_frame.f_code.co_filename if trace is not None else ""
    return isinstance(error, ValueError | RuntimeError) and "/lightning/" in Path(raised_in).as_posix()


def _tells(starts: tuple[str, ...], record: logging.LogRecord) -> bool:
    return not any(text in record.getMessage() for text in starts)


def _quieten() -> None:
    """Silence what a user can do nothing about, or what our own lines say."""
    # Lightning's own call of a deprecated function
    warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated")
    # the interval runs on over epochs
    warnings.filterwarnings("ignore", message=r"The number of training batches \(\d+\) is smaller than the logging")
    # our loaders repeat their batches as asked
    warnings.filterwarnings("ignore", message="You requested to overfit but enabled")
    # evaluation needs none of the callbacks that trained
    warnings.filterwarnings("ignore", message="Be aware that when using `ckpt_path`, callbacks used to create")
    for name, starts in (
        ("lightning.pytorch.utilities.rank_zero", NOISE),
        ("lightning.fabric.utilities.seed", ("Seed set", "[rank:")),
    ):
        logging.getLogger(name).addFilter(partial(_tells, starts))


def run(args: list[str]) -> int:
    """Run the command line; see `lightning_rnn.__main__.main`."""
    _quieten()
    interrupts = Interrupts()
    try:
        with interrupts.outside_training():
            if args and args[0] in EXTRA_COMMANDS:
                run_extra(args[0], args[1:])
            else:
                CommandLine(args, interrupts)
    except SIGTERMException:
        return 128 + interrupts.signum
    except KeyboardInterrupt:
        return 130
    except SystemExit as stop:  # Lightning turns Ctrl-C into one
        if isinstance(stop.__context__, KeyboardInterrupt):
            return 130
        raise
    except Exception as error:
        ours = find_cause(error)
        if ours is None and not isinstance(error, MisconfigurationException | OSError) and not _is_refusal(error):
            raise
        where = f" (rank {process_rank()})" if process_rank() else ""
        print(f"{PROGRAM}: error{where}: {' '.join(str(ours or error).split())}", file=sys.stderr)
        return ours.exit_code if ours else 1
    return 0
