"""Plan: which engine runs a problem, what that costs, and why each other one lost or refused."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ninefold.engines.base import Error
from ninefold.spec.problem import Problem

__all__ = ["Candidate", "Plan", "seconds"]

_MAPS = {"c": "output", "h": "input", "g": "kernel"}


_UNKNOWN = Error(float("inf"), float("inf"))


@dataclass(frozen=True, slots=True)
class Candidate:
    """One engine's standing: refused (a sentence), or its numbers; `measured` is None where it was not timed."""

    engine: str
    reason: str | None = None
    cost: float = float("inf")
    error: Error = _UNKNOWN
    scratch: int = 0
    measured: float | None = None

    @property
    def seconds(self) -> float:
        """The time to rank by: measured where there is a measurement."""
        return self.cost if self.measured is None else self.measured


class Standings(Sequence[Candidate]):
    """The standings of a remembered plan: one engine is judged where it is asked for, all of them where they are gone through.

    Parameters
    ----------
    one : callable
        Takes an engine's name and returns its standing.
    every : callable
        Returns all standings.
    """

    def __init__(self, one: Callable[[str], Candidate], every: Callable[[], tuple[Candidate, ...]]) -> None:
        self.of, self._every = one, every
        self._all: tuple[Candidate, ...] | None = None

    @property
    def all(self) -> tuple[Candidate, ...]:
        """Every engine's standing."""
        if self._all is None:
            self._all = self._every()
        return self._all

    def __getitem__(self, at: Any) -> Any:
        return self.all[at]

    def __len__(self) -> int:
        return len(self.all)


@dataclass(frozen=True, slots=True)
class Plan:
    """A choice that can be printed, exported and passed around.

    Parameters
    ----------
    problem : Problem
    engine : str
        Name of the engine that runs it.
    candidates : sequence of Candidate
        Every engine's standing, in the order of preference.
    source : str
        ``"estimate"``, ``"measure"``, ``"cache"`` or ``"file"``: where the choice comes from.
    """

    problem: Problem
    engine: str
    candidates: Sequence[Candidate]
    source: str

    @property
    def chosen(self) -> Candidate:
        """The standing of the engine that runs."""
        return self.standing(self.engine)

    def standing(self, engine: str) -> Candidate:
        """Return the standing of an engine."""
        if isinstance(self.candidates, Standings):
            return self.candidates.of(engine)
        return next(c for c in self.candidates if c.engine == engine)

    def __str__(self) -> str:
        return "\n".join((self._title(), *(self._line(c) for c in self.candidates)))

    def _title(self) -> str:
        p, f = self.problem, self.problem.form
        kind = "x".join(map(str, f.kernel))
        extras = [
            f"{name} {value}"
            for name, value, plain in (
                ("stride", f.stride, (1,) * f.ndim),
                ("dilation", f.dilation, (1,) * f.ndim),
                ("groups", f.channels.groups, 1),
                ("period", f.period, (1,) * f.ndim),
                ("border", f.mode, "zeros"),
            )
            if value != plain
        ]
        sizes = f"{'x'.join(map(str, f.input_shape(p.batch)))} -> {'x'.join(map(str, f.output_shape(p.batch)))}"
        head = f"map {p.map} ({_MAPS[p.map]}) of a {kind} convolution{', ' if extras else ''}{', '.join(extras)}: {sizes}"
        layout = "channels-last" if p.channels_last else "contiguous"
        work = f"{p.macs:,} multiply-adds, {p.bytes / 1e6:.1f} MB; {p.dtype} {layout} on {p.device}, {p.threads} threads"
        return f"{head}\n{work}\nengine {self.engine} ({self.source})"

    @property
    def _width(self) -> int:
        return max(len(c.engine) for c in self.candidates)

    def _line(self, c: Candidate) -> str:
        if c.reason is not None:
            return f"    {c.engine:<{self._width}} no: {c.reason}"
        mark = "-->" if c.engine == self.engine else "   "
        timed = "" if c.measured is None else f", measured {seconds(c.measured)}"
        slower = "" if c.engine == self.engine else f", {c.seconds / self.chosen.seconds:.1f} times the chosen one"
        return (
            f"{mark} {c.engine:<{self._width}} {seconds(c.cost)} estimated{timed}{slower}; "
            f"error {c.error.estimate:.0e} (at most {c.error.bound:.0e}), scratch {c.scratch / 1e6:.1f} MB"
        )


def seconds(value: float) -> str:
    """Return seconds in words of three digits."""
    scale, unit = next(((s, u) for s, u in ((1.0, "s"), (1e-3, "ms")) if value >= s), (1e-6, "us"))
    return f"{value / scale:.3g} {unit}"
