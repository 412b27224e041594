"""From a problem to its plan: as remembered, else measured or estimated; and from a plan to what runs it."""

from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from ninefold.engines.base import EPILOGUES, Runner
from ninefold.engines.final import Final
from ninefold.errors import ArgumentError
from ninefold.planning.cache import plan_cache
from ninefold.planning.choose import choose, judge
from ninefold.planning.cost import calibrate_once
from ninefold.planning.measure import measure
from ninefold.planning.plan import Candidate, Plan, Standings
from ninefold.rewrites import engine_named, engine_names
from ninefold.settings import Options
from ninefold.spec.form import Form
from ninefold.spec.problem import TOLERANCES, Map, Problem

__all__ = ["make_problem", "plan_problem", "prepare"]


def make_problem(
    map: Map,  # noqa: A002  the chapter's word
    form: Form,
    batch: int,
    dtype: torch.dtype,
    device: torch.device,
    options: Options,
    *,
    channels_last: bool = False,
    rank: int | None = None,
    frozen: bool = False,
) -> Problem:
    """Return the problem that a call under these options poses."""
    name = str(dtype).removeprefix("torch.")
    tolerance = options.tolerance
    if tolerance == "default":
        tolerance = TOLERANCES.get(name, 0.0)
    return Problem(
        map,
        form,
        batch,
        name,
        device.type if device.type == "cpu" else f"{device.type}:{_device_name(device)}",
        channels_last,
        torch.get_num_threads(),
        0.0 if tolerance == "strict" else float(tolerance),
        options.max_scratch,
        options.deterministic or torch.are_deterministic_algorithms_enabled(),
        device.type == "cpu" if options.check_finite is None else options.check_finite,
        rank,
        frozen,
    )


@lru_cache(maxsize=16)
def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def plan_problem(problem: Problem, mode: str = "estimate", weight: Final | None = None) -> Plan:
    """Return the plan of a problem: as remembered, else measured or estimated.

    Parameters
    ----------
    problem : Problem
    mode : {"estimate", "measure"}
    weight : Final, optional
        The frozen weight; needed to measure engines that derive from it.

    Raises
    ------
    ArgumentError
        For a form without input channels.
    """
    if problem.form.channels.inputs == 0:
        raise ArgumentError("in_channels must be at least 1 for a plan, got 0: PyTorch's own convolution runs those of none")
    found = plan_cache().get(problem)
    if found is not None and found[0] in engine_names():  # another version may know others
        engine, seconds, source = found
        standings = _remembered(problem, engine, seconds)
        if standings.of(engine).reason is None:
            return Plan(problem, engine, standings, source)
    estimated = choose(problem)
    if mode == "estimate" or problem.batch == 0:
        return estimated
    if problem.device == "cpu":
        calibrate_once(problem.threads)
    measured = measure(problem, weight)
    plan_cache().put(problem, measured.engine, {c.engine: c.measured for c in measured.candidates if c.measured is not None})
    return measured


def _remembered(problem: Problem, engine: str, seconds: dict[str, float]) -> Standings:
    """Return the standings of a plan that was measured, each judged when somebody asks."""

    def timed(c: Candidate) -> Candidate:
        return replace(c, measured=seconds.get(c.engine))

    @lru_cache(maxsize=8)
    def one(name: str) -> Candidate:
        return timed(judge(engine_named(name), problem))

    def every() -> tuple[Candidate, ...]:
        estimated = tuple(map(timed, choose(problem).candidates))
        # the estimate may not try now what was found
        return estimated if any(c.engine == engine for c in estimated) else (*estimated, one(engine))

    return Standings(one, every)


def prepare(plan: Plan, weight: Final | None = None, epilogue: str | None = None) -> Runner:
    """Return the runner of a plan, with one of `EPILOGUES` behind it if asked for; that runs in place.

    Where NaN and infinity are to stay where the definition has them (`check_finite`), an engine that spreads them says whether
    there are any, and the result is then computed directly, by the engine of the least estimate that does not.
    """
    engine = engine_named(plan.engine)
    if not plan.problem.finite or engine.traits.confines_nan:
        return engine.prepare(plan.problem, weight) if epilogue is None else engine.prepare_with(plan.problem, weight, epilogue)
    watched = engine.prepare_watched(plan.problem, weight, epilogue)
    careful: list[Runner] = []  # prepared when it is first needed

    def run(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
        out, finite = watched(a, b, bias)
        if finite:
            return out
        del out  # before the other is made
        if not careful:
            careful.append(_direct(plan))
        out = careful[0](a, b, bias)
        return out if epilogue is None else EPILOGUES[epilogue].apply_(out)

    return run


def _direct(plan: Plan) -> Runner:
    """Return the runner of the fastest engine that keeps NaN and infinity where the definition has them."""
    admitted = [c for c in plan.candidates if c.reason is None and engine_named(c.engine).traits.confines_nan]
    name = min(admitted, key=lambda c: c.seconds).engine if admitted else "reference"
    return engine_named(name).prepare(replace(plan.problem, frozen=False, rank=None))
