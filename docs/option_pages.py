"""Reference pages of the options, written from the help that the program prints."""

import html
import io
import os
import re
from contextlib import redirect_stdout, suppress
from unittest.mock import patch

COMMANDS = ("fit", "validate", "test", "predict", "compare", "inspect", "pack", "export")
DATA_MODULES = ("FileDataModule", "SyntheticDataModule")
WHOLE_HELP = ("fit", "validate", "test", "predict")  # their --help alone lists the common options
TYPE_AND_DEFAULT = re.compile(r" \((required, )?type: (.*?)(?:, default: (.*))?\)$")
KNOWN = ", known subclasses:"
SPHINX_ROLE = re.compile(r":\w+:`~?(?:[\w.]*\.)?(\w+)`")
OF_THE_RUN = "The defaults of model, data and Trainer are those of the training."
OF_FIT = (
    "The defaults are those of the synthetic tasks; for files, those in "
    "[files.yaml](../configs/files.yaml) come first."
)
DEFAULTS = dict.fromkeys(COMMANDS, "") | dict.fromkeys(WHOLE_HELP, OF_THE_RUN) | {"fit": OF_FIT}
SHARED = {  # options that several commands have are listed once
    "model": "are those of [fit](options_fit.md#model)",
    "trainer": "are those of [fit](options_fit.md#trainer)",
    "data": "are listed for [each data module](options_data.md)",
}


def option_pages() -> dict[str, str]:
    """Return the Markdown of each page by its file name."""
    pages = {f"options_{command}.md": command_page(command) for command in COMMANDS}
    pages["options_data.md"] = data_page()
    return pages


def command_page(command: str) -> str:
    """Return the page of a command."""
    request = [command, "--help"]
    if command in WHOLE_HELP:
        request.append("all")
    _, description, *sections = help_of(*request).split("\n\n")
    lines = [f"# {command}", "", description.strip(), "", DEFAULTS[command], ""]
    for section in sections:
        lines += section_lines(section, command)
    return "\n".join(lines) + "\n"


def data_page() -> str:
    """Return the page of the options of both data modules."""
    lines = ["# Data modules", ""]
    lines.append("`--data NAME` chooses the module; options of files alone choose the first one.")
    for name in DATA_MODULES:
        text = help_of("fit", f"--data.help={name}")
        lines += ["", f"## {name}", ""]
        for option in options_in(text):
            lines += entry(option)
    return "\n".join(lines) + "\n"


def help_of(*args: str) -> str:
    """Return what the program prints, without line breaks inside of texts."""
    from lightning_rnn.__main__ import main

    out = io.StringIO()
    wide = patch.dict(os.environ, COLUMNS="100000")
    with wide, redirect_stdout(out), suppress(SystemExit):
        main(list(args))
    return out.getvalue()


def section_lines(section: str, command: str) -> list[str]:
    """Return the Markdown of a group of options, or of a paragraph."""
    title, _, body = section.partition("\n")
    options = options_in(body)
    if not options:
        text = " ".join(section.split())
        return [text.replace("lightning_rnn fit --help", "[fit](options_fit.md)"), ""]
    if options[0][0].startswith("-h"):
        lines = ["## Options", ""]
        del options[0]
    else:
        group = re.split(r"[ .]", options[0][0])[0].removeprefix("--")
        lines = [f"## {group} {{ #{group} }}", "", f"{title.strip().rstrip(':')}.", ""]
        if group in SHARED and (group == "data" or command != "fit"):
            return [*lines, f"The options `--{group}...` {SHARED[group]}.", ""]
    for option in options:
        lines += entry(option)
    return [*lines, ""]


def options_in(text: str) -> list[tuple[str, str]]:
    """Return the flags and the help of each option in a help text."""
    found: list[tuple[str, str]] = []
    for line in text.splitlines():
        start = re.match(r"^  (-.*?)(?:  +(.*))?$", line)
        if start:
            found.append((start[1], start[2] or ""))
        elif found and line.startswith(" " * 20):
            flags, help_text = found[-1]
            found[-1] = (flags, f"{help_text} {line.strip()}".strip())
    return found


def entry(option: tuple[str, str]) -> list[str]:
    """Return the Markdown of an option: a definition with its text, type and default."""
    flags, text = option
    name = re.sub(r"^-\w( \S+)?, ", "", flags)  # Python 3.13: -c, --config CONFIG
    words = re.match(r"(--[\w.]+)( \{[^}]*\})?", name)
    assert words, flags
    name = words[0]  # without a placeholder, which would repeat the name
    text = SPHINX_ROLE.sub(r"`\1`", text)
    details = TYPE_AND_DEFAULT.search(text)
    if details is None:
        return [f"`{name}`", f":   {plain(text)}", ""]
    required, kind, default = details.groups()
    facts = []
    if "{" not in name:  # else the values are already in the name
        facts.append(f"Type `{kind.partition(KNOWN)[0]}`")
    if required:
        facts.append("required")
    elif default:
        facts.append(f"default `{default.partition(KNOWN)[0]}`")
    line = ", ".join(facts)
    last = f"    {line[0].upper()}{line[1:]}."
    return [f"`{name}`", f":   {plain(text[: details.start()])}", "", last, ""]


def plain(text: str) -> str:
    """Escape what Markdown or HTML would interpret, except code."""
    parts = re.split(r"(`+[^`]*`+)", text)
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(r"([*\[\]])", r"\\\1", html.escape(parts[i], quote=False))
    return "".join(parts) or "Without a description."
