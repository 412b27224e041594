"""The definitions of the three maps: the oracle of every test, and the engine that accepts everything.

Every map is the same triple sum, over edges of the channel table, output positions and taps::

    c:  Z[b, o, j]     += K[e, j mod t, m] * V[b, i, at(j, m)]      eq. 9.7 to 9.10 of the book
    h:  R[b, i, at()]  += K[e, j mod t, m] * G[b, o, j]             eq. 9.13
    g:  D[e, j mod t, m] += G[b, o, j]     * V[b, i, at(j, m)]      eq. 9.11

for every edge ``e = (o, i)``, with ``at(j, m)`` the input position that output ``j`` reads with tap ``m``. Each differs from
the others only in which of the three arrays is summed into, which is why they are adjoint to one another. Integers stay
integers, so that equality can be exact.
"""

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from ninefold.spec.axis import Axis
from ninefold.spec.form import Form

__all__ = ["c", "g", "h", "terms"]

Array = np.ndarray[Any, np.dtype[Any]]

_QUIET = np.errstate(invalid="ignore", over="ignore")  # infinities that cancel are NaN, as the definition says


@_QUIET
def c(form: Form, K: Array, V: Array) -> Array:
    """Return the output: convolution, strided, dilated, grouped, tiled or unshared (eq. 9.7 to 9.10).

    Parameters
    ----------
    form : Form
    K : array of shape ``form.weight_shape``
    V : array of shape ``(batch, inputs, *n_in)``

    Returns
    -------
    array of shape ``(batch, outputs, *n_out)``

    Examples
    --------
    >>> from ninefold.spec import ConvSpec
    >>> form = ConvSpec(1, 1, (2,)).form(3)
    >>> c(form, np.array([[[-1, 1]]]), np.array([[[1, 4, 9]]])).tolist()
    [[[3, 5]]]
    """
    Z = np.zeros(form.output_shape(len(V)), np.result_type(K, V))
    packed, Vz, (o, i) = _packed(form, K), _with_zero(V), _edges(form)
    for kernel, at in _taps(form):
        np.add.at(Z, (slice(None), o), packed[kernel] * Vz[at][:, i])
    return Z


@_QUIET
def h(form: Form, K: Array, G: Array) -> Array:
    """Return the input's shape: transposed convolution, the gradient with respect to ``V`` (eq. 9.13).

    Parameters
    ----------
    form : Form
    K : array of shape ``form.weight_shape``
    G : array of shape ``(batch, outputs, *n_out)``

    Returns
    -------
    array of shape ``(batch, inputs, *n_in)``; positions that no output reads are exactly zero

    Examples
    --------
    >>> from ninefold.spec import ConvSpec
    >>> form = ConvSpec(1, 1, (2,)).form(3)
    >>> h(form, np.array([[[-1, 1]]]), np.array([[[3, 5]]])).tolist()
    [[[-3, -2, 5]]]
    """
    batch, packed, (o, i) = len(G), _packed(form, K), _edges(form)
    Rz = np.zeros((batch, form.channels.inputs, *(n + 1 for n in form.n_in)), np.result_type(K, G))
    for kernel, at in _taps(form):
        gathered = np.zeros((batch, form.channels.inputs, *form.n_out), Rz.dtype)
        np.add.at(gathered, (slice(None), i), packed[kernel] * G[:, o])
        np.add.at(Rz, at, gathered)
    return Rz[(..., *(slice(n) for n in form.n_in))]


@_QUIET
def g(form: Form, V: Array, G: Array) -> Array:
    """Return the kernel's shape: the gradient with respect to ``K`` (eq. 9.11).

    Parameters
    ----------
    form : Form
    V : array of shape ``(batch, inputs, *n_in)``
    G : array of shape ``(batch, outputs, *n_out)``

    Returns
    -------
    array of shape ``form.weight_shape``

    Examples
    --------
    >>> from ninefold.spec import ConvSpec
    >>> form = ConvSpec(1, 1, (2,)).form(3)
    >>> g(form, np.array([[[1, 4, 9]]]), np.array([[[3, 5]]])).tolist()
    [[[23, 57]]]
    """
    packed = np.zeros((form.channels.connections, *form.period, *form.kernel), np.result_type(V, G))
    Vz, (o, i) = _with_zero(V), _edges(form)
    for kernel, at in _taps(form):
        np.add.at(packed, kernel, (G[:, o] * Vz[at][:, i]).sum(axis=0))
    return _unpacked(form, packed)


def terms(form: Form) -> tuple[Array, Array, Array]:
    """Return the trilinear form itself: one product of an output, an input and a weight per element of these arrays.

    Parameters
    ----------
    form : Form

    Returns
    -------
    outputs, inputs, weights : arrays of integers, equally long
        Flat indices into one example of ``G`` and of ``V``, and into ``K``; what stands outside the input in a border of zeros is
        no term.

    Examples
    --------
    >>> from ninefold.spec import ConvSpec
    >>> [t.tolist() for t in terms(ConvSpec(1, 1, (2,)).form(3))]
    [[0, 1, 0, 1], [0, 1, 1, 2], [0, 0, 1, 1]]
    """
    packed = _packed(form, np.arange(prod(form.weight_shape)).reshape(form.weight_shape))
    inputs = np.arange(prod(form.input_shape(1))).reshape(form.input_shape(1))
    inputs = np.pad(inputs, ((0, 0), (0, 0), *((0, 1),) * form.ndim), constant_values=-1)
    outputs = np.arange(prod(form.output_shape(1))).reshape(form.output_shape(1))[0]
    o, i = _edges(form)
    found = [np.stack([outputs[o], inputs[at][0, i], packed[kernel]]).reshape(3, -1) for kernel, at in _taps(form)]
    every = np.concatenate(found, axis=1)
    a, b, k = every[:, every[1] >= 0]
    return a, b, k


def _with_zero(V: Array) -> Array:
    """Append a zero along every spatial axis: the place that index None is mapped to."""
    return np.pad(V, ((0, 0), (0, 0), *((0, 1),) * (V.ndim - 2)))


def _edges(form: Form) -> tuple[Array, Array]:
    o, i = np.array(form.channels.edges, dtype=np.intp).reshape(-1, 2).T
    return o, i


def _packed(form: Form, K: Array) -> Array:
    """Return the kernel as (edges, *period, *kernel)."""
    if form.tiled and form.channels.weight_tail:
        K = np.moveaxis(K, 1 + form.ndim, 1)
    return K.reshape(form.channels.connections, *form.period, *form.kernel)


def _unpacked(form: Form, packed: Array) -> Array:
    """Undo `_packed`."""
    if form.tiled and form.channels.weight_tail:
        packed = np.moveaxis(packed.reshape(*form.channels.weight_head, -1, *packed.shape[1:]), 1, 1 + form.ndim)
    return packed.reshape(form.weight_shape)


def _taps(form: Form) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...]]]:
    """For each tap, index the packed kernel to (edges, *n_out) and the padded input to (batch, inputs, *n_out)."""
    tables = [_table(a) for a in form.axes]
    cycle = np.ix_(*(np.arange(a.n_out) % max(a.period, 1) for a in form.axes))
    for taps in np.ndindex(*form.kernel):
        read = [a.kernel - 1 - m if form.flip else m for a, m in zip(form.axes, taps, strict=True)]
        at = np.ix_(*(table[:, m] for table, m in zip(tables, taps, strict=True)))
        yield (slice(None), *cycle, *read), (slice(None), slice(None), *at)


def _table(axis: Axis) -> Array:
    """Return at[j, m], with ``n_in`` (the appended zero) where the definition reads nothing."""
    rows = [[axis.n_in if i is None else i for i in axis.reads(j)] for j in range(axis.n_out)]
    return np.array(rows, dtype=np.intp).reshape(axis.n_out, axis.kernel)
