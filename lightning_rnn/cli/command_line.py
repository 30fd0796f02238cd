"""The commands fit, validate, test and predict: LightningCLI with settings from checkpoints."""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from lightning_rnn.cli.callbacks import CALLBACKS, callbacks_of_evaluation, callbacks_of_fit
from lightning_rnn.cli.continued_run import ContinuedRun, check_same_optimizer, end_rules
from lightning_rnn.cli.defaults import set_defaults
from lightning_rnn.cli.launchers import apply_launched_world, check_world_size
from lightning_rnn.cli.parser import (
    Parser,
    SaveConfig,
    add_own_options,
    expected_error,
    own_errors_with_flags,
    plain_values,
)
from lightning_rnn.cli.quick_answers import PROGRAM
from lightning_rnn.cli.request import COMMANDS, Request
from lightning_rnn.data.base_module import SequenceDataModule
from lightning_rnn.data.readers.sources import absolute
from lightning_rnn.distributed import print_once, process_rank
from lightning_rnn.errors import CheckpointError, OptionError, check
from lightning_rnn.training.checkpoint_file import SIZES_AND_NAMES, CheckpointFile
from lightning_rnn.training.checkpoints import AtomicCheckpointIO
from lightning_rnn.training.classifier import SequenceClassifier
from lightning_rnn.training.csv_history import keep_rows
from lightning_rnn.training.interrupts import Interrupts
from lightning_rnn.training.presets import CONFIG_OF
from lightning_rnn.training.progress_bar import RunProgressBar
from lightning_rnn.training.run_end import RunEnd, mark_finished
from lightning_rnn.training.run_folder import locked, new_run_folder
from lightning_rnn.training.validation_interval import ValidationInterval

LOGGERS_WITH_FOLDER = (TensorBoardLogger, CSVLogger)


class CommandLine(LightningCLI):
    """Parses the options of a command of the Trainer and runs the command.

    Typed options take precedence over config files, these over the settings of the checkpoint, and
    these over those of the preset. Errors of this package have flags in place of argument names.
    """

    def __init__(
        self,
        request: Request,
        run: CheckpointFile | None,  # to evaluate or to continue
        initial: CheckpointFile | None,  # whose weights a new run starts with
        interrupts: Interrupts,
    ) -> None:
        self.command = request.command
        self.request = request
        self.run = run
        self.initial = initial
        self.interrupts = interrupts
        self.continued: ContinuedRun | None = None  # by fit
        self.options: dict[str, Any] = {}  # all options of the command, once they are parsed
        description = COMMANDS[self.command]
        with own_errors_with_flags(self.options), ExitStack() as self.run_folder:
            super().__init__(
                SequenceClassifier,
                SequenceDataModule,
                subclass_mode_model=request.model_class is not None,
                subclass_mode_data=True,
                save_config_callback=SaveConfig,
                seed_everything_default=0,
                parser_class=Parser,
                parser_kwargs={"prog": f"{PROGRAM} {self.command}", "description": description},
                auto_configure_optimizers=request.command == "fit",
                load_from_checkpoint_support=False,  # it would add names of code to checkpoints
                args=request.args[1:],
                run=False,
            )
            self.execute()

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options of this package in place of Lightning's seed option."""
        add_own_options(parser, self.command)

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add all other options, in the order of the help, and set their defaults."""
        is_own = self.request.model_class is not None
        parser.add_lightning_class_args(SequenceClassifier, "model", subclass_mode=is_own)
        parser.add_lightning_class_args(SequenceDataModule, "data", subclass_mode=True)
        for group, callback in CALLBACKS.get(self.command, {}).items():
            parser.add_lightning_class_args(callback, group)
        if self.command == "fit":
            for name in SIZES_AND_NAMES:
                source = f"data.{name.replace('input_size', 'num_features')}"
                target = f"model.init_args.{name}" if is_own else f"model.{name}"
                parser.link_arguments(source, target, apply_on="instantiate")
        if self.command == "validate":
            parser.set_defaults({"calibrate.when": "never"})  # it changes the checkpoint
        parser.add_lightning_class_args(self.trainer_class, "trainer")
        self.preset = set_defaults(parser, self.request, self.run, self.initial)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the arguments; without Lightning's warning that `sys.argv` is not empty."""
        try:
            self.config = parser.parse_args(args)
        except OverflowError as error:
            raise OptionError(f"got a number that is too large ({error})") from None
        trainer = self.config["trainer"] = plain_values(self.config["trainer"])
        self.options.update(self.config.as_dict())
        seed = self.options["seed_everything"]
        check(0 <= seed < 2**32, "seed_everything", seed, f"an integer from 0 to {2**32 - 1}")
        for group in ("model", "data", "trainer", *CALLBACKS.get(self.command, ())):
            value = self.options.get(group, {})
            check(isinstance(value, dict), group, value, "settings by name")
        for name in ("callbacks", "logger", "plugins"):
            trainer[name] = self.request.without_repeated(name, trainer[name])
        self.options.update(self.config.as_dict())

    def before_instantiate_classes(self) -> None:
        """Check the options in combination, and against the checkpoint and the launcher."""
        config = self.config
        trainer = config["trainer"]
        apply_launched_world(trainer)
        for name, refused in (("barebones", True), ("enable_checkpointing", False)):
            is_accepted = trainer[name] is not refused
            check(is_accepted, name, refused, f"{not refused}, as every run is saved")
        for name in ("accumulate_grad_batches", "check_val_every_n_epoch", "val_check_interval"):
            check(trainer[name] != 0, name, trainer[name], "a number above 0")
        is_endless = trainer["max_epochs"] == -1 and trainer["max_steps"] == -1
        schedule = self._model_settings["schedule"]
        if self.command == "fit" and is_endless:
            check(schedule == "constant", "schedule", schedule, "constant in a run without end")
        if self.command == "fit" and config["lr_scheduler"] is not None:
            check(schedule == "constant", "schedule", schedule, "constant with lr_scheduler")
            if config["optimizer"] is None:
                raise OptionError("expected an optimizer, too, got none", name="lr_scheduler")
        data = config["data"]
        for name, value in data.as_dict().get("init_args", {}).items():
            if name.endswith("_path"):  # for config.yaml in any folder
                data["init_args"][name] = absolute(value)
        if self.run is not None:
            config["ckpt_path"] = str(self.run.path)
            self._check_against(self.run)
            if self.command == "fit":
                self.continued = ContinuedRun(self.run, self.options["trainer"])
                check_same_optimizer(self.run.run_folder, self.options)
        is_new = self.run is None and self.initial is None
        is_accepted = self.command != "fit" or not is_new or not self._model_settings["freeze"]
        check(is_accepted, "freeze", True, "False without init_from")
        if self.initial is not None:
            config["init_from"] = str(self.initial.path)
            if data.as_dict().get("init_args", {}).get("categories", ...) is None:
                # the weights belong to these categories, of which other data may have only some
                known = self.initial.hyper_parameters.get("categories")
                data["init_args"]["categories"] = known or None
        if self.run is None and self.preset == "files":
            others = "--preset tutorial uses those of the tutorial"
            print_once(f"preset: files, defaults from {CONFIG_OF['files']} ({others})")

    @property
    def _model_settings(self) -> dict[str, Any]:
        settings = self.config["model"].as_dict()
        return dict(settings.get("init_args", settings))

    def _check_against(self, run: CheckpointFile) -> None:
        config = self.config.as_dict()
        run.check_model(self._model_settings)
        resumes = self.command == "fit"
        if resumes or not config["allow_data_change"]:
            class_name = config["data"]["class_path"].rpartition(".")[2]
            run.check_data(class_name, config["data"].get("init_args", {}), resumes=resumes)

    def instantiate_classes(self) -> None:
        """Create model, data module and Trainer, and open the data before anything is written."""
        if self.continued is None:
            super().instantiate_classes()
        else:
            with self.continued.own_folder(_as_list(self.config["trainer"]["logger"])):
                super().instantiate_classes()
        torch.set_float32_matmul_precision(self.options["matmul_precision"])
        if self.run is not None:
            self.run.restore(self.model)
            self.run.check_state(self.trainer, self.model, resumes=self.command == "fit")
        if self.initial is not None:
            print_once(self.initial.start(self.model))
        known_schema = None if self.command == "fit" else self.model.schema
        self.datamodule.load(self.command, known_schema)
        if self.command == "fit":
            self.datamodule.train_moments  # noqa: B018  # refuses features that lose digits
            if self.run is not None and self.run.fingerprints:
                self.datamodule.check_same_data(self.run.fingerprints)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Create the Trainer with the logger, callbacks and checkpoint writer of this package."""
        chosen = self.config_init["trainer"]
        callbacks = _as_list(chosen["callbacks"])
        has_bar = any(isinstance(callback, ProgressBar) for callback in callbacks)
        shows_bar = chosen["enable_progress_bar"]
        if shows_bar is None:
            shows_bar = has_bar or sys.stdout.isatty()
        if shows_bar and not has_bar:
            # at a refresh rate of 1 it takes longer than a step
            callbacks.append(RunProgressBar(refresh_rate=20))
        if not chosen["fast_dev_run"]:
            callbacks += self._own_callbacks()
        if chosen["check_val_every_n_epoch"] is None:
            if chosen["val_check_interval"] is None and not chosen["fast_dev_run"]:
                callbacks.insert(0, ValidationInterval())
            if chosen["val_check_interval"] is None or type(chosen["val_check_interval"]) is float:
                kwargs["check_val_every_n_epoch"] = 1  # Lightning's default
        callbacks.insert(0, RunEnd(end_rules(self.options["trainer"])))
        own_loggers = [logger for logger in _as_list(chosen["logger"]) if type(logger) is not bool]
        has_own_folder = bool(own_loggers) and isinstance(own_loggers[0], LOGGERS_WITH_FOLDER)
        if not has_own_folder:
            logger = self._logger(Path(chosen["default_root_dir"] or ".").expanduser().absolute())
            if chosen["logger"] is not False:
                kwargs["logger"] = [*_as_list(logger or None), *own_loggers]
            elif logger:  # the run has its folder all the same
                kwargs["default_root_dir"] = logger.log_dir
        kwargs["enable_progress_bar"] = shows_bar
        kwargs["callbacks"] = callbacks
        kwargs["plugins"] = [*_as_list(chosen["plugins"]), AtomicCheckpointIO()]
        trainer = super().instantiate_trainer(**kwargs)
        check_world_size(trainer.world_size)
        is_locked = has_own_folder and self.command == "fit" and process_rank() == 0
        if is_locked and trainer.log_dir is not None:  # other ranks learn the folder later
            folder = Path(trainer.log_dir)
            folder.mkdir(parents=True, exist_ok=True)
            self.run_folder.enter_context(locked(folder))
        return trainer

    def _logger(self, root: Path) -> TensorBoardLogger | Literal[False]:
        """Return the logger whose folder is the run folder; False if the command logs nothing."""
        if self.command == "predict":
            return False
        purge_step = None
        if self.run is None or (self.command == "fit" and not self.run.is_in_run_folder):
            new = new_run_folder(root, self._has_trained, self.options["run_name"])
            folder = self.run_folder.enter_context(new)
        else:
            folder = self.run.run_folder
            if self.continued is not None:
                self.run_folder.enter_context(locked(folder))
                purge_step = self.continued.purge_step
        return TensorBoardLogger(
            folder.parent, "", folder.name, default_hp_metric=False, purge_step=purge_step
        )

    def _has_trained(self) -> bool:
        return hasattr(self, "trainer") and self.trainer.global_step > 0

    def _own_callbacks(self) -> list[Callback]:
        if self.run is None or self.command == "fit":
            return callbacks_of_fit(self.interrupts, self.continued)
        return callbacks_of_evaluation(self.request, self.run, self.options)

    def execute(self) -> None:
        """Run the method of the Trainer that has the name of the command."""
        if self.continued is not None and self.continued.is_finished:
            config = self.parser.dump(self.config, skip_none=False)
            print_once(self.continued.finished_message(config))
            return
        arguments: dict[str, Any] = {"datamodule": self.datamodule, "weights_only": True}
        if self.run is not None:
            arguments["ckpt_path"] = str(self.run.path)
        if self.command == "test":
            arguments["verbose"] = False  # MetricsFile prints the metrics
        if self.command == "predict":
            arguments["return_predictions"] = False  # PredictionsFile writes them
        if self.command == "fit":
            keep_rows(self.trainer)
        try:
            getattr(self.trainer, self.command)(self.model, **arguments)
        except Exception as error:
            is_known = isinstance(error, OSError) or expected_error(error) is not None
            run = self.run if self.command == "fit" and not is_known else None
            if run is None or self.trainer.global_step > run.step:
                raise
            message = f"expected a checkpoint that can be continued, got {type(error).__name__}"
            raise CheckpointError(f"{run.path}: {message}: {error}") from error
        if self.command == "fit":
            mark_finished(self.trainer)


def _as_list(chosen: Any) -> list[Any]:
    """Return the values of an option that takes one, several or none."""
    if isinstance(chosen, list):
        return list(chosen)
    return [] if chosen is None else [chosen]
