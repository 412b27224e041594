"""Tiled layers as convolutions with one kernel: one per kernel, or one for all, between phases.

A period ``t`` splits the outputs of eq. 9.10 into residues ``j = t q + a``. Each residue is a convolution with one kernel and
stride ``s t``, so that ``c`` and ``g`` are as many convolutions as there are kernels (`TileResidues`).

For ``h`` that would add up as many images. Seen from the input, output ``(q, a)`` touches ``s t q + r`` with ``r = s a + d m``;
writing ``r = s t e + u`` turns the sum over ``a`` and ``m`` into one transposed convolution of stride 1 over ``q`` and ``e``,
from channels ``(a, o)`` to channels ``(u, i)``, zeros where no tap gives such an ``r`` (`TilePhases`). It multiplies with those
zeros: more products than the definition has, at the rate of a large convolution.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial
from itertools import product
from math import prod
from typing import Any

import torch
from torch import Tensor

from ninefold.engines.base import Runner, Traits
from ninefold.engines.columns import is_unshared, straight
from ninefold.engines.final import Final
from ninefold.engines.machine import Machine
from ninefold.rewrites.base import Rewrite, Wrapped, left_of
from ninefold.rewrites.border import bordered
from ninefold.spec.axis import Axis
from ninefold.spec.channels import ChannelTable, Grouped
from ninefold.spec.form import Form
from ninefold.spec.problem import Problem
from ninefold.tensors.layout import add_bias, empty, in_format

__all__ = ["TilePhases", "TileResidues"]

_MOST = 64  # kernels from which columns are surely better


def _refusal(form: Form) -> str | None:
    kernels = prod(min(a.period, max(a.n_out, 1)) for a in form.axes)
    if not form.tiled or is_unshared(form) or kernels > _MOST:
        return f"{kernels} kernels (period {form.period}, outputs {form.n_out}) are not 2 to {_MOST} that repeat"
    if bordered(form):
        return f"the border of {form.n_in} ({form.mode}, from {tuple(a.lo for a in form.axes)}) has to be written out before"
    return None


def _input_bytes(problem: Problem) -> int:
    size: int = problem.batch * problem.form.channels.inputs * prod(a.span + a.period * a.stride for a in problem.form.axes)
    return size * max(problem.itemsize, 4)


class TileResidues(Rewrite):
    """A strided convolution per kernel, for maps c and g."""

    name = "residues of the tile"
    traits = Traits(plain_sums=True, exact=True, confines_nan=True)

    def refuses(self, problem: Problem) -> str | None:
        if problem.map == "h":
            return f"the input's gradient would add up {prod(problem.form.period)} images"
        return _refusal(problem.form)

    def inner(self, problem: Problem) -> tuple[Problem, ...]:
        return _residue_problems(problem)

    def cost(self, problem: Problem, machine: Machine) -> float:
        kernels = prod(problem.form.period)
        moved = (problem.bytes + kernels * _input_bytes(problem)) / machine.stream
        return float(moved + 6 * kernels * machine.call)

    def scratch(self, problem: Problem) -> int:
        return _residue_bytes(problem)

    def weights(self, problem: Problem, weight: Final) -> tuple[Final | None, ...]:
        return tuple(weight.part(("tile", r), partial(_kernel, weight.tensor, r)) for r in _residues(problem.form))

    def wrap(self, problem: Problem, weights: Sequence[Final | None]) -> Wrapped:
        form, residues, last = problem.form, _residues(problem.form), problem.channels_last
        pieces: list[tuple[Any, ...]] = [
            tuple(slice(a.stride * r, a.stride * r + b.span) for a, b, r in zip(form.axes, part.form.axes, residue, strict=True))
            for part, residue in zip(_residue_problems(problem), residues, strict=True)
        ]
        every: list[tuple[Any, ...]] = [
            tuple(slice(r, None, a.period) for a, r in zip(form.axes, residue, strict=True)) for residue in residues
        ]

        def forward(runners: Sequence[Runner], K: Tensor, V: Tensor, bias: Tensor | None) -> Tensor:
            Z = empty(V, form.output_shape(len(V)), last)
            for runner, kept, residue, piece, outputs in zip(runners, weights, residues, pieces, every, strict=True):
                kernel = _kernel(K, residue) if kept is None else kept.tensor
                Z[(..., *outputs)] = runner(kernel, V[(..., *piece)], bias)
            return Z

        def backward_weights(runners: Sequence[Runner], V: Tensor, G: Tensor, bias: Tensor | None) -> Tensor:  # noqa: ARG001
            D = V.new_zeros(form.weight_shape)
            for runner, residue, piece, outputs in zip(runners, residues, pieces, every, strict=True):
                part, given = in_format(V[(..., *piece)], last), in_format(G[(..., *outputs)], last)
                into: tuple[Any, ...] = (slice(None), *residue)
                D[into] = runner(part, given, None)
            return D

        return forward if problem.map == "c" else backward_weights


def _kernel(K: Tensor, residue: tuple[int, ...]) -> Tensor:
    at: tuple[Any, ...] = (slice(None), *residue)
    return K[at].contiguous()


def _residues(form: Form) -> list[tuple[int, ...]]:
    return list(product(*(range(min(a.period, a.n_out)) for a in form.axes)))


def _residue_bytes(problem: Problem) -> int:
    outputs = problem.batch * prod(problem.form.output_shape(1)) * max(problem.itemsize, 4)
    return 3 * _input_bytes(problem) + 3 * outputs // prod(problem.form.period)


@lru_cache(maxsize=1024)
def _residue_problems(problem: Problem) -> tuple[Problem, ...]:
    form, cap = problem.form, left_of(problem, _residue_bytes(problem))

    def along(axis: Axis, r: int) -> Axis:
        count = -(-(axis.n_out - r) // axis.period)
        part = Axis(axis.kernel, axis.stride * axis.period, axis.dilation, lo=0, n_in=0, n_out=count)
        return replace(part, n_in=part.span)

    def posed(residue: tuple[int, ...]) -> Problem:
        axes = tuple(along(a, r) for a, r in zip(form.axes, residue, strict=True))
        return replace(problem, form=replace(form, axes=axes, tiled=False), rank=None, max_scratch=cap)

    return tuple(map(posed, _residues(form)))


class TilePhases(Rewrite):
    """One transposed convolution between phases, for map h."""

    name = "phases as channels"
    traits = Traits(plain_sums=False, exact=True, confines_nan=False)

    def refuses(self, problem: Problem) -> str | None:
        form = problem.form
        if problem.map != "h":
            return f"phases gather the {prod(form.period)} kernels of the input's gradient only"
        if isinstance(form.channels, ChannelTable):
            return f"a table of {form.channels.connections} channel connections has no groups to put phases beside"
        return _refusal(form)

    def inner(self, problem: Problem) -> tuple[Problem, ...]:
        return _phase_problem(problem)

    def cost(self, problem: Problem, machine: Machine) -> float:
        return 4 * problem.bytes / machine.stream + 16 * machine.call

    def scratch(self, problem: Problem) -> int:
        return _phase_bytes(problem)

    def pointwise(self, problem: Problem) -> bool:
        return False  # a bias belongs to the input's channels, not to phases of them

    def weights(self, problem: Problem, weight: Final) -> tuple[Final | None, ...]:
        return (weight.part("phases", lambda: _phase_kernels(problem.form, weight.tensor)),)

    def wrap(self, problem: Problem, weights: Sequence[Final | None]) -> Wrapped:
        form, d, groups, kept = problem.form, problem.form.ndim, problem.form.channels.groups, weights[0]
        counts, cycles = _counts(form), _cycles(form)
        outs, ins = form.channels.outputs // groups, form.channels.inputs // groups
        pads = [p for a, n in reversed(list(zip(form.axes, counts, strict=True))) for p in (0, n * a.period - a.n_out)]
        sizes = [(n + e - 1) * c for n, e, c in zip(counts, _reach(form), cycles, strict=True)]
        gathered = (0, 1, *(4 + 2 * k for k in range(d)), 2, *(3 + 2 * k for k in range(d)))
        inside: tuple[Any, ...] = (..., *(slice(a.span) for a in form.axes))
        spread = (0, 1, 2 + d, *(n for k in range(d) for n in (3 + d + k, 2 + k)))

        def run(runners: Sequence[Runner], K: Tensor, G: Tensor, bias: Tensor | None) -> Tensor:
            split = torch.constant_pad_nd(G, pads).unflatten(1, (groups, outs))
            for k, (a, n) in enumerate(zip(form.axes, counts, strict=True)):
                split = split.unflatten(3 + 2 * k, (n, a.period))
            given = split.permute(gathered).reshape(len(G), groups * prod(form.period) * outs, *counts)
            found = runners[0](_phase_kernels(form, K) if kept is None else kept.tensor, given, None)
            split = found.unflatten(1, (groups, *cycles, ins))
            R = split.permute(spread).reshape(len(G), groups * ins, *sizes)
            R = R[inside]
            return add_bias(in_format(R, problem.channels_last), bias)

        return run


def _cycles(form: Form) -> list[int]:
    return [a.stride * a.period for a in form.axes]


def _reach(form: Form) -> list[int]:
    """Return the taps of the transposed convolution between phases, per axis."""
    return [(a.stride * (a.period - 1) + a.dilation * (a.kernel - 1)) // (a.stride * a.period) + 1 for a in form.axes]


def _counts(form: Form) -> list[int]:
    """Return how many outputs of the most frequent kernel there are, per axis."""
    return [-(-a.n_out // a.period) for a in form.axes]


def _phase_kernels(form: Form, K: Tensor) -> Tensor:
    """Return (groups * residues * outputs, phases * inputs, *reach)."""
    d, groups, reach, cycles, K = form.ndim, form.channels.groups, _reach(form), _cycles(form), straight(form, K)
    outs, ins = form.channels.outputs // groups, form.channels.inputs // groups
    wide = K.new_zeros((*K.shape[: d + 2], *(c * e for c, e in zip(cycles, reach, strict=True))))
    for residue in product(*(range(a.period) for a in form.axes)):
        starts = [a.stride * r for a, r in zip(form.axes, residue, strict=True)]
        taps = [slice(s, s + a.dilation * (a.kernel - 1) + 1, a.dilation) for s, a in zip(starts, form.axes, strict=True)]
        into: tuple[Any, ...] = (slice(None), *residue, slice(None), *taps)
        wide[into] = _kernel(K, residue)
    split = wide.view(groups, outs, *form.period, ins, *(n for pair in zip(reach, cycles, strict=True) for n in pair))
    order = (0, *range(2, 2 + d), 1, *(4 + d + 2 * k for k in range(d)), 2 + d, *(3 + d + 2 * k for k in range(d)))
    return split.permute(order).reshape(groups * prod(form.period) * outs, prod(cycles) * ins, *reach)


def _phase_bytes(problem: Problem) -> int:
    form = problem.form
    spread = prod(c * e / a.kernel for c, e, a in zip(_cycles(form), _reach(form), form.axes, strict=True))
    kernels = int(spread * prod(form.weight_shape)) * max(problem.itemsize, 4)
    outputs = problem.batch * prod(form.output_shape(1)) * max(problem.itemsize, 4)
    return 3 * kernels + 2 * outputs + 4 * _input_bytes(problem)


@lru_cache(maxsize=1024)
def _phase_problem(problem: Problem) -> tuple[Problem, ...]:
    form = problem.form
    channels = form.channels
    grouped = Grouped(channels.inputs * prod(_cycles(form)), channels.outputs * prod(form.period), channels.groups)
    axes = tuple(
        Axis(kernel=e, stride=1, dilation=1, lo=0, n_in=n + e - 1, n_out=n)
        for n, e in zip(_counts(form), _reach(form), strict=True)
    )
    # the operand with the batch is gathered anew: contiguous
    cap = left_of(problem, _phase_bytes(problem))
    return (replace(problem, form=Form(axes, grouped), rank=None, channels_last=False, max_scratch=cap),)
