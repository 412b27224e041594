"""What stands at indices of an axis, its border included: a few pieces of even steps, however long the axis is."""

from collections.abc import Iterable

from ninefold.spec.axis import Axis

__all__ = ["Span", "backwards", "runs"]

Span = tuple[int, int, int]
"""Indices of an axis, which may lie outside of it: the first, how many, the step between them."""


def runs(axis: Axis, spans: Iterable[Span]) -> list[list[int]]:
    """Return what stands at the indices of some spans, laid side by side, in pieces (to, from, count, step); zeros come from -1.

    Inside the axis an index is a position, so that a span has one piece there, however long it is: only what lies on the border
    is looked at index by index.

    Examples
    --------
    >>> axis = Axis(kernel=3, stride=1, dilation=1, lo=2, n_in=1000, n_out=1001, mode="reflect")
    >>> runs(axis, [(-2, axis.span, 1)])
    [[0, 2, 2, -1], [2, 0, 1000, 1], [1002, 998, 1, 1]]
    """
    found: list[list[int]] = []
    total = 0
    for first, count, step in spans:
        before = min(max(-(first // step), 0), count)
        behind = min(max(-((first - axis.n_in) // step), before), count)
        pieces = [
            *_border(axis, range(first, first + before * step, step)),
            (first + before * step, behind - before, step),
            *_border(axis, range(first + behind * step, first + count * step, step)),
        ]
        for start, many, apart in pieces:
            if many:
                _join(found, [total, start, many, apart])
                total += many
    return found


def _border(axis: Axis, indices: range) -> list[Span]:
    """Return pieces (from, count, step) of what stands outside an axis."""
    if axis.mode == "zeros":
        return [(-1, len(indices), 1)]
    at = [axis.source(i) for i in indices]
    return [(-1 if i is None else i, 1, 1) for i in at]


def _join(found: list[list[int]], piece: list[int]) -> None:
    """Add a piece, or lengthen the last one where it goes on."""
    if found:
        _, before, many, apart = found[-1]
        _, start, count, step = piece
        if before < 0 and start < 0:
            found[-1][2] += count
            return
        jump = start - before - (many - 1) * apart
        if min(before, start) >= 0 and (many == 1 or apart == jump) and (count == 1 or step == jump):
            found[-1][2:] = [many + count, jump]
            return
    found.append(piece)


def backwards(pieces: list[list[int]]) -> list[list[int]]:
    """Return what `runs` gives for the same indices from the last to the first.

    Examples
    --------
    >>> backwards([[0, -1, 1, 1], [1, 0, 3, 1], [4, 2, 2, -1]])
    [[0, 1, 2, 1], [2, 2, 3, -1], [5, -1, 1, 1]]
    """
    total = sum(count for _, _, count, _ in pieces)
    return [
        [total - to - count, at, count, 1] if at < 0 else [total - to - count, at + (count - 1) * step, count, -step]
        for to, at, count, step in reversed(pieces)
    ]
