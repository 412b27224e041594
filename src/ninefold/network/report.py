"""What `optimize` found: a row per convolution, the totals, and the bound; printable, and as JSON."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from ninefold.text_table import Printable, TextTable, wrapped

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
    best : float
        Seconds if each map ran by the fastest engine of all that were timed; with ``mode="estimate"``, of the chosen ones.
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
    best: float = 0.0

    @property
    def ratio(self) -> float:
        """How many times faster."""
        return self.before / self.after if self.after else 1.0


@dataclass(frozen=True)
class Report(Printable):
    """The result of `optimize`: print it, or take `to_json`.

    Parameters
    ----------
    mode : str
        ``"inference"`` or ``"training"``.
    rows : tuple of Row
    before, after : float, optional
        Seconds of the whole step, medians of interleaved runs; None with ``mode="estimate"``, which times nothing.
    outside : float, optional
        Seconds of the step as it was that its convolutions do not take: what nothing here changes.
    memory_format : str
        ``"contiguous"`` or ``"channels_last"``: what the network was found to run fastest in, conversions counted.
    difference : float, optional
        Largest difference between the outputs of both networks, relative to the largest output.
    error_before, error_after : float, optional
        Largest difference from the network in double precision, relative to the largest output. A figure that could not be had
        is None, and `notes` says why.
    left_alone : dict
        Convolution-like layers that were not touched, each with the reason.
    folded : tuple of str
        Convolutions that took in the batch normalisation behind them.
    unfolded : dict
        Batch normalisations that stand as they were though folding was asked for, each with the reason.
    fused : tuple of str
        Convolutions that apply the ReLU behind them in their own pass.
    changed : bool
        Whether anything was changed: False where the network was fastest as it was.
    notes : tuple of str
        What could not be done, and what the figures must be read with.
    """

    mode: str
    rows: tuple[Row, ...]
    before: float | None
    after: float | None
    outside: float | None
    memory_format: str
    difference: float | None
    error_before: float | None
    error_after: float | None
    left_alone: dict[str, str] = field(default_factory=dict)
    folded: tuple[str, ...] = ()
    unfolded: dict[str, str] = field(default_factory=dict)
    fused: tuple[str, ...] = ()
    changed: bool = True
    notes: tuple[str, ...] = ()

    @property
    def ratio(self) -> float | None:
        """How many times faster the whole step is; None where nothing was timed."""
        return None if self.before is None or self.after is None else self.before / self.after

    @property
    def bound(self) -> float | None:
        """Seconds that the step cannot go below by the machine's limits: what is outside convolutions, and their floors."""
        return self._with(sum(min(r.floor, r.best, r.before) for r in self.rows))

    @property
    def bound_of_engines(self) -> float | None:
        """Seconds of the step if every convolution took what its fastest engine took alone."""
        return self._with(sum(min(r.best, r.before) for r in self.rows))

    def _with(self, inside: float) -> float | None:
        if self.before is None or self.after is None or self.outside is None:
            return None
        return min(self.before, self.after, self.outside + inside)

    @property
    def gained(self) -> float | None:
        """The part that was reached of what the fastest engines could gain, 0 to 1."""
        if self.before is None or self.after is None or self.bound_of_engines is None:
            return None
        possible = self.before - self.bound_of_engines
        return 0.0 if possible <= 0 else max(0.0, min(1.0, (self.before - self.after) / possible))

    def summary(self) -> str:
        """Return the whole report in one line."""
        kept = sum(r.kept for r in self.rows)
        layers = f"{kept} of {len(self.rows)} convolutions kept as PyTorch's"
        if self.before is None or self.after is None or self.outside is None or self.bound is None:
            inside = sum(r.before for r in self.rows), sum(r.after for r in self.rows)
            return f"{self.mode}: convolutions {_ms(inside[0])} -> {_ms(inside[1])} ms by estimate, nothing was timed; {layers}"
        time = f"{_ms(self.before)} -> {_ms(self.after)} ms, {self.before / self.after:.2f}x" if self.changed else ""
        time = time or f"nothing changed: {_ms(self.before)} ms as it was, and nothing that was tried is faster beyond noise"
        engines = self.bound_of_engines or self.bound
        return (
            f"{self.mode}: {time}; {_ms(self.outside)} ms are outside convolutions; at most {self.before / engines:.2f}x with "
            f"the fastest engines that were timed, {self.before / self.bound:.2f}x by the machine's limits; {layers}; "
            f"{self.memory_format}"
        )

    def to_json(self) -> str:
        """Return everything as JSON, derived figures included."""
        derived = {"ratio": self.ratio, "bound": self.bound, "bound_of_engines": self.bound_of_engines, "gained": self.gained}
        return json.dumps(asdict(self) | derived, indent=2)

    def text(self, width: int) -> str:
        """Return the table and what is to be said beside it."""
        lines = [self.summary(), *self._accuracy(), *self.notes, *_grouped("left alone", self.left_alone), *self._folds()]
        return "\n".join([self._table().text(width), *(wrapped(line, width) for line in lines)])

    def _accuracy(self) -> list[str]:
        if self.difference is None:
            return []
        line = f"output differs by {self.difference:.1e} of its largest value"
        if self.error_before is None or self.error_after is None:
            return [line]
        return [f"{line}; against double precision {self.error_before:.1e} before, {self.error_after:.1e} after"]

    def _folds(self) -> list[str]:
        norms = len(self.folded) + len(self.unfolded)
        head = [f"{len(self.folded)} of {norms} batch normalisations folded into the convolution before"] if norms else []
        relus = [f"{len(self.fused)} convolutions apply the ReLU behind them"] if self.fused else []
        return [*head, *_grouped("not folded", self.unfolded), *relus]

    def _table(self) -> TextTable:
        table = TextTable(f"{self.mode}, {self.memory_format}")
        table.add_column("layer", fold=True)
        table.add_column("what it is", fold=True)
        for head in ("sees", "MMAC", "share", "engine", "before ms", "now ms", "ratio", "error"):
            table.add_column(head, right=True, fold=head == "engine")
        for row in self.rows:
            table.add_row(*self._cells(row))
        inside = sum(r.before for r in self.rows), sum(r.after for r in self.rows)
        table.add_section()
        macs = f"{sum(r.macs for r in self.rows) / 1e6:.1f}"
        share = f"{inside[0] / self._whole():.0%}"
        ratio = f"{inside[0] / inside[1]:.2f}" if inside[1] else "-"
        table.add_row("convolutions", "", "", macs, share, "", _ms(inside[0]), _ms(inside[1]), ratio, "")
        if self.before is not None and self.after is not None:
            gap = "-" if self.difference is None else f"{self.difference:.0e}"
            table.add_row("whole step", *[""] * 5, _ms(self.before), _ms(self.after), f"{self.ratio:.2f}", gap)
        return table

    def _whole(self) -> float:
        """Return what shares are of: the whole step, or where that was not timed all convolutions."""
        return self.before or sum(r.before for r in self.rows) or 1.0

    def _cells(self, row: Row) -> Sequence[str]:
        sees = "all" if row.field is None else "x".join(map(str, row.field))
        engines = list(dict.fromkeys(row.engines.values()))
        return (
            row.name,
            row.what,
            sees,
            f"{row.macs / 1e6:.1f}",
            f"{row.before / self._whole():.0%}",
            ", ".join(row.engines.values()) if len(engines) > 1 else engines[0],
            _ms(row.before),
            _ms(row.after),
            f"{row.ratio:.2f}",
            "-" if row.error is None else f"{row.error:.0e}",
        )


def _grouped(head: str, reasons: dict[str, str]) -> list[str]:
    """Return a line per reason, its layers named by pattern.

    Examples
    --------
    >>> _grouped("left alone", {"blocks.0.conv": "why", "blocks.1.conv": "why", "stem": "why", "head": "because"})
    ['left alone: blocks.*.conv (2), stem: why', 'left alone: head: because']
    """
    lines = []
    for reason in dict.fromkeys(reasons.values()):
        patterns = Counter(re.sub(r"(?<![^.])\d+(?![^.])", "*", name) for name, why in reasons.items() if why == reason)
        single = {re.sub(r"(?<![^.])\d+(?![^.])", "*", name): name for name, why in reasons.items() if why == reason}
        names = [single[p] or "the model itself" if n == 1 else f"{p} ({n})" for p, n in patterns.items()]
        lines.append(f"{head}: {', '.join(names)}: {reason}")
    return lines


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g}" if seconds < 0.1 else f"{seconds * 1e3:.0f}"
