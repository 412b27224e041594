"""Matrix products whose columns are never written out (implicit GEMM), in native code: any stride, dilation and border.

With the columns ``X[(i, m), (b, j)] = V[b, i, at(j, m)]`` of im2col, maps c and g are ``Z = K X`` and ``D = G X^T``; map h of a
layer with unit stride is c with the channels exchanged and ``at`` read the other way round. Contiguous positions are columns of
the product, packed a block at a time; channels-last pixels are its rows, and are read where they lie, through a table of
addresses (Dukhan, "The indirect convolution algorithm", 2019). Kernels are in ``native/implicit/``.
"""

from functools import lru_cache
from math import prod
from typing import Any

from torch import Tensor

from ninefold.engines import native
from ninefold.engines.base import Engine, Error, Runner, Traits, direct_error
from ninefold.engines.final import Final
from ninefold.engines.gather import strides
from ninefold.engines.machine import Machine
from ninefold.spec.axis import Axis
from ninefold.spec.problem import Problem
from ninefold.spec.runs import runs
from ninefold.tensors.layout import empty

__all__ = ["Implicit"]

_DTYPES = ("float32", "float64")
_BLOCK = 96  # positions of an item of work: whole rows and columns of every instruction set's tiles
_LARGE = 256 << 10  # bytes of a kernel from which on it is worth passing for more positions at a time
_FEWEST = {"c": 64, "h": 128, "g": 64}  # positions up to which a kernel is read in place, measured
_SMALL = 1 << 18  # multiply-adds below which a second thread costs more than it saves


class Implicit(Engine):
    """Blocked products out of the operands' own memory."""

    name = "implicit"
    revision = 2
    traits = Traits(plain_sums=True, exact=True, confines_nan=True)
    native = True
    epilogues = frozenset({"relu"})

    def refuses(self, problem: Problem) -> str | None:
        form = problem.form
        if (reason := native.unavailable(problem)) is not None:
            return reason
        if problem.dtype not in _DTYPES:
            return f"products are summed in {len(_DTYPES)} dtypes, {' and '.join(_DTYPES)}, not in {problem.dtype}"
        if (reason := native.blockless(form, "a product")) is not None:
            return reason
        if (reason := native.unfolded(problem)) is not None:
            return reason
        if problem.map == "h" and max(form.stride) > 1 and not _few(problem):
            return f"a stride of {form.stride} is cut into its residues by a rewrite before there is a product"
        if form.channels.inputs == form.channels.outputs == form.channels.groups > 1:
            return f"with {form.channels.groups} depthwise channels there are no matrices to multiply"
        if 0 in (problem.batch, *form.n_out, *form.n_in):
            return f"nothing to multiply: batch {problem.batch}, sizes {form.n_in} and {form.n_out}"
        return None

    def cost(self, problem: Problem, machine: Machine) -> float:
        work = _work(problem) / (0.95 * machine.product)
        return work + problem.bytes / machine.stream + machine.call

    def error(self, problem: Problem) -> Error:
        return direct_error(problem)

    def scratch(self, problem: Problem) -> int:
        plan = _fitting(problem)
        kept = plan.kernel_bytes() if problem.frozen and problem.map != "g" else 0
        return int(kept + plan.scratch(problem.map == "g", kept > 0))

    def prepare(self, problem: Problem, weight: Final | None = None) -> Runner:
        if problem.map == "g":
            return _weight_map(problem)
        return _data_map(problem, weight, relu=False)

    def prepare_with(self, problem: Problem, weight: Final | None, epilogue: str) -> Runner:
        if epilogue not in self.epilogues or problem.map == "g":
            return super().prepare_with(problem, weight, epilogue)
        return _data_map(problem, weight, relu=True)


def _work(problem: Problem) -> float:
    """Return the multiply-adds that a run is worth, with packing and tiles that are not full, as measured (docs/design)."""
    form, (ins, outs), last = problem.form, _channels(problem), problem.channels_last
    taps, groups, weights = prod(form.kernel), form.channels.groups, prod(form.weight_shape)
    if _few(problem):
        spots = problem.batch * prod(form.n_out)
        lines, deep = (spots, 16) if problem.map == "h" else (outs, 256 if problem.map == "c" else spots)
        beside = 8 * spots * ins * taps * groups if problem.map == "c" else 16 * weights  # packed columns; a pass over the weight
        return problem.macs * (-(-lines // 6) * 6 / lines) * (1 + 8 / deep) + beside
    spots = problem.batch * prod(form.n_in if problem.map == "h" else form.n_out) * groups
    if problem.map == "g":
        across, deep = 6, min(256, spots // groups)
        lane = (8 if ins % 16 == 0 else 24) if last else (10 if ins % 8 == 0 else 16)
        packing = spots * taps * (20 + lane * ins) + (10 * spots * outs if last else 0)
        kernel = 30 * weights
    else:
        across, deep = 16 if last else 6, min(256, ins * taps)
        packing = spots * taps * (30 if last else 20 + 8 * ins)
        in_place = problem.frozen or (problem.map == "c" and not last and not form.flip)
        kernel = 0 if in_place else (25 if taps == 1 else 100) * weights
    full = outs / (-(-outs // across) * across)
    return problem.macs / full * (1 + 8 / deep) + packing + kernel


def _few(problem: Problem) -> bool:
    """Whether there are so few positions that a kernel of several taps is left where it lies, instead of being packed."""
    form = problem.form
    return prod(form.kernel) > 1 and problem.batch * prod(form.n_out) <= _FEWEST[problem.map] and not problem.frozen


def _channels(problem: Problem) -> tuple[int, int]:
    """Return channels per group of what is read, and of what is written or, in map g, paired with it."""
    c = problem.form.channels
    ins, outs = c.inputs // c.groups, c.outputs // c.groups
    return (outs, ins) if problem.map == "h" else (ins, outs)


def _under(axis: Axis, *, transposed: bool) -> tuple[list[int], list[list[int]]]:
    """Return what stands under outputs, or under inputs: ``(outputs, taps, first, step, tap, every)`` and runs.

    Under output j and tap t it is position ``(first + j * step + t * tap) / every`` of the runs, where that is a whole one.
    """
    if transposed:
        numbers = [axis.n_in, axis.kernel, axis.lo, 1, -axis.dilation, axis.stride]
        return numbers, [[0, 0, axis.n_out, 1]]
    return [axis.n_out, axis.kernel, 0, axis.stride, axis.dilation, 1], runs(axis, [(-axis.lo, axis.span, 1)])


_ONE = Axis(kernel=1, stride=1, dilation=1, lo=0, n_in=1, n_out=1)


def _plan(problem: Problem, block: int, *, kernel_last: bool) -> Any:
    form, transposed = problem.form, problem.map == "h"
    (ins, outs), groups, last = _channels(problem), form.channels.groups, problem.channels_last and form.ndim > 1
    reads, writes = form.input_shape(problem.batch), form.output_shape(problem.batch)
    if transposed:
        reads, writes = writes, reads
    axes = (_ONE,) * (3 - form.ndim) + form.axes
    under, pieces = zip(*(_under(a, transposed=transposed) for a in axes), strict=True)
    plain = all(a.kernel == a.stride == 1 and a.lo == 0 and a.n_in == a.n_out for a in axes)
    taps, row = prod(form.kernel), form.channels.inputs // groups * prod(form.kernel)
    inner, step = (1, form.channels.inputs // groups) if kernel_last else (taps, 1)
    weight = [row * (form.channels.outputs // groups), *((inner, row) if transposed else (row, inner)), step]
    into, out = strides(reads, last), strides(writes, last)
    threads = problem.threads if problem.macs > _SMALL else 1
    total = problem.batch * prod(writes[2:])
    items = groups * -(-total // block)
    if problem.map != "g":
        split = min(-(-2 * threads // items), -(-outs // 16)) if threads > 1 and items < 2 * threads else 1
    else:  # each part of the positions has sums of its own, which only pay where they are few
        apart = prod(form.weight_shape) * problem.itemsize > _LARGE and outs >= 12 * threads
        split = threads if apart or items * block < 64 * threads else 1
    numbers = [problem.batch, groups, ins, outs, *into, out[0], out[1], out[4], *weight]
    few, seen = _few(problem), prod(reads[2:])
    numbers += [int(form.flip), int(plain), int(few and problem.map != "c"), seen, int(last and not few), block, split, threads]
    return native.extension_module().ImplicitPlan(native.instruction_set(), under, pieces, numbers, native.TYPES[problem.dtype])


@lru_cache(maxsize=1024)
def _fitting(problem: Problem, *, kernel_last: bool = False) -> Any:
    """Return the plan with the largest blocks whose scratch is under the cap, or with the smallest ones."""
    block = _BLOCK * (2 if prod(problem.form.weight_shape) * problem.itemsize > _LARGE else 1)
    while True:
        plan = _plan(problem, block, kernel_last=kernel_last)
        cap = problem.max_scratch
        if cap is None or block <= 6 or plan.scratch(problem.map == "g", problem.frozen) <= cap:
            return plan
        block //= 2


def _packed(plan: Any, K: Tensor) -> Tensor:
    kept = native.scratch(plan.kernel_bytes())
    plan.prepare(native.address(K), native.address(kept))
    return kept


def _data_map(problem: Problem, weight: Final | None, *, relu: bool) -> Runner:
    form = problem.form
    last = problem.channels_last and form.ndim > 1
    shape = form.input_shape(problem.batch) if problem.map == "h" else form.output_shape(problem.batch)
    plans: dict[bool, Any] = {}
    kept, kept_last = None, False
    if weight is not None:
        K, kept_last = native.either(weight.tensor)
        plan = _fitting(problem, kernel_last=kept_last)
        if plan.kernel_bytes():  # otherwise the weight is read where it lies
            kept = weight.form(("implicit", problem.map, last, form.flip), lambda: _packed(plan, K))

    def run(K: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
        x = native.plain(x, last)
        K, k_last = native.either(K) if kept is None else (K, kept_last)
        out = empty(x, shape, last)
        if (plan := plans.get(k_last)) is None:
            plan = plans[k_last] = _fitting(problem, kernel_last=k_last)
        added = None if bias is None else native.plain(bias)
        given = (native.address(K), 0) if kept is None else (0, native.address(kept))
        plan.run(native.address(x), *given, 0 if added is None else native.address(added), native.address(out), relu)
        return out

    return run


def _weight_map(problem: Problem) -> Runner:
    shape, last, plan = problem.form.weight_shape, problem.channels_last and problem.form.ndim > 1, _fitting(problem)

    def run(V: Tensor, G: Tensor, bias: Tensor | None = None) -> Tensor:  # noqa: ARG001  a kernel has no bias
        V, G = native.plain(V, last), native.plain(G, last)
        D = V.new_empty(shape)
        plan.weigh(native.address(V), native.address(G), native.address(D))
        return D

    return run
