"""Answers to typos and short help, without importing torch and Lightning, which takes seconds.

`options.json` has all commands and options. `make options` writes it from the parsers, and a test
compares both.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from itertools import zip_longest
from pathlib import Path
from typing import Any

import yaml

from lightning_rnn.cli.short_help import COMMON_OPTIONS, SHORT_HELP
from lightning_rnn.errors import OptionError

PROGRAM = "lightning_rnn"
SYNONYMS = {
    "train": "fit",
    "evaluate": "test",
    "infer": "predict",
    "learning_rate": "model.lr",
    "gpus": "trainer.devices",
    "seed": "seed_everything",
    "patience": "trainer.callbacks",  # of the class EarlyStopping
}
TYPED_OPTION = re.compile(r"(?:-c|--([^=]+?)\+?)(?:=(.*))?", re.DOTALL)
MIN_SIMILARITY = 0.75
# the extensions of `READERS` and tables, which are not imported here to answer quickly
DATA_FILES = (".csv", ".gz", ".parquet", ".xlsx", ".ts", ".tsv", ".npz", ".npy", ".h5", ".hdf5")
ALWAYS_KNOWN = ("help", "class_path", "init_args", "dict_kwargs")  # for any class
OWN_DATA = ("", "SyntheticDataModule", "FileDataModule")


@dataclass(frozen=True)
class OptionTable:
    """The content of `options.json`; names of options are those of the flags without `--`."""

    lightning_version: str  # whose Trainer has the options
    commands: dict[str, str]  # description in one line
    options: dict[str, list[str]]  # commands that have the option
    choices: dict[str, list[str]]  # values of the options that accept nothing else

    @classmethod
    @cache
    def read(cls) -> "OptionTable":
        """Read the file."""
        path = files("lightning_rnn.cli") / "options.json"
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    def is_group(self, name: str) -> bool:
        """Return whether there are options below a name, such as `model`."""
        return any(option.startswith(f"{name}.") for option in self.options)


def answer(args: list[str]) -> str | None:
    """Return the help that the arguments of the program ask for; None if they ask for a run.

    Raises an OptionError if the command, an option, or one of the named values does not exist. All
    other values, and options of classes of the user, are left to the parser.
    """
    table = OptionTable.read()
    command = next(iter(args), "")
    if command in ("-h", "--help", "help"):
        return program_help(table)
    if command not in table.commands:
        got = repr(command) if command else "nothing"
        hint = did_you_mean(command, table.commands)
        names = ", ".join(table.commands)
        raise OptionError(f"expected one of {names}, got {got}{hint}", name="command")
    wants_help = bool({"-h", "--help"} & set(args))
    if wants_help and command in SHORT_HELP and args[-1] != "all":
        return command_help(table, command)
    typed = list(typed_options(args[1:]))
    given = [(f"--{name}", name, value) for name, value in typed]
    for file in [value for name, value in typed if name == "config" and value]:
        settings = flatten(read_config(Path(file).expanduser()), table)
        given += [(f"{file}: {name}", name, value) for name, value in settings]
    classes = [value for _, name, value in given if name in ("data", "data.class_path")]
    for value in classes:
        if str(value).endswith(DATA_FILES):
            message = f"expected a class, got {value!r}; give --data.train_path {value}"
            raise OptionError(message, name="--data")
    own_classes = []  # groups whose options are those of a class of the user
    if any(str(value).rpartition(".")[2] not in OWN_DATA for value in classes):
        own_classes.append("data")
    given_names = {name for _, name, _ in given}
    if "ckpt_path" in given_names:
        own_classes.append("data")  # its config.yaml may name the class
    if given_names & {"model", "model.class_path"}:
        own_classes.append("model")
    for place, name, value in given:
        if "." not in name or name.partition(".")[0] not in own_classes:
            _check_name(place, name, command, table)
            _check_value(place, table.choices.get(name), value)
    return None


def did_you_mean(name: str, names: Iterable[str], prefix: str = "") -> str:
    """Return "; did you mean X?" for the most similar of other names, or "" if none is similar."""
    targets = {candidate: candidate for candidate in names if candidate != name}
    targets |= {word: target for word, target in SYNONYMS.items() if target in targets}
    best = ""
    highest = MIN_SIMILARITY
    for candidate, target in targets.items():
        similarity = _similarity(name, candidate)
        if similarity >= MIN_SIMILARITY:
            # decides between max_epochs and min_epochs
            similarity += 0.02 * (target in COMMON_OPTIONS)
        if similarity >= highest:
            best = target
            highest = similarity
    return f"; did you mean {prefix}{best}?" if best else ""


def _similarity(name: str, candidate: str) -> float:
    """Return how similar two names are, from 0 to 1, and 0.05 more if their groups are the same."""
    group, _, last = name.lower().replace("-", "_").rpartition(".")
    other_group, _, other_last = candidate.lower().rpartition(".")
    words = _words(last)
    other_words = _words(other_last)
    similarity = SequenceMatcher(None, "".join(words), "".join(other_words)).ratio()
    if words[0] in other_words and len(words) == 1:
        similarity = max(similarity, 0.9)
    return similarity + 0.05 * (group == other_group)


def _words(name: str) -> list[str]:
    """Return the words of a name, in the singular."""
    return [word.removesuffix("s") for word in name.split("_")]


def typed_options(args: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the name of each typed option, without its class, and its value, if it has one."""
    for arg, following in zip_longest(args, args[1:], fillvalue=""):
        match = TYPED_OPTION.fullmatch(arg)
        if match is None:
            continue
        name = "config" if match[1] is None else match[1].replace("data.init_args.", "data.")
        value = match[2]
        if value is None:
            value = "" if following.startswith("--") else following
        yield name, value


def read_config(file: Path) -> dict[str, Any]:
    """Read the settings of a YAML file; an OptionError if there are none."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionError(f"{file}: {error.strerror}", name="--config") from None
    except (ValueError, yaml.YAMLError) as error:
        raise OptionError(
            f"{file}: expected YAML, got {str(error)[:200]}", name="--config"
        ) from None
    if not isinstance(content, dict):
        got = "nothing" if content is None else type(content).__name__
        raise OptionError(f"{file}: expected settings by name, got {got}", name="--config")
    for name, value in content.items():
        if value is None and OptionTable.read().is_group(name):
            message = f"{file}: {name}: expected settings by name, got nothing"
            raise OptionError(message, name="--config")
    return content


def flatten(settings: Any, table: OptionTable, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the names and values of nested settings, such as `data.batch_size`, without classes."""
    if not isinstance(settings, dict):
        return
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if name == "data.init_args":
            yield from flatten(value, table, prefix)
        elif table.is_group(name):
            if isinstance(value, str):
                yield name, value
            yield from flatten(value, table, f"{name}.")
        else:
            yield name, value


def _check_name(place: str, name: str, command: str, table: OptionTable) -> None:
    """Raise an `OptionError` for an option that the command does not have."""
    options = {key for key, commands in table.options.items() if command in commands}
    if name in options or table.is_group(name) or name.rpartition(".")[2] in ALWAYS_KNOWN:
        return
    parts = name.split(".")
    owners = {".".join(parts[:i]) for i in range(1, len(parts))} & options
    if any(not table.is_group(owner) for owner in owners):
        return  # an option of a class or dictionary that is the value of an option
    is_untested = version("lightning") != table.lightning_version
    if name.startswith("trainer.") and is_untested:
        return
    prefix = "--" if place.startswith("--") else ""
    hint = did_you_mean(name, options, prefix)
    if name in table.options:
        hint = f"; it is an option of {', '.join(table.options[name])}"
    elif not hint and name.startswith("data."):
        hint = f"; --data.help NAME lists those of {' or '.join(OWN_DATA[1:])}"
    elif not hint:
        all_options = " all" if command in SHORT_HELP else ""
        hint = f"; {PROGRAM} {command} --help{all_options} lists the options"
    raise OptionError(f"unknown option{hint}", name=place)


def _check_value(place: str, choices: list[str] | None, value: Any) -> None:
    """Raise an `OptionError` for a word that is none of the words that an option accepts."""
    is_word = isinstance(value, str) and value.isidentifier() and value not in ("null", "None")
    if choices is None or not is_word or value in choices:
        return
    hint = did_you_mean(value, choices)
    raise OptionError(f"expected one of {', '.join(choices)}, got {value!r}{hint}", name=place)


def program_help(table: OptionTable) -> str:
    """Return the help of the program, which lists the commands."""
    names = ",".join(table.commands)
    lines = [f"  {name:10}{text}" for name, text in table.commands.items()]
    return f"""usage: {PROGRAM} {{{names}}} [options]

Train, monitor, evaluate and export recurrent sequence classifiers.

commands:
{chr(10).join(lines)}

{PROGRAM} COMMAND --help       list the options of a command
{PROGRAM} COMMAND --help all   list all of them, where there are many
{PROGRAM} --version            print the version"""


def command_help(table: OptionTable, command: str) -> str:
    """Return the help of a command with the options that are used most."""
    lines = [f"usage: {PROGRAM} {command} [options]", "", table.commands[command]]
    for group, texts in SHORT_HELP[command].items():
        lines += ["", f"{group}:"]
        for name, text in texts.items():
            if name in table.choices:
                text += f": {', '.join(table.choices[name])}"
            lines.append(f"  --{name:23} {text}")
    lines += [
        "",
        f"{PROGRAM} {command} --help all        list all options, with types and defaults",
        f"{PROGRAM} {command} --data.help NAME  list those of {' or '.join(OWN_DATA[1:])}",
        f"{PROGRAM} {command} --print_config    print all settings as YAML and exit",
    ]
    return "\n".join(lines)
