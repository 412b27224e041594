"""What `optimize` found: a row per convolution, the totals, and the bound; printable, and as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from io import StringIO
from typing import Any

__all__ = ["Report", "Row"]


@dataclass(frozen=True)
class Row:
    """One convolution: seconds are of all its maps together (forward, and in training the two gradients).

    Parameters
    ----------
    name, what : str
    field : tuple of int, optional
        Receptive field in pixels of the example; None is the whole input.
    macs : int
        Multiply-adds of the forward pass.
    engines : dict
        Engine chosen, by map.
    before, after : float
        Seconds as PyTorch's own convolution, and as planned.
    floor : float
        Seconds that no algorithm goes below: one pass over operands and result, or the products between channels alone.
    error : float, optional
        Measured largest difference from PyTorch's result, on the scale ``max|V| * ||K_o||_1``; None where PyTorch's was kept.
    kept : bool
        Whether the layer is PyTorch's own, because nothing was faster.
    """

    name: str
    what: str
    field: tuple[int, ...] | None
    macs: int
    engines: dict[str, str]
    before: float
    after: float
    floor: float
    error: float | None = None
    kept: bool = True

    @property
    def ratio(self) -> float:
        """How many times faster."""
        return self.before / self.after if self.after else 1.0


@dataclass(frozen=True)
class Report:
    """The result of `optimize`: print it, or take `to_json`.

    Parameters
    ----------
    mode : str
        ``"inference"`` or ``"training"``.
    rows : tuple of Row
    before, after : float
        Seconds of the whole step, medians of interleaved runs.
    outside : float
        Seconds of the step with every convolution left out: what nothing here changes.
    memory_format : str
        ``"contiguous"`` or ``"channels_last"``: what the network was found to run fastest in, conversions counted.
    difference : float
        Largest difference between the outputs of both networks, relative to the largest output.
    error_before, error_after : float
        Largest difference from the network in double precision, relative to the largest output.
    left_alone : dict
        Convolution-like layers that were not touched, each with the reason.
    folded : tuple of str
        Convolutions that took in the batch normalisation behind them.
    unfolded : dict
        Batch normalisations that stand as they were though folding was asked for, each with the reason.
    """

    mode: str
    rows: tuple[Row, ...]
    before: float
    after: float
    outside: float
    memory_format: str
    difference: float
    error_before: float
    error_after: float
    left_alone: dict[str, str] = field(default_factory=dict)
    folded: tuple[str, ...] = ()
    unfolded: dict[str, str] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """How many times faster the whole step is."""
        return self.before / self.after

    @property
    def bound(self) -> float:
        """Seconds that the step cannot go below: the time outside convolutions and the floors of those inside."""
        return min(self.before, self.after, self.outside + sum(min(r.floor, r.before) for r in self.rows))

    @property
    def gained(self) -> float:
        """The part of the possible gain that was reached, 0 to 1."""
        possible = self.before - self.bound
        return 0.0 if possible <= 0 else max(0.0, min(1.0, (self.before - self.after) / possible))

    def summary(self) -> str:
        """Return the whole report in one line."""
        kept = sum(r.kept for r in self.rows)
        most = self.before / self.bound
        return (
            f"{self.mode}: {_ms(self.before)} -> {_ms(self.after)} ms, {self.ratio:.2f}x; at most {most:.2f}x is possible "
            f"({_ms(self.outside)} ms are outside convolutions), {self.gained:.0%} of that gain reached; "
            f"{kept} of {len(self.rows)} convolutions kept as PyTorch's; {self.memory_format}"
        )

    def to_json(self) -> str:
        """Return everything as JSON, derived figures included."""
        derived = {"ratio": self.ratio, "bound": self.bound, "gained": self.gained}
        return json.dumps(asdict(self) | derived, indent=2)

    def __rich__(self) -> Any:
        from rich.console import Group  # noqa: PLC0415  rich is loaded when something is printed

        lines = [self.summary(), self._accuracy(), *(f"left alone: {n}: {why}" for n, why in self.left_alone.items())]
        return Group(self._table(), *lines, *self._folds())

    def __str__(self) -> str:
        from rich.console import Console  # noqa: PLC0415  rich is loaded when something is printed

        text = StringIO()
        Console(file=text, width=150).print(self)
        return text.getvalue().rstrip()

    def _accuracy(self) -> str:
        return (
            f"output differs by {self.difference:.1e} of its largest value; against double precision "
            f"{self.error_before:.1e} before, {self.error_after:.1e} after"
        )

    def _folds(self) -> list[str]:
        norms = len(self.folded) + len(self.unfolded)
        head = [f"{len(self.folded)} of {norms} batch normalisations folded into the convolution before"] if norms else []
        return [*head, *(f"not folded: {name}: {why}" for name, why in self.unfolded.items())]

    def _table(self) -> Any:
        from rich.table import Table  # noqa: PLC0415  rich is loaded when something is printed

        table = Table(title=f"{self.mode}, {self.memory_format}", title_justify="left", padding=(0, 0), pad_edge=False)
        table.add_column("layer", overflow="fold", min_width=14)
        table.add_column("what it is", overflow="fold", min_width=16)
        for head in ("sees", "MMAC", "share", "engine", "before ms", "now ms", "ratio", "error"):
            table.add_column(head, justify="right", no_wrap=head != "engine")
        for row in self.rows:
            table.add_row(*self._cells(row))
        inside = sum(r.before for r in self.rows), sum(r.after for r in self.rows)
        table.add_section()
        macs = f"{sum(r.macs for r in self.rows) / 1e6:.1f}"
        share = f"{inside[0] / self.before:.0%}"
        ratio = f"{inside[0] / inside[1]:.2f}" if inside[1] else "-"
        table.add_row("convolutions", "", "", macs, share, "", _ms(inside[0]), _ms(inside[1]), ratio, "")
        table.add_row(
            "whole step",
            "",
            "",
            "",
            "",
            "",
            _ms(self.before),
            _ms(self.after),
            f"{self.ratio:.2f}",
            f"{self.difference:.0e}",
        )
        return table

    def _cells(self, row: Row) -> Sequence[str]:
        sees = "all" if row.field is None else "x".join(map(str, row.field))
        engines = list(dict.fromkeys(row.engines.values()))
        return (
            row.name,
            row.what,
            sees,
            f"{row.macs / 1e6:.1f}",
            f"{row.before / self.before:.0%}",
            ", ".join(row.engines.values()) if len(engines) > 1 else engines[0],
            _ms(row.before),
            _ms(row.after),
            f"{row.ratio:.2f}",
            "-" if row.error is None else f"{row.error:.0e}",
        )


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g}" if seconds < 0.1 else f"{seconds * 1e3:.0f}"
