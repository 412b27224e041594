"""Maps as gathering sums: every output element sums products of kernel elements and what it reads, residue by residue.

Along one axis, with stride ``s``, dilation ``d``, ``lo`` elements of padding and period ``p``:

    c: output j = r + p q reads, with tap m, the input at (r s - lo + m d) + p s q, and the kernel of residue r;
    h: input i = r + s p q is fed, through tap m, by the output j = (r + lo - m d) / s + p q where s divides that, and by
       the kernel of residue j mod p.

Either way the outputs of one residue read at ``start + step * q``, with a fixed kernel element per tap: a correlation of unit
stride once every ``step``-th element lies beside the next. Over several axes there are as many correlations as residues in all.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from math import prod

from ninefold.spec.axis import Axis
from ninefold.spec.runs import Span, runs

__all__ = [
    "Reads",
    "Residue",
    "Staged",
    "gather_c",
    "gather_h",
    "read_c",
    "read_h",
    "staged",
    "strides",
]


@dataclass(frozen=True, slots=True)
class Residue:
    """Outputs ``first + jump * q`` of an axis; tap t reads ``starts[t] + step * q`` with kernel element ``weights[t]``.

    Kernel elements are pairs (kernel of the period, tap).
    """

    first: int
    count: int
    starts: tuple[int, ...]
    weights: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Reads:
    """All residues of an axis, the steps that they have in common, and the size of what they read."""

    residues: tuple[Residue, ...]
    jump: int
    step: int


@dataclass(frozen=True, slots=True)
class Staged:
    """Positions laid side by side so that outputs read with steps of `step`.

    Parameters
    ----------
    spans : tuple of Span
        The indices that are laid side by side, one span after the other.
    at : tuple of tuple of int
        For each residue, where its first output reads with each tap.
    step : int
    """

    spans: tuple[Span, ...]
    at: tuple[tuple[int, ...], ...]
    step: int

    @property
    def count(self) -> int:
        """How many positions there are."""
        return sum(count for _, count, _ in self.spans)


def gather_c(axis: Axis) -> Reads:
    """Return what the outputs of an axis read.

    Examples
    --------
    >>> reads = gather_c(Axis(kernel=3, stride=2, dilation=1, lo=1, n_in=7, n_out=4))
    >>> reads.residues[0].starts, reads.step
    ((-1, 0, 1), 2)
    """
    period = min(axis.period, axis.n_out)
    residues = tuple(
        Residue(
            r,
            -(-(axis.n_out - r) // period),
            tuple(r * axis.stride - axis.lo + m * axis.dilation for m in range(axis.kernel)),
            tuple((r, m) for m in range(axis.kernel)),
        )
        for r in range(period)
    )
    return Reads(residues, period, axis.stride * period)


def gather_h(axis: Axis) -> Reads:
    """Return what the inputs of an axis are fed by; taps in the order of what they read.

    Examples
    --------
    >>> reads = gather_h(Axis(kernel=3, stride=2, dilation=1, lo=1, n_in=7, n_out=4))
    >>> [(r.first, r.count, r.starts, r.weights) for r in reads.residues]
    [(0, 4, (0,), ((0, 1),)), (1, 3, (0, 1), ((0, 2), (0, 0)))]
    """
    period = min(axis.period, axis.n_out)
    cycle = axis.stride * period
    fed: list[list[tuple[int, tuple[int, int]]]] = [[] for _ in range(min(cycle, axis.n_in))]
    for m in range(axis.kernel):
        reached = m * axis.dilation - axis.lo  # by output 0
        for r in range(reached % axis.stride, len(fed), axis.stride):
            j = (r - reached) // axis.stride
            fed[r].append((j, (j % period, m)))
    residues = [
        Residue(r, -(-(axis.n_in - r) // cycle), tuple(j for j, _ in by), tuple(w for _, w in by))
        for r, by in enumerate(map(sorted, fed))
    ]
    return Reads(tuple(residues), cycle, period)


def staged(residues: tuple[Residue, ...], step: int, *, unit: bool) -> Staged:
    """Lay out what some residues read: with `unit`, every ``step``-th position side by side, else as it is.

    Examples
    --------
    >>> axis = Axis(kernel=3, stride=2, dilation=1, lo=1, n_in=7, n_out=3)
    >>> staged(gather_c(axis).residues, 2, unit=True)
    Staged(spans=((-1, 4, 2), (0, 3, 2)), at=((0, 4, 1),), step=1)
    >>> staged(gather_c(axis).residues, 2, unit=False)
    Staged(spans=((-1, 7, 1),), at=((0, 1, 2),), step=2)
    """
    apart = step if unit else 1
    ends: dict[int, tuple[int, int]] = {}
    for r in residues:
        for start in r.starts:
            first, last = ends.get(start % apart, (start, start))
            ends[start % apart] = min(first, start), max(last, start + step * (r.count - 1))
    if not ends:
        return Staged(((0, 1, 1),), tuple(() for _ in residues), 1 if unit else step)
    spans: list[Span] = []
    base: dict[int, int] = {}
    total = 0
    for phase, (first, last) in ends.items():
        base[phase] = total - first // apart
        spans.append((first, (last - first) // apart + 1, apart))
        total += spans[-1][1]
    at = tuple(tuple(base[start % apart] + start // apart for start in r.starts) for r in residues)
    return Staged(tuple(spans), at, 1 if unit else step)


def read_c(axis: Axis) -> Callable[[Iterable[Span]], list[list[int]]]:
    """Return what describes, as `runs` does, what of the input stands at indices that outputs read."""
    return lambda spans: runs(axis, spans)


def read_h(axis: Axis) -> Callable[[Iterable[Span]], list[list[int]]]:
    """Return the same of the output, at indices that feed inputs."""
    return lambda spans: runs(replace(axis, n_in=axis.n_out, mode="zeros"), spans)


def strides(shape: tuple[int, ...], channels_last: bool) -> list[int]:
    """Return the strides (batch, channels, z, y, x) of a tensor in a memory format, missing axes filled in."""
    channels, space = shape[1], shape[2:]
    full = (1,) * (3 - len(space)) + tuple(space)
    if channels_last and len(space) in (2, 3):
        return [channels * prod(full), 1, channels * full[1] * full[2], channels * full[2], channels]
    return [channels * prod(full), prod(full), full[1] * full[2], full[2], 1]
