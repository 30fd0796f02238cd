"""The versions in pyproject.toml, constraints.txt and docs/versions.md agree."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import lightning_rnn

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ALLOWED = {(r := Requirement(text)).name: r.specifier for text in PROJECT["dependencies"]}
PINNED = dict(
    re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
)
TABLE = re.findall(
    r"^\| (\w+) \| ([\d.]+) \| ([\d.]+) \|$",
    (ROOT / "docs/versions.md").read_text(),
    flags=re.MULTILINE,
)


@pytest.mark.parametrize("bad", ["2.6.2", "2.6.3", "2.6.5", "2.7.0"])
def test_bad_versions_of_lightning_are_excluded(bad):
    assert bad not in ALLOWED["lightning"]


def test_bad_versions_of_others_are_excluded():
    assert "2.20.0" not in ALLOWED["tensorboard"]
    assert "5.0.0" not in ALLOWED["jsonargparse"]


def test_every_bound_has_a_reason():
    """The reason is a comment on the line of the requirement, or on the lines before it."""
    section = (ROOT / "pyproject.toml").read_text().partition("\ndependencies = [\n")[2]
    lines = section.partition("\n]\n")[0].splitlines()
    requirements = [line for line in lines if not line.strip().startswith("#")]
    assert len(requirements) == len(ALLOWED)
    for i, line in enumerate(lines):
        if line in requirements:
            assert re.search(r">=.+,<", line), line
            assert "#" in line or "#" in lines[i - 1], line


def test_package_versions_agree():
    assert PROJECT["version"] == lightning_rnn.__version__
    assert f"## [{PROJECT['version']}]" in (ROOT / "CHANGELOG.md").read_text()


def test_every_development_tool_is_pinned():
    extras = PROJECT["optional-dependencies"]["dev"]
    names = [Requirement(text).name.replace("-", "_").lower() for text in extras]
    pinned = {name.replace("-", "_").lower() for name in PINNED}
    assert set(names) <= pinned


def test_documented_versions_are_allowed_and_pinned():
    table = {name: (oldest, newest) for name, oldest, newest in TABLE if name != "Python"}
    assert table.keys() == ALLOWED.keys()
    for name, (oldest, newest) in table.items():
        assert oldest in ALLOWED[name]
        assert newest in ALLOWED[name]
        assert PINNED[name] == newest


def test_pinned_versions_are_installed():
    if version("lightning") != PINNED["lightning"]:
        pytest.skip("not the development environment")
    assert {name: version(name).split("+")[0] for name in ALLOWED} == {
        name: PINNED[name] for name in ALLOWED
    }
