"""Check every link within the built site: ``python docs/_site/links.py build/docs/html``.

A link of a page, an image, a style or a script must be a file of the site, and what follows ``#`` an id of that page. Links that
leave the site are counted, not followed: no network is needed to build it.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

TARGETS = {"href", "src", "data"}


class Page(HTMLParser):
    """What a page links to, and the ids that others may link to."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep ids and targets."""
        for name, value in attrs:
            if name == "id" and value:
                self.ids.add(value)
            elif name in TARGETS and value and tag != "meta":
                self.links.append(value)


def read(file: Path) -> Page:
    """Return the links and ids of a file."""
    page = Page()
    page.feed(file.read_text("utf-8"))
    return page


def dead(site: Path) -> tuple[list[str], int, int]:
    """Return the links that lead nowhere, the number of links within the site, and of those that leave it.

    Parameters
    ----------
    site : Path
        The folder of the built pages.
    """
    pages = {file.resolve(): read(file) for file in sorted(site.rglob("*.html"))}
    wrong, inside, outside = [], 0, 0
    for file, page in pages.items():
        for link in page.links:
            address, anchor = urldefrag(link)
            if urlsplit(link).scheme or link.startswith("//"):
                outside += 1
                continue
            inside += 1
            target = (file.parent / unquote(urlsplit(address).path)).resolve() if address else file
            where = f"{file.relative_to(site.resolve())}: {link}"
            if not target.is_file():
                wrong.append(f"{where} is not there")
            elif anchor and target in pages and unquote(anchor) not in pages[target].ids:
                wrong.append(f"{where} has no such anchor")
    return wrong, inside, outside


def main() -> int:
    """Print what was found, and return 1 if a link leads nowhere."""
    wrong, inside, outside = dead(Path(sys.argv[1]))
    print("\n".join(wrong))
    print(f"{inside} links within the site, {len(wrong)} dead; {outside} leave it and were not followed")
    return 1 if wrong or not inside else 0


if __name__ == "__main__":
    sys.exit(main())
