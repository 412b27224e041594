"""Columns (im2col) in blocks: of the kernels of a tile, of the batch, and of rows of the first axis; channels lie inside."""

from collections.abc import Iterator
from itertools import product
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from ninefold.engines.base import Runner
from ninefold.spec.axis import Axis
from ninefold.spec.form import Form
from ninefold.spec.problem import Problem
from ninefold.tensors.border import extension, folding
from ninefold.tensors.layout import BLOCK, add_bias, blocks, empty

__all__ = [
    "accumulator",
    "blocks_of",
    "budget",
    "column_bytes",
    "columns_c",
    "columns_g",
    "columns_h",
    "count_blocks",
    "finish",
    "is_unshared",
    "kernel_bytes",
    "place_bytes",
    "row_length",
    "scatter",
    "straight",
    "worth_reordering",
]


def is_unshared(form: Form) -> bool:
    """Whether no kernel repeats."""
    return form.tiled and all(a.period >= a.n_out for a in form.axes)


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype to sum in."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def straight(form: Form, K: Tensor) -> Tensor:
    """Return the kernel in the order in which it is read."""
    return K.flip(tuple(range(K.ndim - form.ndim, K.ndim))) if form.flip else K


class _Block(NamedTuple):
    """Outputs ``j = first + r + t q`` per axis, r in ``range(many)``, q in ``range(outputs)``; of the first axis q in `rows`."""

    first: tuple[int, ...]
    many: tuple[int, ...]
    outputs: tuple[int, ...]
    batch: slice
    rows: slice


def column_bytes(problem: Problem) -> int:
    """Return the bytes of the column of one output."""
    form = problem.form
    return prod(form.kernel) * form.channels.inputs * max(problem.itemsize, 4)


def place_bytes(problem: Problem) -> int:
    """Return the bytes that a block holds for one output position: its column, or all its outputs where these are more."""
    return max(column_bytes(problem), problem.form.channels.outputs * max(problem.itemsize, 4))


def row_length(problem: Problem) -> int:
    """Return the positions of one row of outputs of one kernel: the least that a block holds."""
    form = problem.form
    if is_unshared(form):
        wide = form.channels.outputs // form.channels.groups if problem.map == "g" else 1  # the result of a block counts too
        return max(1, prod(form.n_out[1:]) * max(problem.batch, wide))
    return prod(-(-a.n_out // a.period) for a in form.axes[1:])


def kernel_bytes(problem: Problem) -> int:
    """Return the bytes of the kernels of a block, copied to be multiplied; 0 where the tile has one, which is used in place."""
    if not problem.form.tiled or is_unshared(problem.form):
        return 0
    most = max((prod(cut.sizes) for cut in _cuts(problem)), default=0)
    copies = 1 if problem.itemsize >= 4 else 2
    return copies * most * column_bytes(problem) * problem.form.channels.outputs // problem.form.channels.groups


def taps_inside(problem: Problem) -> bool:
    """Whether columns are laid out as the kernel is, taps inside, because the kernel is the larger one to copy."""
    form = problem.form
    own = problem.itemsize >= 4 and not form.tiled and not form.flip
    return own and 2 * form.channels.outputs >= form.channels.groups * problem.batch * prod(form.n_out)


def budget(problem: Problem) -> int:
    """Unshared blocks are read once, so that small ones cost nothing; shared kernels want long rows of columns."""
    block = BLOCK // 8 if is_unshared(problem.form) else BLOCK
    return block if problem.max_scratch is None else min(block, max(problem.max_scratch // 4, 1))


class _Cut(NamedTuple):
    """Kernels from `first` on, `many` per axis, with so many outputs each; and what a block has: kernels, rows, examples."""

    first: tuple[int, ...]
    many: tuple[int, ...]
    outputs: tuple[int, ...]
    sizes: tuple[int, ...]
    rows: int
    batch: int


def _cuts(problem: Problem) -> Iterator[_Cut]:
    """Yield how the outputs are cut into blocks under the budget, where one row of one kernel allows it."""
    allowed = max(1, budget(problem) // max(1, place_bytes(problem)))
    for parts in product(*(_runs(a) for a in problem.form.axes)):
        first, many, count = zip(*parts, strict=True)
        row = prod(count[1:])
        sizes: list[int] = []
        for size in many:
            sizes.append(max(1, min(size, allowed // max(1, row * prod(sizes)))))
        rows = max(1, allowed // max(1, row * prod(sizes)))
        yield _Cut(first, many, count, tuple(sizes), rows, max(1, rows // count[0]))


def blocks_of(problem: Problem) -> Iterator[_Block]:
    """Yield the blocks, while they are worked on: there are as many as a budget goes into what they hold."""
    for cut in _cuts(problem):
        for starts in product(*(range(0, m, s) for m, s in zip(cut.many, cut.sizes, strict=True))):
            here = tuple(f + s for f, s in zip(cut.first, starts, strict=True))
            some = tuple(min(size, m - s) for size, m, s in zip(cut.sizes, cut.many, starts, strict=True))
            for n in blocks(problem.batch, cut.batch):
                for part in blocks(cut.outputs[0], cut.rows):
                    yield _Block(here, some, cut.outputs, n, part)


def count_blocks(problem: Problem) -> int:
    """Return how many `blocks_of` yields."""
    found = 0
    for cut in _cuts(problem):
        wholes, parts = (*cut.many, problem.batch, cut.outputs[0]), (*cut.sizes, cut.batch, cut.rows)
        found += prod(-(-whole // part) for whole, part in zip(wholes, parts, strict=True))
    return found


def _runs(axis: Axis) -> Iterator[tuple[int, int, int]]:
    """Cut the kernels of an axis into runs (first, how many, outputs of each) of equally many outputs."""
    period = min(axis.period, axis.n_out)
    whole, more = divmod(axis.n_out, max(period, 1))
    if more:
        yield 0, more, whole + 1
    if period > more:
        yield more, period - more, whole


def _windows(X: Tensor, form: Form, b: _Block) -> Tensor:
    """View a block of the extended input, overlapping, as (*many, batch, *count, *kernel, groups, inputs / groups)."""
    steps = X.stride()[2:]
    taps = [a.dilation * s for a, s in zip(form.axes, steps, strict=True)]
    kernels = [a.stride * s for a, s in zip(form.axes, steps, strict=True)]
    jumps = [a.period * k for a, k in zip(form.axes, kernels, strict=True)]
    offset = X.storage_offset() + sum(f * k for f, k in zip(b.first, kernels, strict=True))
    offset += b.batch.start * X.stride(0) + b.rows.start * jumps[0]
    size, steps = _split(X, form)
    return X.as_strided(
        (*b.many, _length(b.batch), _length(b.rows), *b.outputs[1:], *form.kernel, *size),
        (*kernels, X.stride(0), *jumps, *taps, *steps),
        offset,
    )


def _split(x: Tensor, form: Form) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return sizes and steps of (groups, channels / groups)."""
    groups = form.channels.groups
    each = x.shape[1] // groups
    return (groups, each), (each * x.stride(1), x.stride(1))


def _length(part: slice) -> int:
    return int(part.stop - part.start)


def _inside(windows: Tensor, form: Form) -> Tensor:
    """View windows with their taps inside: (*many, batch, *count, groups, inputs / groups, *kernel)."""
    first = 1 + 2 * form.ndim
    return windows.movedim((-2, -1), (first, first + 1))


def _rows(windows: Tensor, form: Form) -> Tensor:
    """Copy `_inside` to (groups, positions, inputs / groups * taps)."""
    d = form.ndim
    return _inside(windows, form).movedim(1 + 2 * d, 0).reshape(form.channels.groups, prod(windows.shape[: 2 * d + 1]), -1)


def _weights(K: Tensor, form: Form) -> Tensor:
    """View a kernel as (groups, outputs / groups, inputs / groups * taps)."""
    return K.reshape(form.channels.groups, form.channels.outputs // form.channels.groups, -1)


def _outputs(x: Tensor, form: Form, b: _Block) -> Tensor:
    """View a block of the outputs as (*many, batch, *count, groups, outputs / groups)."""
    steps = x.stride()[2:]
    jumps = [a.period * s for a, s in zip(form.axes, steps, strict=True)]
    offset = x.storage_offset() + sum(f * s for f, s in zip(b.first, steps, strict=True))
    offset += b.batch.start * x.stride(0) + b.rows.start * jumps[0]
    size, inner = _split(x, form)
    return x.as_strided(
        (*b.many, _length(b.batch), _length(b.rows), *b.outputs[1:], *size), (*steps, x.stride(0), *jumps, *inner), offset
    )


def _matrices(x: Tensor, form: Form, wide: torch.dtype) -> Tensor:
    """Copy (*many, batch, *count, ..., groups, each) to (many * groups, positions, columns)."""
    d = form.ndim
    return x.movedim(-2, d).to(wide).reshape(prod(x.shape[:d]) * x.shape[-2], prod(x.shape[d : 2 * d + 1]), -1)


def _tile(K: Tensor, form: Form, b: _Block) -> Tensor:
    """View the kernels of a block as (*many, outputs, *kernel, inputs / groups)."""
    d = form.ndim
    if form.tiled:
        K = K[(slice(None), *(slice(f, f + m) for f, m in zip(b.first, b.many, strict=True)))].movedim(0, d)
    else:
        K = K[(None,) * d]
    return K.movedim(d + 1, -1)


def _kernels(K: Tensor, form: Form, b: _Block, wide: torch.dtype) -> Tensor:
    """Copy the kernels of a block to (many * groups, outputs / groups, taps * inputs / groups)."""
    tile = _tile(K, form, b).to(wide)
    return tile.reshape(prod(b.many) * form.channels.groups, form.channels.outputs // form.channels.groups, -1)


def _like(result: Tensor, x: Tensor, form: Form) -> Tensor:
    """View matrices in the shape of `x`, of which `_matrices` would make such."""
    d = form.ndim
    return result.view(*x.shape[:d], x.shape[-2], *x.shape[d:-2], x.shape[-1]).movedim(d, -2)


def columns_c(problem: Problem) -> Runner:
    """Return the runner of c."""
    form = problem.form
    border = extension(form)
    if taps_inside(problem):

        def run_inside(K: Tensor, V: Tensor, bias: Tensor | None = None) -> Tensor:
            X, Z = border(V), empty(V, form.output_shape(len(V)), problem.channels_last)
            for b in blocks_of(problem):
                out = _outputs(Z, form, b)
                out.copy_(_like(torch.bmm(_rows(_windows(X, form, b), form), _weights(K, form).transpose(1, 2)), out, form))
            return add_bias(Z, bias)

        return run_inside

    def run(K: Tensor, V: Tensor, bias: Tensor | None = None) -> Tensor:
        wide = accumulator(V.dtype)
        K, X = straight(form, K), _channels_inside(border(V), form)
        Z = empty(V, form.output_shape(len(V)), problem.channels_last)
        for b in blocks_of(problem):
            columns = _matrices(_windows(X, form, b), form, wide)
            out = _outputs(Z, form, b)
            out.copy_(_like(torch.bmm(columns, _kernels(K, form, b, wide).transpose(1, 2)), out, form))
        return add_bias(Z, bias)

    return run


def worth_reordering(form: Form) -> bool:
    """Whether the columns are so many more than the input's elements that these had better be copied to suit first."""
    return prod(form.kernel) * prod(form.n_out) > 2 * prod(a.span for a in form.axes)


def _channels_inside(X: Tensor, form: Form) -> Tensor:
    """Return X with its memory in the order (batch, *space, channels), where that is worth it."""
    return X.movedim(1, -1).contiguous().movedim(-1, 1) if worth_reordering(form) else X


def columns_h(problem: Problem) -> Runner:
    """Return the runner of h."""
    form = problem.form
    border = folding(form)
    if taps_inside(problem):

        def run_inside(K: Tensor, G: Tensor, bias: Tensor | None = None) -> Tensor:
            R = G.new_zeros((len(G), form.channels.inputs, *(a.span for a in form.axes)))
            for b in blocks_of(problem):
                windows = _inside(_windows(R, form, b), form)
                columns = torch.bmm(_matrices(_outputs(G, form, b), form, G.dtype), _weights(K, form))
                columns = columns.view(-1, *windows.shape[: 1 + 2 * form.ndim], *windows.shape[2 + 2 * form.ndim :])
                scatter(windows, columns.movedim(0, 1 + 2 * form.ndim), 3 + 2 * form.ndim, form)
            return add_bias(finish(border(R), G, problem), bias)

        return run_inside

    def run(K: Tensor, G: Tensor, bias: Tensor | None = None) -> Tensor:
        wide = accumulator(G.dtype)
        K = straight(form, K)
        R = G.new_zeros((len(G), *(a.span for a in form.axes), form.channels.inputs), dtype=wide).movedim(-1, 1)
        for b in blocks_of(problem):
            given = _matrices(_outputs(G, form, b), form, wide)
            windows = _windows(R, form, b)
            scatter(windows, _like(torch.bmm(given, _kernels(K, form, b, wide)), windows, form), 1 + 2 * form.ndim, form)
        return add_bias(finish(border(R), G, problem), bias)

    return run


def scatter(windows: Tensor, columns: Tensor, first: int, form: Form) -> None:
    """Add columns to where they were read; the taps are the dimensions from `first`.

    Within one tap no two outputs share an input, so a plain sum is right.
    """
    pairs = [(windows, columns)]
    for _ in form.kernel:
        pairs = [pair for w, c in pairs for pair in zip(w.unbind(first), c.unbind(first), strict=True)]
    for window, column in pairs:
        window.add_(column)


def finish(R: Tensor, like: Tensor, problem: Problem) -> Tensor:
    """Return R in the dtype and memory format that the caller expects."""
    fmt = torch.contiguous_format
    if problem.channels_last:
        fmt = torch.channels_last if R.ndim == 4 else torch.channels_last_3d
    return R.to(like.dtype).contiguous(memory_format=fmt)


def columns_g(problem: Problem) -> Runner:
    """Return the runner of g."""
    form = problem.form
    border = extension(form)
    if taps_inside(problem):

        def run_inside(V: Tensor, G: Tensor, bias: Tensor | None = None) -> Tensor:  # noqa: ARG001  a kernel has no bias
            X, D = border(V), V.new_empty(form.weight_shape)
            for k, b in enumerate(blocks_of(problem)):
                given = _matrices(_outputs(G, form, b), form, V.dtype)
                _weights(D, form).baddbmm_(given.transpose(1, 2), _rows(_windows(X, form, b), form), beta=min(k, 1))
            return D if count_blocks(problem) else D.zero_()

        return run_inside

    def run(V: Tensor, G: Tensor, bias: Tensor | None = None) -> Tensor:  # noqa: ARG001  a kernel has no bias
        wide = accumulator(V.dtype)
        X = _channels_inside(border(V), form)
        D = V.new_zeros(form.weight_shape, dtype=wide)
        for b in blocks_of(problem):
            given = _matrices(_outputs(G, form, b), form, wide)
            columns = _matrices(_windows(X, form, b), form, wide)
            tile = _tile(D, form, b)
            tile.add_(torch.bmm(given.transpose(1, 2), columns).reshape(tile.shape))
        return straight(form, D).to(V.dtype)

    return run
