"""What pyproject.toml allows, constraints.txt pins and docs/versions.md claims."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

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
def test_known_bad_lightnings_are_kept_out(bad):
    assert bad not in ALLOWED["lightning"]


def test_known_bad_others_are_kept_out():
    assert "2.20.0" not in ALLOWED["tensorboard"]
    assert "5.0.0" not in ALLOWED["jsonargparse"]


def test_every_bound_has_its_reason():
    lines = (
        (ROOT / "pyproject.toml")
        .read_text()
        .split("dependencies = [")[1]
        .split("]\n")[0]
        .strip()
        .splitlines()
    )
    assert len(lines) == len(ALLOWED)
    assert all("#" in line and ">=" in line and "<" in line for line in lines)


def test_the_documented_versions_are_allowed_and_pinned():
    table = {name: (oldest, newest) for name, oldest, newest in TABLE if name != "Python"}
    assert table.keys() == ALLOWED.keys()
    for name, (oldest, newest) in table.items():
        assert oldest in ALLOWED[name] and newest in ALLOWED[name]
        assert PINNED[name] == newest


def test_the_pinned_versions_are_what_is_tested():
    if version("lightning") != PINNED["lightning"]:
        pytest.skip("not the development environment")
    assert {name: version(name).split("+")[0] for name in ALLOWED} == {
        name: PINNED[name] for name in ALLOWED
    }
