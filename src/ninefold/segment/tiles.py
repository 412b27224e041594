"""An image in tiles that a network predicts one by one, each with the surroundings that its outputs depend on."""

import itertools
from collections.abc import Iterator, Sequence

from ninefold.segment.config import TrainConfig

__all__ = ["Cut", "cuts", "reach", "smaller", "window"]

Cut = tuple[tuple[slice, ...], tuple[slice, ...], tuple[slice, ...]]
"""Where a tile lies in the image, what is read of the image for it, and where the tile lies in that."""


def reach(config: TrainConfig) -> int:
    """Return how many pixels before and after it an output depends on at most, along each axis.

    Examples
    --------
    >>> [reach(TrainConfig("a", "b", "c", depth=depth)) for depth in (1, 2, 3)]
    [2, 10, 26]
    >>> reach(TrainConfig("a", "b", "c", network="recurrent", kernel=5, steps=3))
    6
    """
    if config.network == "recurrent":  # the image once, then the labels of each step before
        return config.steps * (config.kernel // 2)
    # which pixel of its coarse cell an output lies on matters; from the last to the end is as far as from the first to the start
    levels = config.depth - 1
    return max(_last(place, levels) - place for place in range(1 << levels))


def _last(place: int, levels: int) -> int:
    """Return the last pixel of the image that an output of a U-Net depends on."""
    if not levels:
        return place + 2  # two convolutions of 3
    # two of the way up and that of the doubling, the coarser grid, both pixels of a cell, two of the way down
    return 2 * _last((place + 3) // 2, levels - 1) + 1 + 2


def cuts(space: Sequence[int], tile: Sequence[int], around: int, unit: int, least: int) -> Iterator[Cut]:
    """Return the tiles of an image; what a network gives in their windows is what it gives there in the whole image.

    Parameters
    ----------
    space, tile : sequence of int
        Sides of the image and of its tiles; these are made multiples of `unit`.
    around : int
        As `reach` has it.
    unit : int
        Windows begin at multiples of it, so that the cells of all grids are those of the whole image.
    least : int
        Windows are as long at least, where the image is: shorter ones the network would pad.

    Examples
    --------
    >>> for inner, outer, _ in cuts((10,), (4,), 1, 2, 4):
    ...     print(inner[0], outer[0])
    slice(0, 4, None) slice(0, 6, None)
    slice(4, 8, None) slice(2, 10, None)
    slice(8, 10, None) slice(6, 10, None)
    """
    axes = [list(_cuts(*sides, around, unit, least)) for sides in zip(space, tile, strict=True)]
    for each in itertools.product(*axes):
        inner, outer = (tuple(slice(cut[k], cut[k + 1]) for cut in each) for k in (0, 2))
        yield inner, outer, tuple(slice(first - start, last - start) for first, last, start, _ in each)


def _cuts(n: int, side: int, around: int, unit: int, least: int) -> Iterator[tuple[int, int, int, int]]:
    """Return first and last of the tiles along an axis, and of their windows."""
    side, around = _up(side, unit), _up(around, unit)
    for first in range(0, n, side):
        last = min(n, first + side)
        stop = max(min(n, last + around), min(n, least))
        yield first, last, max(0, min(first - around, (stop - least) // unit * unit)), stop


def window(space: Sequence[int], tile: Sequence[int], around: int, unit: int) -> tuple[int, ...]:
    """Return the sides of the largest window of tiles.

    Examples
    --------
    >>> window((1000, 30), (100, 100), 5, 4)
    (116, 30)
    """
    return tuple(min(n, _up(side, unit) + 2 * _up(around, unit)) for n, side in zip(space, tile, strict=True))


def smaller(tile: Sequence[int], around: int, unit: int) -> tuple[int, ...] | None:
    """Return tiles of half the longest side; None if all are short, for these have more pixels around them than in them.

    Examples
    --------
    >>> smaller((100, 40), 9, 4), smaller((20, 15), 9, 4)
    ((52, 40), None)
    """
    least, sides = _up(2 * around, unit), list(tile)
    longest = sides.index(max(sides))
    if sides[longest] <= least:
        return None
    sides[longest] = max(least, _up(-(-sides[longest] // 2), unit))
    return tuple(sides)


def _up(value: int, unit: int) -> int:
    """Return the next multiple of `unit`."""
    return -(-value // unit) * unit
