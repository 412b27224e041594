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
    extend,
    fold,
)
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
        calls = len(list(_blocks_of(problem))) * 6 if _unshared(form) else (prod(form.period) + columns // BLOCK) * 8
        return moved + problem.macs / (machine.product * max(narrow, 0.05)) + calls * machine.call

    def error(self, problem: Problem) -> Error:
        return direct_error(problem)

    def scratch(self, problem: Problem) -> int:
        form = problem.form
        if _pointwise(form):
            return 0
        row = _column_bytes(problem) * _row(problem)
        rows = form.n_out[0] * (1 if _unshared(form) else problem.batch)
        block = max(row, min(_budget(problem), row * rows))
        return 3 * block + self._beside(problem)

    @staticmethod
    def _beside(problem: Problem) -> int:
        """Return the bytes of the extended input, or of the result before its border is folded back."""
        form = problem.form
        extended = prod(a.span + max(-a.lo, 0) + max(-a.hi, 0) for a in form.axes)
        border = extended * form.channels.inputs * problem.batch * max(problem.itemsize, 4)
        moved = any(a.lo or a.hi for a in form.axes) if problem.map == "h" else any(a.border for a in form.axes)
        return 2 * border if moved or _unshared(form) or problem.itemsize < 4 else 0

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


# Columns: blocks of rows of the first axis (and of the batch), residue by residue


def _column_bytes(problem: Problem) -> int:
    form = problem.form
    return prod(form.kernel) * form.channels.inputs * max(problem.itemsize, 4)


def _row(problem: Problem) -> int:
    """Return the positions of one row of outputs: the least that a block holds."""
    rest = prod(problem.form.n_out[1:])
    return max(1, rest * (problem.batch if _unshared(problem.form) else 1))


def _budget(problem: Problem) -> int:
    """Unshared blocks are read once, so that small ones cost nothing; shared kernels want long rows of columns."""
    block = BLOCK // 8 if _unshared(problem.form) else BLOCK
    return block if problem.max_scratch is None else min(block, max(problem.max_scratch // 4, 1))


def _blocks_of(problem: Problem) -> Iterator[tuple[slice, slice]]:
    """Yield (batch, first axis) blocks of the outputs, each under the budget where one row allows it."""
    form = problem.form
    t = max(form.axes[0].period, 1) if not _unshared(form) else 1
    rows = max(1, _budget(problem) // max(1, _column_bytes(problem) * _row(problem)))
    count = -(-form.n_out[0] // t)
    if _unshared(form):
        batches: list[slice] = [slice(0, problem.batch)]
    else:
        batches = list(blocks(problem.batch, max(1, rows // max(count, 1))))
    for n in batches:
        for block in blocks(count, rows):
            yield n, block


def _residues(form: Form) -> Iterator[tuple[int, ...]]:
    yield from product(*(range(min(a.period, a.n_out)) for a in form.axes))


def _windows(X: Tensor, form: Form, residue: tuple[int, ...], period: tuple[int, ...]) -> Tensor:
    """View the extended input as (batch, inputs, *kernel, *outputs of this residue), overlapping."""
    steps = X.stride()[2:]
    counts = [-(-(a.n_out - r) // t) for a, r, t in zip(form.axes, residue, period, strict=True)]
    taps = [a.dilation * s for a, s in zip(form.axes, steps, strict=True)]
    jumps = [a.stride * t * s for a, s, t in zip(form.axes, steps, period, strict=True)]
    first = sum(r * a.stride * s for r, a, s in zip(residue, form.axes, steps, strict=True))
    return X.as_strided((*X.shape[:2], *form.kernel, *counts), (*X.stride()[:2], *taps, *jumps), X.storage_offset() + first)


def _of(x: Tensor, form: Form, residue: tuple[int, ...]) -> Tensor:
    """View the outputs of a residue."""
    return x[(..., *(slice(r, None, a.period) for r, a in zip(residue, form.axes, strict=True)))]


def _tile(K: Tensor, form: Form, residue: tuple[int, ...]) -> Tensor:
    """Return the kernel of a residue as (groups, outputs / groups, inputs / groups * taps)."""
    groups = form.channels.groups
    one = K[(slice(None), *residue)] if form.tiled else K
    one = one.flip(tuple(range(2, one.ndim))) if form.flip else one
    return one.reshape(groups, form.channels.outputs // groups, -1)


def _columns(windows: Tensor, form: Form, wide: torch.dtype) -> Tensor:
    """Copy windows (batch, inputs, *kernel, *outputs) to columns (groups, inputs / groups * taps, batch * positions)."""
    return (
        windows.movedim(0, 1 + form.ndim)
        .to(wide)
        .reshape(form.channels.groups, -1, prod(windows.shape[2 + form.ndim :]) * len(windows))
    )


def _grouped(G: Tensor, form: Form, wide: torch.dtype) -> Tensor:
    """Copy (batch, outputs, *positions) to (groups, outputs / groups, batch * positions)."""
    return G.movedim(0, 1).to(wide).reshape(form.channels.groups, -1, prod(G.shape[2:]) * len(G))


def _columns_c(problem: Problem) -> Runner:
    form = problem.form
    plan = list(_blocks_of(problem))

    def run(K: Tensor, V: Tensor, bias: Tensor | None = None) -> Tensor:
        wide = _accumulator(V.dtype)
        X = extend(V, form)
        Z = empty(V, form.output_shape(len(V)), problem.channels_last)
        for residue in _residues(form):
            windows, part, tile = (
                _windows(X, form, residue, form.period),
                _of(Z, form, residue),
                _tile(K, form, residue).to(wide),
            )
            for n, rows in plan:
                window, out = _rows(windows[n], rows, form), part[n][:, :, rows]
                if out.numel():
                    result = torch.bmm(tile, _columns(window, form, wide))
                    out.copy_(result.reshape(out.shape[1], len(out), *out.shape[2:]).movedim(1, 0))
        return add_bias(Z, bias)

    return run


def _rows(windows: Tensor, rows: slice, form: Form) -> Tensor:
    """Restrict windows to rows of the first output axis."""
    return windows[(slice(None),) * (2 + form.ndim) + (rows,)]


def _columns_h(problem: Problem) -> Runner:
    form = problem.form
    plan = list(_blocks_of(problem))

    def run(K: Tensor, G: Tensor, bias: Tensor | None = None) -> Tensor:
        wide = _accumulator(G.dtype)
        R = G.new_zeros((len(G), form.channels.inputs, *(a.span for a in form.axes)), dtype=wide)
        for residue in _residues(form):
            windows, part = _windows(R, form, residue, form.period), _of(G, form, residue)
            tile = _tile(K, form, residue).to(wide).transpose(1, 2)
            for n, rows in plan:
                window, given = _rows(windows[n], rows, form), part[n][:, :, rows]
                if given.numel():
                    columns = torch.bmm(tile, _grouped(given, form, wide))
                    _scatter(window, columns.reshape(window.movedim(0, 1 + form.ndim).shape).movedim(1 + form.ndim, 0), form)
        return add_bias(_finish(fold(R, form), G, problem), bias)

    return run


def _scatter(windows: Tensor, columns: Tensor, form: Form) -> None:
    """Add columns to where they were read; within one tap no two outputs share an input, so a plain sum is right."""
    for tap in product(*(range(k) for k in form.kernel)):
        windows[(slice(None), slice(None), *tap)].add_(columns[(slice(None), slice(None), *tap)])


def _finish(R: Tensor, like: Tensor, problem: Problem) -> Tensor:
    """Return R in the dtype and memory format that the caller expects."""
    fmt = torch.contiguous_format
    if problem.channels_last:
        fmt = torch.channels_last if R.ndim == 4 else torch.channels_last_3d
    return R.to(like.dtype).contiguous(memory_format=fmt)


def _columns_g(problem: Problem) -> Runner:
    form = problem.form
    plan = list(_blocks_of(problem))

    def run(V: Tensor, G: Tensor, bias: Tensor | None = None) -> Tensor:  # noqa: ARG001  a kernel has no bias
        wide = _accumulator(V.dtype)
        X = extend(V, form)
        D = V.new_zeros(form.weight_shape, dtype=wide)
        for residue in _residues(form):
            windows, part = _windows(X, form, residue, form.period), _of(G, form, residue)
            tile = torch.zeros_like(_tile(D, form, residue))
            for n, rows in plan:
                window, given = _rows(windows[n], rows, form), part[n][:, :, rows]
                if given.numel():
                    tile.baddbmm_(_grouped(given, form, wide), _columns(window, form, wide).transpose(1, 2))
            _put_tile(D, tile, form, residue)
        return D.to(V.dtype)

    return run


def _put_tile(D: Tensor, tile: Tensor, form: Form, residue: tuple[int, ...]) -> None:
    target = D[(slice(None), *residue)] if form.tiled else D
    tile = tile.reshape(target.shape)
    target.copy_(tile.flip(tuple(range(2, tile.ndim))) if form.flip else tile)


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
    plan = [(chunk, rows) for chunk in _chunks(form) for _, rows in _blocks_of(problem)]

    def run(K: Tensor, V: Tensor, bias: Tensor | None = None) -> Tensor:
        wide = _accumulator(V.dtype)
        windows = _windows(_batch_last(extend(V, form).to(wide)), form, (0,) * form.ndim, (1,) * form.ndim)
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
    plan = [(chunk, rows) for chunk in _chunks(form) for _, rows in _blocks_of(problem)]

    def run(K: Tensor, G: Tensor, bias: Tensor | None = None) -> Tensor:
        wide = _accumulator(G.dtype)
        K = _straight(form, K)
        R = _batch_last(G.new_zeros((len(G), form.channels.inputs, *(a.span for a in form.axes)), dtype=wide))
        windows = _windows(R, form, (0,) * form.ndim, (1,) * form.ndim)
        for (outs, ins), rows in plan:
            window = _rows(windows[:, ins], rows, form)
            kernels = _local(K, form, outs, rows).to(wide).transpose(1, 2)
            columns = torch.bmm(kernels, _local_outputs(G[:, outs, rows].to(wide), form))
            _scatter(window, _from_columns(columns, window.shape, form), form)
        return add_bias(_finish(fold(R, form), G, problem), bias)

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
    plan = [(chunk, rows) for chunk in _chunks(form) for _, rows in _blocks_of(problem)]

    def run(V: Tensor, G: Tensor, bias: Tensor | None = None) -> Tensor:  # noqa: ARG001  a kernel has no bias
        wide = _accumulator(V.dtype)
        windows = _windows(_batch_last(extend(V, form).to(wide)), form, (0,) * form.ndim, (1,) * form.ndim)
        D = V.new_zeros(form.weight_shape) if form.period != form.n_out else V.new_empty(form.weight_shape)
        for (outs, ins), rows in plan:
            columns = _local_columns(_rows(windows[:, ins], rows, form), form)
            result = torch.bmm(_local_outputs(G[:, outs, rows].to(wide), form), columns.transpose(1, 2))
            target = D[(outs, rows, *(slice(n) for n in form.n_out[1:]))]
            target.copy_((result if _lone(form) else result.transpose(0, 1)).reshape(target.shape))
        return _straight(form, D)

    return run
