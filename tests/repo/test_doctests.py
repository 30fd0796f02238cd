"""The examples in docstrings run, and every public name has one."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import lightning_rnn

MODULES = [
    module.name
    for module in pkgutil.walk_packages(lightning_rnn.__path__, "lightning_rnn.")
    if not module.name.endswith("__main__")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_a_module_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert failed == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", lightning_rnn.__all__)
def test_a_public_name_has_an_example(name):
    public = getattr(lightning_rnn, name)
    assert ">>> " in inspect.getdoc(public)
