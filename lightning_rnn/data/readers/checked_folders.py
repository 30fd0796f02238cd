"""What a folder written by `pack` says of itself: digests, and the options it was made with."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_rnn.atomic_files import sha256
from lightning_rnn.data.readers.contents import ReadOptions, unexpected

CHECKED = "checked"  # file in a folder of .npy files, see `is_checked`
CATEGORIES = "categories.json"  # file in a folder whose features have categories
OPTIONS = "options.json"  # file with options, see `options_of_folder`


def write_options(folder: Path, options: ReadOptions) -> None:
    """Write the options for which see `options_of_folder`."""
    (folder / OPTIONS).write_text(json.dumps(_applied_options(options)), encoding="utf-8")


def options_of_folder(folder: Path, options: ReadOptions) -> ReadOptions:
    """Return the options without the missing values that `pack` has replaced.

    A DataError is raised if the folder has other missing values or windows than the options, with
    which a model also reads files that are not packed.
    """
    if not (folder / OPTIONS).is_file():
        return options
    stored = json.loads((folder / OPTIONS).read_text(encoding="utf-8"))
    given = _applied_options(options)
    for name, value in stored.items():
        # further missing values are replaced when the folder is read
        is_contained = name == "missing_values" and set(value) <= set(given[name])
        if not is_contained and value != given.get(name):
            raise unexpected(name, f"{value}, as given to pack", str(given.get(name)))
    further = [value for value in given["missing_values"] if value not in stored["missing_values"]]
    return replace(options, missing_values=further)


def _applied_options(options: ReadOptions) -> dict[str, Any]:
    """Return the options whose effect is in the values and the number of the sequences."""
    applied: dict[str, Any] = {"missing_values": options.missing_values or []}
    if options.window_length is None:
        return applied
    stride = options.window_stride or options.window_length
    applied |= {"window_length": options.window_length, "window_stride": stride}
    applied["window_label"] = options.window_label
    if options.window_label == "any":
        applied["positive_class"] = options.positive_class
    return applied


def mark_as_checked(folder: Path) -> None:
    """Write the file `checked` with the SHA-256 of each other file, see `is_checked`."""
    (folder / CHECKED).write_text(json.dumps(_digests(folder)), encoding="utf-8")


def is_checked(folder: Path) -> bool:
    """Return whether the values are known to be finite and without trailing missing steps.

    `pack` says so by the file `checked`, which contains the digests of all other files. If it does
    not fit the folder, a DataError is raised.
    """
    if not (folder / CHECKED).is_file():
        return False
    try:
        expected = json.loads((folder / CHECKED).read_text(encoding="utf-8"))
    except ValueError:
        expected = None
    if not isinstance(expected, dict):
        raise unexpected(CHECKED, "digests as written by pack", "something else")
    digests = _digests(folder)
    for name in sorted({*digests, *expected}):
        if digests.get(name) != expected.get(name):
            untouched = f"the file that pack has written (or no file {CHECKED})"
            raise unexpected(name, untouched, "one that is changed, missing or new")
    return True


def _digests(folder: Path) -> dict[str, str]:
    digests = {}
    for path in (*folder.glob("*.npy"), *folder.glob("*.json")):
        digests[path.name] = sha256(path)
    return digests
