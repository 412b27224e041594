"""The page of the demo, in a browser where there is one."""

import html.parser
import re
import shutil
import subprocess

import numpy as np
import pytest

from ninefold.errors import ShapeError
from ninefold.segment.page import Pair, page


def pair(title="Coins <1>", seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (2, 6, 9, 3)).astype(np.uint8)
    return Pair(title, values[0], values[1], ("image", "labels & more"), "What is seen.")


class Tags(html.parser.HTMLParser):
    VOID = frozenset({"meta", "img", "input"})

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_it_is_whole_and_loads_nothing():
    text = page("A title", ["Words < more", pair(), (["step", "IoU"], [["network", 0.5]])])
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    sources = [attrs["src"] for tag, attrs in tags.seen if tag == "img"]
    assert len(sources) == 2
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert not re.search(r"(src|href)=\"(?!data:)|url\(|@import|https?:", text)
    assert all(attrs.get("alt") for tag, attrs in tags.seen if tag == "img")
    assert "Coins &lt;1&gt;" in text
    assert "<td>0.5</td>" in text


def test_pictures_of_different_sizes_are_refused():
    with pytest.raises(ShapeError, match=r"\(2, 3, 3\) and \(3, 2, 3\)"):
        Pair("a", np.zeros((2, 3, 3), np.uint8), np.zeros((3, 2, 3), np.uint8), ("a", "b"))


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_sliders_move_in_a_browser(tmp_path):
    path = tmp_path / "page.html"
    path.write_text(page("A title", [pair(), pair("Cells", 1)]), encoding="utf-8")
    words = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    found = subprocess.run([*words, f"{path.as_uri()}#1=20"], capture_output=True, text=True, check=True).stdout
    places = re.findall(r'<div class="pair"( style="([^"]*)")?>', found)
    assert [style.strip(" ;") for _, style in places] == ["", "--at: 20%"]
