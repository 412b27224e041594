"""The border as memory: the input is extended first, so that what remains has none."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from math import prod

from torch import Tensor

from ninefold.engines.aten import VECTORISED, most_padding
from ninefold.engines.base import Engine, Runner, Traits
from ninefold.engines.final import Final
from ninefold.engines.machine import Machine
from ninefold.rewrites.base import Rewrite, Wrapped, left_of
from ninefold.spec.form import Form
from ninefold.spec.problem import Problem
from ninefold.tensors.border import extension, folding
from ninefold.tensors.layout import add_bias, in_format

__all__ = ["BorderWrittenOut", "bordered"]


def bordered(form: Form) -> bool:
    """Return whether the outputs read anything else than the input from its first position to its last."""
    return any(a.lo != 0 or a.n_in != a.span for a in form.axes)


class BorderWrittenOut(Rewrite):
    """Maps c and g read an input that is extended as its mode says; what h computes for the border is folded back.

    It serves engines that know no such border, and PyTorch's own: with a padding argument past 8, oneDNN leaves its vectorised
    kernels for depthwise and single-channel convolutions; one copy of the input keeps them.
    """

    name = "border written out"
    traits = Traits(plain_sums=True, exact=True, confines_nan=True)
    transparent = True

    def refuses(self, problem: Problem) -> str | None:
        form = problem.form
        if not bordered(form):
            return f"there is no border: the outputs read the {form.n_in} positions of the input"
        if 0 in (*form.n_in, *form.n_out):
            return f"there is nothing to continue: sizes are {form.n_in} and {form.n_out}"
        return None

    def helps(self, problem: Problem, engine: Engine, *, taken: bool) -> bool:
        return not taken or (not engine.modelled and most_padding(problem.form) > VECTORISED)

    def inner(self, problem: Problem) -> tuple[Problem, ...]:
        return _inner(problem)

    def cost(self, problem: Problem, machine: Machine) -> float:
        return 3 * _extended(problem) / machine.stream + 2 * machine.call

    def scratch(self, problem: Problem) -> int:
        return _held(problem)

    def pointwise(self, problem: Problem) -> bool:
        return problem.map == "c"

    def wrap(self, problem: Problem, weights: Sequence[Final | None]) -> Wrapped:
        form, last = problem.form, problem.channels_last
        extend, fold = extension(form), folding(form)

        def forward(runners: Sequence[Runner], K: Tensor, V: Tensor, bias: Tensor | None) -> Tensor:
            return runners[0](K, in_format(extend(V), last), bias)

        def backward_data(runners: Sequence[Runner], K: Tensor, G: Tensor, bias: Tensor | None) -> Tensor:
            return add_bias(in_format(fold(runners[0](K, G, None)), last), bias)

        def backward_weights(runners: Sequence[Runner], V: Tensor, G: Tensor, bias: Tensor | None) -> Tensor:
            return runners[0](in_format(extend(V), last), G, bias)

        return {"c": forward, "h": backward_data, "g": backward_weights}[problem.map]


@lru_cache(maxsize=1024)
def _inner(problem: Problem) -> tuple[Problem, ...]:
    axes = tuple(replace(a, lo=0, n_in=a.span, mode="zeros") for a in problem.form.axes)
    return (replace(problem, form=replace(problem.form, axes=axes), max_scratch=left_of(problem, _held(problem))),)


def _extended(problem: Problem) -> int:
    form = problem.form
    return prod(a.span for a in form.axes) * form.channels.inputs * problem.batch * problem.itemsize


def _held(problem: Problem) -> int:
    return _extended(problem) * (2 if problem.map == "h" else 1)  # what is folded is copied
