"""Arguments before and when they are parsed: what must be known beforehand, and errors in our words."""

import argparse
import re
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import yaml
from lightning.pytorch.cli import LightningArgumentParser

from lightning_rnn.data import DATA_MODULES
from lightning_rnn.errors import OptionError

PROGRAM = "lightning_rnn"
COMMANDS = {
    "fit": "Train, validating after each epoch.",
    "validate": "Judge a checkpoint on the validation part.",
    "test": "Judge a checkpoint on the test part; writes test_metrics.json.",
    "predict": "Write a checkpoint's predictions to a file; labels are not needed.",
}
EXTRA_COMMANDS = {  # those that are no method of the Trainer: what they do, and the function's module
    "pack": (
        "Turn a file of any size into a folder that is trained on without being in memory.",
        "data.pack",
    ),
    "inspect": ("Report on a data set without training.", "cli.commands"),
    "export": ("Write a checkpoint to an ONNX file, proven to compute the same.", "cli.commands"),
}


def run_extra(command: str, args: list[str]) -> None:
    """Run one of `EXTRA_COMMANDS`, a function named as the command whose arguments are its options."""
    description, module = EXTRA_COMMANDS[command]
    function = getattr(import_module(f"lightning_rnn.{module}"), command)
    parser = Parser(prog=f"{PROGRAM} {command}", description=description)
    parser.add_function_arguments(function, as_group=False)
    found = parser.instantiate_classes(parser.parse_args(args))
    function(**{name: value for name, value in vars(found).items() if name != "config"})


class Typed:
    """What must be known of the arguments before they are parsed: a checkpoint changes the parser's defaults."""

    def __init__(self, args: list[str]) -> None:
        """Look through command line and config files; malformed ones are left to the real parser."""
        self.command = next((arg for arg in args if arg in COMMANDS), None)
        if args and re.match(r"--(?!help|config|print_config)", args[0]):
            raise OptionError(
                f"{args[0]}: found before the command, accepted is after one of {', '.join(COMMANDS)}"
            )
        scanner = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
        for name in ("--ckpt_path", "--data", "--data.class_path", "--trainer.default_root_dir"):
            scanner.add_argument(name)
        scanner.add_argument("-c", "--config", action="append", default=[])
        try:
            found = vars(scanner.parse_known_args(args)[0])
        except argparse.ArgumentError:
            found = {"config": []}
        self.configs = [path for path in map(Path, found["config"]) if path.exists()]
        self.config: dict[str, Any] = {}
        for path in found["config"]:
            _lay_over(self.config, self._read(path))
        trainer = self.config.get("trainer")
        root = trainer.get("default_root_dir") if isinstance(trainer, dict) else None
        self.ckpt_path = found.get("ckpt_path") or _text(
            self.config.get("ckpt_path"), "--ckpt_path"
        )
        self.root = Path(
            found.get("trainer.default_root_dir")
            or _text(root, "--trainer.default_root_dir")
            or "."
        )
        typed_class = (
            found.get("data.class_path") or found.get("data") or class_of(self.config.get("data"))
        )
        self.data_class = typed_class.rsplit(".", 1)[-1] if isinstance(typed_class, str) else None
        self.wants_help = bool(
            {"-h", "--help", "--print_config"} & {arg.split("=")[0] for arg in args}
        )

    def _read(self, path: str) -> dict[str, Any]:
        try:
            content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise OptionError(f"--config: {path}: cannot be read ({error.strerror})") from None
        except (ValueError, yaml.YAMLError) as error:
            raise OptionError(
                f"--config: {path}: found no YAML ({' '.join(str(error).split())[:200]})"
            ) from None
        if not isinstance(content, dict):
            raise OptionError(
                f"--config: {path}: found {type(content).__name__}, accepted are settings by name"
            )
        nested = content.get(self.command)
        return nested if isinstance(nested, dict) else content


def _text(value: Any, option: str) -> str | None:
    """Return a path of a config file; the parser comes too late to refuse another type."""
    if value is None or isinstance(value, str):
        return value
    raise OptionError(f"{option}: found {value!r}, accepted is a path")


def class_of(settings: Any) -> Any:
    """Return what settings with a choice of classes call the class: its name alone, or beside its arguments."""
    return settings.get("class_path") if isinstance(settings, dict) else settings


def _lay_over(config: dict[str, Any], content: dict[str, Any]) -> None:
    for key, value in content.items():
        if isinstance(value, dict) and isinstance(config.get(key), dict):
            _lay_over(config[key], value)
        else:
            config[key] = value


class Parser(LightningArgumentParser):
    """A parser whose errors are one message."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise an OptionError with the message in our words."""
        raise OptionError(_in_our_words(message))


def _in_our_words(message: str) -> str:
    """Say what jsonargparse said in one line: option, what was found, what is accepted."""
    match = re.search(r'Parser key "([^"]*)":?', message)
    causes = [line.strip(" -") for line in message.splitlines() if line.lstrip().startswith("- ")]
    causes = [line for line in causes if not re.search("NoneType|a path but|Union subtypes", line)]
    text = "; ".join(causes) or " ".join(message.split())
    for pattern, words in (
        (
            r"^the following arguments are required: (\w+).*",
            r"--\1: found nothing, accepted is a value",
        ),
        (r'^Parser key "[^"]*":? ?', ""),
        (
            r"Expected an? (<class '[\w.]+'>|typing\.Literal\[.*?\])\. Got value: (.*)",
            r"found \2, accepted is \1",
        ),
        (
            r"Expected a dot import path string: (\S+)",
            rf"found \1, accepted is one of {', '.join(DATA_MODULES)}",
        ),
        (
            r"^Option '(\w+)' is not accepted",
            rf"\1: not an option of this data module; accepted after --data and one of {', '.join(DATA_MODULES)}",
        ),
        (r"Expected an? ", "accepted is "),
        (r"<class '([\w.]+)'>", r"\1"),
        (r"(?:typing\.)?Literal\[(.*?)\]|typing\.(one of)", r"one of \1"),
    ):
        text = re.sub(pattern, words, text)
    given = re.search(r"Given value: (?!Namespace|NestedArg)(.*)", message)
    if given and "found" not in text:
        text = f"found {given[1]}, {text}"
    if match is None:
        return text
    inner = (
        re.match(r"(\w+): (.*)", text) if match[1] == "data" else None
    )  # an argument of the data module
    return f"--{match[1]}.{inner[1]}: {inner[2]}" if inner else f"--{match[1]}: {text}"
