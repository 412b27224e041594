"""Offsets of neighbours, and where the ends of their edges lie in an image."""

from collections.abc import Iterable
from typing import Any

from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError

__all__ = ["Offset", "checked_offsets", "ends", "first", "neighbour_offsets", "one_of", "whole_offsets"]

Offset = tuple[int, ...]


def neighbour_offsets(ndim: int, distances: Iterable[int] = (1,)) -> tuple[Offset, ...]:
    """Return the offsets along each axis, at each distance: 4 or 6 neighbours at distance 1.

    Examples
    --------
    >>> neighbour_offsets(2, (1, 5))
    ((1, 0), (0, 1), (5, 0), (0, 5))
    """
    return tuple(tuple(d if k == axis else 0 for k in range(ndim)) for d in distances for axis in range(ndim))


def ends(shape: tuple[int, ...], offset: Offset) -> tuple[Any, Any]:
    """Return where the first and the second ends of the edges of an offset lie."""
    here = tuple(slice(max(0, -d), max(0, n - max(0, d))) for n, d in zip(shape, offset, strict=True))
    there = tuple(slice(max(0, d), max(0, n + min(0, d))) for n, d in zip(shape, offset, strict=True))
    if any(abs(d) >= n for n, d in zip(shape, offset, strict=True)):  # longer than the image: none
        return (slice(0),) * len(shape), (slice(0),) * len(shape)
    return here, there


def first(offset: Offset) -> int:
    """Return the first number that is not zero."""
    return next((d for d in offset if d), 0)


def whole_offsets(offsets: Any) -> tuple[Offset, ...]:
    """Return offsets as tuples of whole numbers, none of them zero, all in one number of axes."""
    try:
        found = tuple(tuple(int(d) for d in offset) for offset in offsets)
        exact = all(int(d) == d for offset in offsets for d in offset)
    except (TypeError, ValueError):
        exact = False
    if not exact or not found:
        raise ArgumentTypeError(f"offsets={offsets!r}; they are tuples of whole numbers, such as ((1, 0), (0, 1))")
    if len({len(offset) for offset in found}) > 1 or not 1 <= len(found[0]) <= 3:
        raise ShapeError(f"offsets={found} have {sorted({len(o) for o in found})} numbers; each has one for each of 1 to 3 axes")
    for offset in found:
        if not any(offset):
            raise ArgumentError(f"the offset {offset} joins a voxel to itself; take it out")
    return found


def checked_offsets(offsets: Any) -> tuple[Offset, ...]:
    """Return offsets that all lead forward, each once."""
    found = whole_offsets(offsets)
    for offset in found:
        if first(offset) < 0:
            forward = tuple(-d for d in offset)
            raise ArgumentError(
                f"the offset {offset} points back; call it {forward} with neighbour='previous', or use from_signed"
            )
        if found.count(offset) > 1:
            raise ArgumentError(f"the offset {offset} comes {found.count(offset)} times; each edge has one channel")
    return found


def one_of(value: Any, known: tuple[str, ...], name: str) -> None:
    """Refuse a word that is not known."""
    if value not in known:
        raise ArgumentError(f"{name}={value!r}; it is one of {', '.join(map(repr, known))}")
