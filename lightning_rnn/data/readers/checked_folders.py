"""The digests by which a folder that `pack` has written is recognised."""

import json
from pathlib import Path

from lightning_rnn.atomic_files import sha256
from lightning_rnn.data.readers.contents import unexpected

CHECKED = "checked"  # file in a folder of .npy files, see `is_checked`
CATEGORIES = "categories.json"  # file in a folder whose features have categories


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
    for path in (*folder.glob("*.npy"), *folder.glob(CATEGORIES)):
        digests[path.name] = sha256(path)
    return digests
