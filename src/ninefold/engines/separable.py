"""Frozen kernels of low rank over the axes, run as passes along one axis after the other (section 9.8 of the book).

Per group, a 2-D kernel is the matrix ``M[(o, m), (i, n)] = K[o, i, m, n]``. Its singular value decomposition of numerical rank r
splits the convolution exactly, to rounding, into a pass along the second axis to r channels and one along the first:
``w^d`` multiplications per output become ``r w d``. A depthwise kernel of rank 1 is the outer product of the chapter.
Each pass is a banded (Toeplitz) matrix product over segments of the axis where the kernel is long, and PyTorch's own
convolution where it is short.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import reduce
from math import prod

import torch
from torch import Tensor

from ninefold.engines.aten import Aten
from ninefold.engines.base import Engine, Error, Runner, Traits, unit_roundoff
from ninefold.engines.final import Final
from ninefold.engines.machine import Machine
from ninefold.errors import ArgumentError
from ninefold.spec.axis import Axis
from ninefold.spec.channels import ChannelTable, Grouped
from ninefold.spec.conv import ConvSpec
from ninefold.spec.form import Form
from ninefold.spec.problem import Problem
from ninefold.tensors.border import extension, folding
from ninefold.tensors.layout import add_bias, blocks

__all__ = ["Separable", "numerical_rank"]


_LARGEST = 1 << 18  # entries of one group's matrix; beyond it a decomposition takes seconds, and dense layers are of full rank


def numerical_rank(form: Form | ConvSpec, K: Tensor) -> int | None:
    """Return the largest rank over groups of a 2-D kernel's matrix ``M[(o, m), (i, n)]``, or None where none is sought.

    That is: other than real 2-D kernels of at least 3 taps per axis, and matrices past 2^18 entries.

    Singular values below ``8 u sqrt(rows + columns)`` of the largest count as zero, so that dropping them stays within the
    rounding of the weights themselves.

    Parameters
    ----------
    form : Form or ConvSpec
    K : Tensor of the shape that the form gives its weight
    """
    if form.ndim != 2 or form.tiled or isinstance(form.channels, ChannelTable) or not K.is_floating_point():
        return None
    outs, ins = K.shape[0] // form.channels.groups, K.shape[1]
    if min(K.shape[2:]) < 3 or outs * K.shape[2] * ins * K.shape[3] > _LARGEST or not K.isfinite().all():
        return None
    matrices = _matrices(form.channels.groups, K)
    values = torch.linalg.svdvals(matrices)
    floor = 8 * unit_roundoff(str(K.dtype).removeprefix("torch.")) * sum(matrices.shape[1:]) ** 0.5
    return max(1, int((values > floor * values[:, :1]).sum(1).max()))


def _matrices(groups: int, K: Tensor) -> Tensor:
    """View per group as (outs * taps of the first axis, ins * taps of the second), in double precision."""
    K = K.detach().double().unflatten(0, (groups, -1))
    return K.permute(0, 1, 3, 2, 4).flatten(3).flatten(1, 2)


class Separable(Engine):
    """Passes along single axes."""

    name = "separable"
    revision = 1
    traits = Traits(plain_sums=False, exact=False, confines_nan=False)
    by_format = False

    def refuses(self, problem: Problem) -> str | None:
        form = problem.form
        if problem.map == "g":
            return f"the gradient with respect to a {'x'.join(map(str, form.kernel))} kernel has full rank, whatever the kernel's"
        if not problem.frozen:
            kernel = "x".join(map(str, form.kernel))
            return f"the {kernel} weight is not frozen, so its rank may change; nf.freeze(model) makes it final"
        if problem.rank is None:
            return f"the rank over the axes is defined here for real 2-D kernels, this one is {form.ndim}-D {problem.dtype}"
        if 0 in (problem.batch, *form.n_in, *form.n_out):
            return f"nothing to compute: batch {problem.batch}, sizes {form.n_in} and {form.n_out}"
        rows, columns = self._shape(form)
        if problem.rank * (rows + columns) >= rows * columns:
            passes = problem.rank * (rows + columns)
            return f"rank {problem.rank} of a {rows}x{columns} matrix saves nothing: passes cost {passes} of {rows * columns}"
        return None

    @staticmethod
    def _shape(form: Form) -> tuple[int, int]:
        groups = form.channels.groups
        return form.channels.outputs // groups * form.kernel[0], form.channels.inputs // groups * form.kernel[1]

    def cost(self, problem: Problem, machine: Machine) -> float:
        passes = _passes(problem)
        seconds = 0.0
        for form in passes:
            part = Problem(problem.map, form, problem.batch, problem.dtype, problem.device, threads=problem.threads)
            if _is_banded(form):
                axis = next(a for a in form.axes if a.kernel > 1)
                block, segment = _segment(axis.kernel, axis.stride, axis.dilation)
                products = part.macs / axis.kernel * segment
                calls = problem.batch * -(-axis.n_out // block) * 3
                seconds += 2 * products / machine.product + 2 * part.bytes / machine.stream + calls * machine.call
            else:
                seconds += Aten().cost(part, machine)
        return seconds

    def error(self, problem: Problem) -> Error:
        u = unit_roundoff(problem.dtype)
        terms = sum(problem.form.kernel) * (problem.rank or 1)
        # the decomposition is in double precision, so that its own error is seen there only
        decomposed = 0.5 * sum(self._shape(problem.form)) ** 0.5 if problem.dtype == "float64" else 0.0
        return Error(bound=(terms + 16 + decomposed) * u, estimate=(4 + 0.25 * terms**0.5 + decomposed) * u)

    def scratch(self, problem: Problem) -> int:
        between = _passes(problem)[0]
        extended = prod(a.span for a in problem.form.axes) * problem.form.channels.inputs
        middle = prod(max(a.n_in, a.n_out, a.span) for a in between.axes) * between.channels.outputs
        return 3 * problem.batch * problem.itemsize * (extended + middle)

    def prepare(self, problem: Problem, weight: Final | None = None) -> Runner:
        if weight is None:
            raise ArgumentError("the separable engine prepares from a frozen weight, and none was given")
        steps = [_pass(problem, form, part) for form, part in zip(_passes(problem), _factors(problem, weight), strict=True)]
        if problem.map == "h":
            steps.reverse()

        def run(K: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:  # noqa: ARG001  the passes hold the kernel
            y = steps[1](steps[0](x))
            fmt = torch.channels_last if problem.channels_last else torch.contiguous_format
            return add_bias(y.contiguous(memory_format=fmt), bias)

        return run


def _factors(problem: Problem, weight: Final) -> tuple[Final, Final]:
    """Return the kernels of both passes."""
    form, rank, groups = problem.form, problem.rank or 1, problem.form.channels.groups
    (rows, columns), dtype = form.kernel, weight.tensor.dtype

    def both() -> Tensor:
        K = weight.tensor
        u, s, v = torch.linalg.svd(_matrices(groups, K.flip((2, 3)) if form.flip else K), full_matrices=False)
        root = s[:, :rank].sqrt()
        along_columns, along_rows = v[:, :rank] * root[:, :, None], (u[:, :, :rank] * root[:, None]).mT
        return torch.cat([along_columns, along_rows], 2).to(dtype)

    pair = weight.form(("separable", rank, form.flip), both)
    ins = form.channels.inputs // groups * columns
    first = weight.part(("separable columns", rank, form.flip), lambda: pair[:, :, :ins].reshape(groups * rank, -1, 1, columns))
    second = weight.part(
        ("separable rows", rank, form.flip),
        lambda: pair[:, :, ins:].unflatten(2, (-1, rows)).transpose(1, 2).reshape(form.channels.outputs, rank, rows, 1),
    )
    return first, second


_LONG = 12  # taps from which a banded product beats PyTorch's loop over a depthwise kernel, measured


def _passes(problem: Problem) -> tuple[Form, Form]:
    """Return the forms of the pass along the second axis, to `rank` channels a group, and of the one along the first."""
    form, rank = problem.form, problem.rank or 1
    rows, columns = form.axes
    inputs, outputs, groups = form.channels.inputs, form.channels.outputs, form.channels.groups
    first = Form((_still(rows.n_in), columns), Grouped(inputs, groups * rank, groups))
    return first, Form((rows, _still(columns.n_out)), Grouped(groups * rank, outputs, groups))


def _still(n: int) -> Axis:
    return Axis(kernel=1, stride=1, dilation=1, lo=0, n_in=n, n_out=n)


def _is_banded(form: Form) -> bool:
    groups = form.channels.groups
    return max(form.kernel) >= _LONG and groups in (form.channels.inputs, form.channels.outputs)


def _segment(kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Return outputs per block and inputs per segment: about as many outputs as taps, so that half the band is filled."""
    extent = (kernel - 1) * dilation + 1
    block = min(256, max(32, extent // stride))
    return block, (block - 1) * stride + extent


def _pass(problem: Problem, form: Form, kernel: Final) -> Callable[[Tensor], Tensor]:
    """Bind one pass to its kernel (outputs, inputs / groups, *taps)."""
    if _is_banded(form):
        run = _banded_c if problem.map == "c" else _banded_h
        return run(form, _Bands(form, kernel))
    runner = Aten().prepare(Problem(problem.map, form, problem.batch, problem.dtype, problem.device))
    return lambda x: runner(kernel.tensor, x, None)


class _Bands:
    """The blocks of an axis, (outputs, inputs, T), with T[group, in, input, out * output] the Toeplitz matrix of a block."""

    def __init__(self, form: Form, kernel: Final) -> None:
        self.axis = next(a for a in form.axes if a.kernel > 1)
        self.block, _ = _segment(self.axis.kernel, self.axis.stride, self.axis.dilation)
        taps = kernel.tensor.flatten(2).unflatten(0, (form.channels.groups, -1)).transpose(1, 2)
        whole, rest = divmod(self.axis.n_out, self.block)
        self.matrices = {count: self._form(kernel, taps, count) for count in {self.block * (whole > 0), rest} - {0}}

    def _form(self, kernel: Final, taps: Tensor, count: int) -> Tensor:
        return kernel.form(("band", self.axis.stride, self.axis.dilation, count), lambda: self._matrix(taps, count))

    def _length(self, count: int) -> int:
        return (count - 1) * self.axis.stride + self.axis.extent

    def _matrix(self, taps: Tensor, count: int) -> Tensor:
        band = taps.new_zeros((*taps.shape[:2], self._length(count), taps.shape[2], count))
        for b in range(count):
            first = b * self.axis.stride
            band[:, :, first : first + self.axis.extent : self.axis.dilation, :, b] = taps.transpose(2, 3)
        return band.flatten(3)

    def __iter__(self) -> Iterator[tuple[slice, slice, Tensor]]:
        for part in blocks(self.axis.n_out, self.block):
            count, start = part.stop - part.start, part.start * self.axis.stride
            yield part, slice(start, start + self._length(count)), self.matrices[count]


def _banded_c(form: Form, bands: _Bands) -> Callable[[Tensor], Tensor]:
    along_rows, groups, border = form.kernel[0] > 1, form.channels.groups, extension(form)

    def run(x: Tensor) -> Tensor:
        X = border(x).contiguous().unflatten(1, (groups, -1))
        out = x.new_empty(form.output_shape(len(x))).unflatten(1, (groups, -1))
        for n in range(len(x)):
            for part, segment, band in bands:
                if along_rows:
                    y = _total(torch.bmm(band[:, i].transpose(1, 2), X[n, :, i, segment]) for i in range(X.shape[2]))
                    out[n, :, :, part] = y.unflatten(1, (out.shape[2], -1))
                else:
                    y = _total(torch.bmm(X[n, :, i, :, segment], band[:, i]) for i in range(X.shape[2]))
                    out[n, ..., part] = y.unflatten(2, (out.shape[2], -1)).movedim(2, 1)
        result: Tensor = out.flatten(1, 2)
        return result

    return run


def _total(parts: Iterable[Tensor]) -> Tensor:
    return reduce(Tensor.add_, parts)


def _banded_h(form: Form, bands: _Bands) -> Callable[[Tensor], Tensor]:
    along_rows, groups, border = form.kernel[0] > 1, form.channels.groups, folding(form)

    def run(g: Tensor) -> Tensor:
        G = g.contiguous().unflatten(1, (groups, -1))
        shape = (len(g), form.channels.inputs, *(a.span for a in form.axes))
        R = g.new_zeros(shape).unflatten(1, (groups, -1))
        for n in range(len(g)):
            for part, segment, band in bands:
                for i in range(R.shape[2]):
                    if along_rows:
                        R[n, :, i, segment] += torch.bmm(band[:, i], G[n, :, :, part].flatten(1, 2))
                    else:
                        given = G[n, ..., part].movedim(1, 2).flatten(2)
                        R[n, :, i, :, segment] += torch.bmm(given, band[:, i].transpose(1, 2))
        return border(R.flatten(1, 2))

    return run
