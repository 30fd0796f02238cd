"""Write lightning_rnn/cli/options.json from the parsers: python tests/option_table.py."""

import json
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from lightning_rnn.cli.command_line import CommandLine
from lightning_rnn.cli.commands import EXTRA_COMMANDS, summary
from lightning_rnn.cli.compare import compare
from lightning_rnn.cli.parser import Parser
from lightning_rnn.cli.request import COMMANDS, Request
from lightning_rnn.data import DATA_MODULES
from lightning_rnn.training.interrupts import Interrupts

PATH = Path(__file__).parents[1] / "lightning_rnn/cli/options.json"


class ParserFound(Exception):
    """Ends a command once its parser is built, which is the argument."""


class Rehearsal(CommandLine):
    """A command that only builds its parser."""

    def parse_arguments(self, parser: Any, args: Any) -> None:
        raise ParserFound(parser)


def parser_of(command: str) -> Any:
    try:
        Rehearsal(Request.from_args([command]), None, None, Interrupts())
    except ParserFound as found:
        return found.args[0]
    raise AssertionError("the parser was not built")


def entries(parser: Any, prefix: str = "") -> dict[str, list[str]]:
    """Return the choices of all options of a parser, and of our data modules if it takes one."""
    found: dict[str, list[str]] = {}
    has_data = False
    for action in parser._actions:
        name = f"{prefix}{action.dest}"
        has_data = has_data or name == "data"
        if name == "help" or name.endswith(".help"):
            continue
        found[name] = words_of(action)
    if has_data:
        for module in DATA_MODULES.values():
            of_module = Parser()
            of_module.add_class_arguments(module, None)
            found |= entries(of_module, "data.")
    return found


def words_of(action: Any) -> list[str]:
    """Return the words that an option accepts; none if it accepts more than words or null."""
    hint = getattr(action, "_typehint", None)
    kinds = [hint]
    if get_origin(hint) is not Literal:
        kinds = [kind for kind in get_args(hint) if kind is not type(None)]
    if len(kinds) == 1 and get_origin(kinds[0]) is Literal:
        return [str(word) for word in get_args(kinds[0])]
    return []


def option_table() -> dict[str, Any]:
    """Return the content of the file."""
    of_command = {command: entries(parser_of(command)) for command in COMMANDS}
    function = Parser()
    function.add_function_arguments(compare, as_group=False, skip={"fit_args"})
    of_command["compare"] = of_command["fit"] | entries(function)
    for name, command in EXTRA_COMMANDS.items():
        function = Parser()
        function.add_function_arguments(command, as_group=False)
        of_command[name] = entries(function)
    commands = COMMANDS | {"compare": summary(compare)}
    commands |= {name: summary(command) for name, command in EXTRA_COMMANDS.items()}
    options: dict[str, list[str]] = {}
    choices: dict[str, list[str]] = {}
    for command, found in of_command.items():
        for name, words in found.items():
            options.setdefault(name, []).append(command)
            if words:
                choices[name] = words
    return {
        "lightning_version": version("lightning"),
        "commands": commands,
        "options": dict(sorted(options.items())),
        "choices": dict(sorted(choices.items())),
    }


def written(table: dict[str, Any]) -> str:
    """Return the text of the file, with each entry in a line of its own."""
    text = json.dumps(table, indent=1)
    lists = re.compile(r"\[[^\]]*\]")
    return lists.sub(lambda match: json.dumps(json.loads(match[0])), text) + "\n"


if __name__ == "__main__":
    PATH.write_text(written(option_table()), encoding="utf-8")
