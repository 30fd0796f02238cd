"""The package stays small and plain; `python tests/style_table.py` prints the table."""

import re
from pathlib import Path

import pytest
from style_table import PACKAGE, measure

STYLE = measure(PACKAGE)


MAX_LINES = 16_844  # of the package, with documentation; it is to become smaller, not larger


def test_package_is_small():
    assert STYLE.lines <= MAX_LINES
    assert len(list(PACKAGE.glob("*.py"))) <= 8


def test_files_are_short():
    too_long = {path.name: lines for path, lines in STYLE.files.items() if lines > 300}
    assert too_long == {}


def test_functions_are_short():
    assert STYLE.median_function <= 12
    too_long = [name for name, lines in STYLE.functions.items() if lines > 50]
    # scikit-learn requires that a constructor stores each of its arguments and does nothing else
    assert [name for name in too_long if not re.search("estimator.py:.* __init__", name)] == []


def test_lines_are_short():
    assert STYLE.long_lines == 0


@pytest.mark.parametrize(
    ("count", "limit"), [("ternaries", 1.5), ("comprehensions", 2.5), ("tuple_assignments", 2.5)]
)
def test_code_is_not_dense(count, limit):
    assert STYLE.per_100_lines(getattr(STYLE, count)) <= limit


def test_counts_of_a_small_file(tmp_path: Path):
    path = tmp_path / "small.py"
    path.write_text(
        '"""Module."""\n'
        "\n"
        "# comment\n"
        "def f(x):\n"
        '    """Two\n'
        '    lines."""\n'
        "    a, b = 1, x\n"
        "    c, d = divmod(a, b)\n"
        "    return [c if d else i for i in range(3)]\n" + "y = " + "1" * 97 + "\n"
    )
    style = measure(path)
    assert style.files == {path: 10}
    assert style.functions == {f"{path}:4 f": 4}
    assert (style.code_lines, style.long_lines) == (5, 1)
    assert (style.ternaries, style.comprehensions, style.tuple_assignments) == (1, 1, 1)
    assert style.per_100_lines(1) == 20
