"""What is left out of a start."""

import gc
import subprocess
import sys

import pytest

from lightning_rnn.startup import importing


def test_the_search_for_garbage_goes_on_after_imports():
    frozen = gc.get_freeze_count()
    with importing("no_module_of_this_name"):
        assert not gc.isenabled()
    try:
        assert gc.isenabled()
        assert gc.get_freeze_count() > frozen
    finally:
        gc.unfreeze()
    with pytest.raises(ImportError), importing("no_module_of_this_name"):
        raise ImportError
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_a_second_call_in_one_process_freezes_nothing():
    frozen = gc.get_freeze_count()
    with importing("torch"):
        assert gc.isenabled()
    assert gc.get_freeze_count() == frozen


def test_the_program_starts_without_searching_what_it_imports(empty):
    code = "import gc; from lightning_rnn.__main__ import main; main(['inspect']); print(gc.get_freeze_count())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout.splitlines()[-1]) > 100_000
