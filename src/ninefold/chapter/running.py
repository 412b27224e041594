"""Running the chapter: quick entries now, long ones as recorded, or all of them."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ninefold.chapter import SECTIONS, find
from ninefold.chapter.entry import Entry
from ninefold.chapter.record import RECORDED, Record, keep, load
from ninefold.chapter.show import Result, write_pages
from ninefold.errors import ArgumentError

__all__ = ["run"]


def run(
    key: str | None = None,
    *,
    full: bool = False,
    record: bool = False,
    write: Path | None = None,
    tell: Callable[[str], Any] = str,
    path: Path = RECORDED,
) -> tuple[list[Result], list[Result]]:
    """Run one entry, or all; return the results, and those that were recorded before.

    Parameters
    ----------
    key : str, optional
        All entries by default.
    full : bool
        Run the long ones, too.
    record : bool
        Keep what the long ones gave, each as soon as it is done.
    write : Path, optional
        A folder for the pages of the documentation, which hold all entries.
    tell : callable
        Told what runs.
    path : Path
        Where the records are.

    Raises
    ------
    ArgumentError
        If there is no such entry, if one of many is to be written, if nothing can be written there, or if
        nothing is recorded of a long one that is not to run.

    Examples
    --------
    >>> (result,), _ = run("9.16")
    >>> result.verdict
    'confirmed'
    """
    if key is not None and write is not None:
        raise ArgumentError(f"--write writes all entries, not {key!r} alone; leave out one of the two")
    if record and not full:
        raise ArgumentError("--record keeps what long experiments give, 0 of which run without --full; add it")
    for folder in (path.parent if record else None, write):
        if folder is not None:
            _check_writable(folder)
    chosen = {"": (find(key),)} if key is not None else SECTIONS
    known = load(path)
    before = [_recorded(entry, known[entry.key]) for entries in chosen.values() for entry in entries if entry.key in known]
    sections = {
        heading: [_result(e, known, full, path if record else None, tell) for e in entries] for heading, entries in chosen.items()
    }
    if write is not None:
        write_pages(sections, write, _draw)
    return [result for results in sections.values() for result in results], before


def _check_writable(folder: Path) -> None:
    """Make a folder and a file in it, which goes at once: an hour of experiments later is too late to find out."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ArgumentError(f"cannot write to {folder}: {error.strerror}; give a folder that can be written") from error


def _recorded(entry: Entry, record: Record) -> Result:
    return Result(entry, record.finding, f"{record.date}, {record.machine}, {record.seconds:.0f} s")


def _result(entry: Entry, known: dict[str, Record], full: bool, path: Path | None, tell: Callable[[str], Any]) -> Result:
    if entry.long and not full:
        if entry.key not in known:
            raise ArgumentError(f"nothing is recorded of {entry.key!r}: run `ninefold chapter {entry.key!r} --full --record`")
        return _recorded(entry, known[entry.key])
    tell(f"{entry.key} {entry.title}")
    made = Record.of(entry)
    if entry.long and path is not None:
        keep(entry.key, made, path)
    return Result(entry, made.finding)


def _draw(entry: Entry, file: Path) -> None:
    """Write an entry's picture, small enough for a page."""
    if entry.picture is not None:
        figure = entry.picture()
        figure.savefig(file, dpi=100, bbox_inches="tight", metadata={"Software": None})
        figure.clear()
