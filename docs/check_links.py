"""Follow every link of a built site: python docs/check_links.py site.

Exits with 1 if a link inside the site is dead, if a page cannot be reached from the home page, or
if a page loads anything from another site.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlparse

LOADED = {"script": "src", "img": "src", "link": "href", "source": "src", "iframe": "src"}
NOT_REACHED = {"404.html"}


class Page(HTMLParser):
    """Links and anchors of a page.

    Attributes:
        links: Targets of links and of what the page loads.
        loaded: Targets of what the page loads.
        anchors: Names to which a link can lead.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors = {""}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect links and anchors."""
        values = {name: value or "" for name, value in attrs}
        for name in ("id", "name"):
            if name in values:
                self.anchors.add(values[name])
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if LOADED.get(tag) in values and values.get("rel") != "canonical":
            self.loaded.append(values[LOADED[tag]])


def find_faults(site: Path) -> list[str]:
    """Return a line for each dead link, foreign resource and lost page."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    faults = []
    reached = {site / "index.html"}
    waiting = [site / "index.html", *(site / name for name in NOT_REACHED)]
    while waiting:
        path = waiting.pop()
        page = pages[path]
        name = path.relative_to(site)
        for target in page.loaded:
            if urlparse(target).netloc:
                faults.append(f"{name} loads {target}")
        for target in [*page.links, *page.loaded]:
            other, anchor = resolve(site, path, target)
            if other is None:
                continue
            if not other.is_file():
                faults.append(f"{name}: dead link {target}")
            elif other in pages and unquote(anchor) not in pages[other].anchors:
                faults.append(f"{name}: no such place {target}")
            elif other in pages and other not in reached:
                reached.add(other)
                waiting.append(other)
    lost = {path.relative_to(site) for path in pages.keys() - reached}
    faults += [f"no link leads to {name}" for name in lost if str(name) not in NOT_REACHED]
    return sorted(set(faults))


def resolve(site: Path, page: Path, target: str) -> tuple[Path | None, str]:
    """Return the file and the anchor of a link; no file if it leads to another site."""
    if urlparse(target).scheme or urlparse(target).netloc:
        return None, ""
    base = "/" + page.relative_to(site).as_posix()
    address, anchor = urldefrag(urljoin(base, target))
    path = site / unquote(urlparse(address).path).lstrip("/")
    if path.is_dir():
        path /= "index.html"
    return path, anchor


def main() -> int:
    """Print what is wrong."""
    site = Path(sys.argv[1])
    faults = find_faults(site)
    for fault in faults:
        print(fault)
    number = len(list(site.rglob("*.html")))
    print(f"{number} pages, {len(faults)} faults in their links")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
