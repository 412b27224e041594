"""What this machine does per second, for the threads and the dtype of a problem: as measured once, else as assumed."""

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from math import log

import torch

from ninefold.engines.machine import Machine
from ninefold.errors import CalibrationError
from ninefold.planning.cache import plan_cache
from ninefold.planning.rates import measured_rates
from ninefold.spec.problem import Problem

__all__ = ["calibrate", "calibrate_once", "machine_for"]

_ASSUMED = Machine()  # medians over two cores of an AVX-512 machine (see docs/design); only their ratios matter for a choice
_ASSUMED_THREADS = 2
_SATURATED = 3  # threads: more copy no faster
_TRIES = 3


def machine_for(problem: Problem) -> Machine:
    """Return the rates that hold for a problem: this machine's where they were measured, never by measuring now."""
    machine = _rates(problem.threads) if problem.device == "cpu" else _scaled(_ASSUMED, _ASSUMED_THREADS, problem.threads)
    wide = max(problem.itemsize / 4, 1.0)
    return machine if wide == 1 else replace(machine, product=machine.product / wide, transform=machine.transform / wide)


def calibrate(threads: Sequence[int]) -> dict[int, Machine]:
    """Measure the rates with each of these numbers of threads, and store them, all or none; the number in use is put back."""
    before, found = torch.get_num_threads(), {}
    try:
        for count in threads:
            torch.set_num_threads(count)
            found[count] = _tried(count)
    finally:
        torch.set_num_threads(before)
    plan_cache().put_rates(found)
    return found


def calibrate_once(threads: int) -> None:
    """Measure the rates of the threads in use where none are known; a busy machine is left for another process to measure."""
    cache = plan_cache()
    with cache.calibrating:
        if threads in cache.rates() or threads in cache.tried or threads != torch.get_num_threads():
            return
        cache.tried.add(threads)
        with contextlib.suppress(CalibrationError):
            cache.put_rates({threads: measured_rates(threads)}, keep=True)


def _tried(threads: int) -> Machine:
    for _ in range(_TRIES - 1):
        with contextlib.suppress(CalibrationError):
            return measured_rates(threads)
    return measured_rates(threads)


def _rates(threads: int) -> Machine:
    """Return what was measured with so many threads; else with the nearest number, scaled; else what is assumed."""
    known = plan_cache().rates()
    if threads in known:
        return known[threads]
    if not known:
        return _scaled(_ASSUMED, _ASSUMED_THREADS, threads)
    nearest = min(known, key=lambda n: (abs(log(n / threads)), n))
    return _scaled(known[nearest], nearest, threads)


def _scaled(machine: Machine, of: int, to: int) -> Machine:
    """Take products and transforms to scale with threads, and copying to saturate."""
    more, wider = to / of, min(to, _SATURATED) / min(of, _SATURATED)
    return replace(machine, product=machine.product * more, stream=machine.stream * wider, transform=machine.transform * more)
