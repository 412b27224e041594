"""Every entry gives a number, names what exists, and says the same as its page."""

import re
from importlib import import_module
from pathlib import Path

import pytest
import torch

from ninefold import chapter
from ninefold.chapter import efficient
from ninefold.chapter.record import load
from ninefold.errors import ArgumentError

CONTENTS = (Path(__file__).parents[2] / "docs" / "chapter" / "README.md").read_text("utf-8")
VERDICTS = {cells[1]: cells[-2] for line in CONTENTS.splitlines() if len(cells := re.split(r" ?(?<!\\)\| ?", line)) == 6}
QUICK = [entry for entry in chapter.ENTRIES if not entry.long]


SECONDS = efficient._seconds


@pytest.fixture(autouse=True)
def _times(monkeypatch):
    """Whoever comes first is eight times as slow as the others, whatever this machine does; they run all the same."""
    monkeypatch.setattr(efficient, "_seconds", lambda *runs: [1.0 if k else 8.0 for k, run in enumerate(runs) if run().numel()])


def test_an_entry_times_in_turns_and_takes_the_shortest(monkeypatch, clock):
    monkeypatch.setattr(efficient, "perf_counter", clock)
    clock.tick, order = 0.0, []
    slow = lambda: clock.sleep(3.0 + len(order) % 7) or order.append("slow")
    fast = lambda: clock.sleep(1.0) or order.append("fast")
    assert SECONDS(slow, fast) == [3.0, 1.0]
    assert order == ["slow", "fast"] * 24


def test_keys_are_unique_and_lead_to_their_entries():
    assert len({entry.key for entry in chapter.ENTRIES}) == len(chapter.ENTRIES)
    assert all(chapter.find(entry.key) is entry for entry in chapter.ENTRIES)


def test_an_unknown_key_is_told_near_ones():
    with pytest.raises(ArgumentError, match=r"no entry '9\.17'.*near are"):
        chapter.find("9.17")


@pytest.mark.parametrize("entry", chapter.ENTRIES, ids=lambda entry: entry.key)
def test_an_entry_is_whole(entry):
    assert entry.title
    assert any("\u4e00" <= c <= "\u9fff" for c in entry.term) or entry.term.isascii()
    assert entry.claim.endswith((".", "!")) or entry.claim[-1].isalnum()
    assert entry.uses
    assert entry.source
    assert any(f"return {found}" in entry.code for found in ("Finding(", "agree(", "moves_along("))
    for name in entry.uses:
        module, _, attribute = name.rpartition(".")
        try:
            import_module(name)
        except ImportError:
            try:
                assert hasattr(import_module(module), attribute), name
            except ImportError:
                outer, _, owner = module.rpartition(".")
                assert hasattr(getattr(import_module(outer), owner), attribute), name


@pytest.mark.parametrize("entry", QUICK, ids=lambda entry: entry.key)
def test_a_quick_entry_gives_numbers_and_its_page_says_the_same(entry):
    finding = entry.run()
    assert VERDICTS[entry.key] == entry.verdict(finding)
    assert finding.numbers
    assert any(c.isdigit() for c in finding.measured)
    assert len(finding.measured) <= 130
    assert entry.verdict(finding) in chapter.VERDICTS


@pytest.mark.parametrize("key", ["9.6 scales", "9.7 fixed output"])
def test_an_entry_that_draws_leaves_the_random_state(key):
    before = torch.get_rng_state()
    chapter.find(key).run()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_long_entry_is_recorded_and_its_page_says_the_same():
    records = load()
    long = [entry for entry in chapter.ENTRIES if entry.long]
    assert len(long) > 8
    for entry in long:
        assert VERDICTS[entry.key] == entry.verdict(records[entry.key].finding)
    assert records.keys() == {entry.key for entry in long}
    assert sum(record.seconds for record in records.values()) < 3600


def test_contents_have_every_entry_in_order():
    assert [key for key in VERDICTS if key not in ("entry", "---")] == [entry.key for entry in chapter.ENTRIES]


def test_a_finding_without_a_number_is_none():
    with pytest.raises(ArgumentError, match="names no number"):
        chapter.Finding("all equal", holds=True, numbers={"equal": 3})
    with pytest.raises(ArgumentError, match="names no number"):
        chapter.Finding("3 equal", holds=True, numbers={})


@pytest.mark.parametrize(("holds", "correction", "verdict"), [(True, "", 0), (True, "so", 1), (False, "so", 2), (False, "", 2)])
def test_verdicts_follow_from_what_was_found(holds, correction, verdict):
    made = chapter.entry("0", "t", "t", claim="c", source="s", uses=("u",), correction=correction)(lambda: None)
    assert made.verdict(chapter.Finding("1", holds, {"n": 1})) == chapter.VERDICTS[verdict]
