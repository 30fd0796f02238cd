"""Write docs/tutorial.ipynb: the cells of docs/tutorial.md, executed.

    python docs/notebook.py

Takes about a minute of CPU time. Python blocks become code cells, and blocks of commands cells with
`%%sh`. The site shows the outputs of the notebook below each block.
"""

import hashlib
import os
import re
import sys
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


def execute(notebook: Any) -> None:
    """Execute a notebook in an empty folder, with the Python that runs this script.

    The outputs have no colours and do not name the folders of this machine.
    """
    import lightning_rnn
    from nbclient import NotebookClient

    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path}
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        client = NotebookClient(
            notebook,
            timeout=180,
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


def main() -> None:
    """Write the notebook."""
    import nbformat

    notebook = notebook_of(SOURCE.read_text(encoding="utf-8"))
    start = time.perf_counter()
    execute(notebook)
    nbformat.write(notebook, NOTEBOOK)
    print(f"executed in {time.perf_counter() - start:.0f} s, written to {NOTEBOOK}")


if __name__ == "__main__":
    sys.exit(main())
