"""Half precision on a processor that does not multiply it: float32 in between.

Operands are converted as they are read and the result is rounded once, so that the error is that of the engine inside and one
rounding to the half type. A processor without bfloat16 or float16 products makes PyTorch's own kernels fall back to loops that
take 10 to 70 times as long as their float32 ones (docs/design/0007).
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from ninefold.engines.base import Error, Runner, Traits, unit_roundoff
from ninefold.engines.final import Final
from ninefold.engines.machine import Machine
from ninefold.rewrites.base import Rewrite, Wrapped, left_of
from ninefold.spec.problem import TOLERANCES, Problem

__all__ = ["ConversionToFloat32"]


class ConversionToFloat32(Rewrite):
    """The problem in float32, between two conversions."""

    name = "conversion to float32"
    traits = Traits(plain_sums=False, exact=False, confines_nan=True)

    def refuses(self, problem: Problem) -> str | None:
        if problem.dtype not in ("bfloat16", "float16"):
            return f"only the 2 half types, bfloat16 and float16, are widened, not {problem.dtype}"
        if problem.device != "cpu":
            return f"half types are widened on 1 device, the CPU, not on {problem.device}"
        return None

    def inner(self, problem: Problem) -> tuple[Problem, ...]:
        return _inner(problem)

    def cost(self, problem: Problem, machine: Machine) -> float:
        return 3 * problem.bytes / machine.stream + 3 * machine.call

    def error(self, problem: Problem, inner: Error) -> Error:
        u = unit_roundoff(problem.dtype)
        return Error(bound=inner.bound * (1 + u) + u, estimate=inner.estimate + u)

    def scratch(self, problem: Problem) -> int:
        return 2 * problem.bytes

    def weights(self, problem: Problem, weight: Final) -> tuple[Final | None, ...]:
        return (weight.part("float32", weight.tensor.float),)

    def wrap(self, problem: Problem, weights: Sequence[Final | None]) -> Wrapped:
        dtype, kept = getattr(torch, problem.dtype), weights[0]

        def run(runners: Sequence[Runner], a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
            wide = a.float() if kept is None else kept.tensor
            return runners[0](wide, b.float(), None if bias is None else bias.float()).to(dtype)

        return run


@lru_cache(maxsize=1024)
def _inner(problem: Problem) -> tuple[Problem, ...]:
    """Return the problem in float32, with what the rounding of the result leaves of its tolerance."""
    left = problem.tolerance - unit_roundoff(problem.dtype)
    tolerance, cap = left if left > 0 else TOLERANCES["float32"], left_of(problem, 2 * problem.bytes)
    return (replace(problem, dtype="float32", tolerance=tolerance, max_scratch=cap),)
