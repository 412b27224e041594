"""The definitions of what is written around an image, and of its patches side by side.

Padding: ``Z[j] = V[source(j - lo)]`` along every axis, for the index function of a mode (`ninefold.spec.padding`). Patches:
column ``j`` holds, channel after channel and tap after tap, what output ``j`` of such a convolution reads; folding is the
adjoint.
"""

from typing import Any

import numpy as np

from ninefold.spec.form import Form
from ninefold.spec.padding import MODES

__all__ = ["fold", "pad", "unfold"]

Array = np.ndarray[Any, np.dtype[Any]]


def pad(V: Array, pads: tuple[tuple[int, int], ...], mode: str, value: Any = 0) -> Array:
    """Return the array with pairs ``(before, after)`` written around its last axes; negative ones crop.

    Parameters
    ----------
    V : array
    pads : tuple of pairs, one for each of the last axes
    mode : str
        A key of `MODES`.
    value : number
        What stands where the mode says nothing does.

    Examples
    --------
    >>> pad(np.array([1, 2, 3]), ((2, 1),), "symmetric").tolist(), pad(np.array([1, 2, 3]), ((1, -1),), "zeros", 7).tolist()
    ([2, 1, 1, 2, 3, 3], [7, 1, 2])
    """
    first = V.ndim - len(pads)
    for axis, (lo, hi) in enumerate(pads, first):
        n = V.shape[axis]
        at = [MODES[mode](i - lo, n) for i in range(n + lo + hi)]
        parts = [np.full_like(V.take([0], axis), value) if i is None else V.take([i], axis) for i in at]
        V = np.concatenate([V.take([], axis), *parts], axis)
    return V


def unfold(form: Form, V: Array) -> Array:
    """Return the patches as columns: shape ``(batch, channels * taps, positions)``.

    Examples
    --------
    >>> from ninefold.spec import ConvSpec
    >>> unfold(ConvSpec(1, 1, (2,)).form(3), np.array([[[1, 4, 9]]])).tolist()
    [[[1, 4], [4, 9]]]
    """
    columns = np.zeros((*V.shape[:2], *form.kernel, *form.n_out), V.dtype)
    for m in np.ndindex(*form.kernel):
        for j in np.ndindex(*form.n_out):
            at = [axis.index(p, t) for axis, p, t in zip(form.axes, j, m, strict=True)]
            if None not in at:
                columns[(..., *m, *j)] = V[(..., *at)]
    return columns.reshape(len(V), -1, int(np.prod(form.n_out)))


def fold(form: Form, columns: Array) -> Array:
    """Return the sum of patches where they were read: the adjoint of `unfold`, of shape ``(batch, channels, *n_in)``.

    Examples
    --------
    >>> from ninefold.spec import ConvSpec
    >>> fold(ConvSpec(1, 1, (2,)).form(3), np.array([[[1, 4], [4, 9]]])).tolist()
    [[[1, 8, 9]]]
    """
    patches = columns.reshape(len(columns), -1, *form.kernel, *form.n_out)
    V = np.zeros((*patches.shape[:2], *form.n_in), columns.dtype)
    for m in np.ndindex(*form.kernel):
        for j in np.ndindex(*form.n_out):
            at = [axis.index(p, t) for axis, p, t in zip(form.axes, j, m, strict=True)]
            if None not in at:
                V[(..., *at)] += patches[(..., *m, *j)]
    return V
