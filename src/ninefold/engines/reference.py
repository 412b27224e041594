"""The definition itself, in NumPy and double precision: last in the list, slow, and accepts everything."""

import numpy as np
import torch
from torch import Tensor

from ninefold import reference
from ninefold.engines.base import Engine, Error, Runner, Traits, direct_error, unit_roundoff
from ninefold.engines.final import Final
from ninefold.engines.machine import Machine
from ninefold.spec.problem import Problem
from ninefold.tensors.layout import add_bias, in_format

__all__ = ["Reference"]

_PER_MAC = 2e-8  # seconds of a multiply-add in NumPy, gathered and scattered


class Reference(Engine):
    """`ninefold.reference` behind the engine contract; results are rounded once, from double precision."""

    name = "reference"
    revision = 1
    traits = Traits(plain_sums=True, exact=True, confines_nan=True)
    by_format = False

    def refuses(self, problem: Problem) -> str | None:
        return None

    def cost(self, problem: Problem, machine: Machine) -> float:
        return problem.macs * _PER_MAC + 100 * machine.call

    def error(self, problem: Problem) -> Error:
        if problem.dtype in ("float64", "complex128"):
            return direct_error(problem)
        u = unit_roundoff(problem.dtype)
        return Error(bound=2 * u, estimate=u)

    def scratch(self, problem: Problem) -> int:
        form = problem.form
        per_tap = problem.batch * form.channels.connections * max(1, form.macs // max(1, form.channels.connections))
        return 16 * (2 * per_tap // max(1, len(form.kernel)) + problem.bytes // problem.itemsize)

    def prepare(self, problem: Problem, weight: Final | None = None) -> Runner:
        form, function = problem.form, getattr(reference, problem.map)
        last = problem.channels_last and problem.map != "g"

        def run(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
            with np.errstate(invalid="ignore", over="ignore"):  # an infinity times a zero of the border is nobody's mistake
                result = torch.from_numpy(function(form, _array(a), _array(b)))
            return add_bias(in_format(result.to(b.device, b.dtype), last), bias)

        return run


def _array(x: Tensor) -> object:
    """Return a NumPy array that holds the values exactly, wide enough to accumulate in."""
    wide = torch.complex128 if x.is_complex() else torch.float64 if x.is_floating_point() else torch.int64
    return x.detach().resolve_conj().resolve_neg().to("cpu", wide).numpy()
