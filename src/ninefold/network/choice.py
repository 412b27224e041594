"""Whole steps, timed in turns: which of the trials is faster than the network as it was, beyond noise."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import torch
from torch.nn import Module

from ninefold.engines.native import flushed_denormals
from ninefold.errors import ModelError
from ninefold.network.running import Call, Clock, step, untouched
from ninefold.network.trial import WORTH, Trial
from ninefold.nn.conv import Planned
from ninefold.planning.measure import interleaved, timed

__all__ = ["Times", "faster", "not_slower", "time_steps"]

_BEYOND_NOISE = 1.02
_ORIGINAL = "original"
_OUTSIDE_ROUNDS = 5


@dataclass(frozen=True)
class Times:
    """What timing whole steps gave.

    Parameters
    ----------
    before : float
        Seconds of a step of the network as it was.
    after : dict of int to float
        Those of each trial that runs, by its place.
    gains : dict of int to float
        How many times faster than before, the median over rounds; 1.0 where most rounds do not agree that it is faster.
    outside : float
        Seconds of a step, as it was, that its convolutions do not take.
    failed : dict of int to str
        Trials that cannot run a step, each with the error.
    """

    before: float
    after: dict[int, float]
    gains: dict[int, float]
    outside: float
    failed: dict[int, str]


def time_steps(original: Module, trials: list[Trial], call: Call, seconds: float, *, train: bool, flush: bool) -> Times:
    """Time whole steps of the network as it was and of each trial, in turns, for about `seconds`.

    Parameters
    ----------
    flush : bool
        Take denormal numbers for zero on both sides.

    Raises
    ------
    ModelError
        If the network as it was cannot run a training step.
    """
    with ExitStack() as stack:
        for model in (original, *(trial.model for trial in trials)):  # which stay as they were, however often they run
            stack.enter_context(untouched(model))
        if flush:
            stack.enter_context(flushed_denormals())
        runs = {_ORIGINAL: step(original, call, train)}
        runs |= {str(k): step(trial.model, call, train) for k, trial in enumerate(trials)}
        first = {name: _first(run) for name, run in runs.items()}
        failed = {name: error for name, error in first.items() if isinstance(error, str)}
        if _ORIGINAL in failed:
            raise ModelError(f"{type(original).__name__} cannot run a {'training ' if train else ''}step: {failed[_ORIGINAL]}")
        warm = {name: spent for name, spent in first.items() if not isinstance(spent, str)}
        times = interleaved({name: runs[name] for name in warm}, seconds, always=_ORIGINAL, warm=warm)
        before = times.pop(_ORIGINAL)
        after = {int(name): median(found) for name, found in times.items()}
        gains = {int(name): _gain(before, found) for name, found in times.items()}
        rounds = max(1, min(_OUTSIDE_ROUNDS, int(0.2 * seconds / max(min(before), 1e-6))))
        outside = median(_outside(original, call, train) for _ in range(rounds))
    return Times(median(before), after, gains, outside * median(before), {int(k): error for k, error in failed.items()})


def faster(times: Times, trials: list[Trial]) -> int | None:
    """Return the place of the trial to take, None if none is faster beyond noise; a change of format must be worth it.

    Examples
    --------
    >>> trials = [Trial("contiguous", torch.nn.Identity(), []), Trial("channels_last", torch.nn.Identity(), [])]
    >>> faster(Times(1.0, {0: 0.8, 1: 0.79}, {0: 1.25, 1: 1.26}, 0.1, {}), trials)
    0
    >>> faster(Times(1.0, {0: 1.01, 1: 1.0}, {0: 1.0, 1: 1.0}, 0.1, {}), trials)
    """
    worth = {k: gain / (1.0 if trials[k].format == "contiguous" else WORTH) for k, gain in times.gains.items()}
    best = max(worth, key=worth.__getitem__, default=None)
    return best if best is not None and worth[best] > _BEYOND_NOISE else None


def not_slower(times: Times) -> int | None:
    """Return the place of the one trial that there is, which an earlier call found faster, unless it is slower now.

    Examples
    --------
    >>> not_slower(Times(1.0, {0: 0.99}, {0: 1.0}, 0.1, {})), not_slower(Times(1.0, {0: 1.1}, {0: 1.0}, 0.1, {}))
    (0, None)
    """
    return next((k for k, seconds in times.after.items() if seconds <= times.before), None)


def _gain(before: list[float], after: list[float]) -> float:
    """Return how many times faster, from the rounds that both ran; 1.0 unless three of four rounds agree."""
    ratios = [b / a for b, a in zip(before, after, strict=False)]
    return median(ratios) if sorted(ratios)[len(ratios) // 4] > 1.0 else 1.0


def _first(run: Callable[[], object]) -> float | str:
    """Return the seconds of a first run, or the error."""
    try:
        return timed(run)
    except Exception as error:  # noqa: BLE001  the network is somebody else's
        return f"{type(error).__name__}: {error}"


def _outside(model: Module, call: Call, train: bool) -> float:
    """Return the part of one step that its convolutions do not take."""
    layers: list[Module] = [m for m in model.modules() if isinstance(m, (torch.nn.modules.conv._ConvNd, Planned))]  # noqa: SLF001  as in trial
    work = step(model, call, train)
    with Clock(layers) as clock:
        start = perf_counter()
        work()
        whole = perf_counter() - start
    return max(0.0, 1 - clock.seconds / whole)
