"""Training computes what it computed when `regression.json` was recorded."""

import pytest
import torch
from regression import CASES, CELLS, INSTRUCTIONS, Case, compare

QUICK = [
    *(Case(cell, "none", True, "64-true", "deep") for cell in CELLS),
    *(Case(cell, "conv", True, "64-true", "classes") for cell in CELLS),
    Case("rnn", "none", False, "32-true", "plain"),
    Case("gru", "none", True, "64-true", "clip"),
]

# Lightning calls a function that torch deprecates, and warns of epochs shorter than its logging.
pytestmark = [
    pytest.mark.skipif(
        torch.backends.cpu.get_cpu_capability() not in INSTRUCTIONS,
        reason="torch draws other weights on this processor",
    ),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*is smaller than the logging interval"),
]


@pytest.mark.parametrize("case", QUICK, ids=lambda case: case.name)
def test_quick_cases_equal_the_record(case):
    assert compare([case]) == []


@pytest.mark.slow
def test_all_cases_equal_the_record():
    assert compare(CASES) == []
