"""Half precision on a processor that does not multiply it: float32 in between, by the engine that is fastest there.

Operands are converted as they are read and the result is rounded once, so that the error is that of the engine inside and one
rounding to the half type. A processor without bfloat16 or float16 products makes PyTorch's own kernels fall back to loops that
take 10 to 70 times as long as their float32 ones (docs/design/0007).
"""

from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from ninefold.engines.aten import Aten, AtenOther
from ninefold.engines.base import Engine, Error, Machine, Runner, Traits, Watched, unit_roundoff
from ninefold.engines.direct import Direct
from ninefold.engines.fft import FFT
from ninefold.engines.final import Final
from ninefold.engines.gemm import Gemm
from ninefold.engines.local import Local
from ninefold.engines.table import Table
from ninefold.engines.winograd import Winograd
from ninefold.spec.problem import TOLERANCES, Problem

__all__ = ["Widened"]

_INNER: tuple[Engine, ...] = (Aten(), AtenOther(), Direct(), Local(), Winograd(), FFT(), Gemm(), Table())


class Widened(Engine):
    """The fastest engine for float32, between two conversions."""

    name = "widened"
    revision = 1
    traits = Traits(direct=False, exact=False, local=False)

    def refuses(self, problem: Problem) -> str | None:
        if problem.dtype not in ("bfloat16", "float16"):
            return f"only the 2 half types, bfloat16 and float16, are widened, not {problem.dtype}"
        if problem.device != "cpu":
            return f"half types are widened on 1 device, the CPU, not on {problem.device}"
        wide = _wide(problem)
        if _inner(wide) is None:
            reasons = "; ".join(f"{engine.name}: {engine.refuses(wide)}" for engine in _INNER)
            return f"none of {len(_INNER)} engines takes it in float32 ({reasons})"
        return None

    def cost(self, problem: Problem, machine: Machine) -> float:
        wide = _wide(problem)
        return _chosen(wide).cost(wide, machine) + 3 * problem.bytes / machine.stream + 3 * machine.call

    def error(self, problem: Problem) -> Error:
        wide, u = _wide(problem), unit_roundoff(problem.dtype)
        inner = _chosen(wide).error(wide)
        return Error(bound=inner.bound * (1 + u) + u, estimate=inner.estimate + u)

    def scratch(self, problem: Problem) -> int:
        wide = _wide(problem)
        return _chosen(wide).scratch(wide) + wide.bytes

    def prepare(self, problem: Problem, weight: Final | None = None) -> Runner:
        wide, dtype = _wide(problem), getattr(torch, problem.dtype)
        kept = None if weight is None else weight.part("widened", weight.tensor.float)
        inner = _chosen(wide).prepare(wide, kept)

        def run(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
            out = inner(a.float() if kept is None else kept.tensor, b.float(), None if bias is None else bias.float())
            return out.to(dtype)

        return run

    def prepare_watched(self, problem: Problem, weight: Final | None, epilogue: str | None = None) -> Watched:
        wide, dtype = _wide(problem), getattr(torch, problem.dtype)
        kept = None if weight is None else weight.part("widened", weight.tensor.float)
        if _chosen(wide).traits.local:
            own = self.prepare(problem, weight) if epilogue is None else self.prepare_with(problem, weight, epilogue)

            def local(a: Tensor, b: Tensor, bias: Tensor | None = None) -> tuple[Tensor, bool]:
                return own(a, b, bias), True

            return local
        inner = _chosen(wide).prepare_watched(wide, kept, epilogue)

        def watched(a: Tensor, b: Tensor, bias: Tensor | None = None) -> tuple[Tensor, bool]:
            out, finite = inner(a.float() if kept is None else kept.tensor, b.float(), None if bias is None else bias.float())
            return out.to(dtype), finite

        return watched


def _wide(problem: Problem) -> Problem:
    """Return the problem in float32, with what the rounding of the result leaves of its tolerance."""
    left = problem.tolerance - unit_roundoff(problem.dtype)
    return replace(problem, dtype="float32", tolerance=left if left > 0 else TOLERANCES["float32"])


@lru_cache(maxsize=4096)
def _inner(wide: Problem) -> Engine | None:
    """Return the engine of the least estimate that keeps the tolerance and, where one can, the cap; None where all refuse."""
    taken = [e for e in _INNER if e.refuses(wide) is None and e.error(wide).estimate <= wide.tolerance]
    if wide.max_scratch is not None:
        taken = [e for e in taken if e.scratch(wide) <= wide.max_scratch] or taken
    return min(taken, key=lambda e: e.cost(wide, Machine()), default=None)


def _chosen(wide: Problem) -> Engine:
    engine = _inner(wide)
    if engine is None:
        raise ValueError(f"no engine takes {wide}; ask refuses() first")
    return engine
