"""Poolings by kernels of our own: plans by what the operands look like, made once and remembered.

The kernels (``native/pooling/``) read a tensor as ``(outer, z, y, x, inner)``, contiguous so.
Which dimensions are which is said here: neighbours without windows are one dimension, those before all windows are outer ones,
and those behind are inner ones, or a row along x if there is but one axis with windows.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ninefold.engines import native
from ninefold.ops import state
from ninefold.ops.layout import channels_last
from ninefold.spec.axis import Axis
from ninefold.tensors.layout import empty

__all__ = ["Divide", "Plan", "find"]


class Divide(NamedTuple):
    """What sums are divided by: a number, times what is counted along every axis.

    Parameters
    ----------
    number : float
    counts : tuple
        For each axis the half-open range of positions in which an output's taps are counted, as 1 where there are none; or None,
        where nothing is. Empty for no axis.
    """

    number: float = 1.0
    counts: tuple[tuple[int, int] | None, ...] = ()


_TYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2}
_JOINS = {"max": 0, "sum": 1}
_BEFORE = {"": 0, "abs": 1, "square": 2}
_AFTER = {"": 0, "root": 1}
_ALONE = 1 << 15  # elements below which a second thread would cost more than it does


def find(
    join: str, x: Tensor, axes: Sequence[Axis], before: str = "", after: str = "", divide: Divide | None = None
) -> "Plan | None":
    """Return what pools a plain tensor over windows of its last dimensions; None where only other routes can.

    Parameters
    ----------
    join : "max" or "sum"
    x : Tensor of shape ``(..., *n_in)``
    axes : sequence of Axis
        What they read outside is nothing.
    before, after : str
        ``"abs"`` or ``"square"`` of each element, ``"root"`` of each result.
    divide : Divide, optional
        Of sums.

    Examples
    --------
    >>> find("max", torch.zeros(4, dtype=torch.int64), [Axis(2, 2, 1, 0, n_in=4, n_out=2)]) is None
    True
    """
    if x.dtype not in _TYPES or not x.is_cpu or not state.is_plain(x, x) or native.instruction_set() is None or not x.numel():
        return None
    threads = 1 if x.numel() < _ALONE else torch.get_num_threads()
    return _made(join, tuple(x.shape), channels_last(x), x.dtype, tuple(axes), before, after, divide, threads)


@lru_cache(maxsize=1024)
def _made(
    join: str,
    shape: tuple[int, ...],
    last: bool,
    dtype: torch.dtype,
    axes: tuple[Axis, ...],
    before: str,
    after: str,
    divide: Divide | None,
    threads: int,
) -> "Plan | None":
    outer, kept, inner = _folded(shape, last, axes)
    if len(kept) > 3 or any(a.mode != "zeros" for a in axes):
        return None
    divided = divide or Divide()
    given = [_counted(at, a, divided) for at, a in kept]

    def plan(before: str, after: str) -> Any:
        how = [_JOINS[join], _BEFORE[before], _AFTER[after]]
        made = native.extension_module().PoolPlan
        return made(native.instruction_set(), _TYPES[dtype], threads, outer, inner, given, how, divided.number)

    result = (*shape[: len(shape) - len(axes)], *(a.n_out for a in axes))
    bare = plan("", "")
    return Plan(join, result, shape, last, axes, plan(before, after) if before or after else bare, bare, divide, before, after)


def _folded(shape: tuple[int, ...], last: bool, axes: tuple[Axis, ...]) -> tuple[int, list[tuple[int, Axis]], int]:
    """Return how the kernels see the memory: the outer size, three axes with their places among `axes` or -1, the inner size."""
    dims = [(-1, _whole(n)) for n in shape[: len(shape) - len(axes)]] + list(enumerate(axes))
    if last:
        dims.append(dims.pop(1))
    merged: list[tuple[int, Axis]] = []
    for at, axis in dims:
        if _bare(axis) and merged and _bare(merged[-1][1]):
            merged[-1] = -1, _whole(merged[-1][1].n_in * axis.n_in)
        else:
            merged.append((at, axis))
    outer = merged.pop(0)[1].n_in if _bare(merged[0][1]) and len(merged) > 1 else 1
    inner = merged.pop()[1].n_in if len(merged) > 2 and _bare(merged[-1][1]) else 1
    return outer, [(-1, _whole(1))] * (3 - len(merged)) + merged, inner


def _whole(n: int) -> Axis:
    return Axis(1, 1, 1, 0, n, n)


def _bare(axis: Axis) -> bool:
    """Whether every window along this axis is one element."""
    return (axis.kernel, axis.stride, axis.lo, axis.n_in) == (1, 1, 0, axis.n_out)


def _counted(at: int, axis: Axis, divide: Divide) -> list[int]:
    """Return an axis as the kernels take it, with what is counted along it."""
    within = divide.counts[at] if at >= 0 and divide.counts else None
    return [axis.kernel, axis.stride, axis.dilation, axis.lo, axis.n_in, axis.n_out, int(within is not None), *(within or (0, 0))]


class Plan:
    """One pooling of tensors of one kind: forward, and the gradient of maxima and of sums.

    Attributes
    ----------
    join, before, after, axes, divide
        As in `find`.
    """

    __slots__ = ("_bare", "_kernel", "_last", "_result", "_shape", "after", "axes", "before", "divide", "join")

    def __init__(
        self,
        join: str,
        result: tuple[int, ...],
        shape: tuple[int, ...],
        last: bool,
        axes: tuple[Axis, ...],
        kernel: Any,
        bare: Any,
        divide: Divide | None,
        before: str,
        after: str,
    ) -> None:
        self.join, self.axes, self.divide, self.before, self.after = join, axes, divide, before, after
        self._result, self._shape, self._last, self._kernel, self._bare = result, shape, last, kernel, bare

    def forward(self, x: Tensor) -> Tensor:
        """Return what is made of every window."""
        x = native.plain(x, self._last)
        z = empty(x, self._result, self._last)
        self._kernel.forward(native.address(x), native.address(z))
        return z

    def backward(self, x: Tensor | None, g: Tensor) -> Tensor:
        """Return the gradient with respect to what maxima or sums were taken of; a sum does not ask of what."""
        g = native.plain(g, self._last)
        dx = empty(g, self._shape, self._last)
        x = None if x is None else native.plain(x, self._last)
        self._bare.backward(0 if x is None else native.address(x), native.address(g), native.address(dx))
        return dx
