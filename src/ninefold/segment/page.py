"""One HTML file with pictures to compare: a slider over each pair, tables beside, nothing loaded from elsewhere."""

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ninefold.errors import ShapeError

__all__ = ["Pair", "page"]

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1c2733; background: #fafafa; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2.5rem; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .25rem .8rem; text-align: right; border-bottom: 1px solid #d8dee4; }
th:first-child, td:first-child { text-align: left; } th { font-weight: 600; }
figure { margin: 1rem 0; } figcaption { color: #57606a; font-size: .9rem; }
.pair { position: relative; display: inline-block; line-height: 0; max-width: 100%; }
.pair img { display: block; max-width: 100%; image-rendering: pixelated; }
.pair .after { position: absolute; inset: 0; clip-path: inset(0 0 0 var(--at, 50%)); }
.pair .line { position: absolute; top: 0; bottom: 0; left: var(--at, 50%); }
.pair .line { width: 2px; background: #fff; box-shadow: 0 0 3px #000; }
.pair .name { position: absolute; bottom: .4rem; font-size: .8rem; line-height: 1.4; }
.pair .name { background: #000a; color: #fff; padding: 0 .4rem; }
.pair .left { left: .4rem; } .pair .right { right: .4rem; }
.pair input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0; cursor: ew-resize; }
.pair input:focus-visible { opacity: .25; }
"""
_SCRIPT = """
for (const slider of document.querySelectorAll('.pair input')) {
  slider.addEventListener('input', () => slider.parentElement.style.setProperty('--at', slider.value + '%'));
}
// page.html#0=20,2=80 opens with the sliders there
for (const part of location.hash.slice(1).split(',').filter(Boolean)) {
  const [number, value] = part.split('=');
  const slider = document.querySelectorAll('.pair input')[number];
  if (slider) { slider.value = value; slider.dispatchEvent(new Event('input')); }
}
"""


@dataclass(frozen=True)
class Pair:
    """Two pictures of one size, the second uncovered from the slider on.

    Parameters
    ----------
    title : str
    before, after : ndarray of uint8, shape (height, width, 3)
    names : pair of str
        Of the two.
    caption : str

    Raises
    ------
    ShapeError
        If they differ in size.

    Examples
    --------
    >>> Pair("a", np.zeros((2, 3, 3), np.uint8), np.ones((2, 3, 3), np.uint8), ("image", "labels")).caption
    ''
    """

    title: str
    before: NDArray[np.uint8]
    after: NDArray[np.uint8]
    names: tuple[str, str]
    caption: str = ""

    def __post_init__(self) -> None:
        """Refuse pictures that cannot lie over each other."""
        if self.before.shape != self.after.shape:
            raise ShapeError(f"pictures of {self.before.shape} and {self.after.shape} cannot lie over each other")


def page(title: str, parts: Sequence[str | Pair | tuple[Sequence[str], Sequence[Sequence[Any]]]]) -> str:
    """Return an HTML page.

    Parameters
    ----------
    title : str
    parts : sequence
        Paragraphs (str), pairs of pictures, and tables (names of columns, rows).

    Examples
    --------
    >>> "<td>0.9</td>" in page("Scores", ["How it went.", (["step", "IoU"], [["network", 0.9]])])
    True
    """
    body = "\n".join(_part(part) for part in parts)
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{html.escape(title)}</title>\n'
        f"<style>{_STYLE}</style>\n<h1>{html.escape(title)}</h1>\n{body}\n<script>{_SCRIPT}</script>\n</html>\n"
    )


def _part(part: str | Pair | tuple[Sequence[str], Sequence[Sequence[Any]]]) -> str:
    if isinstance(part, str):
        return f"<p>{html.escape(part)}</p>"
    if isinstance(part, Pair):
        return _pair(part)
    names, rows = part
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    lines = ("".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) for row in rows)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _pair(pair: Pair) -> str:
    first, second = (html.escape(name) for name in pair.names)
    title, scale = html.escape(pair.title), max(1, 480 // pair.before.shape[1])
    width = pair.before.shape[1] * scale
    return (
        f'<h2>{title}</h2><figure><div class="pair">'
        f'<img src="{_data(pair.before)}" alt="{title}: {first}" width="{width}">'
        f'<img class="after" src="{_data(pair.after)}" alt="{title}: {second}" width="{width}">'
        f'<span class="line"></span><span class="name left">{first}</span><span class="name right">{second}</span>'
        f'<input type="range" min="0" max="100" value="50" aria-label="{title}: {first} left, {second} right">'
        f"</div><figcaption>{html.escape(pair.caption)}</figcaption></figure>"
    )


def _data(picture: NDArray[np.uint8]) -> str:
    content = io.BytesIO()
    Image.fromarray(picture).save(content, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
