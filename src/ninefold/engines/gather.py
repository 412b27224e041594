"""Maps as gathering sums: every output element sums products of kernel elements and what it reads, residue by residue.

Along one axis, with stride ``s``, dilation ``d``, ``lo`` elements of padding and period ``p``:

    c: output j = r + p q reads, with tap m, the input at (r s - lo + m d) + p s q, and the kernel of residue r;
    h: input i = r + s p q is fed, through tap m, by the output j = (r + lo - m d) / s + p q where s divides that, and by
       the kernel of residue j mod p.

Either way the outputs of one residue read at ``start + step * q``, with a fixed kernel element per tap: a correlation of unit
stride once every ``step``-th element lies beside the next. Over several axes there are as many correlations as residues in all.
"""

from dataclasses import dataclass, replace
from math import prod

from ninefold.spec.axis import Axis
from ninefold.spec.form import Form

__all__ = ["Reads", "Residue", "Staged", "gather_c", "gather_h", "runs", "staged", "strides", "without_border"]


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
    sources : tuple of int
        The position that each one copies; it may lie outside of the axis.
    at : tuple of tuple of int
        For each residue, where its first output reads with each tap.
    step : int
    """

    sources: tuple[int, ...]
    at: tuple[tuple[int, ...], ...]
    step: int


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
    residues = []
    for r in range(min(cycle, axis.n_in)):
        fed = []
        for m in range(axis.kernel):
            j, rest = divmod(r + axis.lo - m * axis.dilation, axis.stride)
            if rest == 0:
                fed.append((j, (j % period, m)))
        fed.sort()
        residues.append(Residue(r, -(-(axis.n_in - r) // cycle), tuple(j for j, _ in fed), tuple(w for _, w in fed)))
    return Reads(tuple(residues), cycle, period)


def staged(residues: tuple[Residue, ...], step: int, *, unit: bool) -> Staged:
    """Lay out what some residues read: with `unit`, every ``step``-th position side by side, else as it is.

    Examples
    --------
    >>> axis = Axis(kernel=3, stride=2, dilation=1, lo=1, n_in=7, n_out=3)
    >>> staged(gather_c(axis).residues, 2, unit=True)
    Staged(sources=(-1, 1, 3, 5, 0, 2, 4), at=((0, 4, 1),), step=1)
    >>> staged(gather_c(axis).residues, 2, unit=False)
    Staged(sources=(-1, 0, 1, 2, 3, 4, 5), at=((0, 1, 2),), step=2)
    """
    reads = [(start, r.count) for r in residues for start in r.starts]
    if not reads:
        return Staged((0,), tuple(() for _ in residues), 1 if unit else step)
    apart = step if unit else 1
    sources: list[int] = []
    base: dict[int, int] = {}
    for phase in dict.fromkeys(start % apart for start, _ in reads):
        here = [(start, start + step * (count - 1)) for start, count in reads if start % apart == phase]
        first, last = min(a for a, _ in here), max(b for _, b in here)
        base[phase] = len(sources) - first // apart
        sources += range(first, last + 1, apart)
    at = tuple(tuple(base[start % apart] + start // apart for start in r.starts) for r in residues)
    return Staged(tuple(sources), at, 1 if unit else step)


def runs(sources: list[int]) -> list[list[int]]:
    """Return consecutive pieces as (to, from, count, step); zeros come from -1.

    Examples
    --------
    >>> runs([-1, 0, 1, 2, 2, 1])
    [[0, -1, 1, 1], [1, 0, 3, 1], [4, 2, 2, -1]]
    """
    found: list[list[int]] = []
    for k, i in enumerate(sources):
        if found:
            _, first, count, step = found[-1]
            if first < 0 and i < 0:
                found[-1][2] += 1
                continue
            if first >= 0 and i >= 0 and (count == 1 or i == first + count * step):
                found[-1][2:] = [count + 1, i - first if count == 1 else step]
                continue
        found.append([k, i, 1, 1])
    return found


def without_border(form: Form) -> Form:
    """Return the form on the input with its border written out, whose h has to be folded back; of zeros, the form itself."""
    if form.mode == "zeros":
        return form
    return replace(form, axes=tuple(replace(a, lo=0, n_in=a.span, mode="zeros") for a in form.axes))


def strides(shape: tuple[int, ...], channels_last: bool) -> list[int]:
    """Return the strides (batch, channels, z, y, x) of a tensor in a memory format, missing axes filled in."""
    channels, space = shape[1], shape[2:]
    full = (1,) * (3 - len(space)) + tuple(space)
    if channels_last and len(space) in (2, 3):
        return [channels * prod(full), 1, channels * full[1] * full[2], channels * full[2], channels]
    return [channels * prod(full), prod(full), full[1] * full[2], full[2], 1]
