"""What every engine promises: refuse in words, state cost, error and scratch, prepare once, then run without thinking."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from ninefold.engines.final import Final
from ninefold.engines.machine import Machine
from ninefold.spec.form import Form
from ninefold.spec.problem import Problem
from ninefold.tensors.layout import all_finite

__all__ = [
    "EPILOGUES",
    "Engine",
    "Epilogue",
    "Error",
    "PairRunner",
    "Runner",
    "Traits",
    "Watched",
    "direct_error",
    "unit_roundoff",
    "unwatched",
]

Runner = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""Takes the operands in the map's order, ``(K, V)``, ``(K, G)`` or ``(V, G)``, and a bias or None."""

Watched = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, bool]]
"""A runner that also says whether its result was finite before an epilogue; where it was not, the result may be of no use."""

PairRunner = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Takes ``(K, V, G)`` and returns the gradients to ``V`` and to ``K``."""


class Epilogue(NamedTuple):
    """A pointwise function that may follow the bias: as autograd takes it, and in place."""

    apply: Callable[[Tensor], Tensor]
    apply_: Callable[[Tensor], Tensor]


EPILOGUES = {"relu": Epilogue(torch.relu, torch.relu_)}
"""What may follow the bias of maps c and h in the same pass, by name; NaN stays NaN."""


@dataclass(frozen=True, slots=True)
class Traits:
    """What holds for every result of an engine; each is stated here and tested.

    Parameters
    ----------
    plain_sums : bool
        Sums the products of the definition and nothing else; admitted by ``tolerance="strict"``.
    exact : bool
        Small integers come out exact.
    confines_nan : bool
        NaN and infinity reach no output that the definition keeps them from.
    deterministic : bool
        The same operands give the same bits at every run on the same number of threads.
    """

    plain_sums: bool
    exact: bool
    confines_nan: bool
    deterministic: bool = True


@dataclass(frozen=True, slots=True)
class Error:
    """Error on the scale ``max|V in tile| * ||K_o||_1``: a worst-case bound and a calibrated estimate."""

    bound: float
    estimate: float


class Engine(ABC):
    """One algorithm, for any of the three maps, or a spoken reason why not.

    `refuses` both selects and explains. `prepare` thinks; the runner it returns only runs. Every engine is stateless.

    A result is memory that nobody else holds. That of c is no view of a larger tensor either; what h folds or g sums up may be
    one, and is made a tensor of its own by who asks for it (`owned`).

    `epilogues` names those of `EPILOGUES` that a runner applies while a result is at hand, so that a pass over it is saved; an
    engine that names one takes it in its own `prepare_with`.

    `native` runs kernels of the extension. `transparent` is a composition of PyTorch's own operations, which autograd and
    compilers see through. `by_format` says whether the time of a run depends on the memory format. What decides the time of an
    engine that is not `modelled`, PyTorch's own choice of a kernel, is not known to its estimate.
    """

    name: str
    revision: int
    traits: Traits
    epilogues: frozenset[str] = frozenset()
    native: bool = False
    transparent: bool = False
    modelled: bool = True
    by_format: bool = True

    @abstractmethod
    def refuses(self, problem: Problem) -> str | None:
        """Return None, or one sentence with the numbers in it that says why not."""

    @abstractmethod
    def cost(self, problem: Problem, machine: Machine) -> float:
        """Return the estimated seconds of a run."""

    @abstractmethod
    def error(self, problem: Problem) -> Error:
        """Return the two error numbers."""

    @abstractmethod
    def scratch(self, problem: Problem) -> int:
        """Return the bytes held beside operands and result during a run, under the problem's cap where that is possible."""

    @abstractmethod
    def prepare(self, problem: Problem, weight: Final | None = None) -> Runner:
        """Return the runner; whatever derives from a `weight` that is given may be kept, as a form of it."""

    def prepare_with(self, problem: Problem, weight: Final | None, epilogue: str) -> Runner:
        """Return a runner whose result has gone through an epilogue: by default in place, when all of it is there."""
        run, apply_ = self.prepare(problem, weight), EPILOGUES[epilogue].apply_

        def then(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
            return apply_(run(a, b, bias))

        return then

    def prepare_watched(self, problem: Problem, weight: Final | None, epilogue: str | None = None) -> Watched:
        """Return a runner that looks whether its result is finite: all of it, in one more pass over it.

        What is not finite in an operand, or overflows on the way, reaches some element of the result, for sums and products never
        make it finite again. An engine that can tell for less says so itself.
        """
        run, apply_ = self.prepare(problem, weight), None if epilogue is None else EPILOGUES[epilogue].apply_

        def watched(a: Tensor, b: Tensor, bias: Tensor | None = None) -> tuple[Tensor, bool]:
            out = run(a, b, bias)
            finite = all_finite(out)
            return out if apply_ is None else apply_(out), finite

        return watched

    def prepare_pair(self, h: Problem, g: Problem) -> PairRunner | None:
        """Return what makes h and g of one form together, from ``(K, V, G)``, or None where that saves nothing."""
        return None


def unwatched(watched: Watched) -> Runner:
    """Return the runner alone."""

    def run(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
        return watched(a, b, bias)[0]

    return run


def unit_roundoff(dtype: str) -> float:
    """Return the relative rounding error of one operation; half types accumulate in float32 but are stored in their own.

    Examples
    --------
    >>> unit_roundoff("float64") == 2.0 ** -53
    True
    """
    digits = {"float64": 53, "complex128": 53, "float32": 24, "complex64": 24, "float16": 11, "bfloat16": 8}
    return 2.0 ** -digits.get(dtype, 53)


def direct_error(problem: Problem) -> Error:
    """Return the error of summing products directly: the bound of recursive summation, and its random-walk estimate."""
    form = problem.form
    terms = problem.batch * prod(form.n_out) if problem.map == "g" else _terms(form)
    u = unit_roundoff(problem.dtype)
    return Error(bound=(terms + 1) * u, estimate=(1 + 0.75 * terms**0.5) * u)


def _terms(form: Form) -> int:
    return max(1, form.channels.connections // max(1, min(form.channels.inputs, form.channels.outputs))) * prod(form.kernel)
