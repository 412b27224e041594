"""Products in the Fourier domain, tile by tile: the engine of large kernels.

All three maps reduce to one correlation, ``z[t] = sum_m k[m] x[t + m]`` at unit stride, computed on tiles of the outputs
(overlap-save): a tile of ``L - e + 1`` outputs needs ``L`` inputs, where ``e`` is the kernel's extent, and the circular
product of length ``L`` is right there. The transforms of a tile are shared by all channels, those of a kernel by all tiles.

    c:  x = V with its border,  k = K (zeros between the taps where dilated);  then every s-th output is kept
    h:  x = G with s - 1 zeros between its elements,  k = K reversed, channels exchanged
    g:  x = V with its border,  k = a tile of G (stuffed as in h);  tiles and batch are summed before the inverse transform

Source: literature on overlap-save is classical; sharing transforms over maps and batch is Mathieu, Henaff, LeCun 2013.
Rounding spreads over a tile, and so do NaN and infinity: the result is within the stated error of the definition.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import log2, prod

import torch
from torch import Tensor

from ninefold.engines.base import Engine, Error, Runner, Traits, Watched, unit_roundoff, unwatched
from ninefold.engines.final import Final
from ninefold.engines.machine import Machine
from ninefold.spec.channels import ChannelTable
from ninefold.spec.problem import Problem
from ninefold.tensors.border import extension, folding
from ninefold.tensors.layout import BLOCK, add_bias, all_finite, blocks, empty, in_format

__all__ = ["FFT"]


class FFT(Engine):
    """Overlap-save with real transforms."""

    name = "fft"
    revision = 2
    traits = Traits(plain_sums=False, exact=False, confines_nan=False)
    by_format = False

    def refuses(self, problem: Problem) -> str | None:
        form = problem.form
        if isinstance(form.channels, ChannelTable):
            return f"a table of {form.channels.connections} channel connections has no groups to share transforms"
        if form.tiled:
            return f"a Fourier transform needs one kernel for all positions; this form cycles through {form.period} of them"
        if not (problem.is_float or problem.is_complex):
            return f"transforms are of floating-point or complex numbers, not {problem.dtype}"
        if prod(form.kernel) == 1:
            return "a kernel of 1 tap has no spectrum worth a transform"
        if 0 in (problem.batch, *form.n_out, *form.n_in):
            return f"nothing to transform: batch {problem.batch}, sizes {form.n_in} and {form.n_out}"
        return None

    def cost(self, problem: Problem, machine: Machine) -> float:
        form, tiling = problem.form, _tiling(problem)
        tiles = prod(tiling.count) * problem.batch
        kernels = 0 if problem.frozen else form.channels.connections
        points = tiling.points * (kernels + tiles * (form.channels.inputs + form.channels.outputs))
        transforms = points * log2(max(2, tiling.points)) / machine.transform
        dense = form.channels.connections // max(form.channels.inputs, form.channels.outputs) > 1
        products = (
            tiling.points / 2 * tiles * form.channels.connections * (64 / machine.product if dense else 12 / machine.stream)
        )
        passes = 2 * problem.itemsize * points / machine.stream
        return transforms + products + passes + 30 * machine.call

    def error(self, problem: Problem) -> Error:
        u, points = unit_roundoff("float32" if problem.itemsize <= 2 else problem.dtype), _tiling(problem).points
        stored = unit_roundoff(problem.dtype)
        depth = log2(max(2, points))
        return Error(bound=8 * u * depth * points**0.5 + stored, estimate=0.75 * u * depth + stored)

    def scratch(self, problem: Problem) -> int:
        return _layout(problem).bytes

    def prepare(self, problem: Problem, weight: Final | None = None) -> Runner:
        if problem.map == "g":
            return _kernel_map(problem)
        return unwatched(_data_map(problem, weight, watch=False))

    def prepare_watched(self, problem: Problem, weight: Final | None, epilogue: str | None = None) -> Watched:
        if problem.map == "g" or epilogue is not None:
            return super().prepare_watched(problem, weight, epilogue)
        return _data_map(problem, weight, watch=True)


@dataclass(frozen=True, slots=True)
class _Tiling:
    """Transform length, outputs per tile and number of tiles, per axis, for ``total`` outputs of a kernel extent."""

    length: tuple[int, ...]
    step: tuple[int, ...]
    count: tuple[int, ...]
    total: tuple[int, ...]

    @property
    def points(self) -> int:
        return prod(self.length)


def _good(n: int) -> int:
    """Return the smallest even 5-smooth length that is not below n."""
    best = 1 << max(1, (n - 1).bit_length())
    for fives in (1, 5, 25, 125):
        for threes in (1, 3, 9, 27, 81):
            twos = -(-n // (fives * threes))
            best = min(best, fives * threes * (1 << max(1, (twos - 1).bit_length())))
    return best


def _coarse(n: int) -> int:
    """Return the smallest of five lengths an octave that is not below n: so few that most sizes share them.

    Examples
    --------
    >>> [_coarse(n) for n in (16, 17, 21, 25, 31, 33)]
    [16, 18, 24, 30, 32, 36]
    """
    octave = 1 << max(1, n.bit_length() - 4)
    return next(part * octave for part in (8, 9, 10, 12, 15, 16) if part * octave >= n)


_WIDEST = 64  # times the kernel's extent: a longer tile saves less than a part in so many, whatever the length of the axis


def _axis_tiling(total: int, extent: int, fit: Callable[[int], int]) -> list[tuple[int, int, int]]:
    """Return candidates (length, step, count): one tile, and from twice the extent on each half as long again as the last."""
    whole, widest = fit(total + extent - 1), max(256, _WIDEST * extent)
    options = [(whole, whole - extent + 1, 1)] if whole <= widest else []
    length = fit(max(2 * extent, 16))
    while length < whole and (length <= widest or not options):
        step = length - extent + 1
        options.append((length, step, -(-total // step)))
        length = fit(length + length // 2)
    return options


@lru_cache(maxsize=4096)
def _tiling(problem: Problem) -> _Tiling:
    """Choose the tiling with the fewest operations; a tile that outgrows the cache counts double.

    The spectrum of a final kernel is kept, so that its lengths are of few kinds.
    """
    form = problem.form
    totals, extents = _correlation(problem)
    kernels = 0 if problem.frozen or problem.map == "g" else form.channels.connections
    ends = form.channels.inputs + form.channels.outputs

    def work(choice: tuple[tuple[int, int, int], ...]) -> float:
        points = prod(c[0] for c in choice)
        tiles = prod(c[2] for c in choice) * problem.batch
        slow = 1.0 + (points * problem.itemsize > 1 << 19) + 0.5 * (points * problem.itemsize > 1 << 23)
        return points * (log2(points) + 6) * slow * (tiles * ends + kernels) + 2 * points * tiles * form.channels.connections

    fit = _coarse if problem.frozen else _good
    options = [_axis_tiling(t, e, fit) for t, e in zip(totals, extents, strict=True)]
    best = min(product(*options), key=work)
    length, step, count = zip(*best, strict=True)
    return _Tiling(length, step, count, totals)


def _correlation(problem: Problem) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the outputs and the kernel extent, per axis, of the unit-stride correlation behind a map."""
    axes = problem.form.axes
    extents = tuple(a.extent for a in axes)
    if problem.map == "h":
        return tuple(a.n_in for a in axes) if problem.form.mode == "zeros" else tuple(a.span for a in axes), extents
    return tuple((a.n_out - 1) * a.stride + 1 for a in axes), extents


@dataclass(frozen=True, slots=True)
class _Layout:
    """How much is in flight at once: groups, examples, lines of tiles along the first axis; and the bytes that takes."""

    groups: int
    batch: int
    lines: int
    bytes: int


@lru_cache(maxsize=4096)
def _layout(problem: Problem) -> _Layout:
    form, tiling = problem.form, _tiling(problem)
    ins, outs = form.channels.inputs // form.channels.groups, form.channels.outputs // form.channels.groups
    real = max(problem.itemsize, 4)
    tile = real * prod((*tiling.length[:-1], tiling.length[-1] + 2))
    # held at once: tiles, their spectra, the products before they are summed, and what comes back
    times = 2 if ins == outs == 1 else 4 if 1 in (ins, outs) else 3
    line = prod(tiling.count[1:]) * tile * times * (ins + outs)
    kernels = 3 * ins * outs * tile
    padded = 2 * real * prod(_reach(tiling)) * {"c": ins, "h": outs, "g": ins + outs}[problem.map]
    target = 4 * BLOCK if problem.max_scratch is None else problem.max_scratch
    groups = min(form.channels.groups, max(1, target // (kernels + padded + line * tiling.count[0])))
    left = max(0, target - groups * (kernels + padded))
    lines = max(1, left // (groups * line))
    batch = min(problem.batch, max(1, target // (groups * (kernels + padded + line * tiling.count[0]))))
    lines = tiling.count[0] if batch > 1 else min(tiling.count[0], lines)
    folded = problem.map == "h" and form.mode != "zeros"
    whole = 2 * real * prod(tiling.total) * form.channels.inputs * problem.batch if folded else 0
    kept = tile * form.channels.connections if problem.frozen else 0
    return _Layout(groups, batch, lines, groups * (kernels + batch * (padded + lines * line)) + whole + kept)


def _stuff(x: Tensor, steps: tuple[int, ...]) -> Tensor:
    """Put ``step - 1`` zeros between the elements along each of the last axes."""
    if all(s == 1 for s in steps):
        return x
    lead = x.ndim - len(steps)
    out = x.new_zeros((*x.shape[:lead], *((n - 1) * s + 1 for n, s in zip(x.shape[lead:], steps, strict=True))))
    out[(..., *(slice(None, None, s) for s in steps))] = x
    return out


def _place(x: Tensor, left: tuple[int, ...], size: tuple[int, ...]) -> Tensor:
    """Crop or zero-fill the last axes to `size`, with the element that was first at `left`."""
    pads: list[int] = []
    for dim, (lo, s) in enumerate(zip(left, size, strict=True), start=x.ndim - len(size)):
        first, start = min(max(-lo, 0), x.shape[dim]), min(max(lo, 0), s)
        length = min(x.shape[dim] - first, s - start)
        x = x.narrow(dim, first, length)
        pads = [start, s - start - length, *pads]
    return torch.constant_pad_nd(x, pads).contiguous()


def _reach(tiling: _Tiling) -> tuple[int, ...]:
    """Return the inputs that all tiles together need, per axis."""
    return tuple((n - 1) * b + length for n, b, length in zip(tiling.count, tiling.step, tiling.length, strict=True))


def _tiles(x: Tensor, tiling: _Tiling, size: tuple[int, ...], lines: slice) -> Tensor:
    """View lines of tiles of x as (batch, channels, *tiles, *size), overlapping where `size` exceeds the step."""
    strides = x.stride()[2:]
    hops = [b * s for b, s in zip(tiling.step, strides, strict=True)]
    counts = (lines.stop - lines.start, *tiling.count[1:])
    first = x.storage_offset() + lines.start * hops[0]
    return x.as_strided((*x.shape[:2], *counts, *size), (*x.stride()[:2], *hops, *strides), first)


class _Spectra:
    """Transforms between tensors (batch, channels, *tiles, *space) and spectra with frequencies flat, and last."""

    def __init__(self, problem: Problem) -> None:
        self.length = _tiling(problem).length
        self.dims = tuple(range(-len(self.length), 0))
        self.real = not problem.is_complex
        self.half = (*self.length[:-1], self.length[-1] // 2 + 1) if self.real else self.length

    def forward(self, x: Tensor) -> Tensor:
        """Transform the last axes, zero-filled to the tile's length, and flatten them."""
        transform = torch.fft.rfftn if self.real else torch.fft.fftn
        out: Tensor = transform(x, s=self.length, dim=self.dims)
        return out.flatten(-len(self.length))

    def inverse(self, X: Tensor) -> Tensor:
        """Undo `forward`."""
        transform = torch.fft.irfftn if self.real else torch.fft.ifftn
        out: Tensor = transform(X.unflatten(-1, self.half), s=self.length, dim=self.dims)
        return out


def _mix(kernels: Tensor, X: Tensor) -> Tensor:
    """Multiply (groups, outs, ins, F) with (batch, groups, ins, tiles, F) to (batch, groups, outs, tiles, F)."""
    outs, ins = kernels.shape[1:3]
    if ins == outs == 1:
        return X.mul_(kernels)
    if ins == 1:
        return X * kernels
    if outs == 1:
        return (X * kernels.transpose(1, 2)).sum(2, keepdim=True)
    b = X.permute(1, 4, 2, 0, 3).flatten(3)
    mixed: Tensor = torch.matmul(kernels.permute(0, 3, 1, 2), b).unflatten(3, (X.shape[0], X.shape[3]))
    return mixed.permute(3, 0, 2, 4, 1)


def _correlate(X: Tensor, G: Tensor) -> Tensor:
    """Sum conj(G) X over batch and tiles, (batch, groups, ins|outs, tiles, F) to (groups, outs, ins, F); G comes conjugated."""
    if X.shape[2] == 1 or G.shape[2] == 1:
        return (G.conj_physical().unsqueeze(3) * X.unsqueeze(2)).sum((0, 4))
    a = G.permute(1, 4, 2, 0, 3).flatten(3)
    b = X.permute(1, 4, 0, 3, 2).flatten(2, 3)
    return torch.matmul(a.conj_physical(), b).permute(0, 2, 3, 1)


def _data_map(problem: Problem, weight: Final | None, *, watch: bool) -> Watched:
    """Prepare c or h: the kernel against tiles of the data; to watch, each part is looked at while it is in the cache."""
    form, tiling, layout, spectra = problem.form, _tiling(problem), _layout(problem), _Spectra(problem)
    groups, forward = form.channels.groups, problem.map == "c"
    ends = (form.channels.inputs, form.channels.outputs)
    ins, outs = (n // groups for n in (ends if forward else ends[::-1]))
    chunks = list(blocks(groups, layout.groups))
    source, border = _source(problem), folding(form)

    def kernel(K: Tensor, chunk: slice) -> Tensor:
        part = K.unflatten(0, (groups, -1))[chunk]
        part = part if forward else part.transpose(1, 2)
        part = part.flip(spectra.dims) if form.flip == forward else part
        return spectra.forward(_stuff(_wide(part).conj(), form.dilation)).conj_physical()  # the pairing is bilinear

    def spectrum(K: Tensor) -> Tensor:
        """Return the spectra of all groups; the parts of a call may differ from size to size, the whole does not."""
        parts = [kernel(K, chunk) for chunk in chunks]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    key = ("fft", problem.map, tiling.length, form.dilation, form.flip)
    kept = None if weight is None else weight.form(key, lambda: spectrum(weight.tensor))

    def run(K: Tensor, x: Tensor, bias: Tensor | None = None) -> tuple[Tensor, bool]:
        folded = not forward and form.mode != "zeros"
        shape = (form.output_shape if forward else form.input_shape)(len(x))
        out = empty(_wide(x[:0]), (*shape[:2], *tiling.total)) if folded else empty(x, shape, problem.channels_last)
        for chunk in chunks:
            Kf = kernel(K, chunk) if kept is None else kept[chunk]
            channels = slice(chunk.start * outs, chunk.stop * outs)
            held: tuple[slice, Tensor] | None = None
            for n, lines in _steps(problem):
                if held is None or held[0] != n:
                    held = None  # before the next is made
                    held = n, source(x[n, chunk.start * ins : chunk.stop * ins])
                seen = spectra.forward(_tiles(held[1], tiling, tiling.length, lines))
                X = seen.reshape(len(held[1]), -1, ins, seen.shape[2:-1].numel(), seen.shape[-1])
                y = spectra.inverse(_mix(Kf, X).reshape(len(held[1]), -1, *seen.shape[2:]))
                part = _write(out[n, channels], y, tiling, (1,) * form.ndim if not forward else form.stride, lines)
                del seen, X, y  # before the next tiles are made
                if watch and not all_finite(part):
                    return out, False
        out = in_format(border(out).to(x.dtype), problem.channels_last) if folded else out
        return add_bias(out, bias), True

    return run


def _steps(problem: Problem) -> Iterator[tuple[slice, slice]]:
    """Yield examples and lines of tiles that are in flight together."""
    layout = _layout(problem)
    for n in blocks(problem.batch, layout.batch):
        for lines in blocks(_tiling(problem).count[0], layout.lines):
            yield n, lines


def _source(problem: Problem) -> Callable[[Tensor], Tensor]:
    """Return what turns the data operand of c or h into the array that the tiles are cut from."""
    form, reach = problem.form, _reach(_tiling(problem))
    if problem.map == "h":
        left = tuple(a.extent - 1 - (0 if form.mode != "zeros" else a.lo) for a in form.axes)
        return lambda G: _place(_stuff(_wide(G), form.stride), left, reach)
    if form.mode == "zeros":
        lo = tuple(a.lo for a in form.axes)
        return lambda V: _place(_wide(V), lo, reach)
    border = extension(form)
    return lambda V: _place(border(_wide(V)), (0,) * form.ndim, reach)


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _write(out: Tensor, y: Tensor, tiling: _Tiling, stride: tuple[int, ...], lines: slice) -> Tensor:
    """Join tiles (batch, channels, *tiles, *length), of which the first ``step`` positions are right, and keep every s-th.

    Returns the part of `out` that was written.
    """
    d = len(tiling.step)
    y = y[(..., *(slice(b) for b in tiling.step))]
    order = (0, 1, *(axis for k in range(d) for axis in (2 + k, 2 + d + k)))
    joined = y.permute(order).reshape(*y.shape[:2], *(c * b for c, b in zip(y.shape[2 : 2 + d], tiling.step, strict=True)))
    start = lines.start * tiling.step[0]
    first = -(-start // stride[0])
    rest = (slice(0, t, s) for t, s in zip(tiling.total[1:], stride[1:], strict=True))
    kept = joined[(..., slice(first * stride[0] - start, tiling.total[0] - start, stride[0]), *rest)]
    return out[:, :, first : first + kept.shape[2]].copy_(kept)


def _kernel_map(problem: Problem) -> Runner:
    """Prepare g: tiles of the data against tiles of the gradient, summed before the inverse transform."""
    form, tiling, layout, spectra = problem.form, _tiling(problem), _layout(problem), _Spectra(problem)
    groups = form.channels.groups
    ins, outs = form.channels.inputs // groups, form.channels.outputs // groups
    chunks = list(blocks(groups, layout.groups))
    source = _source(problem)
    covered = tuple(c * b for c, b in zip(tiling.count, tiling.step, strict=True))

    def spectrum(x: Tensor, size: tuple[int, ...], lines: slice, channels: int) -> Tensor:
        seen = spectra.forward(_tiles(x, tiling, size, lines))
        return seen.reshape(len(x), -1, channels, seen.shape[2:-1].numel(), seen.shape[-1])

    def run(V: Tensor, G: Tensor, bias: Tensor | None = None) -> Tensor:  # noqa: ARG001  a kernel has no bias
        D = V.new_empty(form.weight_shape).unflatten(0, (groups, outs))
        for chunk in chunks:
            total = V.new_zeros(())
            held: tuple[slice, Tensor, Tensor] | None = None
            for n, lines in _steps(problem):
                if held is None or held[0] != n:
                    held = None  # before the next is made
                    data = source(V[n, chunk.start * ins : chunk.stop * ins])
                    grad = _stuff(_wide(G[n, chunk.start * outs : chunk.stop * outs]).conj(), form.stride)
                    held = n, data, _place(grad, (0,) * form.ndim, covered)
                X = spectrum(held[1], tiling.length, lines, ins)
                total = total + _correlate(X, spectrum(held[2], tiling.step, lines, outs))
                del X  # before the next tiles are made
            taps = spectra.inverse(total)
            taps = taps[(..., *(slice(0, a.extent, a.dilation) for a in form.axes))]
            D[chunk] = taps.flip(spectra.dims) if form.flip else taps
        kernels: Tensor = D.flatten(0, 1)
        return kernels

    return run
