"""The gradient to the input of a strided layer, as layers of unit stride: one for each residue of the input's positions.

Tap ``m`` feeds input i from output ``(i + lo - m d) / s`` where s divides that. For the inputs ``r, r + s, ...`` these are every
``s / gcd(s, d)``-th tap from a first one on, and outputs ``d / gcd(s, d)`` apart.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import product
from math import gcd, prod
from typing import Any, NamedTuple

from torch import Tensor

from ninefold.engines.base import Runner, Traits
from ninefold.engines.columns import straight
from ninefold.engines.final import Final
from ninefold.engines.machine import Machine
from ninefold.rewrites.base import Rewrite, Wrapped, left_of
from ninefold.spec.axis import Axis
from ninefold.spec.form import Form
from ninefold.spec.problem import Problem
from ninefold.tensors.layout import add_bias, empty

__all__ = ["StrideResidues"]

_MOST = 64


class StrideResidues(Rewrite):
    """A problem of unit stride for each residue, with the taps that reach it; the results are interleaved."""

    name = "residues of the stride"
    traits = Traits(plain_sums=True, exact=True, confines_nan=True)

    def refuses(self, problem: Problem) -> str | None:
        form, residues = problem.form, prod(problem.form.stride)
        if problem.map != "h" or residues == 1:
            return f"only map h of a layer with a stride has residues, not map {problem.map} with stride {form.stride}"
        if residues > _MOST:
            return f"the stride {form.stride} has {residues} residues, more than {_MOST}"
        if form.tiled:
            return f"the residues of a stride {form.stride} would cut the {form.period} kernels of a tile"
        if form.mode != "zeros":
            return f"the border ({form.mode}) of {form.n_in} has to be written out before"
        if 0 in (*form.n_in, *form.n_out):
            return f"there is nothing to split: sizes are {form.n_in} and {form.n_out}"
        return None

    def inner(self, problem: Problem) -> tuple[Problem, ...]:
        return tuple(part.problem for part in _parts(problem))

    def cost(self, problem: Problem, machine: Machine) -> float:
        copied = 2 * prod(problem.form.input_shape(problem.batch)) + 2 * prod(problem.form.weight_shape)
        return copied * problem.itemsize / machine.stream + 2 * len(_parts(problem)) * machine.call

    def scratch(self, problem: Problem) -> int:
        return _held(problem)

    def pointwise(self, problem: Problem) -> bool:
        return False  # inputs that no output reads come from no inner problem

    def weights(self, problem: Problem, weight: Final) -> tuple[Final | None, ...]:
        def part_of(taps: tuple[Any, ...]) -> Final:
            key = ("stride", *((some.start, some.step) for some in taps))
            return weight.part(key, lambda: _taken(problem.form, weight.tensor, taps))

        return tuple(part_of(part.taps) for part in _parts(problem))

    def wrap(self, problem: Problem, weights: Sequence[Final | None]) -> Wrapped:
        form, last, parts = problem.form, problem.channels_last, _parts(problem)
        shape = form.input_shape(problem.batch)
        complete = len(parts) == prod(min(a.stride, a.n_in) for a in form.axes)

        def run(runners: Sequence[Runner], K: Tensor, G: Tensor, bias: Tensor | None) -> Tensor:
            out = empty(G, shape, last)
            if not complete:
                out.zero_()
            for runner, kept, part in zip(runners, weights, parts, strict=True):
                kernel = _taken(form, K, part.taps) if kept is None else kept.tensor
                out[(..., *part.inputs)] = runner(kernel, G, None)
            return add_bias(out, bias)

        return run


class _Part(NamedTuple):
    """The problem of a residue, its taps of the kernel, and the inputs that it gives."""

    problem: Problem
    taps: tuple[Any, ...]
    inputs: tuple[Any, ...]


def _taken(form: Form, K: Tensor, taps: tuple[Any, ...]) -> Tensor:
    return straight(form, K)[(..., *taps)].contiguous()


def _held(problem: Problem) -> int:
    form = problem.form
    largest = problem.batch * form.channels.inputs * prod(-(-a.n_in // a.stride) for a in form.axes)
    return (prod(form.weight_shape) + largest) * problem.itemsize


@lru_cache(maxsize=1024)
def _parts(problem: Problem) -> tuple[_Part, ...]:
    form, cap = problem.form, left_of(problem, _held(problem))
    found = []
    for at in product(*(range(min(a.stride, a.n_in)) for a in form.axes)):
        cut = [_residue(a, r) for a, r in zip(form.axes, at, strict=True)]
        if any(part is None for part in cut):
            continue
        axes, taps = zip(*(part for part in cut if part is not None), strict=True)
        inputs = tuple(slice(r, None, a.stride) for a, r in zip(form.axes, at, strict=True))
        part = replace(problem, form=replace(form, axes=axes, flip=False), rank=None, max_scratch=cap)
        found.append(_Part(part, taps, inputs))
    return tuple(found)


def _residue(axis: Axis, r: int) -> tuple[Axis, slice] | None:
    """Return how inputs ``r, r + stride, ...`` are fed, as an axis of unit stride, and by which taps; None if by none.

    Examples
    --------
    >>> axis = Axis(kernel=3, stride=2, dilation=1, lo=1, n_in=7, n_out=4)
    >>> [(part.kernel, part.lo, part.n_in, taps.start) for part, taps in filter(None, (_residue(axis, r) for r in (0, 1)))]
    [(1, 0, 4, 1), (2, 1, 3, 0)]
    """
    common = gcd(axis.stride, axis.dilation)
    step = axis.stride // common
    first = next((m for m in range(min(step, axis.kernel)) if (r + axis.lo - m * axis.dilation) % axis.stride == 0), None)
    if first is None:
        return None
    return Axis(
        kernel=len(range(first, axis.kernel, step)),
        stride=1,
        dilation=axis.dilation // common,
        lo=(r + axis.lo - first * axis.dilation) // axis.stride,
        n_in=len(range(r, axis.n_in, axis.stride)),
        n_out=axis.n_out,
    ), slice(first, None, step)
