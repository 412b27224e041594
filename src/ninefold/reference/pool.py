"""The definitions of pooling: what a window covers, and what is made of it.

A pooling of one channel is ``Z[j] = reduce(values, distances)`` over what window ``j`` covers: the input elements at ``at(j, m)``
for its taps ``m``, without those that lie outside, and their distances to the window's centre. A `padding_mode` puts
values outside, and all taps are covered.
"""

import itertools
from collections.abc import Callable, Iterable
from math import dist, inf, prod
from typing import Any

import numpy as np

from ninefold.spec.axis import Axis
from ninefold.spec.pool import PoolSpec

__all__ = [
    "bins",
    "channel_pool",
    "fractional_starts",
    "pool",
    "pool_bins",
    "pool_fractions",
    "reductions",
    "unpool",
    "unpool_top_left",
]

Array = np.ndarray[Any, np.dtype[Any]]
Reduce = Callable[[Array, Array], Array]
"""From values of shape (batch, channels, covered) and distances of shape (covered,) to (batch, channels)."""


def pool(spec: PoolSpec, V: Array, reduce: Reduce) -> Array:
    """Return what `reduce` makes of every window.

    Parameters
    ----------
    spec : PoolSpec
        The windows; its `reduction` is not looked at.
    V : array of shape ``(batch, channels, *n_in)``
    reduce : function of values and distances
        Such as one of `reductions`.

    Returns
    -------
    array of shape ``(batch, channels, *n_out)``

    Examples
    --------
    >>> figure_9_10 = np.array([[[0.1, 1.0, 0.2, 0.1, 0.0, 0.1]]])
    >>> pool(PoolSpec((3,), stride=2, ceil_mode="cover"), figure_9_10, reductions["max"]).tolist()
    [[[1.0, 0.2, 0.1]]]
    """
    axes = spec.axes(V.shape[2:])
    Z = np.zeros((*V.shape[:2], *(a.n_out for a in axes)))
    for at in np.ndindex(*Z.shape[2:]):
        covered = list(itertools.product(*(_covered(a, j, spec.padding_mode) for a, j in zip(axes, at, strict=True))))
        values = np.array([_value(V, [i for i, _ in taps]) for taps in covered], dtype=float).reshape(-1, *V.shape[:2])
        distances = [dist([r for _, r in taps], [0.0] * len(axes)) for taps in covered]
        Z[(..., *at)] = reduce(np.moveaxis(values, 0, -1), np.array(distances))
    return Z


def _covered(axis: Axis, j: int, mode: str | None) -> list[tuple[int | None, float]]:
    """Return (input position or None for a zero, distance to the centre along the axis) for each tap that counts."""
    centre = (axis.kernel - 1) / 2
    taps = [(i, (m - centre) * axis.dilation) for m, i in enumerate(axis.reads(j))]
    return [(i, r) for i, r in taps if i is not None or mode is not None]


def _value(V: Array, at: list[int | None]) -> Array:
    value: Array = np.zeros(V.shape[:2]) if None in at else V[(..., *at)]
    return value


def _maximum(values: Array, _: Array) -> Array:
    largest: Array = values.astype(float).max(-1, initial=-inf)
    return largest


def _average(values: Array, _: Array) -> Array:
    return values.mean(-1) if values.shape[-1] else np.zeros(values.shape[:2])


def average_over(count: float) -> Reduce:
    """Return the average of a window of which `count` elements are counted, covered or not.

    Examples
    --------
    >>> average_over(4)(np.array([[[1, 2, 3]]]), np.zeros(3)).tolist()
    [[1.5]]
    """
    return lambda values, _: values.sum(-1) / count


def norm(p: float) -> Reduce:
    """Return the norm ``(sum |x|^p)^(1/p)``.

    Examples
    --------
    >>> norm(2)(np.array([[[3, -4]]]), np.zeros(2)).tolist()
    [[5.0]]
    """
    return lambda values, _: (np.abs(values) ** p).sum(-1) ** (1 / p)


def power_mean(p: float) -> Reduce:
    """Return the generalised mean ``(mean |x|^p)^(1/p)``: the average of absolute values for 1, their maximum for infinity.

    Examples
    --------
    >>> power_mean(2)(np.array([[[1, -7]]]), np.zeros(2)).tolist()
    [[5.0]]
    """
    return lambda values, _: _average(np.abs(values) ** p, _) ** (1 / p)


def gaussian(sigma: float) -> Reduce:
    """Return the average weighted by ``exp(-r^2 / (2 sigma^2))``, the weights of what is covered summing to 1.

    Examples
    --------
    >>> gaussian(1.0)(np.array([[[1, 0, 1]]]), np.array([1, 0, 1])).round(4).tolist()
    [[0.5481]]
    """

    def reduce(values: Array, distances: Array) -> Array:
        if not len(distances):
            return np.zeros(values.shape[:2])
        weights = np.exp(-(distances**2 - distances.min() ** 2) / (2 * sigma**2))
        average: Array = values @ (weights / weights.sum())
        return average

    return reduce


def log_sum_exp(r: float) -> Reduce:
    """Return ``log(mean exp(r x)) / r``: the average as r goes to 0, the maximum as it goes to infinity.

    Examples
    --------
    >>> log_sum_exp(1.0)(np.log([[[1, 3]]]), np.zeros(2)).round(4).tolist() == np.log([[2]]).round(4).tolist()
    True
    """

    def reduce(values: Array, _: Array) -> Array:
        with np.errstate(divide="ignore"):
            return np.log(_average(np.exp(r * values), _)) / r

    return reduce


reductions: dict[str, Any] = {
    "max": _maximum,
    "average": _average,
    "average_over": average_over,
    "norm": norm,
    "power_mean": power_mean,
    "gaussian": gaussian,
    "log_sum_exp": log_sum_exp,
}
"""By name: maximum and average of what is covered, and functions of one number that return the others."""


def bins(n: int, o: int, kind: str = "overlapping") -> tuple[tuple[int, int], ...]:
    """Return the half-open ranges that `o` cells share `n` positions in.

    ``"overlapping"`` is PyTorch's ``[floor(i n / o), ceil((i + 1) n / o))``; ``"disjoint"`` rounds the boundaries ``i n / o``,
    halves upwards.

    Examples
    --------
    >>> bins(64, 3), bins(64, 3, "disjoint")
    (((0, 22), (21, 43), (42, 64)), ((0, 21), (21, 43), (43, 64)))
    """
    if kind == "overlapping":
        return tuple((i * n // o, -((i + 1) * n // -o)) for i in range(o))
    edges = [(2 * i * n + o) // (2 * o) for i in range(o + 1)]
    return tuple(itertools.pairwise(edges))


def pool_bins(V: Array, output_size: tuple[int, ...], kind: str, reduce: Reduce) -> Array:
    """Return what `reduce` makes of every cell of a grid over the whole input.

    Examples
    --------
    >>> pool_bins(np.array([[[1, 2, 3]]]), (2,), "overlapping", reductions["average"]).tolist()
    [[[1.5, 2.5]]]
    """
    ranges = [bins(n, o, kind) for n, o in zip(V.shape[2:], output_size, strict=True)]
    Z = np.zeros((*V.shape[:2], *output_size))
    for at in np.ndindex(*output_size):
        cell = V[(..., *(slice(*r[j]) for r, j in zip(ranges, at, strict=True)))].reshape(*V.shape[:2], -1)
        Z[(..., *at)] = reduce(cell, np.zeros(cell.shape[-1]))
    return Z


def fractional_starts(n: int, kernel: int, o: int, sample: float) -> tuple[int, ...]:
    """Return where `o` windows start among `n` positions at random steps, PyTorch's sequence; the last one ends with the axis.

    Examples
    --------
    >>> fractional_starts(9, 2, 4, 0.0), fractional_starts(9, 2, 4, 0.9)
    ((0, 2, 4, 7), (0, 2, 4, 7))
    """
    step = (n - kernel) / (o - 1) if o > 1 else 0.0
    return (*(int((i + sample) * step) - int(sample * step) for i in range(o - 1)), n - kernel)[:o]


def pool_fractions(V: Array, kernel: tuple[int, ...], output_size: tuple[int, ...], samples: Array, reduce: Reduce) -> Array:
    """Return what `reduce` makes of windows at random steps; `samples` holds a number per example, channel and axis.

    Examples
    --------
    >>> pool_fractions(np.array([[[1, 5, 2, 3]]]), (2,), (2,), np.zeros((1, 1, 1)), reductions["max"]).tolist()
    [[[5.0, 3.0]]]
    """
    Z = np.zeros((*V.shape[:2], *output_size))
    for b, c in np.ndindex(*V.shape[:2]):
        starts = [fractional_starts(*s) for s in zip(V.shape[2:], kernel, output_size, samples[b, c], strict=True)]
        for at in np.ndindex(*output_size):
            cell = V[(b, c, *(slice(s[j], s[j] + k) for s, j, k in zip(starts, at, kernel, strict=True)))].reshape(1, 1, -1)
            Z[(b, c, *at)] = reduce(cell, np.zeros(cell.shape[-1]))[0, 0]
    return Z


def channel_pool(V: Array, groups: int, reduce: Reduce) -> Array:
    """Return what `reduce` makes of each of `groups` runs of neighbouring channels (figure 9.9; maxout).

    Examples
    --------
    >>> channel_pool(np.array([[[1], [4], [3], [2]]]), 2, reductions["max"]).tolist()
    [[[4.0], [3.0]]]
    """
    size = V.shape[1] // groups
    parts = [reduce(np.moveaxis(V[:, g * size : (g + 1) * size], 1, -1), np.zeros(size)) for g in range(groups)]
    return np.stack(parts, 1)


def unpool(Z: Array, switches: Array, output_size: tuple[int, ...]) -> Array:
    """Put every value where its switch, a flat position, says, and zero elsewhere.

    Examples
    --------
    >>> unpool(np.array([[[5, 7]]]), np.array([[[1, 2]]]), (4,)).tolist()
    [[[0.0, 5.0, 7.0, 0.0]]]
    """
    V = np.zeros((*Z.shape[:2], prod(output_size)))
    np.put_along_axis(V, switches.reshape(*Z.shape[:2], -1), Z.reshape(*Z.shape[:2], -1), -1)
    return V.reshape(*Z.shape[:2], *output_size)


def unpool_top_left(Z: Array, kernel: Iterable[int]) -> Array:
    """Put every value into the first corner of its window: ``V[i k] = Z[i]``, and zero elsewhere.

    Examples
    --------
    >>> unpool_top_left(np.array([[[5, 7]]]), (2,)).tolist()
    [[[5.0, 0.0, 7.0, 0.0]]]
    """
    kernel = tuple(kernel)
    V = np.zeros((*Z.shape[:2], *(n * k for n, k in zip(Z.shape[2:], kernel, strict=True))))
    V[(..., *(slice(None, None, k) for k in kernel))] = Z
    return V
