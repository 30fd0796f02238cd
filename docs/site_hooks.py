"""What mkdocs needs besides the pages in this folder.

- The home page is the README; CONTRIBUTING.md, CHANGELOG.md and SECURITY.md are pages, too.
- Other files of the repository that a page links to are part of the site as text.
- The options are read from the parsers of the program.
- The tutorial shows the outputs of its notebook.
"""

import base64
import html
import json
import os.path
import re
from pathlib import Path
from typing import Any

import option_pages
import tutorial_notebook
from mkdocs.structure.files import File, Files

DOCS = Path(__file__).parent
ROOT = DOCS.parent
PAGES = {  # files of the repository that are pages, and their names in the site
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
}
LINK = re.compile(r"(\]\()([^)#:\s]+)((?:#[^)\s]*)?\))")
OUTPUT_IMAGE = "tutorial_{}.png"


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages and files."""
    texts = option_pages.option_pages()
    for source, name in PAGES.items():
        texts[name] = (ROOT / source).read_text(encoding="utf-8")
    for name, text in texts.items():
        files.append(File.generated(config, name, content=text))
    for page in files.documentation_pages():
        for path in linked_files(page.content_string):
            if files.get_file_from_path(site_name_of(path)) is None:
                source = str(ROOT / path)
                files.append(File.generated(config, site_name_of(path), abs_src_path=source))
    for name, data in tutorial_images().items():
        files.append(File.generated(config, name, content=data))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrite links, and add the outputs of the notebook to the tutorial."""
    if page.file.src_uri == "tutorial.md":
        markdown = with_outputs(markdown)
    return LINK.sub(lambda link: link[1] + site_target(link[2]) + link[3], markdown)


def repository_path(target: str) -> str:
    """Return the path of a link in the repository: the pages are in docs/ or in the root."""
    for folder in (DOCS, ROOT):
        path = os.path.normpath(folder / target)
        if os.path.exists(path):
            return os.path.relpath(path, ROOT)
    return target  # a page that is generated


def site_target(target: str) -> str:
    """Return the target of a link inside the site, in which all pages are in one folder."""
    path = repository_path(target)
    if path in PAGES:
        return PAGES[path]
    if is_in_docs(path):
        return path.removeprefix("docs/")
    return site_name_of(path) if (ROOT / path).exists() else target


def is_in_docs(path: str) -> bool:
    """Return whether a file is in docs/ and part of the site, as scripts are not."""
    return path.startswith("docs/") and not path.endswith(".py")


def site_name_of(path: str) -> str:
    """Return the name of a file of the repository in the site, which browsers show as text."""
    return f"repository/{path}.txt"


def linked_files(markdown: str) -> list[str]:
    """Return the files of the repository that a page links to and that are no pages."""
    found = [repository_path(link[2]) for link in LINK.finditer(markdown)]
    others = [path for path in found if path not in PAGES and not is_in_docs(path)]
    return [path for path in others if (ROOT / path).is_file()]


def tutorial_outputs() -> list[list[Any]]:
    """Return the outputs of the committed notebook."""
    return tutorial_notebook.outputs_of(
        json.loads(tutorial_notebook.NOTEBOOK.read_text(encoding="utf-8"))
    )


def tutorial_images() -> dict[str, bytes]:
    """Return the images in the outputs by file name."""
    images: dict[str, bytes] = {}
    for outputs in tutorial_outputs():
        for output in outputs:
            image = output.get("data", {}).get("image/png")
            if image is not None:
                images[OUTPUT_IMAGE.format(len(images) + 1)] = base64.b64decode(image)
    return images


def with_outputs(markdown: str) -> str:
    """Add to each code block what the notebook has printed and drawn."""
    cells = iter(tutorial_outputs())
    names = iter(tutorial_images())
    return tutorial_notebook.replace_blocks(
        markdown, lambda block: block + outputs_markdown(next(cells), names)
    )


def outputs_markdown(outputs: list[Any], image_names: Any) -> str:
    """Return the outputs of one cell."""
    parts = []
    for output in outputs:
        data = output.get("data", {})
        if "image/png" in data:
            parts.append(f"![output]({next(image_names)})")
        else:
            text = "".join(output.get("text", data.get("text/plain", "")))
            parts.append(f'<pre class="output">{html.escape(text.rstrip())}</pre>')
    return "".join(f"\n{part}\n" for part in parts)
