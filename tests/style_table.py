"""Print size and density of the package: python tests/style_table.py [PATH ...]."""

import ast
import statistics
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "lightning_rnn"
MAX_WIDTH = 100
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclass
class Style:
    """Counts over some Python files.

    Attributes:
        files: Number of lines of each file.
        functions: Number of lines of each function, without its docstring, by location.
        code_lines: Number of lines that are not blank, comment or docstring.
        long_lines: Number of lines of more than 100 characters.
    """

    files: dict[Path, int] = field(default_factory=dict)
    functions: dict[str, int] = field(default_factory=dict)
    code_lines: int = 0
    long_lines: int = 0
    ternaries: int = 0
    comprehensions: int = 0
    tuple_assignments: int = 0

    @property
    def lines(self) -> int:
        return sum(self.files.values())

    @property
    def median_function(self) -> float:
        return statistics.median(self.functions.values())

    def per_100_lines(self, count: int) -> float:
        return 100 * count / self.code_lines

    def add(self, path: Path) -> None:
        """Count a file."""
        text = path.read_text(encoding="utf-8")
        lines = text.splitlines()
        self.files[path] = len(lines)
        self.long_lines += sum(len(line) > MAX_WIDTH for line in lines)
        in_docstrings: set[int] = set()
        for node in ast.walk(ast.parse(text)):
            docstring = docstring_lines(node)
            in_docstrings.update(docstring)
            if isinstance(node, FUNCTIONS):
                length = node.end_lineno - node.lineno + 1 - len(docstring)
                self.functions[f"{path}:{node.lineno} {node.name}"] = length
            self.ternaries += isinstance(node, ast.IfExp)
            self.comprehensions += isinstance(node, COMPREHENSIONS)
            self.tuple_assignments += is_tuple_assignment(node)
        for number, line in enumerate(lines, start=1):
            is_code = line.strip() and not line.strip().startswith("#")
            if is_code and number not in in_docstrings:
                self.code_lines += 1


def docstring_lines(node: ast.AST) -> range:
    """Return the line numbers of the docstring of a module, class or function."""
    if not isinstance(node, DOCUMENTED) or ast.get_docstring(node) is None:
        return range(0)
    docstring = node.body[0]
    return range(docstring.lineno, docstring.end_lineno + 1)


def is_tuple_assignment(node: ast.AST) -> bool:
    """Return whether a node is `a, b = x, y`; unpacking a single value does not count."""
    if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Tuple):
        return False
    return any(isinstance(target, ast.Tuple) for target in node.targets)


def python_files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


def measure(*paths: Path) -> Style:
    """Return the counts over files and folders."""
    style = Style()
    for path in python_files(paths):
        style.add(path)
    return style


def table(path: Path) -> str:
    """Return the lines of each room of a folder, and the counts over all of it."""
    style = measure(path)
    rows = [("files at the root", len(list(path.glob("*.py"))))]
    rows += [(f"{room.parent.name}/", measure(room.parent).lines) for room in rooms(path)]
    rows += [
        ("lines", style.lines),
        ("code lines", style.code_lines),
        ("largest file", max(style.files.values())),
        ("median function", style.median_function),
        ("longest function", max(style.functions.values())),
        ("ternaries per 100", round(style.per_100_lines(style.ternaries), 1)),
        ("comprehensions per 100", round(style.per_100_lines(style.comprehensions), 1)),
        ("tuple assignments per 100", round(style.per_100_lines(style.tuple_assignments), 1)),
        (f"lines over {MAX_WIDTH}", style.long_lines),
    ]
    return "\n".join(f"{name:<26} {value:>7}" for name, value in rows)


def rooms(path: Path) -> list[Path]:
    return sorted(path.glob("*/__init__.py"))


if __name__ == "__main__":
    for folder in sys.argv[1:] or [str(PACKAGE)]:
        print(table(Path(folder)))
