"""Direct summation in native code: depthwise, grouped, few channels, long and strided, any border, in 1-D to 3-D.

All three maps are gathering sums (`ninefold.engines.gather`) out of a band of the input that is staged in the cache with its
border written out, so that the inner loops know no edges, no strides and no modes:

    c: Z[o, j] = sum over (i, m) of K[o, i, m] staged[i, j + m]
    h: the same with input and output exchanged; a stride of s makes s interleaved outputs per axis
    g: D[o, i, m] = sum over j of G[o, j] staged[i, j + m]

Kernels are in ``native/direct/``; where channels are neighbours, in ``native/depthwise/`` (one channel per group) and in
``native/grouped/`` (groups whose channels fill a vector, or of which several do).
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import accumulate, product
from math import prod
from typing import Any

from torch import Tensor

from ninefold.engines import native
from ninefold.engines.base import Engine, Error, PairRunner, Runner, Traits, direct_error
from ninefold.engines.final import Final
from ninefold.engines.gather import Reads, Residue, gather_c, gather_h, read_c, read_h, staged, strides
from ninefold.engines.held import Held, plan_bytes
from ninefold.engines.machine import Machine
from ninefold.spec.axis import Axis
from ninefold.spec.channels import ChannelTable
from ninefold.spec.form import Form
from ninefold.spec.problem import Map, Problem
from ninefold.spec.runs import Span
from ninefold.tensors.layout import empty

__all__ = ["Direct"]

_MOST_RESIDUES = 64
_MOST_TAPS = 1 << 16
_SHARED = 32 << 20  # bytes of two operands that the cache of all cores holds: what is larger is read from memory at every pass
_SMALL = 2e-5  # seconds of work below which a second thread costs more than it saves


class Direct(Engine):
    """Sums the products of the definition, out of the cache."""

    name = "direct"
    revision = 2
    traits = Traits(plain_sums=True, exact=True, confines_nan=True)
    native = True
    epilogues = frozenset({"relu"})

    def refuses(self, problem: Problem) -> str | None:
        form = problem.form
        if (reason := native.unavailable(problem)) is not None:
            return reason
        if form.channels.connections == 0:
            return f"nothing to sum: 0 of {form.channels.inputs} x {form.channels.outputs} channels are connected"
        if form.ndim > 3:
            return f"kernels have 1 to 3 spatial axes, not {form.ndim}"
        if 0 in (problem.batch, *form.n_in, *form.n_out):
            return f"nothing to sum: batch {problem.batch}, sizes {form.n_in} and {form.n_out}"
        if (reason := native.unfolded(problem)) is not None:
            return reason
        residues = prod(min(a.period, a.n_out) * (a.stride if problem.map == "h" else 1) for a in form.axes)
        if residues > _MOST_RESIDUES:
            return f"{residues} residues of outputs, more than {_MOST_RESIDUES}, have kernels of their own"
        if (taps := prod(form.kernel)) > _MOST_TAPS:
            return f"a kernel of {taps} taps is long enough for a transform"
        return None

    def cost(self, problem: Problem, machine: Machine) -> float:
        moved = _passes(problem) * problem.bytes / machine.stream
        return float(moved + problem.macs / (_efficiency(problem) * machine.product) + machine.call)

    def error(self, problem: Problem) -> Error:
        return direct_error(problem)

    def scratch(self, problem: Problem) -> int:
        return int(_plan(problem).scratch)

    def prepare(self, problem: Problem, weight: Final | None = None) -> Runner:
        return _run_g(problem) if problem.map == "g" else _run_data(problem, relu=False)

    def prepare_with(self, problem: Problem, weight: Final | None, epilogue: str) -> Runner:
        if epilogue not in self.epilogues or problem.map == "g":
            return super().prepare_with(problem, weight, epilogue)
        return _run_data(problem, relu=True)

    def prepare_pair(self, h: Problem, g: Problem) -> PairRunner | None:
        form, each = h.form, 3 * h.bytes // (2 * max(h.batch, 1))  # V, G and the gradient to V of an image, about
        small = h.bytes <= _SHARED or each > _SHARED // 2 or h.batch < 2
        if small or not _depthwise(form) or form.tiled or form.mode != "zeros" or h.dtype == "bfloat16":
            return None
        if h.max_scratch is not None or (h.channels_last, h.threads) != (g.channels_last, g.threads):
            return None
        return _run_pair(h, g, _SHARED // 2 // each)


def _run_pair(h: Problem, g: Problem, many: int) -> PairRunner:
    """Take some images at a time through both maps, so that their part of G is still in the cache when g reads it."""
    form, last, batch = h.form, h.channels_last, h.batch
    parts = [(first, min(many, batch - first)) for first in range(0, batch, many)]
    plans = {n: (_plan(replace(h, batch=n)), _plan(replace(g, batch=n))) for n in {n for _, n in parts}}
    step_in, step_out, step_weight = (
        prod(s) * h.itemsize for s in (form.input_shape(1), form.output_shape(1), form.weight_shape)
    )

    def run(K: Tensor, V: Tensor, G: Tensor) -> tuple[Tensor, Tensor]:
        K, V, G = native.plain(K), native.plain(V, last), native.plain(G, last)
        R, D = empty(G, form.input_shape(batch), last), K.new_empty((len(parts), *form.weight_shape))
        data, up, to_data, to_weight = native.address(V), native.address(G), native.address(R), native.address(D)
        for k, (first, n) in enumerate(parts):
            to_h, to_g = plans[n]
            to_h(up + first * step_out, native.address(K), 0, to_data + first * step_in)
            to_g(data + first * step_in, up + first * step_out, 0, to_weight + k * step_weight)
        return R, D.sum(0)

    return run


def _depthwise(form: Form) -> bool:
    return form.channels.inputs == form.channels.outputs == form.channels.groups > 1


def _passes(problem: Problem) -> float:
    """Return how many plain passes over what is read and written its staging and storing cost, as measured (docs/design)."""
    if _in_vectors(problem):
        return 2.0
    if not _depthwise(problem.form):
        return 1.0
    if _pixels(problem):
        staged = problem.map == "g" and prod(problem.form.kernel) > 12 and problem.form.n_out[-1] < 32
        return 2.5 if staged else 1.4
    return 4.0 if max(problem.form.stride) > 1 else 1.0


def _pixels(problem: Problem) -> bool:
    """Whether vectors are of channels, which are neighbours."""
    return problem.channels_last and _depthwise(problem.form)


def _in_vectors(problem: Problem) -> bool:
    """Whether groups of channels that are neighbours lie in vectors: in whole ones, or several in one."""
    c = problem.form.channels
    if not problem.channels_last or isinstance(c, ChannelTable) or c.groups == 1 or c.inputs != c.outputs or c.inputs == c.groups:
        return False
    each = c.inputs // c.groups
    return problem.dtype == "float32" and each <= _WIDEST and (each % 8 == 0 or each in (2, 4))


def _efficiency(problem: Problem) -> float:
    """Return the part of a large product's rate that the inner loops reach, as measured (docs/design)."""
    if _in_vectors(problem):
        slides = problem.form.kernel[-1] == 3 and problem.form.stride[-1] == problem.form.dilation[-1] == 1
        return 0.45 if problem.map == "g" else 0.75 if slides else 0.42
    form, pixels = problem.form, _pixels(problem)
    width = (form.n_in if problem.map == "h" else form.n_out)[-1]
    lanes = 1.0 if pixels else width / (-(-width // 8) * 8)
    gathered = 1.0 if pixels or not problem.channels_last else 0.5 if problem.map == "g" else 0.9  # out of pixels, one by one
    strided = form.stride[-1] if problem.map == "h" and not pixels else 1
    scattered = 1.0 if strided == 1 else 0.8
    summed = 1.0 if problem.map != "g" else 0.3 if form.tiled else 0.7  # a kernel of a tile sums few outputs
    alone = form.channels.outputs == form.channels.groups and all(n == 1 for n in form.kernel[:-1])
    shared = 0.6 if alone and not pixels else 1.0  # one output row and channel: every input is loaded for every tap
    positions = prod(form.n_in if problem.map == "h" else form.n_out)
    reused = 1.0 if pixels or _depthwise(form) or positions > _FEWEST else 0.4  # weights are loaded for few vectors of outputs
    return 0.75 * lanes * gathered * scattered * summed * shared * reused


_WIDEST = 64  # channels of a group that are taken from vectors of neighbours
_FEWEST = 64  # positions under which dense kernels are mostly loaded, measured


def _run_data(problem: Problem, *, relu: bool) -> Runner:
    form, last, plan = problem.form, problem.channels_last, _plan(problem)
    shape = form.output_shape(problem.batch) if problem.map == "c" else form.input_shape(problem.batch)

    def run(K: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
        K, x = native.plain(K), native.plain(x, last)
        out = empty(x, shape, last)
        bias = None if bias is None else native.plain(bias)
        plan(native.address(x), native.address(K), 0 if bias is None else native.address(bias), native.address(out), relu)
        return out

    return run


def _run_g(problem: Problem) -> Runner:
    form, last, plan = problem.form, problem.channels_last, _plan(problem)
    whole = all(a.period <= a.n_out for a in form.axes)

    def run(V: Tensor, G: Tensor, bias: Tensor | None = None) -> Tensor:  # noqa: ARG001  a kernel has no bias
        V, G = native.plain(V, last), native.plain(G, last)
        D = V.new_empty(form.weight_shape) if whole else V.new_zeros(form.weight_shape)  # kernels that no output uses stay 0
        plan(native.address(V), native.address(G), 0, native.address(D))
        return D

    return run


_ONE = Axis(kernel=1, stride=1, dilation=1, lo=0, n_in=1, n_out=1)


_PLANS: Held[Any] = Held(16 << 20, lambda plan: plan[1])


def _plan(problem: Problem) -> Any:
    """Return the native plan of a problem, remembered."""
    return _PLANS.get(problem, lambda: (_made(problem), plan_bytes(problem.form)))[0]


def _made(problem: Problem) -> Any:
    """Make the native plan of a problem: a correlation per residue along z and y, those along x together."""
    form, transposed = problem.form, problem.map == "h"
    channels, groups = form.channels, form.channels.groups
    ins, outs = channels.inputs // groups, channels.outputs // groups
    edges = _edges(channels, problem.map, prod(form.weight_shape[1:])) if isinstance(channels, ChannelTable) else []
    read, written = form.input_shape(problem.batch), form.output_shape(problem.batch)
    element = _Elements(form)
    per_group = outs * element.out
    if transposed:
        read, written, ins, outs = written, read, outs, ins
        weight = [per_group, element.inner, element.out]
    else:
        weight = [per_group, element.out, element.inner]
    axes = (_ONE,) * (3 - form.ndim) + form.axes
    reads = [(gather_h if transposed else gather_c)(axis) for axis in axes]
    standing = [(read_h if transposed else read_c)(axis) for axis in axes]
    in_strides, out_strides = strides(read, problem.channels_last), strides(written, problem.channels_last)
    out_strides += [r.jump for r in reads]
    plan = native.extension_module().DirectPlan(
        native.instruction_set(), native.TYPES[problem.dtype], _threads(problem), problem.map == "g"
    )
    side = staged(reads[2].residues, reads[2].step, unit=True)
    at_x = standing[2](side.spans)
    lines = [
        (r.first, r.count, list(at), [element.of(2)(w) for w in r.weights])
        for r, at in zip(reads[2].residues, side.at, strict=True)
    ]
    for z, y in product(reads[0].residues, reads[1].residues):
        along = [_Along(z, reads[0], standing[0], element.of(0)), _Along(y, reads[1], standing[1], element.of(1))]
        fed = bool(z.starts and y.starts and any(r.starts for r in reads[2].residues))  # else nothing is read
        pieces = [along[0].pieces, along[1].pieces, at_x]
        plan.add(
            [problem.batch, groups, ins, outs],
            in_strides,
            out_strides,
            weight,
            edges,
            [along[0].count, along[1].count, side.count, along[0].step, along[1].step],
            pieces,
            along[0].line,
            along[1].line,
            lines,
            in_strides[4] == 1 and fed and all(map(_in_place, pieces)),
        )
    return plan


def _edges(table: ChannelTable, map_: Map, size: int) -> list[list[int]]:
    """Return a table in the lists of the native plan: first, channel, place (in kernels of that size), and for g the input."""
    by_input = map_ != "c"
    lists: list[list[int]] = [[] for _ in range(table.inputs if by_input else table.outputs)]
    for place, (o, i) in enumerate(table.edges):
        lists[i if by_input else o].append(place)
    if map_ == "g":  # up to four outputs are multiplied with one staged input
        lists = [places[k : k + 4] for places in lists for k in range(0, len(places), 4)]
    order = [place for places in lists for place in places]
    channel = [table.edges[place][0 if by_input else 1] for place in order]
    shared = [table.edges[places[0]][1] for places in lists] if map_ == "g" else []
    return [[0, *accumulate(map(len, lists))], channel, [place * size for place in order], shared]


class _Elements:
    """Steps in the weight, in elements: between outputs, inputs, and kernel elements (of the period, tap) along each axis."""

    def __init__(self, form: Form) -> None:
        missing = 3 - form.ndim
        kernel = (1,) * missing + form.kernel
        period = (1,) * missing + (form.period if form.tiled else (1,) * form.ndim)
        self.kernel, self.flip = kernel, form.flip
        self.taps = [kernel[1] * kernel[2], kernel[2], 1]
        self.inner = prod(kernel)
        each = self.inner * prod(form.channels.weight_tail)  # a table's kernels are one per edge
        self.tiles = [period[1] * period[2] * each, period[2] * each, each]
        self.out = prod(period) * each

    def of(self, axis: int) -> Callable[[tuple[int, int]], int]:
        def place(pair: tuple[int, int]) -> int:
            tile, tap = pair
            return tile * self.tiles[axis] + (self.kernel[axis] - 1 - tap if self.flip else tap) * self.taps[axis]

        return place


class _Along:
    """One residue along z or y: what stands at its staged rows, how many these are, and its line."""

    __slots__ = ("count", "line", "pieces", "step")

    def __init__(
        self,
        residue: Residue,
        reads: Reads,
        standing: Callable[[Iterable[Span]], list[list[int]]],
        place: Callable[[tuple[int, int]], int],
    ) -> None:
        side = staged((residue,), reads.step, unit=False)
        self.pieces, self.count, self.step = standing(side.spans), side.count, side.step
        self.line = (residue.first, residue.count, list(side.at[0]), [place(w) for w in residue.weights])


def _in_place(pieces: list[list[int]]) -> bool:
    """Whether all positions are neighbours in the axis itself."""
    _, first, count, step = pieces[0]
    return len(pieces) == 1 and first >= 0 and (count == 1 or step == 1)


def _threads(problem: Problem) -> int:
    work = problem.macs / 2e10 + problem.bytes / 1e10
    return problem.threads if work > _SMALL else 1
