"""The package uses no private names of other libraries but those listed in CONTRIBUTING.md."""

import ast
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import lightning_rnn

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "lightning_rnn"
REFLECTION = ("getattr", "setattr", "hasattr", "delattr")
ROW = re.compile(r"^\| `([\w.]+)` \| `([\w./]+\.py)` \| (.+) \| `([\w./]+\.py)` \|$", re.MULTILINE)


def is_private(name):
    """Return whether a name, or a part of a dotted name, has exactly one leading underscore."""
    return any(re.match(r"_(?!_)\w", part) for part in name.split("."))


def is_ours(module):
    return module.partition(".")[0] == "lightning_rnn"


def defined_names(tree):
    """Return the names that a module defines itself: functions, variables, attributes of self."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
                names.add(node.attr)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "self.register_buffer":
            names.add(node.args[0].value)
    return names


def imported_names(tree):
    """Return the private modules and names that a module imports from other libraries."""
    paths = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            paths |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            paths |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {path.rpartition(".")[2] for path in paths if is_private(path) and not is_ours(path)}


def used_attributes(tree):
    """Return the private attributes that a module uses: of self, and of other objects."""
    of_self = set()
    of_others = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            names = of_self if ast.unparse(node.value) in ("self", "cls", "super()") else of_others
            names.add(node.attr)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in REFLECTION:
            name = node.args[1]
            if isinstance(name, ast.Constant) and is_private(str(name.value)):
                of_others.add(name.value)
    return of_self, of_others


def foreign_names(source, ours=frozenset()):
    """Return the private names of other libraries in a source text.

    An attribute belongs to another library if the text does not define it; an attribute of self may
    also be defined elsewhere in the package (`ours`), in a base class.
    """
    tree = ast.parse(source)
    of_self, of_others = used_attributes(tree)
    defined = defined_names(tree)
    return imported_names(tree) | (of_others - defined) | (of_self - defined - ours)


def overridden_names(module):
    """Return the private names that classes of a module define over those of another library."""
    defined = defined_names(ast.parse(inspect.getsource(module)))
    names = set()
    for _, cls in inspect.getmembers(module, inspect.isclass):
        if cls.__module__ != module.__name__:
            continue
        own = {name for name in vars(cls) if is_private(name) and name in defined}
        others = [base for base in cls.__mro__ if not is_ours(base.__module__)]
        names |= {name for name in own if any(name in vars(base) for base in others)}
    return names


def private_names():
    """Return (name, file) of all private names of other libraries in the package."""
    texts = {path: path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
    ours = set().union(*(defined_names(ast.parse(text)) for text in texts.values()))
    found = set()
    for path, text in texts.items():
        file = str(path.relative_to(PACKAGE))
        found |= {(name, file) for name in foreign_names(text, ours)}
    for info in pkgutil.walk_packages(lightning_rnn.__path__, "lightning_rnn."):
        module = importlib.import_module(info.name)
        file = str(Path(module.__file__).relative_to(PACKAGE))
        found |= {(name, file) for name in overridden_names(module)}
    return found


def listed():
    """Return the rows of the table in CONTRIBUTING.md."""
    section = (ROOT / "CONTRIBUTING.md").read_text().partition("## Private names")[2]
    rows = ROW.findall(section.partition("\n## ")[0])
    return [(name.rpartition(".")[2], file, seam, test) for name, file, seam, test in rows]


def test_only_listed_names_are_used():
    assert private_names() == {(name, file) for name, file, _, _ in listed()}


def test_at_most_ten_are_listed_once():
    names = [name for name, _, _, _ in listed()]
    assert len(names) == len(set(names)) <= 10


def test_each_has_a_contract_test():
    for name, _, _, test in listed():
        assert name in (ROOT / test).read_text(), f"{test} does not test {name}"


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import torch._C", {"_C"}),
        ("from lightning.pytorch._x import y", {"y"}),
        ("from torch import _VF", {"_VF"}),
        ("from lightning_rnn.models.network import _helper", set()),
        ("trainer._results.clear()", {"_results"}),
        ("getattr(trainer, '_results')", {"_results"}),
        ("class A:\n    def f(self):\n        self._x = 1\n        return self._x", set()),
        ("class A:\n    def f(self):\n        return self._metadata", {"_metadata"}),
        ("def f(x):\n    return x.__class__, x.__dict__", set()),
    ],
)
def test_scanner(source, names):
    assert foreign_names(source) == names
