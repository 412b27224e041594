"""Tables as plain text: what reports print, with nothing but Python."""

import textwrap
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

__all__ = ["Printable", "TextTable", "wrapped"]


class Printable(ABC):
    """A report with a text of any width: ``print`` shows it, and so does a console of rich, at its own width.

    Examples
    --------
    >>> class Words(Printable):
    ...     def text(self, width):
    ...         return wrapped("one two three", width)
    >>> print(Words().text(8))
    one two
    three
    >>> print(Words())
    one two three
    """

    @abstractmethod
    def text(self, width: int) -> str:
        """Return the report in lines of at most so many characters, where its columns allow that."""

    def __str__(self) -> str:
        return self.text(150)

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        from rich.text import Text  # noqa: PLC0415  called by rich alone

        yield Text(self.text(options.max_width), no_wrap=True, overflow="ignore")


class TextTable:
    """A table with a title, a head, rows and sections.

    Parameters
    ----------
    title : str

    Examples
    --------
    >>> table = TextTable("two layers")
    >>> table.add_column("layer", fold=True)
    >>> table.add_column("ms", right=True)
    >>> table.add_row("stem", "1.5")
    >>> table.add_section()
    >>> table.add_row("all of them", "12")
    >>> print(table.text(16))
    two layers
    layer      │  ms
    ───────────┼────
    stem       │ 1.5
    ───────────┼────
    all of     │  12
    them       │
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self._columns: list[tuple[str, bool, bool]] = []
        self._rows: list[tuple[str, ...] | None] = []

    def add_column(self, head: str, *, right: bool = False, fold: bool = False) -> None:
        """Add a column: its cells to the left or the right, and whether they may be folded into several lines."""
        self._columns.append((head, right, fold))

    def add_row(self, *cells: str) -> None:
        """Add a row, with a cell for each column."""
        if len(cells) != len(self._columns):
            raise ValueError(f"{len(cells)} cells for {len(self._columns)} columns")
        self._rows.append(cells)

    def add_section(self) -> None:
        """Draw a line below the rows so far."""
        self._rows.append(None)

    def text(self, width: int) -> str:
        """Return the table, folded to `width` characters if the columns that may be folded can give so many."""
        widths = self._widths(width)
        rule = "─┼─".join("─" * n for n in widths)
        heads = tuple(head for head, _, _ in self._columns)
        lines = [self.title, *self._lines(heads, widths), rule]
        for row in self._rows:
            lines += [rule] if row is None else self._lines(row, widths)
        return "\n".join(line.rstrip() for line in lines)

    def _widths(self, width: int) -> list[int]:
        """Return the width of each column: what is too much is taken from the widest that may be folded."""
        cells = [row for row in self._rows if row is not None]
        widths = [max(len(head), *(len(row[k]) for row in cells), 0) for k, (head, _, _) in enumerate(self._columns)]
        least = [max(len(head), 10) for head, _, _ in self._columns]
        while sum(widths) + 3 * (len(widths) - 1) > width:
            foldable = [k for k, (_, _, fold) in enumerate(self._columns) if fold and widths[k] > least[k]]
            if not foldable:
                break
            widths[max(foldable, key=widths.__getitem__)] -= 1
        return widths

    def _lines(self, cells: tuple[str, ...], widths: list[int]) -> list[str]:
        """Return the lines of one row."""
        parts = [textwrap.wrap(cell, n) or [""] for cell, n in zip(cells, widths, strict=True)]
        found = []
        for k in range(max(map(len, parts))):
            line = [part[k] if k < len(part) else "" for part in parts]
            aligned = zip(line, widths, self._columns, strict=True)
            found.append(" │ ".join(word.rjust(n) if right else word.ljust(n) for word, n, (_, right, _) in aligned))
        return found


def wrapped(text: str, width: int) -> str:
    """Return a sentence in lines of at most so many characters.

    Examples
    --------
    >>> print(wrapped("a b c", 3))
    a b
    c
    """
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)
