"""One spatial axis of a form: what output ``j`` reads, what input ``i`` feeds."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ninefold.errors import ShapeError
from ninefold.spec.padding import MODES

__all__ = ["Axis"]


@dataclass(frozen=True, slots=True)
class Axis:
    """One spatial axis, with both sizes as data.

    Neither size follows from the other: several inputs give one output size, and a transposed convolution may leave
    input positions that no output reads. Output ``j`` reads, with tap ``m``, the index
    ``j * stride + m * dilation - lo``; outside ``[0, n_in)`` the mode decides what stands there. There is no upper pad:
    it follows (`hi`). Nothing is checked here, for a form is made at every call: `ConvSpec` and `PoolSpec` check.

    Parameters
    ----------
    kernel, stride, dilation : int
        Taps, steps between outputs, steps between taps; all at least 1.
    lo : int
        Elements of padding before the input; negative crops.
    n_in, n_out : int
        Sizes of the input ``V`` and the output ``G`` along this axis.
    period : int
        Kernels cycled through along the outputs: 1 is a convolution, ``n_out`` an unshared (locally connected) layer.
    mode : str
        A key of `ninefold.spec.padding.MODES`.

    Examples
    --------
    >>> axis = Axis(kernel=3, stride=2, dilation=1, lo=1, n_in=7, n_out=4)
    >>> axis.reads(0), axis.reads(3)
    ((None, 0, 1), (5, 6, None))
    >>> axis.feeds(1)
    ((0, 2), (1, 0))
    """

    kernel: int
    stride: int
    dilation: int
    lo: int
    n_in: int
    n_out: int
    period: int = 1
    mode: str = "zeros"

    @property
    def extent(self) -> int:
        """Input positions from the first tap to the last."""
        return (self.kernel - 1) * self.dilation + 1

    @property
    def span(self) -> int:
        """Input positions from the first output's first tap to the last output's last tap."""
        return (self.n_out - 1) * self.stride + self.extent if self.n_out else 0

    @property
    def hi(self) -> int:
        """Elements of padding behind the input that the last output reads; negative where input is left over."""
        return self.span - self.lo - self.n_in

    @property
    def border(self) -> bool:
        """Whether any output reads outside the input."""
        return self.n_out > 0 and (self.lo > 0 or self.hi > 0)

    def index(self, j: int, m: int) -> int | None:
        """Return the input position that output ``j`` reads with tap ``m``, or None where it reads a zero."""
        return self.source(j * self.stride + m * self.dilation - self.lo)

    def source(self, i: int) -> int | None:
        """Return the input position that stands at index ``i``, which may be outside."""
        if 0 <= i < self.n_in:
            return i
        if self.n_in == 0 and self.mode != "zeros":
            raise ShapeError(
                f"padding_mode={self.mode!r} has nothing to continue at index {i}: the input has size 0 along an axis; "
                "use 'zeros' or a larger input"
            )
        return MODES[self.mode](i, self.n_in)

    def reads(self, j: int) -> tuple[int | None, ...]:
        """Return the input positions that output ``j`` reads, tap by tap."""
        return tuple(self.index(j, m) for m in range(self.kernel))

    def feeds(self, i: int) -> tuple[tuple[int, int], ...]:
        """Return the pairs ``(output, tap)`` that input ``i`` feeds."""
        return tuple((j, m) for j in range(self.n_out) for m in range(self.kernel) if self.index(j, m) == i)

    def overlap(self) -> tuple[int, ...]:
        """Return, for every input position, how many (output, tap) pairs it feeds.

        In a transposed convolution the "input" is what is produced, and an uneven count is the checkerboard.
        """
        counts = [0] * self.n_in
        for j in range(self.n_out):
            for i in self.reads(j):
                if i is not None:
                    counts[i] += 1
        return tuple(counts)

    def connections(self) -> int:
        """Return the number of (output, tap) pairs that read an input element, not a zero of the border."""
        if self.mode != "zeros":
            return self.n_out * self.kernel
        return sum(len(self._inside(m)) for m in range(self.kernel))

    def reading(self) -> int:
        """Return the number of outputs that read any input element.

        Examples
        --------
        >>> Axis(kernel=2, stride=1, dilation=9, lo=5, n_in=3, n_out=8).reading()  # of the others both taps are zeros
        3
        """
        if self.mode != "zeros":
            return self.n_out if self.kernel else 0
        return sum(map(len, _united(self._inside(m) for m in range(self.kernel))))

    def reached(self) -> int:
        """Return the number of input positions that any output reads.

        Examples
        --------
        >>> Axis(kernel=2, stride=3, dilation=1, lo=0, n_in=1_000_000, n_out=333_333).reached()
        666666
        """
        by_residue: dict[int, list[range]] = {}
        for m in range(self.kernel):
            shift = m * self.dilation - self.lo
            outputs, ahead = self._inside(m), shift // self.stride
            by_residue.setdefault(shift % self.stride, []).append(range(outputs.start + ahead, outputs.stop + ahead))
        inside = {r: _united(parts) for r, parts in by_residue.items()}
        border = {i for i in self._repeated() if not any(i // self.stride in part for part in inside.get(i % self.stride, ()))}
        return sum(len(part) for parts in inside.values() for part in parts) + len(border)

    def _inside(self, m: int) -> range:
        """Return the outputs whose tap m reads inside the input."""
        shift = m * self.dilation - self.lo
        first = max(0, -(shift // self.stride))
        return range(first, max(first, min(self.n_out, (self.n_in - 1 - shift) // self.stride + 1)))

    def _repeated(self) -> Iterator[int]:
        """Yield the input positions that the border repeats, as often as it does."""
        for m in range(self.kernel) if self.mode != "zeros" else ():
            inside = self._inside(m)
            for j in (*range(min(inside.start, self.n_out)), *range(inside.stop, self.n_out)):
                if (i := self.index(j, m)) is not None:
                    yield i


def _united(parts: Iterable[range]) -> list[range]:
    """Return ranges of step 1 that have the numbers of all these, each once."""
    found: list[range] = []
    for part in sorted(parts, key=lambda part: part.start):
        if found and part.start <= found[-1].stop:
            found[-1] = range(found[-1].start, max(found[-1].stop, part.stop))
        elif part:
            found.append(part)
    return found
