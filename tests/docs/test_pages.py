"""Tour, tutorials, guides and README: their code runs, their sessions give what they say, and their links lead somewhere."""

import importlib.util
import re
from pathlib import Path

import matplotlib as mpl
import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", DOCS / "tour.md", *sorted(DOCS.glob("tutorials/*.md")), *sorted(DOCS.glob("how-to/*.md"))]
TEXTS = [
    *PAGES,
    *DOCS.glob("*.md"),
    *DOCS.glob("migration/*.md"),
    *DOCS.glob("measurements/*.md"),
    *DOCS.glob("design/*.md"),
    ROOT / "CONTRIBUTING.md",
]


def loaded(name):
    spec = importlib.util.spec_from_file_location(f"pages_{name.replace('/', '_')}", DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SMALLER = {"256": "4", "2048": "96", "1024": "31", "1023": "30", "64": "4", "56, 56": "18, 21"}  # what PyTorch takes long for


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_runs(page, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    if page.name == "README.md":
        text = page.read_text()
        for size, less in SMALLER.items():
            assert size in text
            text = text.replace(size, less)
        page = tmp_path / "README.md"
        page.write_text(text)
    with mpl.rc_context({"backend": "agg"}):
        figures = loaded("pictures").run(page)
    if page.parent.name == "tutorials":  # the README's picture is of other runs
        shown = re.findall(r"!\[([^\]]{20,})\]\(([^)]+)\)", page.read_text())
        assert [path for _, path in shown] == list(figures)
        assert all((page.parent / path).stat().st_size < 60_000 for path in figures)


def test_the_table_of_the_readme_is_that_of_the_file():
    assert loaded("_site/headline").markdown() in (ROOT / "README.md").read_text()
    assert loaded("_site/headline").markdown() in (DOCS / "index.md").read_text()


def test_every_target_that_the_readme_names_is_one():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"^make (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert {"demo", "test", "check", "docs"} <= named <= targets


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_every_link_leads_somewhere(page):
    for link in re.findall(r"\]\(([^):#\s]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / link).exists(), link
