"""What `equivariance` and `invariance` found: per transform, and per layer; printable, and as JSON."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from ninefold.errors import ArgumentError
from ninefold.text_table import Printable, TextTable

__all__ = ["Finding", "Symmetry", "Tested"]


@dataclass(frozen=True)
class Finding:
    """What one transform did to one layer, or to the whole.

    Parameters
    ----------
    layer, what : str
        Qualified name and class; a layer that runs again is counted: ``conv#2``.
    error : float, optional
        Largest difference at positions that see only the inside of the picture, relative to the largest value of the map. None
        where there are none, or where the transform does not arrive at this layer as one.
    border : float, optional
        The same at the other positions: those that see a border, or what has come into view. None where there are none.
    note : str
    """

    layer: str
    what: str
    error: float | None
    border: float | None = None
    note: str = ""

    def holds(self, tolerance: float) -> bool:
        """Return whether the error, or at the border alone the border's, is none."""
        measured = self.border if self.error is None else self.error
        return measured is None or measured <= tolerance


@dataclass(frozen=True)
class Tested:
    """One transform: the whole, and layer by layer.

    Parameters
    ----------
    transform : str
    interpolated : bool
        Whether the transform itself is inexact, so that an error need not be the network's.
    whole : Finding
    layers : tuple of Finding
        In the order in which they ran.
    layer : str, optional
        Of equivariance the first layer that breaks it, away from borders if any does; of invariance the one from which on nothing
        changes. None if there is none.
    border_layer : str, optional
        Of equivariance the first layer that breaks it at borders.
    """

    transform: str
    interpolated: bool
    whole: Finding
    layers: tuple[Finding, ...]
    layer: str | None
    border_layer: str | None = None

    @property
    def error(self) -> float | None:
        """Of the whole, away from borders."""
        return self.whole.error

    @property
    def border(self) -> float | None:
        """Of the whole, at the borders."""
        return self.whole.border


@dataclass(frozen=True)
class Symmetry(Printable):
    """The result of `equivariance` or `invariance`: print it, ask it for a transform by name, or take `to_json`.

    Parameters
    ----------
    kind : str
        ``"equivariance"`` or ``"invariance"``.
    tests : tuple of Tested
    tolerance : float
        Relative error up to which a symmetry is taken to hold.
    """

    kind: str
    tests: tuple[Tested, ...]
    tolerance: float

    def __getitem__(self, transform: Any) -> Tested:
        """Return what was found for a transform, or for one of this name."""
        for test in self.tests:
            if test.transform == str(transform):
                return test
        raise ArgumentError(f"{transform} was not tested; these were: {', '.join(t.transform for t in self.tests)}")

    def holds(self, transform: Any) -> bool:
        """Return whether the whole has this symmetry, borders aside."""
        return self[transform].whole.holds(self.tolerance)

    def to_json(self) -> str:
        """Return everything as JSON."""
        return json.dumps(asdict(self), indent=2)

    def text(self, width: int) -> str:
        """Return the table of the whole, and one of the layers if they were looked at."""
        tables = [self._wholes(), *([self._layers()] if any(t.layers for t in self.tests) else [])]
        return "\n".join(table.text(width) for table in tables)

    def _wholes(self) -> TextTable:
        table = TextTable(self.kind)
        moves = self.kind == "equivariance"
        for head in ("transform", "made", "error", *(["at borders"] if moves else []), "holds"):
            table.add_column(head, right=head in {"error", "at borders"})
        table.add_column("first broken by" if moves else "invariant from", fold=True)
        for test in self.tests:
            cells = [test.transform, "interpolated" if test.interpolated else "exactly", _shown(test.error)]
            cells += [_shown(test.border)] if moves else []
            outer = f"at borders {test.border_layer}" if test.border_layer not in {None, test.layer} else ""
            aside = test.whole.note or outer
            named = [test.layer or "-", f"({aside})" if aside else ""]
            table.add_row(*cells, self._verdict(test.whole), " ".join(filter(None, named)))
        return table

    def _verdict(self, found: Finding) -> str:
        if not found.holds(self.tolerance):
            return "no"
        return "yes" if found.border is None or found.border <= self.tolerance else "inside"

    def _layers(self) -> TextTable:
        table = TextTable("layer by layer, error (at borders)")
        table.add_column("layer", fold=True)
        table.add_column("what it is", fold=True)
        for test in self.tests:
            table.add_column(test.transform, right=True)
        for row in zip(*(test.layers for test in self.tests), strict=True):
            cells = [_shown(f.error) + (f" ({_shown(f.border)})" if f.border is not None else "") for f in row]
            table.add_row(row[0].layer, row[0].what, *cells)
        return table


def _shown(value: float | None) -> str:
    return "-" if value is None else "0" if value == 0 else f"{value:.2g}"
