"""Print the section of CHANGELOG.md for a tag: python .ci/release_notes.py v0.2.0.

Exits with an error if pyproject.toml has another version, or CHANGELOG.md has no such section.
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def release_notes(tag: str) -> str:
    """Return the section of a tag."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    version = project["version"]
    if tag != f"v{version}":
        sys.exit(f"expected the tag v{version} as in pyproject.toml, got {tag}")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = re.split(r"^## \[(.+?)\].*$", changelog, flags=re.MULTILINE)
    notes = dict(zip(sections[1::2], sections[2::2], strict=True))
    if version not in notes:
        sys.exit(f"expected a section [{version}] in CHANGELOG.md, got {', '.join(notes)}")
    return notes[version].strip()


if __name__ == "__main__":
    print(release_notes(sys.argv[1]))
