"""Run every block of the pages in `families` and `tutorials`, and write the pictures they show: ``python docs/pictures.py``.

Names of pages after that choose some of them.

A block of ``python`` is run; a block of ``pycon`` is a dialogue, whose results are checked. Blocks of a page share their names.
An image that follows a block is the `figure` that it made.
"""

import doctest
import re
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image

HERE = Path(__file__).parent
PAGES = sorted((HERE / "families").glob("*.md"))
TUTORIALS = sorted((HERE / "tutorials").glob("*.md"))

_BLOCK = re.compile(r"^```(python|pycon)\n(.*?)^```\n(?:\s*!\[[^\]]*\]\(([^)]+)\))?", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> Iterator[tuple[str, str, str | None]]:
    """Yield kind and code of each block of a page, and the path of the image that follows it, if one does."""
    for match in _BLOCK.finditer(page.read_text()):
        yield match[1], match[2], match[3]


def run(page: Path) -> dict[str, Any]:
    """Run a page, and return its pictures by the path at which it shows them."""
    names: dict[str, Any] = {}
    figures: dict[str, Any] = {}
    torch.manual_seed(0)
    for kind, code, image in blocks(page):
        if kind == "python":
            exec(compile(code, str(page), "exec"), names)  # noqa: S102  pages are code
        else:
            _check(page, code, names)
        if image is not None:
            figures[image] = names["figure"]
    return figures


def _check(page: Path, code: str, names: dict[str, Any]) -> None:
    test = doctest.DocTestParser().get_doctest(code, names, page.name, str(page), 0)
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    runner.run(test, clear_globs=False)
    names.update(test.globs)
    if runner.failures:
        raise AssertionError(f"{page.name}: {runner.failures} of {runner.tries} lines give something else than the page says")


def main(wanted: list[str]) -> None:
    """Write the pictures of the pages wanted, or of all."""
    for page in (*PAGES, *TUTORIALS):
        if wanted and page.stem not in wanted:
            continue
        for image, figure in run(page).items():
            path = (page.parent / image).resolve()
            path.parent.mkdir(exist_ok=True)
            drawn = BytesIO()
            figure.savefig(drawn, dpi=120)
            Image.open(drawn).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)
            print(f"{path.relative_to(HERE)}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
