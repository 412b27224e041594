"""Locally connected layers in native code: every weight is read, or written, once for all examples.

With the patch ``X[b, p]`` of output position ``p`` and the row of weights ``K[o, p]``, as long as inputs times taps, eq. 9.9 is

    c:  Z[b, o, p] = <K[o, p], X[b, p]>
    h:  X'[b, p] = sum over o of G[b, o, p] K[o, p], added to where the patch was read
    g:  D[o, p] = sum over b of G[b, o, p] X[b, p]

Rows of neighbouring positions are neighbours in memory: a few outputs at a time, weights stream along the positions. Many
examples are lanes of a vector, and a weight is broadcast; of few examples patches are copied into rows, and lanes are taps.
Kernels are in ``native/unshared/``; a position finds its row by a table, so that tiles
of many kernels, and layers that share along one axis only, run as well.
"""

from math import prod
from typing import Any

from torch import Tensor

from ninefold.engines import native
from ninefold.engines.base import Engine, Error, Runner, Traits, direct_error
from ninefold.engines.final import Final
from ninefold.engines.gather import strides
from ninefold.engines.held import Held
from ninefold.engines.machine import Machine
from ninefold.spec.axis import Axis
from ninefold.spec.channels import ChannelTable
from ninefold.spec.problem import Problem
from ninefold.spec.runs import backwards, runs
from ninefold.tensors.layout import empty

__all__ = ["Local"]

_MAPS = {"c": 0, "h": 1, "g": 2}
_DTYPES = ("float32", "float64")
_FEWEST = 64
_SMALL = 2e-5  # seconds of work below which a second thread costs more than it saves
_STAGED = 12 << 20  # bytes of staged examples that are kept in the cache; more are cut, and the weights read again


class Local(Engine):
    """Unshared kernels, and tiles of many."""

    name = "local"
    revision = 1
    traits = Traits(plain_sums=True, exact=True, confines_nan=True)
    native = True
    by_format = False

    def refuses(self, problem: Problem) -> str | None:
        form = problem.form
        if (reason := native.unavailable(problem)) is not None:
            return reason
        if problem.dtype not in _DTYPES:
            return f"rows of weights are read in {len(_DTYPES)} dtypes, {' and '.join(_DTYPES)}, not {problem.dtype}"
        if isinstance(form.channels, ChannelTable):
            return f"a table of {form.channels.connections} channel connections has no equal rows of taps"
        if form.ndim > 3:
            return f"kernels have 1 to 3 spatial axes, not {form.ndim}"
        if 0 in (problem.batch, *form.n_in, *form.n_out):
            return f"nothing to sum: batch {problem.batch}, sizes {form.n_in} and {form.n_out}"
        used = prod(min(a.period, a.n_out) for a in form.axes)
        if not form.tiled or (used <= _FEWEST and any(a.period < a.n_out for a in form.axes)):
            return (
                f"{used} kernels for {prod(form.n_out)} positions are shared; rows of weights pay from {_FEWEST + 1} of them on"
            )
        return None

    def cost(self, problem: Problem, machine: Machine) -> float:
        return problem.bytes / machine.stream + problem.macs / (0.6 * machine.product) + machine.call

    def error(self, problem: Problem) -> Error:
        return direct_error(problem)

    def scratch(self, problem: Problem) -> int:
        return int(_plan(problem).scratch)

    def prepare(self, problem: Problem, weight: Final | None = None) -> Runner:
        plan, form, last = _plan(problem), problem.form, problem.channels_last
        if problem.map == "g":

            def gradient(V: Tensor, G: Tensor, bias: Tensor | None = None) -> Tensor:  # noqa: ARG001  a kernel has no bias
                V, G = native.plain(V, last), native.plain(G, last)
                D = V.new_empty(form.weight_shape)
                plan(native.address(V), native.address(G), 0, native.address(D))
                return D

            return gradient
        shape = form.output_shape(problem.batch) if problem.map == "c" else form.input_shape(problem.batch)

        def run(K: Tensor, X: Tensor, bias: Tensor | None = None) -> Tensor:
            K, X = native.plain(K), native.plain(X, last)
            out = empty(X, shape, last)
            bias = None if bias is None else native.plain(bias)
            plan(native.address(K), native.address(X), 0 if bias is None else native.address(bias), native.address(out))
            return out

        return run


_ONE = Axis(kernel=1, stride=1, dilation=1, lo=0, n_in=1, n_out=1)


_PLANS: Held[Any] = Held(16 << 20, lambda plan: plan[1])


def _plan(problem: Problem) -> Any:
    """Return the native plan of a problem, remembered."""
    size = 4096 + 8 * prod(problem.form.kernel)
    return _PLANS.get(problem, lambda: (_fitting(problem), size))[0]


def _fitting(problem: Problem) -> Any:
    """Make the native plan of a problem, its examples cut so that what is staged fits the cap where it can."""
    form, batch = problem.form, problem.batch
    each = form.channels.inputs * prod(a.span for a in form.axes) * problem.itemsize
    cut = min(batch, max(64, _STAGED // max(1, each)))
    plan = _cut_plan(problem, cut)
    while problem.max_scratch is not None and plan.scratch > problem.max_scratch and cut > 1:
        cut = -(-cut // 2)
        plan = _cut_plan(problem, cut)
    return plan


def _cut_plan(problem: Problem, cut: int) -> Any:
    form, channels = problem.form, problem.form.channels
    axes = (_ONE,) * (3 - form.ndim) + form.axes
    outputs = [a.n_out for a in axes]
    standing = [runs(a, [(-a.lo, a.span, 1)]) for a in axes]
    # a kernel that is read backwards is one read forwards over an input that is
    first = [a.span - a.extent if form.flip else 0 for a in axes]
    step = [-a.stride if form.flip else a.stride for a in axes]
    last = problem.channels_last and form.ndim > 1
    positions = prod(outputs)
    return native.extension_module().LocalPlan(
        native.instruction_set(),
        _MAPS[problem.map],
        native.TYPES[problem.dtype],
        _threads(problem),
        cut,
        [problem.batch, channels.groups, channels.inputs // channels.groups, channels.outputs // channels.groups],
        [*strides((1, channels.inputs, *(a.n_in for a in axes)), last), *(a.n_in for a in axes)],
        [channels.outputs * positions, 1, channels.outputs] if last else [channels.outputs * positions, positions, 1],
        [backwards(pieces) for pieces in standing] if form.flip else standing,
        [a.span for a in axes],
        outputs,
        first,
        step,
        [a.period for a in axes],
        [a.kernel for a in axes],
        [a.dilation for a in axes],
    )


def _threads(problem: Problem) -> int:
    work = problem.macs / 2e10 + problem.bytes / 1e10
    return problem.threads if work > _SMALL else 1
