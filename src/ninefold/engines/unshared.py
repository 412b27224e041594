"""Unshared layers: a batch of products over positions, examples as columns, so that every weight is read exactly once.

Few examples go in as rows instead: the same products, transposed, in which the library finds long rows of weights to run along.
"""

from collections.abc import Callable, Iterator
from math import prod

import torch
from torch import Tensor

from ninefold.engines.base import Runner
from ninefold.engines.columns import accumulator, budget, column_bytes, finish, row_length, scatter, straight
from ninefold.spec.form import Form
from ninefold.spec.problem import Problem
from ninefold.tensors.border import extension, folding
from ninefold.tensors.layout import add_bias, blocks, empty

_MANY = 16  # examples from which products with them as columns are no slower; up to 10 times slower for one

__all__ = ["from_row", "most_rows", "patch_index", "unshared_c", "unshared_g", "unshared_h"]


def most_rows(problem: Problem) -> int:
    """Return how many rows of the first axis of an unshared form a block under the budget has, where one row allows it."""
    return max(1, budget(problem) // max(1, column_bytes(problem) * row_length(problem)))


def _steps(problem: Problem) -> Iterator[tuple[tuple[slice, slice], slice]]:
    """Yield the blocks: of groups, and of rows of the first axis."""
    for chunk in _chunks(problem.form):
        for rows in blocks(problem.form.n_out[0], most_rows(problem)):
            yield chunk, rows


def _chunks(form: Form) -> Iterator[tuple[slice, slice]]:
    """Yield (outputs, inputs) of groups that one batch of products can hold: all if each has one output, else one."""
    groups = form.channels.groups
    outs, ins = form.channels.outputs // groups, form.channels.inputs // groups
    together = groups if outs == 1 else 1
    for k in range(0, groups, together):
        yield slice(k * outs, (k + together) * outs), slice(k * ins, (k + together) * ins)


def patch_index(form: Form, rows: int, groups: int) -> Tensor:
    """Return where the patches of so many rows of outputs lie in an extended input, flat: (groups, *outputs, inputs, *kernel)."""
    d, counts, each = form.ndim, (rows, *form.n_out[1:]), form.channels.inputs // form.channels.groups
    spans = [a.span for a in form.axes]
    index = torch.arange(groups * each, device="cpu").view(groups, *(1,) * d, each, *(1,) * d) * prod(spans)
    for k, (a, n) in enumerate(zip(form.axes, counts, strict=True)):
        taps = torch.arange(a.kernel, device="cpu") * a.dilation
        reads = torch.arange(n, device="cpu")[:, None] * a.stride + taps
        shape = [n if i == 1 + k else a.kernel if i == 2 + d + k else 1 for i in range(2 + 2 * d)]
        index = index + reads.view(shape) * prod(spans[k + 1 :])
    return index.flatten()


def from_row(X: Tensor, form: Form, row: int) -> Tensor:
    """View an extended input ``(batch, channels, *extended)`` flat, from what the outputs of a row read first."""
    return X.flatten(1)[:, row * form.axes[0].stride * prod(a.span for a in form.axes[1:]) :]


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


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Multiply (positions, n, k) by (positions, k, batch)."""
    if b.shape[2] >= _MANY:
        return torch.bmm(a, b)
    return torch.bmm(b.transpose(1, 2), a.transpose(1, 2)).transpose(1, 2)


def unshared_c(problem: Problem) -> Runner:
    """Return the runner of c."""
    form = problem.form
    border = extension(form)

    def run(K: Tensor, V: Tensor, bias: Tensor | None = None) -> Tensor:
        wide = accumulator(V.dtype)
        columns = _gatherer(border(V).to(wide), form)
        K = straight(form, K)
        Z = empty(V, form.output_shape(len(V)), problem.channels_last)
        for (outs, ins), rows in _steps(problem):
            out = Z[:, outs, rows]
            result = _product(_local(K, form, outs, rows).to(wide), columns(ins, rows))
            out.copy_(_from_local(result, out.shape, form))
        return add_bias(Z, bias)

    return run


def _gatherer(X: Tensor, form: Form) -> Callable[[slice, slice], Tensor]:
    """Return what copies the columns of some channels and rows to (groups * positions, inputs / groups * taps, batch)."""
    if len(X) >= _MANY:
        windows = _overlapping(_batch_last(X), form)
        return lambda ins, rows: _local_columns(_rows(windows[:, ins], rows, form), form)
    X, each, known = X.contiguous(), form.channels.inputs // form.channels.groups, {}

    def few(ins: slice, rows: slice) -> Tensor:
        groups, count = (ins.stop - ins.start) // each, rows.stop - rows.start
        if count not in known:
            known[count] = patch_index(form, count, groups).to(X.device)
        out = from_row(X[:, ins], form, rows.start).index_select(1, known[count])
        return out.view(len(X), groups * count * prod(form.n_out[1:]), each * prod(form.kernel)).permute(1, 2, 0)

    return few


def _from_local(result: Tensor, shape: torch.Size, form: Form) -> Tensor:
    """Undo `_local_outputs`."""
    space = shape[2:]
    if _lone(form):
        return result.reshape(shape[1], *space, shape[0]).movedim(-1, 0)
    return result.reshape(*space, shape[1], shape[0]).movedim((-1, -2), (0, 1))


def unshared_h(problem: Problem) -> Runner:
    """Return the runner of h."""
    form = problem.form
    border = folding(form)

    def run(K: Tensor, G: Tensor, bias: Tensor | None = None) -> Tensor:
        wide = accumulator(G.dtype)
        K = straight(form, K)
        R = _batch_last(G.new_zeros((len(G), form.channels.inputs, *(a.span for a in form.axes)), dtype=wide))
        windows = _overlapping(R, form)
        for (outs, ins), rows in _steps(problem):
            window = _rows(windows[:, ins], rows, form)
            kernels = _local(K, form, outs, rows).to(wide).transpose(1, 2)
            columns = _product(kernels, _local_outputs(G[:, outs, rows].to(wide), form))
            scatter(window, _from_columns(columns, window.shape, form), 2, form)
        return add_bias(finish(border(R), G, problem), bias)

    return run


def _from_columns(columns: Tensor, shape: torch.Size, form: Form) -> Tensor:
    """Undo `_local_columns`: view as windows (batch, inputs, *kernel, *positions)."""
    d = form.ndim
    ins = form.channels.inputs // form.channels.groups
    split = columns.reshape(shape[1] // ins, *shape[2 + d :], ins, *shape[2 : 2 + d], shape[0])
    order = (2 * d + 2, 0, d + 1, *range(d + 2, 2 * d + 2), *range(1, d + 1))
    windows: Tensor = split.permute(order).flatten(1, 2)
    return windows


def unshared_g(problem: Problem) -> Runner:
    """Return the runner of g."""
    form = problem.form
    border = extension(form)

    def run(V: Tensor, G: Tensor, bias: Tensor | None = None) -> Tensor:  # noqa: ARG001  a kernel has no bias
        wide = accumulator(V.dtype)
        windows = _overlapping(_batch_last(border(V).to(wide)), form)
        D = V.new_zeros(form.weight_shape) if form.period != form.n_out else V.new_empty(form.weight_shape)
        for (outs, ins), rows in _steps(problem):
            columns = _local_columns(_rows(windows[:, ins], rows, form), form)
            result = torch.bmm(_local_outputs(G[:, outs, rows].to(wide), form), columns.transpose(1, 2))
            target = D[(outs, rows, *(slice(n) for n in form.n_out[1:]))]
            target.copy_((result if _lone(form) else result.transpose(0, 1)).reshape(target.shape))
        return straight(form, D)

    return run
