"""Timing: the candidates in turn, on operands made for the problem, so that a drifting machine treats them alike."""

from collections.abc import Callable
from dataclasses import replace
from statistics import median
from time import perf_counter

import torch
from torch import Tensor

from ninefold.engines.final import Final
from ninefold.planning.choose import best, choose
from ninefold.planning.plan import Candidate, Plan
from ninefold.rewrites import engine_named
from ninefold.spec.problem import Problem

__all__ = ["interleaved", "measure", "measure_rates", "operands", "timed"]

_HOPELESS = 6.0  # times the best estimate: an engine estimated this slow is not worth its one run
_MARGIN = 1.03  # an earlier engine of the list keeps its place unless another beats it by this factor
_ROUNDS = 200
_MOMENT = 0.3  # seconds that a second try may take even of an engine that seems slow: PyTorch prepares at a first call
_SURE = ((8, 0.25, 1.05), (3, 0.0, 1.15))  # (rounds, a part of them, times the fastest): slower in all but that part is out
_LEAST_ROUNDS, _ALIKE_ROUNDS = 5, 12  # after which a single one that is left, and several that are alike, are told
_ALIKE = 1.05


def measure(problem: Problem, weight: Final | None = None, seconds: float = 0.25) -> Plan:
    """Return the plan that the clock prefers.

    Parameters
    ----------
    problem : Problem
    weight : Final, optional
        The frozen weight, for engines that derive from it.
    seconds : float
        How long to go on at most, about: who is clearly slower is dropped, and where the rest is alike, it stops.
    """
    estimated = choose(problem)
    fastest = estimated.chosen.cost
    worth = [c for c in estimated.candidates if c.reason is None and c.cost < _HOPELESS * fastest and c.engine != "reference"]
    if len(worth) < 2:
        return replace(estimated, source="measure")
    a, b = operands(problem, None if weight is None else weight.tensor)
    runs: dict[str, Callable[[], object]] = {}
    with torch.no_grad():
        for c in worth:
            runner = engine_named(c.engine).prepare(problem, weight)
            runs[c.engine] = lambda runner=runner: runner(a, b, None)  # type: ignore[misc]
        times = {name: median(t) for name, t in interleaved(runs, seconds).items()}
    candidates = tuple(replace(c, measured=times.get(c.engine)) for c in estimated.candidates)
    return _prefer_earlier(best(problem, _only_timed(candidates), "measure"), candidates)


def _only_timed(candidates: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
    return tuple(c for c in candidates if c.measured is not None)


def _prefer_earlier(plan: Plan, candidates: tuple[Candidate, ...]) -> Plan:
    close = next(c for c in plan.candidates if c.seconds <= _MARGIN * plan.chosen.seconds)
    return Plan(plan.problem, close.engine, candidates, plan.source)


def interleaved(
    runs: dict[str, Callable[[], object]], seconds: float, *, always: str | None = None, warm: dict[str, float] | None = None
) -> dict[str, list[float]]:
    """Return the times of each function, called in turn until the order is certain, for about `seconds` at most.

    What warms up is dropped; a function five times slower than the fastest in both of its first two calls is not called again,
    nor one that was clearly slower in every round, but for `always`. All stop where those that are left are alike. What ran
    before comes with the seconds that it took, `warm`, and is called a second time only if it was slow.
    """
    known = warm is not None
    warm = {name: timed(run) for name, run in runs.items()} if warm is None else warm
    least = min(warm.values())
    again = {name for name, t in warm.items() if (t > 5 * least or not known) and t < max(_MOMENT, 5 * least)}
    first = {name: min(t, timed(runs[name])) if name in again else t for name, t in warm.items()}
    hopeless = {name for name, t in first.items() if t > 5 * min(first.values()) and name != always and len(runs) > 1}
    times: dict[str, list[float]] = {name: [] for name in runs if name not in hopeless}
    alive, spent = dict.fromkeys(times), 0.0
    for done in range(1, _ROUNDS + 1):
        for name in alive:
            times[name].append(timed(runs[name]))
            spent += times[name][-1]
        if spent >= seconds or (len(runs) > 1 and _settled(times, list(alive), done)):
            break
        for name in _clearly_slower(times, list(alive), done):
            if name != always:
                del alive[name]
    return {name: times.get(name, [first[name]]) for name in runs}


def _fastest(times: dict[str, list[float]], alive: list[str]) -> list[float]:
    return min((times[name] for name in alive), key=median)


def _clearly_slower(times: dict[str, list[float]], alive: list[str], done: int) -> list[str]:
    """Return those that nearly every round found slower than the fastest: one round in four may be of a busy moment."""
    best = _fastest(times, alive)
    known = [(int(part * done), factor) for rounds, part, factor in _SURE if done >= rounds]
    ratios = {n: sorted(t / b for t, b in zip(times[n], best, strict=True)) for n in alive}
    return [n for n in alive if any(ratios[n][k] > factor for k, factor in known)]


def _settled(times: dict[str, list[float]], alive: list[str], done: int) -> bool:
    """Whether nothing is left to be told apart."""
    if done < _ALIKE_ROUNDS or len(alive) < 2:
        return done >= _LEAST_ROUNDS and len(alive) < 2
    best = median(_fastest(times, alive))
    return all(median(times[name]) <= _ALIKE * best for name in alive)


def timed(run: Callable[[], object]) -> float:
    """Return the seconds that a call takes, with all that it starts on a GPU."""
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
    generator = torch.Generator("cpu").manual_seed(0)

    def make(shape: tuple[int, ...], batched: bool) -> Tensor:
        real = dtype if dtype.is_complex or dtype.is_floating_point else torch.float32
        x = torch.randn(shape, generator=generator, dtype=real, device="cpu").to(device, dtype)
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
    a = torch.randn(1024, 1024, dtype=torch.float32, device="cpu")
    b = torch.randn(8 << 20, dtype=torch.float32, device="cpu")
    times = interleaved({"product": lambda: a @ a, "copy": b.clone}, seconds=0.2)
    return 1024**3 / min(times["product"]), 2 * b.nbytes / min(times["copy"])
