"""What this machine is assumed to do per second, for the threads and the dtype of a problem."""

from dataclasses import replace

from ninefold.engines.base import Machine
from ninefold.spec.problem import Problem

__all__ = ["machine_for"]

_TWO_THREADS = Machine()


def machine_for(problem: Problem) -> Machine:
    """Return the rates that hold for a problem.

    The constants are medians over two cores of an AVX-512 machine (see docs/design); only their ratios matter for a choice.
    Products and transforms scale with threads; copying saturates at about two.
    """
    threads = problem.threads / 2
    wide = problem.itemsize / 4
    return replace(
        _TWO_THREADS,
        product=_TWO_THREADS.product * threads / max(wide, 1.0),
        stream=_TWO_THREADS.stream * min(threads, 1.5),
        transform=_TWO_THREADS.transform * threads / max(wide, 1.0),
    )
