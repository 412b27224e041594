"""Short products of polynomials along every axis, fused with blocked matrix products: the engine of dense kernels at stride 1.

``m`` outputs of ``r`` taps take ``n = m + r - 1`` multiplications (`toom`), along d axes the product of these numbers. A tile of
data is transformed once for all output channels, a kernel once for all tiles, and at every point p there remains a product of
matrices over channels, in a cache-sized block of tiles:

    c:  Y[o, t] = C [ sum_i U[p, o, i] X[p, i, t] ],      U = S K,  X = D V
    h:  the same with the kernel read backwards, channels exchanged and pads of extent - 1 - lo
    g:  K'[o, i] = C [ sum_t (S G)[p, o, t] X[p, i, t] ],  F(r, m) on the same points: G's tiles are the kernels

A long kernel is cut into pieces of ``r = m`` taps (or a multiple): piece q reads the tile q places on, so that data transformed
once serves all pieces, and the sums run over pieces and channels alike:

    Y[o, t] = C [ sum_{q, i} U[p, q, o, i] X[p, i, t + q] ]

Sources: Winograd 1980; Lavin, Gray 2016; choice of points after Barabasz, Anderson, Soodhalter, Gregg 2018. Rounding spreads over
a tile, and so do NaN and infinity.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any

from torch import Tensor

from ninefold.engines import native
from ninefold.engines.base import Engine, Error, Runner, Traits, Watched, unit_roundoff, unwatched
from ninefold.engines.final import Final
from ninefold.engines.gather import read_c, read_h, strides
from ninefold.engines.machine import Machine
from ninefold.engines.toom import MOST_POINTS, Toom, toom
from ninefold.spec.axis import Axis
from ninefold.spec.problem import Problem
from ninefold.tensors.layout import empty

__all__ = ["Winograd"]

_DTYPES = ("float32", "float64")
_CACHE = 400 << 10
"""Bytes of transformed data that are made together: they stay in a core's own cache."""


class Winograd(Engine):
    """Tiles of a few outputs, transformed exactly by rationals."""

    name = "winograd"
    revision = 1
    traits = Traits(plain_sums=False, exact=False, confines_nan=False)
    native = True
    by_format = False
    epilogues = frozenset({"relu"})

    def refuses(self, problem: Problem) -> str | None:
        form = problem.form
        if (reason := native.unavailable(problem)) is not None:
            return reason
        if problem.dtype not in _DTYPES:
            return f"transforms are kept in float32 or float64 (4 or 8 bytes), not in {problem.dtype}"
        if (reason := native.blockless(form, "a transform")) is not None:
            return reason
        if (reason := native.unfolded(problem)) is not None:
            return reason
        if max(form.stride) > 1 or max(form.dilation) > 1:
            return f"tiles need neighbouring outputs and taps: stride {form.stride} and dilation {form.dilation} must be 1"
        if prod(form.kernel) == 1:
            return "a kernel of 1 tap has no products to save"
        if form.channels.inputs == form.channels.outputs == form.channels.groups > 1:
            return f"with {form.channels.groups} depthwise channels nothing shares the transforms"
        if 0 in (problem.batch, *form.n_out, *form.n_in):
            return f"nothing to transform: batch {problem.batch}, sizes {form.n_in} and {form.n_out}"
        return None

    def cost(self, problem: Problem, machine: Machine) -> float:
        return _tiling(problem).seconds(problem, machine)

    def error(self, problem: Problem) -> Error:
        return _tiling(problem).error(problem)

    def scratch(self, problem: Problem) -> int:
        native, weights = _fitting(problem), problem.map == "g"
        kept = native.kernel_bytes() if problem.frozen else 0
        return kept + int(native.scratch(weights, problem.frozen))

    def prepare(self, problem: Problem, weight: Final | None = None) -> Runner:
        return _weight_map(problem) if problem.map == "g" else unwatched(_data_map(problem, weight, relu=False))

    def prepare_with(self, problem: Problem, weight: Final | None, epilogue: str) -> Runner:
        if epilogue not in self.epilogues or problem.map == "g":
            return super().prepare_with(problem, weight, epilogue)
        return unwatched(_data_map(problem, weight, relu=True))

    def prepare_watched(self, problem: Problem, weight: Final | None, epilogue: str | None = None) -> Watched:
        if problem.map == "g" or (epilogue is not None and epilogue not in self.epilogues):
            return super().prepare_watched(problem, weight, epilogue)
        return _data_map(problem, weight, relu=epilogue is not None)


@dataclass(frozen=True, slots=True)
class _Part:
    """One axis: tiles of m outputs, pieces of r taps of which there are so many."""

    m: int
    r: int
    pieces: int
    tiles: int

    @property
    def n(self) -> int:
        return self.m + self.r - 1

    @property
    def shift(self) -> int:
        return self.r // self.m if self.pieces > 1 else 1

    @property
    def seen(self) -> int:
        """Tiles of data."""
        return self.tiles + (self.pieces - 1) * self.shift

    def toom(self, map_: str) -> Toom:
        return toom(self.r, self.m) if map_ == "g" else toom(self.m, self.r)


@dataclass(frozen=True, slots=True)
class _Tiling:
    """How every axis is cut."""

    parts: tuple[_Part, ...]

    def seconds(self, problem: Problem, machine: Machine) -> float:
        """Estimate a run: products, transforms of data and outputs, of kernels, and the memory that all of it passes."""
        channels = problem.form.channels
        ends = (channels.inputs, channels.outputs)
        ins, outs = (-(-n // channels.groups // 8) * 8 * channels.groups for n in ends)  # vectors are of channels, and whole
        pairs = ins * outs // channels.groups
        points = prod(p.n for p in self.parts)
        tiles, seen = (problem.batch * prod(x) for x in zip(*((p.tiles, p.seen) for p in self.parts), strict=True))
        macs = points * tiles * prod(p.pieces for p in self.parts) * pairs
        depth = sum(p.n > 1 for p in self.parts)
        data = points * (seen * ins + tiles * outs) * depth
        kernels = points * prod(p.pieces for p in self.parts) * pairs * (0 if problem.frozen else 1 + depth)
        slower = 1.5 if problem.map == "g" else 1.3  # than the rates of large products and of a plain pass, measured
        passed = problem.bytes / machine.stream + 2 * machine.call
        return float(slower * ((macs + 6 * data + 8 * kernels) / machine.product + passed))

    def error(self, problem: Problem) -> Error:
        u, parts = unit_roundoff(problem.dtype), [p.toom(problem.map) for p in self.parts]
        growth, spreading = prod(t.growth for t in parts), prod(t.spreading for t in parts)
        form = problem.form
        per = max(form.channels.inputs, form.channels.outputs) // form.channels.groups * prod(p.pieces for p in self.parts)
        terms = problem.batch * prod(p.tiles for p in self.parts) if problem.map == "g" else per
        depth = 3 * sum(p.n for p in self.parts)
        return Error(bound=growth * (depth + terms) * u, estimate=(spreading + 0.3 * terms**0.5) * u)


def _parts(taps: int, size: int) -> list[_Part]:
    """Return the ways to cut one axis: one piece, or pieces as long as a tile or a multiple of it."""
    if taps == 1:
        return [_Part(1, 1, 1, size)]
    options = [(m, taps) for m in range(2, MOST_POINTS + 2 - taps)]
    options += [(m, r) for m, r in ((2, 2), (3, 3), (4, 4), (2, 4), (3, 6)) if r < taps]
    return [_Part(m, r, -(-taps // r), -(-size // m)) for m, r in options]


@lru_cache(maxsize=4096)
def _tiling(problem: Problem) -> _Tiling:
    """Choose the fastest tiling among those whose error the tolerance admits, else the most exact one."""
    machine = Machine()
    sizes = _outputs(problem)
    options = [_Tiling(parts) for parts in product(*(_parts(a.kernel, n) for a, n in zip(problem.form.axes, sizes, strict=True)))]
    admitted = [t for t in options if t.error(problem).estimate <= problem.tolerance]
    if not admitted:
        return min(options, key=lambda t: t.error(problem).estimate)
    return min(admitted, key=lambda t: t.seconds(problem, machine))


def _outputs(problem: Problem) -> tuple[int, ...]:
    """Return how many positions the correlation gives per axis; in map g, how many of G it runs over."""
    return problem.form.n_in if problem.map == "h" else problem.form.n_out


def _channels(problem: Problem) -> tuple[int, int]:
    """Return channels per group of what is read and what is written, or paired with it."""
    c = problem.form.channels
    ins, outs = c.inputs // c.groups, c.outputs // c.groups
    return (outs, ins) if problem.map == "h" else (ins, outs)


def _source(problem: Problem, axis: Axis) -> list[list[int]]:
    """Return what stands at the staged positions of an axis, in runs; behind them there are zeros."""
    if problem.map == "h":
        lo = axis.kernel - 1 - axis.lo
        return read_h(axis)([(-lo, max(lo + axis.n_out, 0), 1)])
    return read_c(axis)([(-axis.lo, axis.span, 1)])


@lru_cache(maxsize=64)
def _matrices(m: int, r: int) -> tuple[list[float], ...]:
    """Return the matrices of an axis as the native plan takes them: D, S, S of map g, C, C of map g."""
    forward, backward = toom(m, r), toom(r, m)
    matrices = (forward.data, forward.spread, backward.spread, forward.collect, backward.collect)
    return tuple([float(x) for row in rows for x in row] for rows in matrices)


def _axes(problem: Problem) -> list[list[Any]]:
    """Return the three axes as the native plan takes them."""
    axes: list[list[Any]] = [[[1] * 8, [[0, 0, 1, 1]], *([[1.0]] * 5)] for _ in range(3 - problem.form.ndim)]
    for axis, part, size in zip(problem.form.axes, _tiling(problem).parts, _outputs(problem), strict=True):
        sizes = [part.m, part.r, part.n, axis.kernel, part.pieces, part.shift, part.tiles, size]
        axes.append([sizes, _source(problem, axis), *_matrices(part.m, part.r)])
    return axes


def _blocks(problem: Problem, cache: int) -> tuple[list[int], int]:
    """Return images and tiles per axis whose transformed data fills so much of the cache, and channels of output at a time."""
    parts = (_Part(1, 1, 1, 1),) * (3 - problem.form.ndim) + _tiling(problem).parts
    ins, outs = _channels(problem)
    points = prod(p.n for p in parts)
    per = points * problem.itemsize * (ins + (outs if problem.map == "g" else 0))
    total = problem.batch * prod(p.tiles for p in parts)
    room = max(1, min(max(cache // per, 24 if cache >= _CACHE else 1), -(-total // problem.threads)))
    block = []
    for part in reversed(parts):
        cuts = -(-part.tiles // room)
        block.append(-(-part.tiles // cuts))  # evenly
        room = max(1, room // block[-1])
    block.append(min(problem.batch, room))
    tiles = prod(block)
    wide = max(16, min(64, cache // 3 // (points * problem.itemsize * tiles) // 16 * 16))
    return block[::-1], min(wide, outs)


def _plan(problem: Problem, formats: tuple[bool, bool, bool], cache: int) -> Any:
    """Make the native plan for operands whose formats (of what is read, what is written or paired, the weight) are known."""
    form, (ins, outs) = problem.form, _channels(problem)
    channels, taps = form.channels, prod(form.kernel)
    block, wide = _blocks(problem, cache)
    reads = form.output_shape(problem.batch) if problem.map == "h" else form.input_shape(problem.batch)
    writes = (problem.batch, channels.inputs, *_outputs(problem)) if problem.map == "h" else form.output_shape(problem.batch)
    per_group = channels.inputs // channels.groups
    row = per_group * taps
    step_in, step_tap = (1, per_group) if formats[2] else (taps, 1)
    w_out, w_in = (step_in, row) if problem.map == "h" else (row, step_in)
    flip = form.flip != (problem.map == "h")
    parts = _tiling(problem).parts
    count = prod(-(-p.tiles // b) for p, b in zip(parts, block[4 - len(parts) :], strict=True)) * -(-problem.batch // block[0])
    threads = problem.threads if problem.macs > 1 << 18 else 1
    pieces = max(1, min(-(-2 * threads // (count * channels.groups)) if count < 2 * threads else 1, -(-outs // 16)))
    split = pieces if problem.map != "g" else (threads if count * channels.groups < 2 * threads else 1)
    numbers = [problem.batch, channels.groups, ins, outs, *strides(reads, formats[0]), *strides(writes, formats[1])]
    numbers += [channels.outputs // channels.groups * row, w_out, w_in, step_tap, int(flip), *block, wide, split, threads]
    return native.extension_module().WinogradPlan(native.instruction_set(), _axes(problem), numbers, native.TYPES[problem.dtype])


@lru_cache(maxsize=1024)
def _fitting(problem: Problem, formats: tuple[bool, bool, bool] = (False, False, False)) -> Any:
    """Return the plan with the largest blocks whose scratch is under the cap, or with the smallest ones."""
    cache = _CACHE
    while True:
        plan = _plan(problem, formats, cache)
        cap = problem.max_scratch
        if cap is None or cache < 64 or plan.scratch(problem.map == "g", problem.frozen) <= cap:
            return plan
        cache //= 2


def _transformed(problem: Problem, weight: Tensor) -> Tensor:
    """Return a final kernel at the points, as the native plan wants it."""
    K, k_last = native.either(weight)
    plan = _fitting(problem, (False, False, k_last))
    kept = native.scratch(plan.kernel_bytes())
    plan.prepare(native.address(K), native.address(kept))
    return kept


def _data_map(problem: Problem, weight: Final | None, *, relu: bool) -> Watched:
    form = problem.form
    last = problem.channels_last and form.ndim > 1
    outputs, channels = _outputs(problem), form.channels.inputs if problem.map == "h" else form.channels.outputs
    plans: dict[tuple[bool, bool], Any] = {}
    kept = None
    if weight is not None:
        parts = tuple((p.m, p.r, p.pieces) for p in _tiling(problem).parts)
        kept = weight.form(("winograd", problem.map, parts, form.flip), lambda: _transformed(problem, weight.tensor))

    def run(K: Tensor, x: Tensor, bias: Tensor | None = None) -> tuple[Tensor, bool]:
        x, x_last = native.either(x)
        K, k_last = native.either(K) if kept is None else (K, False)
        out = empty(x, (x.shape[0], channels, *outputs), last)
        if (plan := plans.get((x_last, k_last))) is None:
            plan = plans[x_last, k_last] = _fitting(problem, (x_last, last, k_last))
        added = None if bias is None else bias.to(x.dtype).contiguous().resolve_neg()
        given = (native.address(K), 0) if kept is None else (0, native.address(kept))
        early = 0 if added is None else native.address(added)
        finite: bool = plan.run(native.address(x), *given, early, native.address(out), relu)
        return out, finite

    return run


def _weight_map(problem: Problem) -> Runner:
    shape = problem.form.weight_shape

    def run(V: Tensor, G: Tensor, bias: Tensor | None = None) -> Tensor:  # noqa: ARG001  a kernel has no bias
        V, v_last = native.either(V)
        G, g_last = native.either(G)
        D = V.new_empty(shape)
        _fitting(problem, (v_last, g_last, False)).weigh(native.address(V), native.address(G), native.address(D))
        return D

    return run
