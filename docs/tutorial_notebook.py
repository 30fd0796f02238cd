"""Write docs/tutorial.ipynb: the cells of docs/tutorial.md, executed.

    python docs/tutorial_notebook.py
    python docs/tutorial_notebook.py --text    # keeps the outputs, if no code has changed

Takes about a minute of CPU time. Python blocks become code cells, and blocks of commands cells with
`%%sh`. The site shows the outputs of the notebook below each block.
"""

import argparse
import hashlib
import os
import re
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
SOURCE = DOCS / "tutorial.md"
NOTEBOOK = DOCS / "tutorial.ipynb"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
COLOUR = re.compile(r"\x1b\[[\d;]*m")
FIRST_LINES = {"python": "", "": "%%sh\n"}  # of a cell, by the language of the blocks that run
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def notebook_of(markdown: str) -> Any:
    """Return a notebook that has not been executed."""
    from nbformat import v4

    cells = []
    end = 0
    for block in BLOCK.finditer(markdown):
        language, code = block.groups()
        if language in FIRST_LINES:
            cells.append(v4.new_markdown_cell(markdown[end : block.start()].strip()))
            cells.append(v4.new_code_cell(FIRST_LINES[language] + code.rstrip("\n")))
            end = block.end()
    cells.append(v4.new_markdown_cell(markdown[end:].strip()))
    for i, cell in enumerate(cells):
        cell.id = hashlib.sha256(f"{i} {cell.source}".encode()).hexdigest()[:8]
    metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    return v4.new_notebook(cells=cells, metadata=metadata)


def execute(notebook: Any, timeout: float = 900) -> None:
    """Execute a notebook in an empty folder, with the Python that runs this script.

    A TimeoutError is raised after so many seconds. The outputs have no colours and do not name the
    folders of this machine.
    """
    from nbclient import NotebookClient

    import lightning_rnn

    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path}
    end = time.monotonic() + timeout
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        client = NotebookClient(
            notebook,
            timeout_func=lambda cell: max(1.0, end - time.monotonic()),
            resources=resources,
            coalesce_streams=True,
            extra_arguments=["--IPKernelApp.log_level=ERROR"],
        )
        client.execute(env=environment)
    package = Path(lightning_rnn.__file__).parents[1]
    for cell in notebook.cells:
        cell.metadata.clear()  # the times of execution
        for output in cell.get("outputs", []):
            if "text" in output:
                text = COLOUR.sub("", output.text)
                output.text = text.replace(f"{folder}/", "").replace(f"{package}/", "")


def replace_blocks(markdown: str, replacement: Callable[[str], str]) -> str:
    """Return the tutorial with each block that runs replaced by a function of its text."""
    return BLOCK.sub(
        lambda block: replacement(block[0]) if block[1] in FIRST_LINES else block[0], markdown
    )


def outputs_of(notebook: Any) -> list[list[Any]]:
    """Return the outputs of each code cell."""
    return [cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code"]


def keep_outputs(notebook: Any) -> None:
    """Take the outputs of the notebook that exists, which has the same code."""
    import nbformat

    stored = nbformat.read(NOTEBOOK, as_version=4)
    for cell, old in zip(notebook.cells, stored.cells, strict=True):
        if cell.cell_type == "code":
            assert cell.source == old.source, "the code has changed: run it"
            cell.outputs = old.outputs
            cell.execution_count = old.execution_count


def main() -> None:
    """Write the notebook."""
    import nbformat

    parser = argparse.ArgumentParser(description="Write docs/tutorial.ipynb.")
    parser.add_argument("--text", action="store_true", help="only the text has changed")
    notebook = notebook_of(SOURCE.read_text(encoding="utf-8"))
    if parser.parse_args().text:
        keep_outputs(notebook)
    else:
        start = time.perf_counter()
        execute(notebook)
        print(f"executed in {time.perf_counter() - start:.0f} s")
    nbformat.write(notebook, NOTEBOOK)
    print(f"written to {NOTEBOOK}")


if __name__ == "__main__":
    main()
