"""What is left out of a start."""

import gc
import subprocess
import sys

import pytest

from lightning_rnn.startup import importing


def test_the_search_for_garbage_goes_on_after_imports():
    frozen = gc.get_freeze_count()
    with importing("no_module_of_this_name", for_good=True):
        assert not gc.isenabled()
    try:
        assert gc.isenabled()
        assert gc.get_freeze_count() > frozen
    finally:
        gc.unfreeze()
    with pytest.raises(ImportError), importing("no_module_of_this_name", for_good=True):
        raise ImportError
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_the_objects_of_another_program_are_left_alone():
    frozen = gc.get_freeze_count()
    with importing("no_module_of_this_name", for_good=False):
        assert not gc.isenabled()
    assert gc.isenabled() and gc.get_freeze_count() == frozen


def test_a_second_call_in_one_process_freezes_nothing():
    frozen = gc.get_freeze_count()
    with importing("torch", for_good=True):
        assert gc.isenabled()
    assert gc.get_freeze_count() == frozen


def test_the_program_starts_without_searching_what_it_imports(empty):
    code = "import gc, sys; sys.argv[1:] = ['inspect']; from lightning_rnn.__main__ import main; main()"
    code += "; print(gc.get_freeze_count())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout.splitlines()[-1]) > 100_000
