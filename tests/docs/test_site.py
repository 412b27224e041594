"""The site: every public name is on a page of the reference, and what builds and checks it does so."""

import importlib
import importlib.util
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
ROOMS = (
    *("ninefold", "ninefold.nn", "ninefold.functional", "ninefold.spec", "ninefold.models", "ninefold.network", "ninefold.learn"),
    *("ninefold.data", "ninefold.structured", "ninefold.segment", "ninefold.symmetry", "ninefold.drawing"),
    *("ninefold.pooling_theory", "ninefold.reference", "ninefold.testing", "ninefold.errors"),
    *("ninefold.compat.pydensecrf.densecrf", "ninefold.compat.pydensecrf.utils"),
)


def part(name):
    spec = importlib.util.spec_from_file_location(f"site_{name.replace('/', '_')}", DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def listed():
    """Names by module, as the pages of the reference list them; those in blocks that only link elsewhere, too."""
    found = {}
    for page in (DOCS / "api").glob("*.md"):
        for module, home, names in re.findall(
            r"^```\{api-names\} (\S+)\n(?::same-as: (\S+)\n)?(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL
        ):
            found.setdefault(module, []).extend((name, home) for name in names.split())
    return found


def test_every_public_name_is_on_a_page_of_the_reference_once():
    found = listed()
    assert set(found) == set(ROOMS)
    for room in ROOMS:
        names = [name for name, _ in found[room]]
        public = importlib.import_module(room).__all__
        assert sorted(names) == sorted(public), (
            f"docs/api: {room} lacks {sorted(set(public) - set(names))}, and has {sorted(set(names) - set(public))} or one twice"
        )


def test_what_is_described_elsewhere_is_the_same_there():
    linked = [(room, name, home) for room, names in listed().items() for name, home in names if home]
    assert len(linked) > 10
    for room, name, home in linked:
        assert getattr(importlib.import_module(room), name) is getattr(importlib.import_module(home), name)
        assert name in importlib.import_module(home).__all__


def test_shapes_and_formulas_of_docstrings_are_no_markup():
    readable = part("_ext/docstrings").readable
    said = ["Of ``(*n,)``, (N, *n):", "", "    |x| * 2", "", "That *n.", "", "Examples", "--------", ">>> f(*n)"]
    assert readable(said) == ["Of ``(*n,)``, (N, \\*n):", "", "::", "", "    |x| * 2", "", "That \\*n.", *said[5:]]
    assert readable(["As follows::", "", "    *n"]) == ["As follows::", "", "    *n"]


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    links = part("_site/links")
    (tmp_path / "a").mkdir()
    (tmp_path / "index.html").write_text(
        '<p id="here"><a href="a/b.html#there">x</a><a href="#here">y</a><a href="http://e.org">z</a>'
    )
    (tmp_path / "a" / "b.html").write_text('<p id="there"><img src="../p.png"><a href="../index.html#gone">x</a>')
    wrong, inside, outside = links.dead(tmp_path)
    assert (inside, outside) == (4, 1)
    assert wrong == ["a/b.html: ../p.png is not there", "a/b.html: ../index.html#gone has no such anchor"]


def test_without_a_browser_the_visit_says_so(tmp_path, monkeypatch, capsys):
    pytest.importorskip("tornado")
    visit = part("_site/visit")
    monkeypatch.delenv("NINEFOLD_CHROMIUM", raising=False)
    monkeypatch.setattr(visit, "NAMES", ("no-such-browser",))
    monkeypatch.setattr("sys.argv", ["visit.py", str(tmp_path)])
    assert visit.main() == 0
    assert capsys.readouterr().out.startswith("SKIPPED: pages were not visited, as none of no-such-browser is installed")
