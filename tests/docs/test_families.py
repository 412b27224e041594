"""The pages of the families: their code runs, their sessions give what they say, and their pictures are there and small."""

import importlib.util
import re
from pathlib import Path

import pytest
from matplotlib.figure import Figure

DOCS = Path(__file__).parent.parent.parent / "docs"


def loaded():
    spec = importlib.util.spec_from_file_location("family_pictures", DOCS / "pictures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pictures = loaded()


@pytest.mark.parametrize("page", pictures.PAGES, ids=lambda p: p.stem)
def test_a_page_runs_and_its_pictures_are_those_it_shows(page):
    figures = pictures.run(page)
    shown = re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", page.read_text())
    assert list(figures) == [path for _, path in shown]
    assert all(isinstance(figure, Figure) for figure in figures.values())
    for text, path in shown:
        assert len(text) > 20, "a picture is described for those who cannot see it"
        assert (page.parent / path).stat().st_size < 60_000


def test_every_picture_is_shown_and_every_link_leads_somewhere():
    text = {page: page.read_text() for page in pictures.PAGES}
    shown = {(page.parent / path).resolve() for page in text for path in re.findall(r"\]\(([^)]+\.png)\)", text[page])}
    assert shown == {p.resolve() for p in (DOCS / "pictures").glob("*.png")}
    for page, content in text.items():
        for link in re.findall(r"\]\(([^):]+\.md)\)", content):
            assert (page.parent / link).exists(), (page.name, link)


def test_a_page_that_says_something_else_fails(tmp_path):
    page = tmp_path / "wrong.md"
    page.write_text("```pycon\n>>> 1 + 1\n3\n```\n")
    with pytest.raises(AssertionError, match="1 of 1 lines give something else"):
        pictures.run(page)
    page.write_text("```python\nfigure = undefined\n```\n")
    with pytest.raises(NameError):
        pictures.run(page)
