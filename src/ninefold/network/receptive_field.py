"""What the positions along one axis of a tensor read of the input: integers only."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import gcd, inf
from typing import Self

__all__ = ["ReceptiveField"]


@dataclass(frozen=True, slots=True)
class ReceptiveField:
    """The first and the last input position that each position along an axis reads, on an axis without end.

    Position ``i + len(lo)`` reads what ``i`` reads, moved by `shift`. A period longer than 1 is what transposed
    convolution and resampling make: their positions do not all read equally far, so that one extent and one jump, the
    usual pair, cannot describe what follows them. Axes without end, because a receptive field counts the positions
    outside the border too.

    Parameters
    ----------
    lo, hi : tuple of float
        Of the positions 0, 1 ...; ``inf`` and ``-inf`` where nothing is read.
    shift : int

    Examples
    --------
    >>> pixel = ReceptiveField()
    >>> pixel.window(3, stride=2, lo=1).window(5).extent()
    11
    >>> pixel.transposed(3, stride=2)
    ReceptiveField(lo=(-1, 0), hi=(0, 0), shift=1)
    """

    lo: tuple[float, ...] = (0,)
    hi: tuple[float, ...] = (0,)
    shift: int = 1

    def extent(self, size: int | None = None) -> int:
        """Return how many input positions lie from the first to the last read, of the position that reads farthest.

        Parameters
        ----------
        size : int, optional
            Positions that there are; without it the axis has no end.
        """
        positions = len(self.lo) if size is None else min(size, len(self.lo))
        return int(max((max(self.hi[i] - self.lo[i] + 1, 0) for i in range(positions)), default=0))

    def at(self, i: int) -> tuple[float, float]:
        """Return the first and the last input position that position `i` reads."""
        turns, place = divmod(i, len(self.lo))
        return self.lo[place] + turns * self.shift, self.hi[place] + turns * self.shift

    def through(self, reads: Callable[[int], Iterable[int]], outs: int, ins: int) -> Self:
        """Return the reach behind an operation whose output ``j`` reads the positions ``reads(j)``.

        Parameters
        ----------
        reads : callable
        outs, ins : int
            Output ``j + outs`` reads what ``j`` reads, moved by `ins`.

        Examples
        --------
        >>> ReceptiveField().through(lambda j: [j // 2], outs=2, ins=1)
        ReceptiveField(lo=(0, 0), hi=(0, 0), shift=1)
        """
        period = len(self.lo)
        turns = period // gcd(period, ins)
        sources = [[self.at(i) for i in reads(j)] for j in range(outs * turns)]
        lo = tuple(min((a for a, _ in s), default=inf) for s in sources)
        hi = tuple(max((b for _, b in s), default=-inf) for s in sources)
        return type(self)(lo, hi, self.shift * (ins * turns // period))

    def window(self, kernel: int, *, stride: int = 1, dilation: int = 1, lo: int = 0) -> Self:
        """Return the reach behind a convolution or a pooling; `lo` are the positions of padding in front."""
        taps = range(0, kernel * dilation, dilation)
        return self.through(lambda j: (j * stride - lo + m for m in taps), 1, stride)

    def transposed(self, kernel: int, *, stride: int = 1, dilation: int = 1, lo: int = 0) -> Self:
        """Return the reach behind a transposed convolution: tap ``m`` writes ``j * stride + m * dilation - lo``."""

        def reads(i: int) -> Iterable[int]:
            steps = (i + lo - m * dilation for m in range(kernel))
            return (step // stride for step in steps if step % stride == 0)

        return self.through(reads, stride, 1)

    def union(self, other: Self, size: int) -> Self:
        """Return the reach of positions that read both; if the two move at different rates, of `size` positions.

        Examples
        --------
        >>> ReceptiveField().window(3).union(ReceptiveField(), 8).extent()
        3
        """
        same = self.shift * len(other.lo) == other.shift * len(self.lo)
        period = len(self.lo) * len(other.lo) // gcd(len(self.lo), len(other.lo)) if same else max(size, 1)
        pairs = [(self.at(i), other.at(i)) for i in range(period)]
        lo = tuple(min(a[0], b[0]) for a, b in pairs)
        hi = tuple(max(a[1], b[1]) for a, b in pairs)
        return type(self)(lo, hi, self.shift * period // len(self.lo))
