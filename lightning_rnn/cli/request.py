"""What a command line and its config files ask for, read before the parser is built.

The parser takes its defaults from a checkpoint, so the checkpoint has to be known first.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from inspect import signature
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, cast

import yaml
from jsonargparse import ArgumentParser

from lightning_rnn.cli.quick_answers import OptionTable, flatten, read_config, typed_options
from lightning_rnn.data.file_module import FileDataModule
from lightning_rnn.data.synthetic_module import SyntheticDataModule
from lightning_rnn.distributed import print_once
from lightning_rnn.errors import OptionError, check
from lightning_rnn.training.checkpoint_file import CheckpointFile
from lightning_rnn.training.classifier import SequenceClassifier
from lightning_rnn.training.run_folder import NoRunError, newest_checkpoint
from lightning_rnn.training.saved_config import own_config

COMMANDS = {
    "fit": "Train, with validation after each epoch (short epochs share one).",
    "validate": "Evaluate a checkpoint on the validation split.",
    "test": "Evaluate a checkpoint on the test split and write test_metrics.json.",
    "predict": "Write the predictions of a checkpoint to a file; needs no labels.",
}
PLACES = ("ckpt_path", "run_name", "trainer.default_root_dir")
WORDS = ("best", "last")  # checkpoints of the newest run
ARGUMENTS_OF_FILES = signature(FileDataModule).parameters.keys()
ARGUMENTS_OF_TASKS = signature(SyntheticDataModule).parameters.keys()
# options that mean a FileDataModule, without --data
FILE_OPTIONS = {f"data.{name}" for name in ARGUMENTS_OF_FILES - ARGUMENTS_OF_TASKS}


@dataclass(frozen=True)
class Request:
    """What has to be known of the arguments before they are parsed."""

    args: list[str]  # all arguments of the program; the first one is the command
    config_files: list[Path]  # in the order in which they are applied
    ckpt_path: str | None  # a file, best, last, or for fit also auto
    init_from: str | None  # a file whose weights a new run starts with
    root_dir: Path  # contains lightning_logs
    data_class: str | None  # name of the data module's class
    model_class: str | None  # path of the class of the user's own that is the model
    preset: str | None  # name of the settings that apply where no others are given
    has_max_epochs: bool  # whether a number of epochs is given
    saved: dict[str, Any] = field(default_factory=dict)  # settings of the run that is continued

    @classmethod
    def from_args(cls, args: list[str]) -> "Request":
        """Read arguments and config files; the parser will report those that are malformed."""
        typed = list(typed_options(args[1:]))
        config_files = []
        for name, value in typed:
            if name == "config" and value:
                config_files.append(Path(value).expanduser())
        given: list[tuple[str, Any]] = []
        for file in config_files:
            given += flatten(read_config(file), OptionTable.read())
        given += typed
        settings = {name.removesuffix(".class_path"): value for name, value in given}
        options = {k: value for k, value in settings.items() if value and isinstance(value, str)}
        data = options.get("data", "").rpartition(".")[2]
        if not data and not settings.keys().isdisjoint(FILE_OPTIONS):
            data = FileDataModule.__name__
        return cls(
            args=args,
            config_files=config_files,
            ckpt_path=options.get("ckpt_path"),
            init_from=options.get("init_from"),
            root_dir=Path(options.get("trainer.default_root_dir", ".")).expanduser(),
            data_class=data or None,
            model_class=options.get("model"),
            preset=options.get("preset"),
            has_max_epochs="trainer.max_epochs" in settings,
        )

    @property
    def command(self) -> str:
        """Name of the command, one of `COMMANDS`."""
        return self.args[0]

    @property
    def model_type(self) -> type[SequenceClassifier]:
        """Class of the model; one of the user's own is imported."""
        return find_model_class(self.model_class)

    @property
    def wants_help(self) -> bool:
        """Whether to print help or the configuration instead of running the command."""
        names = {arg.partition("=")[0] for arg in self.args}
        return not names.isdisjoint(("-h", "--help", "--print_config"))

    def with_config_of(self, run: CheckpointFile) -> "Request":
        """Apply the `config.yaml` of a run, before everything that the user has given."""
        typed = [*self.args, *(file.read_text(encoding="utf-8") for file in self.config_files)]
        names = set(re.findall(r"[\w.]+", " ".join(typed)))
        config = own_config(run.run_folder, self.config_files, names)
        if config is None:
            return self
        request = Request.from_args([self.command, "--config", str(config), *self.args[1:]])
        return replace(request, saved=read_config(config))

    def without_repeated(self, option: str, chosen: Any) -> Any:
        """Return the values of an option of the Trainer to which the command line appends.

        Values of a class that is appended again replace those of the run that is continued, so
        that the command that started a run continues it.
        """
        trainer = self.saved.get("trainer")
        saved = trainer.get(option) if isinstance(trainer, dict) else None
        is_appended = any(arg.startswith(f"--trainer.{option}+") for arg in self.args)
        if not isinstance(saved, list) or not isinstance(chosen, list) or not is_appended:
            return chosen
        again = chosen[len(saved) :]
        classes = {value["class_path"] for value in again}
        kept = [value for value in chosen[: len(saved)] if value["class_path"] not in classes]
        return kept + again


def find_run(request: Request) -> CheckpointFile | None:
    """Read the checkpoint that a command evaluates or continues; None for a new run or for help."""
    is_fit = request.command == "fit"
    if request.ckpt_path is None and (is_fit or request.wants_help):
        return None
    if not is_fit or request.ckpt_path not in ("last", "auto"):
        return find_checkpoint(request.ckpt_path, request.root_dir, request.model_type)
    try:
        names = ("last.ckpt", "previous.ckpt", "best.ckpt")
        run = newest_checkpoint(request.root_dir, names, request.model_type)
    except NoRunError:
        if request.ckpt_path == "last":
            raise
        print_once("nothing to continue: starting a new run")
        return None
    print_once(f"continuing from {run.path}, step {run.step}")
    return run


def find_checkpoint(
    ckpt_path: str | None, root: Path, model_class: type[SequenceClassifier]
) -> CheckpointFile:
    """Read a checkpoint file, or the `best` or `last` one of the newest run below a folder.

    Without a `ckpt_path`, it is the best one. Prints which file of the newest run is read.
    """
    if ckpt_path not in (None, *WORDS):
        return CheckpointFile.read(Path(ckpt_path), model_class)
    run = newest_checkpoint(root, (f"{ckpt_path or 'best'}.ckpt",), model_class)
    given = "no --ckpt_path given" if ckpt_path is None else f"--ckpt_path {ckpt_path}"
    print_once(f"{given}: using {run.path}")
    return run


def find_initial_weights(request: Request, run: CheckpointFile | None) -> CheckpointFile | None:
    """Read the checkpoint whose weights a new run starts with; None if there is none to read.

    A `run` that is continued has weights already: the command line may not ask for both, except
    with `auto`.
    """
    if request.command != "fit" or request.init_from is None:
        return None
    if run is None:
        return CheckpointFile.read(Path(request.init_from), request.model_type)
    if request.ckpt_path != "auto" and "init_from" in dict(typed_options(request.args)):
        message = f"expected none together with ckpt_path, got {request.init_from!r}"
        raise OptionError(message, name="init_from")
    return None


def find_model_class(name: str | None) -> type[SequenceClassifier]:
    """Import a class by its path, such as package.module.Class; None for the one of this package.

    Raises:
        OptionError: If there is no such class, it is no subclass of `SequenceClassifier`, or does
            not accept its arguments.
    """
    if name is None:
        return SequenceClassifier
    expected = "the path of a class, such as module.Class"
    try:
        found = resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise OptionError(f"expected {expected}, got {name!r} ({error})", name="model") from None
    is_model = isinstance(found, type) and issubclass(found, SequenceClassifier)
    check(is_model, "model", name, "a subclass of SequenceClassifier")
    accepted = ArgumentParser().add_class_arguments(found)
    missing = [name for name in signature(SequenceClassifier).parameters if name not in accepted]
    if missing:
        expected = "a class whose __init__ takes **options and calls super().__init__(**options)"
        message = f"expected {expected}, got {name}, which does not accept {', '.join(missing[:3])}"
        raise OptionError(message, name="model")
    return cast(type[SequenceClassifier], found)


def different_settings(file: Path, config: str) -> list[str]:
    """Describe how a YAML text differs from a config file, as in `model.lr 0.1 (was 0.01)`."""
    old = dict(named_settings(read_config(file)))
    new = dict(named_settings(yaml.safe_load(config)))
    changes = []
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            changes.append(f"{name} {new.get(name)} (was {old.get(name)})")
    return changes


def named_settings(settings: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the settings of a config by name as text, without those that say where a run is."""
    if not isinstance(settings, dict):
        yield prefix.removesuffix("."), str(settings)
        return
    for name, value in settings.items():
        key = prefix if name == "init_args" else f"{prefix}{name}."
        if key.removesuffix(".") not in PLACES:
            yield from named_settings(value, key)
