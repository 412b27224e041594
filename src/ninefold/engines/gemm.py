"""Matrix products: 1x1 kernels as they are, others through columns (im2col), tiled and unshared kernels as batches.

With the columns ``X[(i, m), (b, j)] = V[b, i, at(j, m)]`` every map is one product per group::

    c:  Z = K X          h:  X' = K^T G, then added back to where X was read          g:  D = G X^T

X is never formed whole: blocks of it stay under the scratch cap (and in the cache). A period ``t`` splits the outputs into
residues ``j mod t``, each an ordinary form of stride ``s t`` with a kernel of its own (eq. 9.10). Where no kernel repeats
(unshared, eq. 9.9) the product is one batch over positions, ``Z[j] = K[j] X[j]`` with the examples as columns, and reads
every weight exactly once.
"""

from math import prod

import torch
from torch import Tensor

from ninefold.engines.base import Engine, Error, Runner, Traits, direct_error
from ninefold.engines.columns import (
    accumulator,
    budget,
    column_bytes,
    columns_c,
    columns_g,
    columns_h,
    count_blocks,
    is_unshared,
    kernel_bytes,
    place_bytes,
    row_length,
    worth_reordering,
)
from ninefold.engines.final import Final
from ninefold.engines.machine import Machine
from ninefold.engines.unshared import most_rows, unshared_c, unshared_g, unshared_h
from ninefold.spec.channels import ChannelTable
from ninefold.spec.form import Form
from ninefold.spec.problem import Problem
from ninefold.tensors.layout import add_bias, empty

__all__ = ["Gemm"]


class Gemm(Engine):
    """Blocked products of matrices."""

    name = "gemm"
    revision = 2
    traits = Traits(plain_sums=True, exact=True, confines_nan=True)

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
            passes = 5 if form.channels.groups > 1 else 1  # of groups the result is copied
            slower = 1.3 if problem.map == "h" else 1.0  # a product with the transposed kernel
            return passes * problem.bytes / machine.stream + slower * problem.macs / machine.product + 3 * machine.call
        columns = column_bytes(problem) * prod(form.n_out) * problem.batch
        moved = 4 * problem.bytes / machine.stream + (5 if problem.map == "h" else 2) * columns / machine.stream
        narrow = min(1.0, form.channels.outputs / form.channels.groups / 16)
        cuts = -(-form.n_out[0] // most_rows(problem)) if is_unshared(form) else count_blocks(problem)
        calls = cuts * (8 + (prod(form.kernel) if problem.map == "h" else 0))
        return moved + problem.macs / (machine.product * max(narrow, 0.05)) + calls * machine.call

    def error(self, problem: Problem) -> Error:
        return direct_error(problem)

    def scratch(self, problem: Problem) -> int:
        form = problem.form
        if _pointwise(form):
            return self._products(problem)
        row = place_bytes(problem) * row_length(problem)
        whole = max(row * form.n_out[0], place_bytes(problem) * prod(form.n_out) * problem.batch)
        return 3 * max(row, min(budget(problem), whole)) + self._beside(problem) + kernel_bytes(problem)

    @staticmethod
    def _products(problem: Problem) -> int:
        """Return the bytes of products that are summed over the batch, or copied from groups, and of operands in a wider type."""
        form, item = problem.form, max(problem.itemsize, 4)
        read, written = prod(form.input_shape(problem.batch)), prod(form.output_shape(problem.batch))
        if problem.map == "g":
            wider = read + written if problem.itemsize < 4 else 0
            return ((problem.batch + 1) * prod(form.weight_shape) + wider) * item
        return (read if problem.map == "h" else written) * problem.itemsize if form.channels.groups > 1 else 0

    @staticmethod
    def _beside(problem: Problem) -> int:
        """Return the bytes of the extended input, in its own order and another; or of the result before its border is folded."""
        form = problem.form
        extended = prod(a.span + max(-a.lo, 0) + max(-a.hi, 0) for a in form.axes)
        reordered = problem.map == "h" or is_unshared(form) or problem.itemsize < 4 or worth_reordering(form)
        copies = any(a.lo or a.hi for a in form.axes) + reordered
        return copies * extended * form.channels.inputs * problem.batch * max(problem.itemsize, 4)

    def prepare(self, problem: Problem, weight: Final | None = None) -> Runner:
        if _pointwise(problem.form):
            return {"c": _pointwise_c, "h": _pointwise_h, "g": _pointwise_g}[problem.map](problem)
        if is_unshared(problem.form):
            return {"c": unshared_c, "h": unshared_h, "g": unshared_g}[problem.map](problem)
        return {"c": columns_c, "h": columns_h, "g": columns_g}[problem.map](problem)


def _pointwise(form: Form) -> bool:
    return not form.tiled and all(a.kernel == a.stride == 1 and a.lo == a.hi == 0 for a in form.axes)


# 1x1: the same matrix at every position


def _mix(matrix: Tensor, x: Tensor, out_channels: int, bias: Tensor | None, last: bool) -> Tensor:
    """Apply (groups, rows, columns) at every position of x, into channels-last memory if `last`, whatever the order of x."""
    groups = matrix.shape[0]
    out = empty(x, (x.shape[0], out_channels, *x.shape[2:]), last)
    if last and groups == 1 and x.movedim(1, -1).is_contiguous():
        torch.mm(x.movedim(1, -1).reshape(-1, x.shape[1]), matrix[0].t(), out=out.movedim(1, -1).view(-1, out_channels))
    elif groups == 1:
        torch.bmm(matrix.expand(x.shape[0], -1, -1), x.flatten(2), out=out.flatten(2))
    else:
        out.copy_(torch.matmul(matrix, x.flatten(2).unflatten(1, (groups, -1))).reshape(out.shape))
    return add_bias(out, bias)


def _pointwise_c(problem: Problem) -> Runner:
    last, groups, outputs = problem.channels_last, problem.form.channels.groups, problem.form.channels.outputs

    def run(K: Tensor, V: Tensor, bias: Tensor | None = None) -> Tensor:
        return _mix(K.reshape(groups, outputs // groups, -1), V, outputs, bias, last)

    return run


def _pointwise_h(problem: Problem) -> Runner:
    last, channels = problem.channels_last, problem.form.channels
    groups, inputs, outputs = channels.groups, channels.inputs, channels.outputs

    def run(K: Tensor, G: Tensor, bias: Tensor | None = None) -> Tensor:
        return _mix(K.reshape(groups, outputs // groups, -1).transpose(1, 2), G, inputs, bias, last)

    return run


def _pointwise_g(problem: Problem) -> Runner:
    form, groups = problem.form, problem.form.channels.groups

    def run(V: Tensor, G: Tensor, bias: Tensor | None = None) -> Tensor:  # noqa: ARG001  a kernel has no bias
        wide = accumulator(V.dtype)
        Vg = V.flatten(2).unflatten(1, (groups, -1)).to(wide)
        Gg = G.flatten(2).unflatten(1, (groups, -1)).to(wide)
        D = torch.matmul(Gg, Vg.transpose(2, 3)).sum(0)
        return D.reshape(form.weight_shape).to(V.dtype)

    return run
