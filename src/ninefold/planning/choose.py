"""The choice, short enough to read aloud: judge every engine, drop those that may not run, take the fastest."""

from ninefold.engines import ENGINES
from ninefold.engines.base import Engine, Machine
from ninefold.errors import NoEngineError
from ninefold.planning.cost import machine_for
from ninefold.planning.plan import Candidate, Plan
from ninefold.spec.problem import Problem

__all__ = ["choose", "engine_named", "judge"]


def choose(problem: Problem) -> Plan:
    """Return the plan with the least estimated time; no timing, no tensors.

    Raises
    ------
    NoEngineError
        If the tolerance, the scratch cap or determinism leaves no engine, with each one's reason.
    """
    machine = machine_for(problem)
    candidates = tuple(judge(engine, problem, machine) for engine in ENGINES)
    return best(problem, candidates, "estimate")


def best(problem: Problem, candidates: tuple[Candidate, ...], source: str) -> Plan:
    """Return the plan that runs the fastest of the candidates."""
    admitted = [c for c in candidates if c.reason is None]
    if not admitted:
        reasons = "; ".join(f"{c.engine}: {c.reason}" for c in candidates)
        raise NoEngineError(f"no engine may run map {problem.map} under these options, allow more scratch or error ({reasons})")
    return Plan(problem, min(admitted, key=lambda c: c.seconds).engine, candidates, source)


def judge(engine: Engine, problem: Problem, machine: Machine | None = None) -> Candidate:
    """Return an engine's standing: its reason why not, or its numbers, of the machine given or of this one."""
    reason = engine.refuses(problem)
    if reason is not None:
        return Candidate(engine.name, reason)
    error, scratch = engine.error(problem), engine.scratch(problem)
    if not engine.traits.direct and error.estimate > problem.tolerance:
        reason = f"its error of about {error.estimate:.0e} exceeds the tolerance {problem.tolerance:.0e}"
    elif problem.deterministic and not engine.traits.deterministic:
        reason = "it does not give the same bits at every run"
    elif problem.max_scratch is not None and scratch > problem.max_scratch:
        reason = f"it needs {scratch:,} bytes of scratch, more than max_scratch={problem.max_scratch:,}"
    return Candidate(engine.name, reason, engine.cost(problem, machine or machine_for(problem)), error, scratch)


def engine_named(name: str) -> Engine:
    """Return the engine of this name."""
    return next(engine for engine in ENGINES if engine.name == name)
