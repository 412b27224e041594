"""The other memory format than the operands come in: PyTorch chooses its kernel by it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

from torch import Tensor

from ninefold.engines.base import Engine, Runner, Traits
from ninefold.engines.final import Final
from ninefold.engines.machine import Machine
from ninefold.rewrites.base import Rewrite, Wrapped, left_of
from ninefold.spec.axis import Axis
from ninefold.spec.problem import Problem
from ninefold.tensors.layout import in_format, owned

__all__ = ["OtherMemoryFormat"]

_ONE = Axis(kernel=1, stride=1, dilation=1, lo=0, n_in=1, n_out=1)


class OtherMemoryFormat(Rewrite):
    """Contiguous operands in channels-last memory and the other way round, conversions included.

    The choice of PyTorch's kernel can differ by a factor of forty (large depthwise kernels). One spatial axis is taken for
    two, of which one has a single position.
    """

    name = "other memory format"
    traits = Traits(plain_sums=True, exact=True, confines_nan=True)
    transparent = True

    def refuses(self, problem: Problem) -> str | None:
        form = problem.form
        if form.ndim > 3 or problem.is_complex:
            return f"channels-last is a format of real 2-D and 3-D images, not of {form.ndim}-D {problem.dtype}"
        if form.mode != "zeros":
            return f"the border ({form.mode}) of {form.n_in} is written out in the format given"
        if form.tiled:
            return f"the {form.period} kernels of a tile are read in one order, whatever the format"
        return None

    def helps(self, problem: Problem, engine: Engine, *, taken: bool) -> bool:
        return engine.by_format

    def inner(self, problem: Problem) -> tuple[Problem, ...]:
        return _inner(problem)

    def cost(self, problem: Problem, machine: Machine) -> float:
        conversions = 8 if problem.form.ndim == 1 else 2
        return conversions * problem.bytes / machine.stream + 4 * machine.call

    def scratch(self, problem: Problem) -> int:
        return problem.bytes

    def weights(self, problem: Problem, weight: Final) -> tuple[Final | None, ...]:
        convert = _converter(problem)
        return (weight.part(("format", problem.channels_last), lambda: convert(weight.tensor)),)

    def wrap(self, problem: Problem, weights: Sequence[Final | None]) -> Wrapped:
        convert, lifted, last, kept = _converter(problem), problem.form.ndim == 1, problem.channels_last, weights[0]

        def run(runners: Sequence[Runner], a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
            out = runners[0](convert(a) if kept is None else kept.tensor, convert(b), bias)
            return owned(in_format(out.squeeze(-2) if lifted else out, last))

        return run


def _converter(problem: Problem) -> Callable[[Tensor], Tensor]:
    """Return what lays an operand out in the other format."""
    lifted, last = problem.form.ndim == 1, not problem.channels_last

    def convert(x: Tensor) -> Tensor:
        return in_format(x.unsqueeze(-2) if lifted else x, last)

    return convert


@lru_cache(maxsize=1024)
def _inner(problem: Problem) -> tuple[Problem, ...]:
    form, rank = problem.form, problem.rank
    if form.ndim == 1:
        form, rank = replace(form, axes=(_ONE, *form.axes)), None
    last, cap = not problem.channels_last, left_of(problem, problem.bytes)
    return (replace(problem, form=form, rank=rank, channels_last=last, max_scratch=cap),)
