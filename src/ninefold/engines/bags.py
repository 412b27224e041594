"""Unshared layers as weighted sums of rows: one row of taps per weight row, gathered, weighted and summed in a single pass.

With the patch ``X[b, p]`` of output position ``p`` and the kernel row ``K[o, p]``, both as long as inputs times taps, eq. 9.9 is

    h:  X'[b, p] = sum over o of G[b, o, p] K[o, p]          g:  D[o, p] = sum over b of G[b, o, p] X[b, p]
    c:  Z[b, o, p] = <K[o, p], X[b, p]>

``h`` and ``g`` are what PyTorch calls an embedding bag: rows of a table, chosen by index, weighted, summed. Its kernel runs along
the row, reads every row of the table from memory once, and keeps the sum in registers; a batched product of such small matrices
spends most of its time before it begins. ``c`` is the gradient of a bag with respect to its weights: the product of a row that
was summed and the gradient of the sum, here a kernel row and a patch.
"""

from collections.abc import Callable, Iterator
from math import prod

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from ninefold.engines.base import Engine, Error, Runner, Traits, direct_error
from ninefold.engines.columns import budget, column_bytes, finish, is_unshared, straight
from ninefold.engines.final import Final
from ninefold.engines.held import Held
from ninefold.engines.machine import Machine
from ninefold.engines.unshared import from_row, patch_index
from ninefold.spec.channels import ChannelTable
from ninefold.spec.form import Form
from ninefold.spec.problem import Problem
from ninefold.tensors.border import extension, folding
from ninefold.tensors.layout import add_bias, blocks, empty

__all__ = ["Bags"]

_row_products = torch.ops.aten._embedding_bag_per_sample_weights_backward  # noqa: SLF001  a bag's gradient, which has no public name

_RATE = 0.25  # of the machine's rate in large products, which a sum of weighted rows reaches
_ROW = 1.5e-8  # seconds before the product of two rows begins


class Bags(Engine):
    """Embedding bags."""

    name = "bags"
    revision = 1
    traits = Traits(plain_sums=True, exact=True, confines_nan=True)
    by_format = False

    def refuses(self, problem: Problem) -> str | None:
        form = problem.form
        if not is_unshared(form) or form.period != form.n_out:
            return f"kernels repeat (period {form.period}, outputs {form.n_out}); bags read each kernel row once"
        if isinstance(form.channels, ChannelTable):
            return f"a table of {form.channels.connections} channel connections has no equal rows of taps"
        if problem.dtype not in ("float32", "float64"):
            return f"bags sum float32 and float64, not {problem.dtype}"
        if not problem.batch:
            return "a batch of 0 has no rows to sum"
        if problem.device != "cpu":
            return f"bags are for CPUs, not {problem.device}"
        return None

    def cost(self, problem: Problem, machine: Machine) -> float:
        form = problem.form
        columns = column_bytes(problem) * prod(form.n_out) * problem.batch
        calls = -(-form.n_out[0] // _rows(problem)) * 12
        moved = problem.bytes / machine.stream + 3 * columns / machine.stream
        if problem.map == "c":
            moved += _ROW * problem.batch * prod(form.output_shape(1))
        return float(moved + problem.macs / (_RATE * machine.product) + calls * machine.call)

    def error(self, problem: Problem) -> Error:
        return direct_error(problem)

    def scratch(self, problem: Problem) -> int:
        form = problem.form
        block: int = _row_bytes(problem) * min(form.n_out[0], _rows(problem))
        indices: int = (16 + 2 * problem.itemsize) * problem.batch * prod(form.output_shape(1))
        extended: int = prod(a.span for a in form.axes) * form.channels.inputs * problem.batch * problem.itemsize
        return 4 * block + indices + 2 * extended

    def prepare(self, problem: Problem, weight: Final | None = None) -> Runner:
        return {"c": _bags_c, "h": _bags_h, "g": _bags_g}[problem.map](problem)


def _row_bytes(problem: Problem) -> int:
    """Return the bytes that one row of the first output axis takes: of patches, or of kernel rows if these are more."""
    form = problem.form
    wide = form.channels.outputs // form.channels.groups if problem.map == "g" and not _whole(problem) else 1
    return column_bytes(problem) * prod(form.n_out[1:]) * max(problem.batch, wide)


def _whole(problem: Problem) -> bool:
    """Whether all patches fit into one block, so that a kernel gradient is one call's result."""
    return column_bytes(problem) * prod(problem.form.n_out) * problem.batch <= budget(problem)


def _rows(problem: Problem) -> int:
    """Return how many rows of the first output axis a block under the budget has, where one row allows it."""
    return max(1, 2 * budget(problem) // max(1, _row_bytes(problem)))


def _blocks(problem: Problem) -> Iterator[slice]:
    return blocks(problem.form.n_out[0], _rows(problem))


_INDICES: Held[tuple[Tensor, ...]] = Held(64 << 20, lambda index: sum(x.nbytes for x in index))
"""Row numbers, as large as what is computed: those of the last calls are remembered, whatever runners there are."""


def _table(form: Form, batch: int, rows: slice) -> tuple[Tensor, Tensor]:
    """Return the row numbers, per output and position of a block, in the table of kernels, and per example in that of patches."""
    outs, groups = form.channels.outputs, form.channels.groups
    inner = prod(form.n_out[1:])
    here = torch.arange(rows.start * inner, rows.stop * inner, device="cpu")
    channel = torch.arange(outs, device="cpu")
    kernel = channel[:, None] * prod(form.n_out) + here
    group = torch.arange(batch, device="cpu")[:, None] * groups + channel // (outs // groups)
    return kernel, group[:, :, None] * len(here) + (here - here[:1])


def _patches(form: Form, count: int) -> Tensor:
    """Return `patch_index` of so many rows of outputs, remembered."""
    return _INDICES.get((form, count), lambda: (patch_index(form, count, form.channels.groups),))[0]


def _gatherer(problem: Problem) -> Callable[[Tensor, slice], Tensor]:
    """Return what copies the patches of some rows to (batch, groups, positions, inputs / groups * taps)."""
    form, groups = problem.form, problem.form.channels.groups

    def gather(X: Tensor, rows: slice) -> Tensor:
        count = rows.stop - rows.start
        found = from_row(X, form, rows.start).index_select(1, _patches(form, count))
        return found.view(len(X), groups, count * prod(form.n_out[1:]), -1)

    return gather


def _bags_c(problem: Problem) -> Runner:
    """Return the runner of c: the products of every kernel row and the batch's patches."""
    form, batch, outs = problem.form, problem.batch, problem.form.channels.outputs
    border, gather = extension(form), _gatherer(problem)

    def chosen(rows: slice) -> tuple[Tensor, Tensor]:
        kernel, patch = _table(form, batch, rows)
        return _flat(kernel[:, :, None].expand(-1, -1, batch)), _flat(patch.permute(1, 2, 0))

    def run(K: Tensor, V: Tensor, bias: Tensor | None = None) -> Tensor:
        X = border(V).contiguous()
        table = straight(form, K).contiguous().view(outs * prod(form.n_out), -1)
        Z = empty(V, form.output_shape(batch), problem.channels_last)
        for rows in _blocks(problem):
            kernel, patch = _INDICES.get(("c", form, batch, rows.start, rows.stop), lambda rows=rows: chosen(rows))  # type: ignore[misc]
            columns = gather(X, rows).flatten(0, 2)
            products = _row_products(columns, table, kernel, torch.arange(len(columns), device=columns.device), patch, 0)
            Z[:, :, rows] = products.view(outs, -1, batch).movedim(-1, 0).unflatten(2, (-1, *form.n_out[1:]))
        return add_bias(Z, bias)

    return run


def _bags_h(problem: Problem) -> Runner:
    """Return the runner of h: a bag per patch, of the kernel rows of its group."""
    form, batch, groups = problem.form, problem.batch, problem.form.channels.groups
    border = folding(form)

    def chosen(rows: slice) -> tuple[Tensor, ...]:
        return (_table(form, batch, rows)[0].unflatten(0, (groups, -1)).movedim(1, -1).unsqueeze(2),)

    def run(K: Tensor, G: Tensor, bias: Tensor | None = None) -> Tensor:
        table = straight(form, K).contiguous().view(form.channels.outputs * prod(form.n_out), -1)
        R = G.new_zeros(batch, form.channels.inputs, *(a.span for a in form.axes))
        for rows in _blocks(problem):
            (kernel,) = _INDICES.get(("h", form, batch, rows.start, rows.stop), lambda rows=rows: chosen(rows))  # type: ignore[misc]
            kernel, patch = kernel.expand(-1, -1, batch, -1), _patches(form, rows.stop - rows.start)
            each = G[:, :, rows].flatten(2).unflatten(1, (groups, -1)).permute(1, 3, 0, 2)
            sums = _sums(table, kernel, each).view(groups, -1, batch, table.shape[1])
            from_row(R, form, rows.start).index_add_(1, patch, sums.movedim(2, 0).reshape(batch, -1))
        return add_bias(finish(border(R), G, problem), bias)

    return run


def _bags_g(problem: Problem) -> Runner:
    """Return the runner of g: a bag per kernel row, of the batch's patches; of a single example, a product."""
    form, batch, outs, groups = problem.form, problem.batch, problem.form.channels.outputs, problem.form.channels.groups
    border, gather = extension(form), _gatherer(problem)

    def chosen(rows: slice) -> tuple[Tensor, ...]:
        return (_table(form, batch, rows)[1].permute(1, 2, 0),)

    def run(V: Tensor, G: Tensor, bias: Tensor | None = None) -> Tensor:  # noqa: ARG001  a kernel has no bias
        X = border(V).contiguous()
        D: Tensor | None = None
        for rows in _blocks(problem):
            (index,) = _INDICES.get(("g", form, batch, rows.start, rows.stop), lambda rows=rows: chosen(rows))  # type: ignore[misc]
            columns, given = gather(X, rows), G[:, :, rows].flatten(2)
            if batch == 1:
                sums = given.unflatten(1, (groups, -1)).unsqueeze(-1) * columns.unsqueeze(2)
            else:
                sums = _sums(columns.flatten(0, 2), index, given.permute(1, 2, 0))
            sums = sums.view(outs, rows.stop - rows.start, *form.weight_shape[2:])
            if rows.stop - rows.start == form.n_out[0]:
                D = sums
            else:
                D = V.new_empty(form.weight_shape) if D is None else D
                D[:, rows] = sums
        return straight(form, V.new_zeros(form.weight_shape) if D is None else D)

    return run


def _sums(table: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted sums of the rows of a table, along the last dimension of `index`."""
    bags, each = prod(index.shape[:-1]), index.shape[-1]
    offsets = torch.arange(0, bags * each, max(each, 1), device=table.device)
    flat, scale = _flat(index), _flat(weights)
    out: Tensor = embedding_bag(flat, table, offsets, mode="sum", per_sample_weights=scale)
    return out


def _flat(x: Tensor) -> Tensor:
    """Return all elements in a row: where a dimension has one element, ``reshape`` alone may leave a step of 0."""
    return x.reshape(-1).contiguous()
