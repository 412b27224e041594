"""One spatial axis of a form: what output ``j`` reads, what input ``i`` feeds."""

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
        total = 0
        for m in range(self.kernel):
            shift = m * self.dilation - self.lo
            first = max(0, -(shift // self.stride))
            last = min(self.n_out - 1, (self.n_in - 1 - shift) // self.stride)
            total += max(0, last - first + 1)
        return total
