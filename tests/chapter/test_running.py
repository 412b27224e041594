"""Running the chapter: what is run, what is taken from the records, what is kept, and what is written."""

import pytest

from ninefold import chapter
from ninefold.chapter import Finding, entry, record, running, show
from ninefold.errors import ArgumentError


def made(key, *, holds=True, long=False):
    @entry(key, f"Title of {key}", "一", claim="It is so.", source="here", uses=("ninefold.ConvSpec",), long=long)
    def one(**how):
        ran.append(key)
        return Finding("1 of 1", holds, {"n": 1})

    return one


ran = []


@pytest.fixture
def two(monkeypatch):
    """A chapter of a quick entry and a long one."""
    ran.clear()
    sections = {"1. First": (made("a"),), "2. Second": (made("b", long=True),)}
    monkeypatch.setattr(running, "SECTIONS", sections)
    return sections


def kept(path, key, *, holds=True):
    record.keep(key, record.Record("2 of 2", holds, {"n": 2}, 60.0, "2020-01-31", "a machine"), path)
    return path


def test_quick_ones_run_and_long_ones_are_shown_as_recorded(two, tmp_path):
    results, before = running.run(path=kept(tmp_path / "r.json", "b"))
    assert ran == ["a"]
    assert [(r.entry.key, r.finding.measured, bool(r.recorded)) for r in results] == [
        ("a", "1 of 1", False),
        ("b", "2 of 2", True),
    ]
    assert "2020-01-31, a machine, 60 s" in before[0].recorded


def test_a_long_one_without_a_record_is_told_how_to_make_one(two, tmp_path):
    with pytest.raises(ArgumentError, match=r"nothing is recorded of 'b': run .*--full --record"):
        running.run(path=tmp_path / "r.json")


@pytest.mark.parametrize("keep", [False, True])
def test_full_runs_all_and_says_what_changed(two, tmp_path, keep):
    path = kept(tmp_path / "r.json", "b", holds=False)
    results, before = running.run(full=True, record=keep, path=path)
    assert ran == ["a", "b"]
    assert show.changed(before, results) == [
        "b: refuted when recorded (2020-01-31, a machine, 60 s), now confirmed: 1 of 1",
    ]
    assert record.load(path)["b"].measured == ("1 of 1" if keep else "2 of 2")


def test_one_entry_runs_alone():
    (result,), _ = running.run("9.16")
    assert result.entry is chapter.find("9.16")


@pytest.mark.parametrize(("how", "said"), [({"key": "9.16", "write": "x"}, "--write writes all"), ({"record": True}, "add it")])
def test_what_makes_no_sense_is_refused(how, said, two):
    with pytest.raises(ArgumentError, match=said):
        running.run(**how)
    assert not ran


def test_pages_have_a_section_each_and_contents(two, tmp_path):
    running.run(write=tmp_path / "pages", path=kept(tmp_path / "r.json", "b"))
    assert {p.name for p in (tmp_path / "pages").iterdir()} == {"1-first.md", "2-second.md", "README.md"}
    contents = (tmp_path / "pages" / "README.md").read_text("utf-8")
    assert "| a | Title of a (一) | 1 of 1 | confirmed |" in contents
    page = (tmp_path / "pages" / "2-second.md").read_text("utf-8")
    assert "Recorded: 2020-01-31, a machine, 60 s." in page
    assert 'return Finding("1 of 1", holds, {"n": 1})' in page
