"""A rewrite turns a problem into one or several others; any engine that takes those then serves the problem.

A rewrite computes nothing itself. It says when it applies (`Rewrite.refuses`), what is left to compute (`Rewrite.inner`), and how
the operands of the problem become those of the inner problems, and their results its result (`Rewrite.wrap`). `Rewritten` joins a
rewrite and an engine to an engine like any other, with the name "ENGINE after REWRITE".
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence

from torch import Tensor

from ninefold.engines.base import Engine, Error, Runner, Traits, Watched
from ninefold.engines.final import Final
from ninefold.engines.machine import Machine
from ninefold.spec.problem import Problem

__all__ = ["Rewrite", "Rewritten", "Wrapped", "left_of"]

Wrapped = Callable[[Sequence[Runner], Tensor, Tensor, Tensor | None], Tensor]
"""Takes the runners of the inner problems, then what a `Runner` takes."""


class Rewrite(ABC):
    """One way to pose a problem differently; stateless.

    `traits` are those of the rewrite alone: what it makes of an engine that has all of them. `transparent` says that operands and
    result only pass through PyTorch's own operations, which autograd and compilers see through.
    """

    name: str
    revision: int = 1
    traits: Traits
    transparent: bool = False

    @abstractmethod
    def refuses(self, problem: Problem) -> str | None:
        """Return None, or one sentence with the numbers in it that says why it does not apply."""

    @abstractmethod
    def inner(self, problem: Problem) -> tuple[Problem, ...]:
        """Return what is left to compute."""

    @abstractmethod
    def cost(self, problem: Problem, machine: Machine) -> float:
        """Return the estimated seconds of a run beside the inner problems."""

    @abstractmethod
    def scratch(self, problem: Problem) -> int:
        """Return the bytes held beside operands, result and what the inner runs hold."""

    @abstractmethod
    def wrap(self, problem: Problem, weights: Sequence[Final | None]) -> Wrapped:
        """Return what runs the inner problems; `weights` are those of `weights`, None where the weight is not final."""

    def error(self, problem: Problem, inner: Error) -> Error:
        """Return the error of the result, from the largest one of the inner problems."""
        return inner

    def helps(self, problem: Problem, engine: Engine, *, taken: bool) -> bool:
        """Return whether an engine may gain; `taken` says whether it takes the problem as it is."""
        return True

    def weights(self, problem: Problem, weight: Final) -> tuple[Final | None, ...]:
        """Return a final weight as the inner problems take it, one for each of them, or None where none is kept."""
        return (weight,)

    def pointwise(self, problem: Problem) -> bool:
        """Whether elements of the inner results are those of the result, so that an epilogue may be applied to the former."""
        return True


def left_of(problem: Problem, held: int) -> int | None:
    """Return what `held` bytes leave of a problem's cap."""
    return None if problem.max_scratch is None else max(0, problem.max_scratch - held)


class Rewritten(Engine):
    """An engine behind a rewrite: an engine itself.

    Parameters
    ----------
    rewrite : Rewrite
    engine : Engine
        What runs the inner problems; may be rewritten, too.

    Examples
    --------
    >>> from ninefold.engines.aten import Aten
    >>> from ninefold.rewrites.border import BorderWrittenOut
    >>> Rewritten(BorderWrittenOut(), Aten()).name
    'aten after border written out'
    """

    def __init__(self, rewrite: Rewrite, engine: Engine) -> None:
        self.rewrite, self.engine = rewrite, engine
        self.chain: tuple[Rewrite, ...] = (rewrite, *(engine.chain if isinstance(engine, Rewritten) else ()))
        self.algorithm: Engine = engine.algorithm if isinstance(engine, Rewritten) else engine
        self.name = f"{self.algorithm.name} after {', '.join(r.name for r in self.chain)}"
        self.revision = rewrite.revision
        own, its = rewrite.traits, engine.traits
        self.traits = Traits(
            own.plain_sums and its.plain_sums,
            own.exact and its.exact,
            own.confines_nan and its.confines_nan,
            own.deterministic and its.deterministic,
        )
        self.epilogues, self.native = engine.epilogues, engine.native
        self.transparent = rewrite.transparent and engine.transparent

    def refuses(self, problem: Problem) -> str | None:
        if (reason := self.rewrite.refuses(problem)) is not None:
            return reason
        return next((reason for part in self._distinct(problem) if (reason := self.engine.refuses(part)) is not None), None)

    def cost(self, problem: Problem, machine: Machine) -> float:
        parts = sum(many * self.engine.cost(part, machine) for part, many in self._distinct(problem).items())
        return self.rewrite.cost(problem, machine) + parts

    def error(self, problem: Problem) -> Error:
        found = [self.engine.error(part) for part in self._distinct(problem)]
        worst = Error(max((e.bound for e in found), default=0.0), max((e.estimate for e in found), default=0.0))
        return self.rewrite.error(problem, worst)

    def scratch(self, problem: Problem) -> int:
        # of a frozen weight every inner run keeps its own form
        parts = [self.engine.scratch(part) * (many if part.frozen else 1) for part, many in self._distinct(problem).items()]
        return self.rewrite.scratch(problem) + (sum(parts) if problem.frozen else max(parts, default=0))

    def _distinct(self, problem: Problem) -> dict[Problem, int]:
        """Return the inner problems that differ, each with how often it occurs."""
        parts = self.rewrite.inner(problem)
        return {parts[0]: 1} if len(parts) == 1 else Counter(parts)

    def _weights(self, problem: Problem, weight: Final | None) -> tuple[Final | None, ...]:
        return (None,) * len(self.rewrite.inner(problem)) if weight is None else self.rewrite.weights(problem, weight)

    def prepare(self, problem: Problem, weight: Final | None = None) -> Runner:
        return self._joined(problem, weight, self.engine.prepare)

    def prepare_with(self, problem: Problem, weight: Final | None, epilogue: str) -> Runner:
        if not self.rewrite.pointwise(problem):
            return super().prepare_with(problem, weight, epilogue)
        return self._joined(problem, weight, lambda part, kept: self.engine.prepare_with(part, kept, epilogue))

    def _joined(self, problem: Problem, weight: Final | None, prepared: Callable[[Problem, Final | None], Runner]) -> Runner:
        weights = self._weights(problem, weight)
        runners = [prepared(part, kept) for part, kept in zip(self.rewrite.inner(problem), weights, strict=True)]
        wrapped = self.rewrite.wrap(problem, weights)

        def run(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
            return wrapped(runners, a, b, bias)

        return run

    def prepare_watched(self, problem: Problem, weight: Final | None, epilogue: str | None = None) -> Watched:
        if self.engine.traits.confines_nan or (epilogue is not None and not self.rewrite.pointwise(problem)):
            return super().prepare_watched(problem, weight, epilogue)  # by its result: what the engine reads says nothing
        weights = self._weights(problem, weight)
        watchers = [
            self.engine.prepare_watched(part, kept, epilogue)
            for part, kept in zip(self.rewrite.inner(problem), weights, strict=True)
        ]
        wrapped = self.rewrite.wrap(problem, weights)

        def watched(a: Tensor, b: Tensor, bias: Tensor | None = None) -> tuple[Tensor, bool]:
            seen: list[bool] = []

            def watching(inner: Watched) -> Runner:
                def run(x: Tensor, y: Tensor, z: Tensor | None = None) -> Tensor:
                    out, finite = inner(x, y, z)
                    seen.append(finite)
                    return out

                return run

            out = wrapped([watching(inner) for inner in watchers], a, b, bias)
            return out, all(seen)

        return watched
