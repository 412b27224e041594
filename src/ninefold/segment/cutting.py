"""Affinities that a network gave, cut into objects."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ninefold.errors import ArgumentError
from ninefold.structured.partition import Affinities, connected_components, mutex_watershed, watershed

__all__ = ["METHODS", "Method", "objects_of"]

Method = Literal["mutex", "components", "watershed"]
METHODS: tuple[Method, ...] = ("mutex", "components", "watershed")


def objects_of(
    affinities: Affinities, method: Method = "watershed", *, threshold: float = 0.5, minimum_size: int = 20
) -> NDArray[np.int64]:
    """Return objects, numbered from 1; 0 is what belongs to none.

    A pixel that no edge to a neighbour above `threshold` joins is between objects.

    Parameters
    ----------
    affinities : Affinities
        Of one image: neighbours along each axis first, then far edges, if any.
    method : {"mutex", "components", "watershed"}
        ``"mutex"`` lets far edges tell objects apart; ``"components"`` joins whatever an edge above `threshold` does;
        ``"watershed"`` grows basins from the pixels that all their edges join surely.
    threshold : float
    minimum_size : int
        Objects of fewer pixels become 0.

    Raises
    ------
    ArgumentError
        If there is no such method, or there are no far edges for ``"mutex"``.

    Examples
    --------
    >>> near = Affinities.from_labels(np.array([[1, 1, 0, 2, 2], [1, 1, 0, 2, 2]]))
    >>> objects_of(near, "components", minimum_size=1)
    array([[1, 1, 0, 2, 2],
           [1, 1, 0, 2, 2]])
    """
    ndim, values = len(affinities.shape), np.asarray(affinities.values)
    if method not in METHODS:
        raise ArgumentError(f"method is {method!r}: it must be one of {', '.join(METHODS)}")
    if method == "mutex" and len(affinities.offsets) == ndim:
        raise ArgumentError(f"method 'mutex' needs far edges beside the {ndim} neighbours; take 'components' or 'watershed'")
    near = Affinities(np.ascontiguousarray(values[:ndim]), affinities.offsets[:ndim], affinities.neighbour)
    inside = _joined(near, threshold)
    if method == "mutex":
        found: Any = mutex_watershed(affinities, ndim, mask=inside)
    elif method == "components":
        found = connected_components(near, threshold, mask=inside)
    else:
        seeds = connected_components(near, (1 + threshold) / 2, minimum_size=max(2, minimum_size // 4), mask=inside)
        found = watershed(near, seeds, lowest=threshold, mask=inside) if seeds.any() else seeds
    return _large(np.asarray(found), minimum_size)


def _joined(near: Affinities, threshold: float) -> NDArray[np.bool_]:
    """Return the pixels that an edge above a threshold joins to a neighbour."""
    found = np.zeros(near.shape, bool)
    for neighbour in ("next", "previous"):
        moved = near.to(neighbour, "zero")
        found |= (np.asarray(moved.values) > threshold).any(0)
    return found


def _large(labels: NDArray[np.int64], minimum_size: int) -> NDArray[np.int64]:
    """Return the objects that are large enough, numbered anew."""
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    number = np.where(sizes >= minimum_size, np.cumsum(sizes >= minimum_size), 0)
    return number[labels]
