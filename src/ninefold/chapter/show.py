"""What entries look like: a table of all, a sheet of one, and the pages of the documentation made of the sheets."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from ninefold.chapter.entry import Entry, Finding

__all__ = ["Result", "changed", "sheet", "table", "write_pages"]


@dataclass(frozen=True)
class Result:
    """An entry and what it gave, now or, if `recorded` says when and where, then.

    Examples
    --------
    >>> from ninefold.chapter import ENTRIES
    >>> Result(ENTRIES[0], Finding("3 of 3", holds=True, numbers={"equal": 3})).verdict
    'confirmed'
    """

    entry: Entry
    finding: Finding
    recorded: str = ""

    @property
    def verdict(self) -> str:
        """One of `VERDICTS`."""
        return self.entry.verdict(self.finding)


def table(results: Iterable[Result]) -> Table:
    """Return all results as a table: entry, claim, measured, verdict.

    Examples
    --------
    >>> from ninefold.chapter import ENTRIES
    >>> table([Result(ENTRIES[0], ENTRIES[0].run())]).row_count
    1
    """
    colours = {"confirmed": "green", "confirmed with a correction": "yellow", "refuted": "red"}
    shown = Table(pad_edge=False)
    for name, wide in (("entry", 2), ("claim", 5), ("measured", 5), ("verdict", 2)):
        shown.add_column(name, ratio=wide)
    for result in results:
        entry, verdict = result.entry, result.verdict
        measured = result.finding.measured + (f" [dim](recorded: {result.recorded})[/dim]" if result.recorded else "")
        shown.add_row(entry.key, f"{entry.title} [dim]{entry.term}[/dim]", measured, f"[{colours[verdict]}]{verdict}[/]")
    return shown


def sheet(result: Result, picture: str = "") -> str:
    """Return one entry in full, as Markdown.

    Examples
    --------
    >>> from ninefold.chapter import ENTRIES
    >>> print(sheet(Result(ENTRIES[0], ENTRIES[0].run())).splitlines()[0])
    ## 9.4: Convolution turns the kernel over (卷积: 翻转, 平移, 相乘, 求和)
    """
    entry = result.entry
    when = f" Recorded: {result.recorded}." if result.recorded else ""
    parts = [
        f"## {entry.key}: {entry.title} ({entry.term})",
        f"**Claim** ({entry.source}). {entry.claim}",
        f"**Correction.** {entry.correction}" if entry.correction else "",
        f"![{entry.title}]({picture})" if picture else "",
        f"```python\n{entry.code}\n```",
        f"**Measured.** {result.finding.measured}.{when}",
        f"**Verdict: {result.verdict}.** Uses " + ", ".join(f"`{name}`" for name in entry.uses) + ".",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def write_pages(sections: Mapping[str, Sequence[Result]], folder: Path, draw: Callable[[Entry, Path], Any]) -> list[Path]:
    """Write a page per section with the sheets of its entries, and a page of contents; return the files.

    Parameters
    ----------
    sections : mapping of str to sequence of Result
    folder : Path
        Made if need be; files of the same names are replaced.
    draw : callable
        Writes the picture of an entry to a file.

    Examples
    --------
    >>> import tempfile
    >>> from ninefold.chapter import ENTRIES
    >>> results = {"1. Convolution": [Result(ENTRIES[0], ENTRIES[0].run())]}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pages = write_pages(results, Path(folder), draw=lambda entry, file: None)
    >>> [page.name for page in pages]
    ['1-convolution.md', 'README.md']
    """
    folder.mkdir(parents=True, exist_ok=True)
    how = (
        "Written by `ninefold chapter --write docs/chapter`; `ninefold chapter KEY` runs an entry again. In the code, `F` is "
        "`ninefold.functional`, `nn` is `ninefold.nn`, and `integers(...)` draws small whole numbers."
    )
    contents, files = ["# The chapter, alive", "", how], []
    for heading, results in sections.items():
        file = folder / f"{_slug(heading)}.md"
        sheets = [sheet(result, _drawn(result.entry, folder, draw)) for result in results]
        file.write_text("\n".join([f"# {heading}\n", *sheets]), encoding="utf-8")
        files.append(file)
        contents += ["", f"## [{heading}]({file.name})", "", "| entry | claim | measured | verdict |", "|---|---|---|---|"]
        for r in results:
            measured = r.finding.measured.replace("|", "\\|")
            contents.append(f"| {r.entry.key} | {r.entry.title} ({r.entry.term}) | {measured} | {r.verdict} |")
    file = folder / "README.md"
    file.write_text("\n".join(contents) + "\n", encoding="utf-8")
    return [*files, file]


def _slug(text: str) -> str:
    return re.sub("[^a-z0-9]+", "-", text.lower()).strip("-")


def _drawn(entry: Entry, folder: Path, draw: Callable[[Entry, Path], Any]) -> str:
    """Draw the entry's picture, if it has one; return its path from the folder."""
    if entry.picture is None:
        return ""
    (folder / "pictures").mkdir(exist_ok=True)
    name = f"pictures/{_slug(entry.key)}.png"
    draw(entry, folder / name)
    return name


def changed(before: Sequence[Result], after: Sequence[Result]) -> list[str]:
    """Return a sentence per entry whose verdict is no longer what was recorded.

    Examples
    --------
    >>> from ninefold.chapter import ENTRIES
    >>> then = Result(ENTRIES[0], Finding("2 of 3", holds=False, numbers={"equal": 2}), "on paper")
    >>> changed([then], [Result(ENTRIES[0], ENTRIES[0].run())])
    ['9.4: refuted when recorded (on paper), now confirmed: 64 of 64 sums equal']
    """
    known = {result.entry.key: result for result in before}
    return [
        f"{new.entry.key}: {old.verdict} when recorded ({old.recorded}), now {new.verdict}: {new.finding.measured}"
        for new in after
        if (old := known.get(new.entry.key)) is not None and old.verdict != new.verdict
    ]
