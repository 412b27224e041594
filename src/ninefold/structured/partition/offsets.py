"""Offsets of neighbours, and where the ends of their edges lie in an image."""

from collections.abc import Iterable
from itertools import product
from typing import Any

from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError

__all__ = ["Offset", "checked_offsets", "ends", "first", "neighbour_offsets", "one_of", "whole_offsets"]

Offset = tuple[int, ...]


def neighbour_offsets(ndim: int, distances: int | Iterable[int] = (1,), *, connectivity: int = 1) -> tuple[Offset, ...]:
    """Return the offsets along each axis, at each distance: 4 or 6 neighbours at distance 1.

    Parameters
    ----------
    ndim : int
        Axes, 1 to 3.
    distances : int or iterable of int
        In voxels.
    connectivity : int
        Along how many axes at once an offset may lead, as in scikit-image: with 2 also 8 neighbours in images, 18 in volumes;
        with 3 also 26. Those along one axis come first.

    Raises
    ------
    ArgumentError

    Examples
    --------
    >>> neighbour_offsets(2, (1, 5))
    ((1, 0), (0, 1), (5, 0), (0, 5))
    >>> neighbour_offsets(2, connectivity=2)
    ((1, 0), (0, 1), (1, -1), (1, 1))
    >>> [2 * len(neighbour_offsets(3, connectivity=k)) for k in (1, 2, 3)]
    [6, 18, 26]
    """
    far = (distances,) if isinstance(distances, int) else tuple(distances)
    if not 1 <= connectivity <= ndim or not all(d >= 1 for d in far):
        raise ArgumentError(
            f"connectivity={connectivity}, distances={far}; of {ndim} axes 1 to {ndim} change at once, by distances of 1 and more"
        )
    steps = [step for step in product((1, 0, -1), repeat=ndim) if first(step) > 0 and sum(map(abs, step)) <= connectivity]
    steps = sorted(steps, key=lambda step: (sum(map(abs, step)), [-abs(k) for k in step], step))
    return tuple(tuple(d * k for k in step) for d in far for step in steps)


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
