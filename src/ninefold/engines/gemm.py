"""Matrix products: 1x1 kernels as they are, others through columns (im2col), tiled and unshared kernels as batches.

With the columns ``X[(i, m), (b, j)] = V[b, i, at(j, m)]`` every map is one product per group::

    c:  Z = K X          h:  X' = K^T G, then added back to where X was read          g:  D = G X^T

X is never formed whole: blocks of it stay under the scratch cap (and in the cache). A period ``t`` splits the outputs into
residues ``j mod t``, each an ordinary form of stride ``s t`` with a kernel of its own (eq. 9.10). Where no kernel repeats
(unshared, eq. 9.9) the product is one batch over positions, ``Z[j] = K[j] X[j]`` with the examples as columns, and reads
every weight exactly once.
"""

from collections.abc import Iterator
from itertools import product
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from ninefold.engines.base import (
    BLOCK,
    Engine,
    Error,
    Machine,
    Runner,
    Traits,
    add_bias,
    blocks,
    direct_error,
    empty,
    extension,
    folding,
)
from ninefold.spec.axis import Axis
from ninefold.spec.channels import ChannelTable
from ninefold.spec.form import Form
from ninefold.spec.problem import Problem

__all__ = ["Gemm"]


class Gemm(Engine):
    """Blocked products of matrices."""

    name = "gemm"
    revision = 1
    traits = Traits(direct=True, exact=True, local=True)

    def refuses(self, problem: Problem) -> str | None:
        form = problem.form
        if isinstance(form.channels, ChannelTable):
            return f"a table of {form.channels.connections} channel connections has no blocks to multiply"
        if not (problem.is_float or problem.is_complex):
            return f"matrix products here are of floating-point or complex numbers, not {problem.dtype}"
        return None

    def cost(self, problem: Problem, machine: Machine) -> float:
        form = problem.form
        if _pointwise(form):
            return problem.bytes / machine.stream + problem.macs / machine.product + 3 * machine.call
        columns = _column_bytes(problem) * prod(form.n_out) * problem.batch
        moved = 4 * problem.bytes / machine.stream + 2 * columns / machine.stream
        narrow = min(1.0, form.channels.outputs / form.channels.groups / 16)
        cuts = len(_rows_of(problem)) if _unshared(form) else len(list(_blocks_of(problem)))
        calls = cuts * (8 + (prod(form.kernel) if problem.map == "h" else 0))
        return moved + problem.macs / (machine.product * max(narrow, 0.05)) + calls * machine.call

    def error(self, problem: Problem) -> Error:
        return direct_error(problem)

    def scratch(self, problem: Problem) -> int:
        form = problem.form
        if _pointwise(form):
            return 0
        row = _column_bytes(problem) * _row(problem)
        rows = -(-prod(form.n_out) * max(problem.batch, 1) // max(1, prod(form.n_out[1:])))
        return 3 * max(row, min(_budget(problem), row * rows)) + self._beside(problem)

    @staticmethod
    def _beside(problem: Problem) -> int:
        """Return the bytes of the extended input, in its own order and another; or of the result before its border is folded."""
        form = problem.form
        extended = prod(a.span + max(-a.lo, 0) + max(-a.hi, 0) for a in form.axes)
        reordered = problem.map == "h" or _unshared(form) or problem.itemsize < 4 or _worth_reordering(form)
        copies = any(a.lo or a.hi for a in form.axes) + reordered
        return copies * extended * form.channels.inputs * problem.batch * max(problem.itemsize, 4)

    def prepare(self, problem: Problem, weight: Tensor | None = None) -> Runner:
        if _pointwise(problem.form):
            return {"c": _pointwise_c, "h": _pointwise_h, "g": _pointwise_g}[problem.map](problem.form)
        if _unshared(problem.form):
            return {"c": _unshared_c, "h": _unshared_h, "g": _unshared_g}[problem.map](problem)
        return {"c": _columns_c, "h": _columns_h, "g": _columns_g}[problem.map](problem)


def _pointwise(form: Form) -> bool:
    return not form.tiled and all(a.kernel == a.stride == 1 and a.lo == a.hi == 0 for a in form.axes)


def _unshared(form: Form) -> bool:
    return form.tiled and all(a.period >= a.n_out for a in form.axes)


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


# 1x1: the same matrix at every position


def _flat(x: Tensor) -> tuple[Tensor, bool]:
    """View as (batch, channels, positions), and say whether that is a view of channels-last memory."""
    return x.flatten(2), x.ndim > 3 and not x.is_contiguous() and x.movedim(1, -1).is_contiguous()


def _mix(matrix: Tensor, x: Tensor, out_channels: int, bias: Tensor | None) -> Tensor:
    """Apply (groups, rows, columns) at every position of x."""
    groups = matrix.shape[0]
    flat, last = _flat(x)
    out = empty(x, (x.shape[0], out_channels, *x.shape[2:]), last)
    if last and groups == 1:
        torch.mm(x.movedim(1, -1).reshape(-1, x.shape[1]), matrix[0].t(), out=out.movedim(1, -1).view(-1, out_channels))
    elif groups == 1:
        torch.bmm(matrix.expand(x.shape[0], -1, -1), flat, out=out.flatten(2))
    else:
        grouped = flat.unflatten(1, (groups, -1))
        out.copy_(torch.matmul(matrix, grouped).reshape(out.shape))
    return add_bias(out, bias)


def _pointwise_c(form: Form) -> Runner:
    groups, outputs = form.channels.groups, form.channels.outputs

    def run(K: Tensor, V: Tensor, bias: Tensor | None = None) -> Tensor:
        return _mix(K.reshape(groups, outputs // groups, -1), V, outputs, bias)

    return run


def _pointwise_h(form: Form) -> Runner:
    groups, inputs, outputs = form.channels.groups, form.channels.inputs, form.channels.outputs

    def run(K: Tensor, G: Tensor, bias: Tensor | None = None) -> Tensor:
        return _mix(K.reshape(groups, outputs // groups, -1).transpose(1, 2), G, inputs, bias)

    return run


def _pointwise_g(form: Form) -> Runner:
    groups = form.channels.groups

    def run(V: Tensor, G: Tensor, bias: Tensor | None = None) -> Tensor:  # noqa: ARG001  a kernel has no bias
        wide = _accumulator(V.dtype)
        Vg = V.flatten(2).unflatten(1, (groups, -1)).to(wide)
        Gg = G.flatten(2).unflatten(1, (groups, -1)).to(wide)
        D = torch.matmul(Gg, Vg.transpose(2, 3)).sum(0)
        return D.reshape(form.weight_shape).to(V.dtype)

    return run


# Columns: blocks of kernels of the tile, of the batch, and of rows of the first axis


class _Block(NamedTuple):
    """Outputs ``j = first + r + t q`` per axis, r in ``range(many)``, q in ``range(outputs)``; of the first axis q in `rows`."""

    first: tuple[int, ...]
    many: tuple[int, ...]
    outputs: tuple[int, ...]
    batch: slice
    rows: slice


def _column_bytes(problem: Problem) -> int:
    form = problem.form
    return prod(form.kernel) * form.channels.inputs * max(problem.itemsize, 4)


def _row(problem: Problem) -> int:
    """Return the positions of one row of outputs of one kernel: the least that a block holds."""
    form = problem.form
    if _unshared(form):
        wide = form.channels.outputs // form.channels.groups if problem.map == "g" else 1  # the result of a block counts too
        return max(1, prod(form.n_out[1:]) * max(problem.batch, wide))
    return prod(-(-a.n_out // a.period) for a in form.axes[1:])


def _budget(problem: Problem) -> int:
    """Unshared blocks are read once, so that small ones cost nothing; shared kernels want long rows of columns."""
    block = BLOCK // 8 if _unshared(problem.form) else BLOCK
    return block if problem.max_scratch is None else min(block, max(problem.max_scratch // 4, 1))


def _rows_of(problem: Problem) -> list[slice]:
    """Cut the first axis of an unshared form into blocks under the budget, where one row allows it."""
    rows = max(1, _budget(problem) // max(1, _column_bytes(problem) * _row(problem)))
    return list(blocks(problem.form.n_out[0], rows))


def _blocks_of(problem: Problem) -> Iterator[_Block]:
    """Cut the outputs into blocks under the budget, where one row of one kernel allows it."""
    allowed = max(1, _budget(problem) // max(1, _column_bytes(problem)))
    for parts in product(*(_runs(a) for a in problem.form.axes)):
        first, many, count = zip(*parts, strict=True)
        row = prod(count[1:])
        sizes: list[int] = []
        for size in many:
            sizes.append(max(1, min(size, allowed // max(1, row * prod(sizes)))))
        rows = max(1, allowed // max(1, row * prod(sizes)))
        for starts in product(*(range(0, m, s) for m, s in zip(many, sizes, strict=True))):
            here = tuple(f + s for f, s in zip(first, starts, strict=True))
            some = tuple(min(size, m - s) for size, m, s in zip(sizes, many, starts, strict=True))
            for n in blocks(problem.batch, max(1, rows // count[0])):
                for part in blocks(count[0], rows):
                    yield _Block(here, some, count, n, part)


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


def _columns_c(problem: Problem) -> Runner:
    form = problem.form
    plan = list(_blocks_of(problem))
    border = extension(form)

    def run(K: Tensor, V: Tensor, bias: Tensor | None = None) -> Tensor:
        wide = _accumulator(V.dtype)
        K, X = _straight(form, K), _channels_inside(border(V), form)
        Z = empty(V, form.output_shape(len(V)), problem.channels_last)
        for b in plan:
            columns = _matrices(_windows(X, form, b), form, wide)
            out = _outputs(Z, form, b)
            out.copy_(_like(torch.bmm(columns, _kernels(K, form, b, wide).transpose(1, 2)), out, form))
        return add_bias(Z, bias)

    return run


def _worth_reordering(form: Form) -> bool:
    """Whether the columns are so many more than the input's elements that these had better be copied to suit first."""
    return prod(form.kernel) * prod(form.n_out) > 2 * prod(a.span for a in form.axes)


def _channels_inside(X: Tensor, form: Form) -> Tensor:
    """Return X with its memory in the order (batch, *space, channels), where that is worth it."""
    return X.movedim(1, -1).contiguous().movedim(-1, 1) if _worth_reordering(form) else X


def _columns_h(problem: Problem) -> Runner:
    form = problem.form
    plan = list(_blocks_of(problem))
    border = folding(form)

    def run(K: Tensor, G: Tensor, bias: Tensor | None = None) -> Tensor:
        wide = _accumulator(G.dtype)
        K = _straight(form, K)
        R = G.new_zeros((len(G), *(a.span for a in form.axes), form.channels.inputs), dtype=wide).movedim(-1, 1)
        for b in plan:
            given = _matrices(_outputs(G, form, b), form, wide)
            windows = _windows(R, form, b)
            _scatter(windows, _like(torch.bmm(given, _kernels(K, form, b, wide)), windows, form), 1 + 2 * form.ndim, form)
        return add_bias(_finish(border(R), G, problem), bias)

    return run


def _scatter(windows: Tensor, columns: Tensor, first: int, form: Form) -> None:
    """Add columns to where they were read; the taps are the dimensions from `first`.

    Within one tap no two outputs share an input, so a plain sum is right.
    """
    pairs = [(windows, columns)]
    for _ in form.kernel:
        pairs = [pair for w, c in pairs for pair in zip(w.unbind(first), c.unbind(first), strict=True)]
    for window, column in pairs:
        window.add_(column)


def _finish(R: Tensor, like: Tensor, problem: Problem) -> Tensor:
    """Return R in the dtype and memory format that the caller expects."""
    fmt = torch.contiguous_format
    if problem.channels_last:
        fmt = torch.channels_last if R.ndim == 4 else torch.channels_last_3d
    return R.to(like.dtype).contiguous(memory_format=fmt)


def _columns_g(problem: Problem) -> Runner:
    form = problem.form
    plan = list(_blocks_of(problem))
    border = extension(form)

    def run(V: Tensor, G: Tensor, bias: Tensor | None = None) -> Tensor:  # noqa: ARG001  a kernel has no bias
        wide = _accumulator(V.dtype)
        X = _channels_inside(border(V), form)
        D = V.new_zeros(form.weight_shape, dtype=wide)
        for b in plan:
            given = _matrices(_outputs(G, form, b), form, wide)
            columns = _matrices(_windows(X, form, b), form, wide)
            tile = _tile(D, form, b)
            tile.add_(torch.bmm(given.transpose(1, 2), columns).reshape(tile.shape))
        return _straight(form, D).to(V.dtype)

    return run


# Unshared: a batch of products over positions, examples as columns


def _chunks(form: Form) -> Iterator[tuple[slice, slice]]:
    """Yield (outputs, inputs) of groups that one batch of products can hold: all if each has one output, else one."""
    groups = form.channels.groups
    outs, ins = form.channels.outputs // groups, form.channels.inputs // groups
    together = groups if outs == 1 else 1
    for k in range(0, groups, together):
        yield slice(k * outs, (k + together) * outs), slice(k * ins, (k + together) * ins)


def _batch_last(X: Tensor) -> Tensor:
    """Return X with its memory in the order (*space, channels, batch)."""
    order = (*range(2, X.ndim), 1, 0)
    back = (X.ndim - 1, X.ndim - 2, *range(X.ndim - 2))
    return X.permute(order).contiguous().permute(back)


def _overlapping(X: Tensor, form: Form) -> Tensor:
    """View the extended input as (batch, inputs, *kernel, *outputs)."""
    steps = X.stride()[2:]
    taps = [a.dilation * s for a, s in zip(form.axes, steps, strict=True)]
    jumps = [a.stride * s for a, s in zip(form.axes, steps, strict=True)]
    return X.as_strided((*X.shape[:2], *form.kernel, *form.n_out), (*X.stride()[:2], *taps, *jumps), X.storage_offset())


def _rows(windows: Tensor, rows: slice, form: Form) -> Tensor:
    """Restrict windows to rows of the first output axis."""
    return windows[(slice(None),) * (2 + form.ndim) + (rows,)]


def _local(K: Tensor, form: Form, outs: slice, rows: slice) -> Tensor:
    """View kernels of a block as (groups * positions, outputs / groups, inputs / groups * taps)."""
    K = K[(outs, rows, *(slice(n) for n in form.n_out[1:]))]
    flat = K.reshape(len(K), prod(K.shape[1 : 1 + form.ndim]), -1)
    return flat.reshape(-1, 1, flat.shape[2]) if _lone(form) else flat.transpose(0, 1)


def _lone(form: Form) -> bool:
    return form.channels.outputs == form.channels.groups


def _local_columns(windows: Tensor, form: Form) -> Tensor:
    """Copy windows to (groups * positions, inputs / groups * taps, batch)."""
    d = form.ndim
    groups = windows.shape[1] * form.channels.groups // form.channels.inputs
    split = windows.unflatten(1, (groups, -1))
    order = (1, *range(3 + d, 3 + 2 * d), 2, *range(3, 3 + d), 0)
    rows = split.shape[2] * prod(form.kernel)
    columns: Tensor = split.permute(order).reshape(groups * prod(windows.shape[2 + d :]), rows, len(windows))
    return columns


def _local_outputs(G: Tensor, form: Form) -> Tensor:
    """Copy a block of outputs to (groups * positions, outputs / groups, batch)."""
    flat = G.flatten(2)
    return flat.permute(1, 2, 0).flatten(0, 1).unsqueeze(1) if _lone(form) else flat.permute(2, 1, 0).contiguous()


def _straight(form: Form, K: Tensor) -> Tensor:
    return K.flip(tuple(range(K.ndim - form.ndim, K.ndim))) if form.flip else K


def _unshared_c(problem: Problem) -> Runner:
    form = problem.form
    border = extension(form)
    plan = [(chunk, rows) for chunk in _chunks(form) for rows in _rows_of(problem)]

    def run(K: Tensor, V: Tensor, bias: Tensor | None = None) -> Tensor:
        wide = _accumulator(V.dtype)
        windows = _overlapping(_batch_last(border(V).to(wide)), form)
        K = _straight(form, K)
        Z = empty(V, form.output_shape(len(V)), problem.channels_last)
        for (outs, ins), rows in plan:
            out = Z[:, outs, rows]
            kernels = _local(K, form, outs, rows).to(wide)
            result = torch.bmm(kernels, _local_columns(_rows(windows[:, ins], rows, form), form))
            out.copy_(_from_local(result, out.shape, form))
        return add_bias(Z, bias)

    return run


def _from_local(result: Tensor, shape: torch.Size, form: Form) -> Tensor:
    """Undo `_local_outputs`."""
    space = shape[2:]
    if _lone(form):
        return result.reshape(shape[1], *space, shape[0]).movedim(-1, 0)
    return result.reshape(*space, shape[1], shape[0]).movedim((-1, -2), (0, 1))


def _unshared_h(problem: Problem) -> Runner:
    form = problem.form
    border = folding(form)
    plan = [(chunk, rows) for chunk in _chunks(form) for rows in _rows_of(problem)]

    def run(K: Tensor, G: Tensor, bias: Tensor | None = None) -> Tensor:
        wide = _accumulator(G.dtype)
        K = _straight(form, K)
        R = _batch_last(G.new_zeros((len(G), form.channels.inputs, *(a.span for a in form.axes)), dtype=wide))
        windows = _overlapping(R, form)
        for (outs, ins), rows in plan:
            window = _rows(windows[:, ins], rows, form)
            kernels = _local(K, form, outs, rows).to(wide).transpose(1, 2)
            columns = torch.bmm(kernels, _local_outputs(G[:, outs, rows].to(wide), form))
            _scatter(window, _from_columns(columns, window.shape, form), 2, form)
        return add_bias(_finish(border(R), G, problem), bias)

    return run


def _from_columns(columns: Tensor, shape: torch.Size, form: Form) -> Tensor:
    """Undo `_local_columns`: view as windows (batch, inputs, *kernel, *positions)."""
    d = form.ndim
    ins = form.channels.inputs // form.channels.groups
    split = columns.reshape(shape[1] // ins, *shape[2 + d :], ins, *shape[2 : 2 + d], shape[0])
    order = (2 * d + 2, 0, d + 1, *range(d + 2, 2 * d + 2), *range(1, d + 1))
    windows: Tensor = split.permute(order).flatten(1, 2)
    return windows


def _unshared_g(problem: Problem) -> Runner:
    form = problem.form
    border = extension(form)
    plan = [(chunk, rows) for chunk in _chunks(form) for rows in _rows_of(problem)]

    def run(V: Tensor, G: Tensor, bias: Tensor | None = None) -> Tensor:  # noqa: ARG001  a kernel has no bias
        wide = _accumulator(V.dtype)
        windows = _overlapping(_batch_last(border(V).to(wide)), form)
        D = V.new_zeros(form.weight_shape) if form.period != form.n_out else V.new_empty(form.weight_shape)
        for (outs, ins), rows in plan:
            columns = _local_columns(_rows(windows[:, ins], rows, form), form)
            result = torch.bmm(_local_outputs(G[:, outs, rows].to(wide), form), columns.transpose(1, 2))
            target = D[(outs, rows, *(slice(n) for n in form.n_out[1:]))]
            target.copy_((result if _lone(form) else result.transpose(0, 1)).reshape(target.shape))
        return _straight(form, D)

    return run
