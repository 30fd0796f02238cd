"""Messages of the command line: parse errors in one line, and names of arguments as flags."""

import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch
from jsonargparse import Namespace
from lightning.pytorch import Trainer, callbacks, loggers
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback

from lightning_rnn.atomic_files import atomic_write
from lightning_rnn.cli.callbacks import CALLBACKS
from lightning_rnn.cli.quick_answers import PROGRAM, did_you_mean
from lightning_rnn.data import DATA_MODULES
from lightning_rnn.errors import LightningRNNError, OptionError, user_error
from lightning_rnn.training.presets import PresetName

DATA_CLASSES = " or ".join(DATA_MODULES)
# group of options that holds the arguments of a class
GROUP_OF_CLASS = {callback.__name__: group for group, callback in CALLBACKS["fit"].items()}
GROUP_OF_CLASS["EarlyStopping"] = "trainer.callbacks"
OWN_OPTIONS = (
    "config",
    "ckpt_path",
    "init_from",
    "lr_scheduler",
    "model",
    "output",
    "overwrite",
    "allow_data_change",
)

# messages of jsonargparse about one option, whose name is in the groups, and what they mean
PARSE_ERRORS = (
    (r"Group '([\w.]+)' does not accept option '([\w.]+)'$", "unknown option"),
    (r"the following arguments are required: ([\w.]+)", "expected a value, got nothing"),
    (r"Group '([\w.]+)' does not accept option '([\w.]+)'", "unknown option"),
    (r"[Oo]ption '([\w.]+)'(?: is not accepted)?$", "unknown option"),
    (r'(?:Linked "|--> )([\w.]+)', "comes from the data and cannot be given"),
    (r"argument (?:-c/)?--([\w.]+): expected one argument", "expected a value, got nothing"),
    (r"[Uu]nrecognized arguments: --([\w.-]+)", "unknown option"),
)
# classes that options name; of other values, none resembles them
CLASSES = (*DATA_MODULES, *callbacks.__all__, *loggers.__all__)
# a package and its versions, in a message of Lightning
INSTALL_COMMAND = re.compile(r"pip install (?:-U )?['`]?(([\w-]+)[\w<>=.,\[\]-]*)")
# a name in a message, or a name and a value as in overwrite=True; not within a path or quotes
NAME_IN_TEXT = re.compile(r"(?<![\w/.'-])([a-z]\w*)(?:=(\S*[^\s.,;)]))?(?![\w/'-]|\.\w)")

RESUME_HELP = (
    "Run to continue: a checkpoint file, last or best (of the newest run), or auto (last, or a new "
    "run if there is none)."
)
EVALUATE_HELP = (
    "Checkpoint to evaluate, whose settings are the defaults of the other options: a file, or best "
    "or last, those of the newest run. If not given, best."
)
INIT_FROM_HELP = (
    "Checkpoint file whose weights a new run starts with: for other data, other classes (with a "
    "new head) or other settings. Its architecture is the default; its data, too, unless an option "
    "of the data is given. A run that is continued does not read it."
)
PRESET_HELP = (
    "Settings that apply where neither an option nor a config gives others: files (a network for "
    "real data, configs/files.yaml) or tutorial (a vanilla RNN). If not given, tutorial for "
    "synthetic data and files for all other."
)


class Parser(LightningArgumentParser):
    """A parser that raises an `OptionError` for arguments that it does not accept."""

    def __init__(self, prog: str = PROGRAM, **arguments: Any) -> None:
        usage = f"{prog} [options]"
        super().__init__(prog=prog, usage=usage, allow_abbrev=False, **arguments)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise an `OptionError` in place of exiting."""
        word = re.match(r"[Uu]nrecognized arguments: ([^-]\S*)", message)
        if word:
            raise OptionError(f"expected options such as --name value, got {word[1]!r}")
        raise parse_error(message, self.get_defaults().as_flat().__dict__)


class SaveConfig(SaveConfigCallback):
    """Writes `config.yaml` into the run folder when training starts, atomically."""

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Do nothing: a resumed run that is refused later must keep its file."""

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Write the file."""
        folder = trainer.log_dir  # a collective call
        if folder is not None and trainer.is_global_zero:
            with atomic_write(Path(folder) / self.config_filename) as temporary:
                config = self.config.clone()
                config["ckpt_path"] = None  # the file starts a new run
                self.parser.save(config, temporary, skip_none=False, multifile=False)


def plain_values(settings: Any) -> Any:
    """Replace values that YAML cannot hold: some callbacks of Lightning have them as defaults."""
    if isinstance(settings, Namespace):
        for name, value in vars(settings).items():
            settings[name] = plain_values(value)
    elif isinstance(settings, list):
        return [plain_values(value) for value in settings]
    elif isinstance(settings, Enum):
        return settings.value
    elif isinstance(settings, torch.device):
        return str(settings)
    return settings


def add_own_options(parser: LightningArgumentParser, command: str) -> None:
    """Add the options of a command that belong to neither model nor data nor Trainer."""
    add = parser.add_argument
    text = "Random seed of weights and dropout; that of the data is --data.seed."
    add("--seed_everything", type=int, default=0, help=text)
    text = "Precision of float32 matrix products on a GPU; high and medium allow TF32."
    precision = Literal["highest", "high", "medium"]
    add("--matmul_precision", type=precision, default="highest", help=text)
    add("--ckpt_path", type=str | None, help=RESUME_HELP if command == "fit" else EVALUATE_HELP)
    if command == "predict":
        text = "File to write, .csv or .parquet. If not given, predictions.csv in the run folder."
        add("--output", type=str | None, help=text)
        add("--overwrite", type=bool, default=False, help="Whether to replace an existing file.")
        text = "Whether to add the states that the head classifies, as embedding_0 and so on."
        add("--embeddings", type=bool, default=False, help=text)
    if command == "test":
        text = "Whether to evaluate beginnings of sequences, too, in earliness.csv and .png."
        add("--earliness", type=bool, default=False, help=text)
    if command == "fit":
        add("--init_from", type=str | None, help=INIT_FROM_HELP)
        add("--preset", type=PresetName, help=PRESET_HELP)
        text = "Name of a new run, which follows the number in the name of its folder."
        add("--run_name", type=str | None, help=text)
    else:
        text = "Whether to accept data settings other than those of the training."
        add("--allow_data_change", type=bool, default=False, help=text)


def parse_error(message: str, defaults: Mapping[str, Any]) -> OptionError:
    """Turn a message of jsonargparse into one of the form `--flag: expected ..., got ...`.

    `defaults` are those of the options of the parser, which may be that of a class.
    """
    for pattern, text in PARSE_ERRORS:
        match = re.search(pattern, message)
        if match:
            name = ".".join(match.groups())
            if text == "unknown option":
                text += did_you_mean(name, defaults, "--")
            if type(defaults.get(name)) is bool:
                text = text.replace("a value", "true or false")
            return OptionError(text, name=f"--{name}")
    key = re.match(r'Parser key "([^"]*)":?', message)
    if key is None:
        return OptionError(message)
    flag = f"--{key[1]}"
    pattern = r"Problem with given class_path '(.*)':\n +(No module .*|.* has no .*)"
    broken = re.search(pattern, message)
    if broken:
        text = (
            f"expected the path of a class, such as module.Class, got {broken[1]!r} ({broken[2]})"
        )
        return OptionError(text, name=flag)
    nested = re.search(r"^ *(?:- )?--([\w.]+): (.*)$", message, re.MULTILINE)
    if nested:  # an error of the parser of a class that is the value of the flag
        text = nested[2]
        if text == "unknown option":
            text = f"unknown for this class; {flag}.help NAME lists the options of a class"
        text = text.replace("did you mean --", f"did you mean {flag}.")
        return OptionError(text, name=f"{flag}.{nested[1]}")
    expected = _expected_types(message, flag)
    if not expected:
        reasons = re.findall(r"^ *- (?!Expected|Does not)(.*)$", message, re.MULTILINE)
        text = "; ".join(dict.fromkeys(reasons))
        return OptionError(text or message[key.end() :], name=flag)
    return OptionError(f"expected {' or '.join(expected)}{_got(message)}", name=flag)


def _expected_types(message: str, flag: str) -> list[str]:
    """Return the types that jsonargparse has tried, in words; None and paths go without saying."""
    if "Unable to load config" in message:
        return ["settings by name"]
    expected = re.findall(r"does not correspond to (a subclass of \w+)", message)
    for line in re.findall(r"Expected (?:an? )?(.*)$", message, re.MULTILINE):
        kind = line.partition(". Got value: ")[0]
        choices = re.match(r"(?:typing\.)?Literal\[(.*)\]", kind)
        if choices:
            words = choices[1].replace("'", "")
            expected.append(f"one of {words}" if "," in words else words)
        elif kind.startswith("dot import path string"):
            expected.append(DATA_CLASSES if flag == "--data" else "the name of a class")
        elif "NoneType" not in kind and not kind.startswith("path but"):
            expected.append(re.sub(r"<class '(?:[\w.]+\.)?(\w+)'>", r"\1", kind))
    return list(dict.fromkeys(expected))


def _got(message: str) -> str:
    value = re.search(r"(?:Got value: |Given value: |path string: |load config ')(.*)", message)
    if value is None or value[1].startswith(("NestedArg(", "Namespace(")):
        return ""
    name = value[1].removesuffix("'")
    return f", got {name!r}{did_you_mean(name, CLASSES)}"


@contextmanager
def own_errors_with_flags(options: dict[str, Any]) -> Iterator[None]:
    """Raise errors of this package as themselves, with flags in place of names of arguments."""
    try:
        yield
    except Exception as error:
        own_error = own_error_behind(error)
        if own_error is None:
            raise
        raise with_flags(own_error, options) from error


def own_error_behind(error: BaseException) -> LightningRNNError | None:
    """Return the error of this package that a library has wrapped in its own."""
    for link in _chain(error):
        if isinstance(link, LightningRNNError):
            return link
    return None


def expected_error(error: BaseException) -> LightningRNNError | None:
    """Return the error to report without a traceback: of this package, or of the user's code."""
    known = own_error_behind(error) or missing_package(error)
    return known or next(filter(None, map(user_error, _chain(error))), None)


def missing_package(error: BaseException) -> OptionError | None:
    """Return the error to report if a package is not installed that Lightning names."""
    for link in _chain(error):
        match = INSTALL_COMMAND.search(str(link))
        if isinstance(link, ModuleNotFoundError) and match:
            requirement, package = match.groups()
            message = f"{package} is not installed; run: pip install {shlex.quote(requirement)}"
            return OptionError(message)
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that it was raised from, or while handling."""
    link: BaseException | None = error
    seen: set[int] = set()  # an error of a thread that is raised again may be its own context
    while link is not None and id(link) not in seen:
        yield link
        seen.add(id(link))
        link = link.__cause__ or link.__context__


def with_flags(error: LightningRNNError, options: dict[str, Any]) -> LightningRNNError:
    """Replace names of arguments in an error by the flags of the command line.

    `overwrite=True` becomes `--overwrite true` and `train_path` becomes `--data.train_path`. Names
    without an underscore are replaced only if a value follows: they may be plain words. `options`
    are those of the command, as far as they are parsed.
    """
    flags = {name: f"--{name}" for name in (*OWN_OPTIONS, *options)}
    for group in ("trainer", "model", "data"):
        settings = options.get(group)
        if isinstance(settings, dict):
            settings = settings.get("init_args", settings)
            flags |= {name: f"--{group}.{name}" for name in settings}
    if not isinstance(error, OptionError):
        return type(error)(_replace_names(str(error), flags))
    message = _replace_names(error.message, flags)
    if error.name is None:
        return OptionError(message)
    class_name, _, argument = error.name.rpartition(".")
    if class_name in GROUP_OF_CLASS:
        return OptionError(message, name=f"--{GROUP_OF_CLASS[class_name]}.{argument}")
    name = flags.get(error.name) or _replace_names(error.name, flags)
    return OptionError(message, name=name)


def _replace_names(text: str, flags: dict[str, str]) -> str:
    def flag(match: re.Match[str]) -> str:
        name, value = match.groups()
        if name not in flags or (value is None and "_" not in name):
            return match[0]
        if value is None:
            return flags[name]
        if value in ("True", "False"):
            value = value.lower()
        return f"{flags[name]} {value}"

    return NAME_IN_TEXT.sub(flag, text)
