"""What this machine does per second, measured in about a second: the rates that every engine's cost is made of.

The runs take turns, so that a machine that drifts treats them alike, and each rate is that of the median run. Rates are measured
once and used for long, so none are taken while the machine is busy with other work, which is seen by the processor time that a
matrix product gets of what its threads could have: one thread that waits for its processor holds all others up, and short
parallel work can look twenty times slower than it is. Rates that no machine has are refused, too.
"""

from collections.abc import Callable
from dataclasses import fields
from math import log2
from statistics import median
from time import perf_counter, process_time

import torch

from ninefold.engines.machine import Machine
from ninefold.errors import CalibrationError

__all__ = ["LIMITS", "measured_rates", "unlikely"]

LIMITS = {"product": (1e8, 1e12), "stream": (1e8, 2e12), "transform": (1e7, 1e11), "call": (1e-7, 1e-3)}
"""What a rate may be, least and most; products and transforms per thread."""

SECONDS = 0.8  # of timed rounds, about
_ROUNDS = 5, 60  # at least and at most
_SHARE = 0.85  # of the processor time that the threads of a product could have: less, and others had it
_PER_THREAD = ("product", "transform")
_CALLS = 100


def measured_rates(threads: int, seconds: float | None = None) -> Machine:
    """Measure the rates with as many threads as PyTorch has now.

    Parameters
    ----------
    threads : int
        That number; limits depend on it.
    seconds : float, optional
        How long to go on, about; warming up comes to it.

    Raises
    ------
    CalibrationError
        If other work takes the processors meanwhile, or a rate is out of all `LIMITS`.
    """
    runs = _runs()
    for run, _ in runs.values():
        _time(run)
        _time(run)
    times: dict[str, list[float]] = {name: [] for name in runs}
    allowed, spent, had = SECONDS if seconds is None else seconds, 0.0, 0.0
    least, most = _ROUNDS
    for k in range(1, most + 1):
        for name, (run, _) in runs.items():
            wall, processors = _time(run)
            times[name].append(wall)
            spent += wall
            had += processors if name == "product" else 0.0
        if k >= least:
            _check_share(had, sum(times["product"]), threads)
            if spent >= allowed:
                break
    rates = {name: amount / median(times[name]) for name, (_, amount) in runs.items()}
    found = Machine(**(rates | {"call": 1 / rates["call"]}))
    if reason := unlikely(found, threads):
        raise CalibrationError(reason)
    return found


def _check_share(had: float, wall: float, threads: int) -> None:
    share = had / (wall * threads)
    if not share >= _SHARE:
        raise CalibrationError(
            f"the machine is busy: {threads} threads had {share:.0%} of the processor time that they could have had; calibrate "
            "when nothing else runs, with no more threads than processors"
        )


def unlikely(machine: Machine, threads: int) -> str | None:
    """Return in a sentence which rate no machine of so many threads has, or None.

    Examples
    --------
    >>> unlikely(Machine(), 2), unlikely(Machine(stream=1e15), 2)
    (None, 'stream=1e+15 per second of 2 threads is not between 1e+08 and 2e+12')
    """
    for field in fields(machine):
        value, (least, most) = getattr(machine, field.name), LIMITS[field.name]
        share = threads if field.name in _PER_THREAD else 1
        unit = "seconds" if field.name == "call" else "per second"
        if not isinstance(value, float) or not least * share <= value <= most * share:
            shown = f"{value:.3g}" if isinstance(value, (int, float)) else repr(value)
            return f"{field.name}={shown} {unit} of {threads} threads is not between {least * share:.3g} and {most * share:.3g}"
    return None


def _runs() -> dict[str, tuple[Callable[[], object], float]]:
    """Return what is run for each rate, and how much of it one run does."""
    generator = torch.Generator("cpu").manual_seed(0)

    def numbers(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")

    a = numbers(1024, 1024)
    product = torch.empty_like(a)
    x = numbers(8 << 20)
    y = torch.empty_like(x)  # written to before anything is timed: no fresh pages
    image, signal = numbers(64, 64, 64), numbers(64, 4096)

    def transform() -> None:
        torch.fft.irfft2(torch.fft.rfft2(image), s=image.shape[1:])
        torch.fft.irfft(torch.fft.rfft(signal), n=signal.shape[1])

    small = numbers(2, 8, 6, 10)

    def call() -> None:
        for _ in range(_CALLS):
            _ = small + small
            small.transpose(1, 3).contiguous()
            torch.constant_pad_nd(small, [1, 1, 1, 1])

    return {
        "product": (lambda: torch.mm(a, a, out=product), float(a.numel() * a.shape[1])),
        "stream": (lambda: y.copy_(x), 2.0 * x.nbytes),
        "transform": (transform, 2 * (image.numel() * log2(image[0].numel()) + signal.numel() * log2(signal.shape[1]))),
        "call": (call, 3.0 * _CALLS),
    }


def _time(run: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds that a run took, and those that the processors spent on this process."""
    with torch.inference_mode():
        start, before = perf_counter(), process_time()
        run()
        return perf_counter() - start, process_time() - before
