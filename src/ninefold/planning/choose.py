"""The choice, short enough to read aloud: judge every engine and rewrite, drop what may not run, take the fastest."""

from ninefold.engines import ENGINES
from ninefold.engines.base import Engine
from ninefold.engines.machine import Machine
from ninefold.errors import NoEngineError
from ninefold.planning.cost import machine_for
from ninefold.planning.plan import Candidate, Plan, seconds
from ninefold.rewrites import REWRITES, after
from ninefold.rewrites.base import Rewrite, Rewritten
from ninefold.spec.problem import Problem

__all__ = ["choose", "judge"]


def choose(problem: Problem) -> Plan:
    """Return the plan with the least estimated time; no timing, no tensors.

    Raises
    ------
    NoEngineError
        If the tolerance, the scratch cap or determinism leaves no engine, with each one's reason.
    """
    machine = machine_for(problem)
    engines = {engine.name: judge(engine, problem, machine) for engine in ENGINES}
    rewrites = tuple(_after(rewrite, problem, machine, engines) for rewrite in REWRITES)
    return best(problem, (*engines.values(), *rewrites), "estimate")


def _after(rewrite: Rewrite, problem: Problem, machine: Machine, bare: dict[str, Candidate]) -> Candidate:
    """Return the standing of the fastest engine after a rewrite, or why there is none that could gain by it."""
    reason = rewrite.refuses(problem) or _too_long(rewrite, problem, machine, bare)
    if reason is not None:
        return Candidate(rewrite.name, reason)
    engines = [engine for engine in after(rewrite, problem) if _helped(problem, engine, bare) and engine.refuses(problem) is None]
    costs = {engine: engine.cost(problem, machine) for engine in engines}
    standing = None
    for engine in sorted((engine for engine in engines if _gains(engine, costs[engine], bare)), key=costs.__getitem__):
        standing = judge(engine, problem, machine)
        if standing.reason is None:
            return standing
    return standing or Candidate(rewrite.name, f"of {len(ENGINES) - 1} engines none takes what it leaves and gains by it")


def _too_long(rewrite: Rewrite, problem: Problem, machine: Machine, bare: dict[str, Candidate]) -> str | None:
    """Return why no engine needs to be looked at: one is faster as it is than what the rewrite itself takes."""
    fastest = min((c for c in bare.values() if c.reason is None), key=lambda c: c.cost, default=None)
    spent = rewrite.cost(problem, machine)
    if fastest is None or spent < fastest.cost:
        return None
    return f"it alone takes {seconds(spent)}, {fastest.engine} {seconds(fastest.cost)} without it"


def _helped(problem: Problem, engine: Rewritten, bare: dict[str, Candidate]) -> bool:
    taken = bare[engine.algorithm.name].reason is None
    return all(rewrite.helps(problem, engine.algorithm, taken=taken) for rewrite in engine.chain)


def _gains(engine: Rewritten, cost: float, bare: dict[str, Candidate]) -> bool:
    own = bare[engine.algorithm.name]
    return own.reason is not None or cost < own.cost or not engine.algorithm.modelled


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
    if not engine.traits.plain_sums and error.estimate > problem.tolerance:
        reason = f"its error of about {error.estimate:.0e} exceeds the tolerance {problem.tolerance:.0e}"
    elif problem.deterministic and not engine.traits.deterministic:
        reason = "it does not give the same bits at every run"
    elif problem.max_scratch is not None and scratch > problem.max_scratch:
        reason = f"it needs {scratch:,} bytes of scratch, more than max_scratch={problem.max_scratch:,}"
    return Candidate(engine.name, reason, engine.cost(problem, machine or machine_for(problem)), error, scratch)
