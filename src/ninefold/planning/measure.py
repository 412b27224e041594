"""Timing: the candidates in turn, on operands made for the problem, so that a drifting machine treats them alike."""

from collections.abc import Callable
from dataclasses import replace
from statistics import median
from time import perf_counter

import torch
from torch import Tensor

from ninefold.engines.final import Final
from ninefold.planning.choose import best, choose, engine_named
from ninefold.planning.plan import Candidate, Plan
from ninefold.spec.problem import Problem

__all__ = ["interleaved", "measure", "measure_rates", "operands"]

_HOPELESS = 30.0  # times the best estimate: an engine estimated this slow is not worth its one run
_MARGIN = 1.03  # an earlier engine of the list keeps its place unless another beats it by this factor
_ROUNDS = 200
_MOMENT = 0.3  # seconds that a second try may take even of an engine that seems slow: PyTorch prepares at a first call
_CLOSE = 1.25  # times the best: who came this close meets the best once more


def measure(problem: Problem, weight: Final | None = None, seconds: float = 0.25) -> Plan:
    """Return the plan that the clock prefers.

    Parameters
    ----------
    problem : Problem
    weight : Final, optional
        The frozen weight, for engines that derive from it.
    seconds : float
        How long to go on, about, and once more for those that came close; every candidate runs at least three times unless its
        first run took five times the best.
    """
    estimated = choose(problem)
    fastest = estimated.chosen.cost
    timed = [c for c in estimated.candidates if c.reason is None and c.cost < _HOPELESS * fastest and c.engine != "reference"]
    if len(timed) < 2:
        return replace(estimated, source="measure")
    a, b = operands(problem, None if weight is None else weight.tensor)
    runs: dict[str, Callable[[], object]] = {}
    with torch.no_grad():
        for c in timed:
            runner = engine_named(c.engine).prepare(problem, weight)
            runs[c.engine] = lambda runner=runner: runner(a, b, None)  # type: ignore[misc]
        times = {name: median(t) for name, t in interleaved(runs, seconds).items()}
        close = {name: runs[name] for name, t in times.items() if t <= _CLOSE * min(times.values())}
        if len(close) > 1:
            times |= {name: median(t) for name, t in interleaved(close, seconds).items()}
    candidates = tuple(replace(c, measured=times.get(c.engine)) for c in estimated.candidates)
    return _prefer_earlier(best(problem, _only_timed(candidates), "measure"), candidates)


def _only_timed(candidates: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
    return tuple(c for c in candidates if c.measured is not None)


def _prefer_earlier(plan: Plan, candidates: tuple[Candidate, ...]) -> Plan:
    close = next(c for c in plan.candidates if c.seconds <= _MARGIN * plan.chosen.seconds)
    return Plan(plan.problem, close.engine, candidates, plan.source)


def interleaved(runs: dict[str, Callable[[], object]], seconds: float) -> dict[str, list[float]]:
    """Return the times of each function, called in turn for about `seconds` in all.

    What warms up is dropped; a function five times slower than the fastest in both of its first two calls is not called again.
    """
    warm = {name: _time(run) for name, run in runs.items()}
    least = min(warm.values())
    first = {name: min(t, _time(runs[name])) if t < max(_MOMENT, 5 * least) else t for name, t in warm.items()}
    alive = {name: run for name, run in runs.items() if first[name] <= 5 * min(first.values()) or len(runs) == 1}
    rounds = max(3, min(_ROUNDS, int(seconds / max(sum(first[name] for name in alive), 1e-6))))
    times: dict[str, list[float]] = {name: [] for name in alive}
    for _ in range(rounds):
        for name, run in alive.items():
            times[name].append(_time(run))
    return {name: times.get(name, [first[name]]) for name in runs}


def _time(run: Callable[[], object]) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return perf_counter() - start


def operands(problem: Problem, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Make operands of a map, in its order, in the problem's dtype, device and memory format."""
    form = problem.form
    dtype = getattr(torch, problem.dtype)
    device = problem.device.partition(":")[0]
    generator = torch.Generator().manual_seed(0)

    def make(shape: tuple[int, ...], batched: bool) -> Tensor:
        real = dtype if dtype.is_complex or dtype.is_floating_point else torch.float32
        x = torch.randn(shape, generator=generator, dtype=real).to(device, dtype)
        if batched and problem.channels_last:
            x = x.contiguous(memory_format=torch.channels_last if x.ndim == 4 else torch.channels_last_3d)
        return x

    K = weight.detach() if weight is not None else make(form.weight_shape, batched=False)
    if problem.map == "g":
        return make(form.input_shape(problem.batch), batched=True), make(form.output_shape(problem.batch), batched=True)
    shape = form.input_shape if problem.map == "c" else form.output_shape
    return K, make(shape(problem.batch), batched=True)


def measure_rates() -> tuple[float, float]:
    """Return this machine's multiply-adds per second in a matrix product, and bytes per second in a copy, as they are now."""
    a = torch.randn(1024, 1024)
    b = torch.randn(8 << 20)
    times = interleaved({"product": lambda: a @ a, "copy": b.clone}, seconds=0.2)
    return 1024**3 / min(times["product"]), 2 * b.nbytes / min(times["copy"])
