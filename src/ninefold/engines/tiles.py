"""Tiled layers as PyTorch's own convolutions: one per kernel, interleaved, or one for all, between phases.

A period ``t`` splits the outputs of eq. 9.10 into residues ``j = t q + a``. Each residue is a convolution with one kernel and
stride ``s t``, so that ``c`` and ``g`` are as many convolutions of PyTorch's as there are kernels (`Interleaved`).

For ``h`` that would add up as many images. Seen from the input, output ``(q, a)`` touches ``s t q + r`` with ``r = s a + d m``;
writing ``r = s t e + u`` turns the sum over ``a`` and ``m`` into one transposed convolution of stride 1 over ``q`` and ``e``,
from channels ``(a, o)`` to channels ``(u, i)``, zeros where no tap gives such an ``r`` (`Phases`). It multiplies with those
zeros: more products than the definition has, at the rate of a large convolution.
"""

from itertools import product
from math import prod

import torch
from torch import Tensor

from ninefold.engines.base import Engine, Error, Machine, Runner, Traits, add_bias, direct_error, empty, extension, folding
from ninefold.engines.columns import finish, is_unshared, straight
from ninefold.engines.final import Final
from ninefold.spec.channels import ChannelTable
from ninefold.spec.form import Form
from ninefold.spec.problem import Problem

__all__ = ["Interleaved", "Phases"]

_MOST = 64  # kernels from which columns are surely better
_DTYPES = ("float32", "float64", "bfloat16", "float16")


class _Tiles(Engine):
    """What both refuse, and count alike."""

    revision = 1

    def refuses(self, problem: Problem) -> str | None:
        form = problem.form
        kernels = prod(min(a.period, max(a.n_out, 1)) for a in form.axes)
        if not form.tiled or is_unshared(form) or kernels > _MOST:
            return f"{kernels} kernels (period {form.period}, outputs {form.n_out}) are not 2 to {_MOST} that repeat"
        if isinstance(form.channels, ChannelTable):
            return f"a table of {form.channels.connections} channel connections is no convolution of PyTorch's"
        if problem.dtype not in _DTYPES:
            return f"tiles are of {', '.join(_DTYPES)}, not {problem.dtype}"
        return None

    def error(self, problem: Problem) -> Error:
        return direct_error(problem)


class Interleaved(_Tiles):
    """A strided convolution per kernel."""

    name = "interleaved"
    traits = Traits(direct=True, exact=True, local=True)

    def refuses(self, problem: Problem) -> str | None:
        if problem.map == "h":
            return f"the input's gradient would add up {prod(problem.form.period)} images"
        return super().refuses(problem)

    def cost(self, problem: Problem, machine: Machine) -> float:
        kernels = prod(problem.form.period)
        moved = (problem.bytes + kernels * _input_bytes(problem)) / machine.stream
        return float(2 * moved + problem.macs / (0.5 * machine.product) + 8 * kernels * machine.call)

    def scratch(self, problem: Problem) -> int:
        outputs = problem.batch * prod(problem.form.output_shape(1)) * max(problem.itemsize, 4)
        return 3 * _input_bytes(problem) + 3 * outputs // prod(problem.form.period)

    def prepare(self, problem: Problem, weight: Final | None = None) -> Runner:
        return _interleaved_c(problem) if problem.map == "c" else _interleaved_g(problem)


class Phases(_Tiles):
    """One transposed convolution between phases."""

    name = "phases"
    traits = Traits(direct=False, exact=True, local=False)

    def refuses(self, problem: Problem) -> str | None:
        if problem.map != "h":
            return f"phases gather the {prod(problem.form.period)} kernels of the input's gradient only"
        return super().refuses(problem)

    def cost(self, problem: Problem, machine: Machine) -> float:
        form = problem.form
        waste = prod(a.stride * a.period * _reach(form)[k] / a.kernel for k, a in enumerate(form.axes))
        return float(4 * problem.bytes / machine.stream + waste * problem.macs / (0.7 * machine.product) + 20 * machine.call)

    def scratch(self, problem: Problem) -> int:
        form = problem.form
        spread = prod(a.stride * a.period * _reach(form)[k] / a.kernel for k, a in enumerate(form.axes))
        kernels = int(spread * prod(form.weight_shape)) * max(problem.itemsize, 4)
        outputs = problem.batch * prod(form.output_shape(1)) * max(problem.itemsize, 4)
        return 3 * kernels + 2 * outputs + 4 * _input_bytes(problem)

    def prepare(self, problem: Problem, weight: Final | None = None) -> Runner:
        return _phases_h(problem)


def _input_bytes(problem: Problem) -> int:
    size: int = problem.batch * problem.form.channels.inputs * prod(a.span + a.period * a.stride for a in problem.form.axes)
    return size * max(problem.itemsize, 4)


def _residues(form: Form) -> list[tuple[int, ...]]:
    return list(product(*(range(min(a.period, a.n_out)) for a in form.axes)))


def _interleaved_c(problem: Problem) -> Runner:
    """Return the runner of c."""
    form, residues = problem.form, _residues(problem.form)
    border, how = extension(form), _how(form)

    def run(K: Tensor, V: Tensor, bias: Tensor | None = None) -> Tensor:
        X, K = border(V), straight(form, K)
        Z = empty(V, form.output_shape(len(V)), problem.channels_last)
        for residue in residues:
            part = X[(..., *(slice(a.stride * r, None) for a, r in zip(form.axes, residue, strict=True)))]
            Z[(..., *_every(form, residue))] = torch.convolution(part, K[(slice(None), *residue)], bias, *how)
        return Z

    return run


def _interleaved_g(problem: Problem) -> Runner:
    """Return the runner of g."""
    form, residues = problem.form, _residues(problem.form)
    border, how = extension(form), _how(form)

    def run(V: Tensor, G: Tensor, bias: Tensor | None = None) -> Tensor:  # noqa: ARG001  a kernel has no bias
        X, D = border(V), V.new_zeros(form.weight_shape)
        for residue in residues:
            given = G[(..., *_every(form, residue))].contiguous()
            part = X[(..., *(slice(a.stride * r, None) for a, r in zip(form.axes, residue, strict=True)))].contiguous()
            kernel = D[(slice(None), *residue)]
            _, found, _ = torch.ops.aten.convolution_backward(given, part, kernel, None, *how, (False, True, False))
            kernel.copy_(found)
        return straight(form, D)

    return run


def _every(form: Form, residue: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(r, None, a.period) for a, r in zip(form.axes, residue, strict=True))


def _how(form: Form) -> tuple[object, ...]:
    """Return stride, padding, dilation, transposed, output_padding, groups of a residue's convolution."""
    steps, gaps = [a.stride * a.period for a in form.axes], [a.dilation for a in form.axes]
    none = [0] * form.ndim
    return steps, none, gaps, False, none, form.channels.groups


def _reach(form: Form) -> list[int]:
    """Return the taps of the transposed convolution between phases, per axis."""
    return [(a.stride * (a.period - 1) + a.dilation * (a.kernel - 1)) // (a.stride * a.period) + 1 for a in form.axes]


def _phases_h(problem: Problem) -> Runner:
    """Return the runner of h."""
    form, d, groups = problem.form, problem.form.ndim, problem.form.channels.groups
    border, reach = folding(form), _reach(problem.form)
    cycles = [a.stride * a.period for a in form.axes]
    counts = [-(-a.n_out // a.period) for a in form.axes]
    outs, ins = form.channels.outputs // groups, form.channels.inputs // groups

    def kernels(K: Tensor) -> Tensor:
        """Return (groups * residues * outputs, phases * inputs, *reach)."""
        wide = K.new_zeros((*K.shape[: d + 2], *(c * e for c, e in zip(cycles, reach, strict=True))))
        for residue in product(*(range(a.period) for a in form.axes)):
            starts = [a.stride * r for a, r in zip(form.axes, residue, strict=True)]
            taps = [slice(s, s + a.dilation * (a.kernel - 1) + 1, a.dilation) for s, a in zip(starts, form.axes, strict=True)]
            wide[(slice(None), *residue, slice(None), *taps)] = K[(slice(None), *residue)]
        split = wide.view(groups, outs, *form.period, ins, *(n for pair in zip(reach, cycles, strict=True) for n in pair))
        order = (0, *range(2, 2 + d), 1, *(4 + d + 2 * k for k in range(d)), 2 + d, *(3 + d + 2 * k for k in range(d)))
        return split.permute(order).reshape(groups * prod(form.period) * outs, prod(cycles) * ins, *reach)

    def run(K: Tensor, G: Tensor, bias: Tensor | None = None) -> Tensor:
        pads = [p for a, n in reversed(list(zip(form.axes, counts, strict=True))) for p in (0, n * a.period - a.n_out)]
        split = torch.constant_pad_nd(G, pads).unflatten(1, (groups, outs))
        for k, (a, n) in enumerate(zip(form.axes, counts, strict=True)):
            split = split.unflatten(3 + 2 * k, (n, a.period))
        order = (0, 1, *(4 + 2 * k for k in range(d)), 2, *(3 + 2 * k for k in range(d)))
        given = split.permute(order).reshape(len(G), groups * prod(form.period) * outs, *counts)
        none, one = [0] * d, [1] * d
        found = torch.convolution(given, kernels(straight(form, K)), None, one, none, one, True, none, groups)
        split = found.unflatten(1, (groups, *cycles, ins))
        order = (0, 1, 2 + d, *(n for k in range(d) for n in (3 + d + k, 2 + k)))
        sizes = [(n + e - 1) * c for n, e, c in zip(counts, reach, cycles, strict=True)]
        R = split.permute(order).reshape(len(G), groups * ins, *sizes)
        R = R[(..., *(slice(a.span) for a in form.axes))]
        return add_bias(finish(border(R), G, problem), bias)

    return run
