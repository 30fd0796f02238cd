"""That the benchmarks can be started, and that the documents name those that there are. What they say is no test."""

import importlib
import re
from pathlib import Path

import pytest

HERE = Path(__file__).parents[2]
MODULES = sorted(
    path.stem for path in (HERE / "benchmarks").glob("*.py") if not path.stem.startswith("__")
)
TEXTS = [HERE / "README.md", HERE / "CONTRIBUTING.md", *sorted((HERE / "docs").glob("*.md"))]


@pytest.mark.parametrize("name", MODULES)
def test_each_can_be_imported(name, monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    importlib.import_module(f"benchmarks.{name}")


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_scripts_and_benchmarks_that_a_document_names_exist(path):
    text = path.read_text()
    modules = re.findall(r"-m benchmarks\.([a-z_]+)", text)
    scripts = re.findall(r"python ((?:[a-z_]+/)+[a-z_]+\.py)", text)
    assert [name for name in modules if name not in MODULES] == []
    assert [name for name in scripts if not (HERE / name).exists()] == []
