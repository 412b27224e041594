"""For every test and every example in a docstring: what they must not depend on is the same everywhere.

That is the user's plan cache, how fast the machine is at the moment, the number of its processors, and which tests ran before.
"""

import os
import shutil
import sys
import tempfile
from itertools import count

import pytest
from hypothesis import HealthCheck, settings

_CACHE = tempfile.mkdtemp(prefix="ninefold-test-")
os.environ["NINEFOLD_CACHE"] = _CACHE  # until each test has its own; before anything of ninefold is imported
os.environ.setdefault("OMP_NUM_THREADS", "2")  # plans depend on it; before torch is imported
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as many processes as processors: who waits lets the others work

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("any machine")

_TESTS = count()


def pytest_unconfigure():
    shutil.rmtree(_CACHE, ignore_errors=True)


class Clock:
    """A clock that says the same whatever the machine does: between two readings lie `tick` seconds, and what `sleep` adds."""

    def __init__(self, tick=0.05):
        self.now, self.tick = 0.0, tick

    def __call__(self):
        self.now += self.tick
        return self.now

    def sleep(self, seconds):
        """Let time pass."""
        self.now += seconds


def forget_plans():
    """Forget what calls were bound to, so that the next one is planned anew."""
    from ninefold.functional import conv
    from ninefold.ops import executor

    executor.EXECUTORS.clear()
    conv._site.cache_clear()


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """Let no test see what those before it measured, planned, drew or compiled: a second size is compiled for all sizes."""
    import torch

    monkeypatch.setenv("NINEFOLD_CACHE", f"{_CACHE}/{next(_TESTS)}")
    forget_plans()
    torch.manual_seed(0)
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Time as the planner sees it: everything takes as long, so that the first engine of the list wins, and no rates are measured.

    Estimates are made of the constants of `Machine`, therefore. A test that is about rates or times makes them up.
    """
    from ninefold.errors import CalibrationError
    from ninefold.planning import cost, measure

    def rates(threads):
        raise CalibrationError(f"the machine is busy: tests measure no rates, neither of {threads} threads")

    it = Clock()
    monkeypatch.setattr(cost, "measured_rates", rates)
    monkeypatch.setattr(measure, "perf_counter", it)
    return it


@pytest.fixture(autouse=True)
def no_deadline(monkeypatch):
    """Let `optimize` never run out of time, however busy the machine is: what it leaves out then is no matter of chance."""
    from ninefold.network.trial import Budget

    monkeypatch.setattr(Budget, "left", lambda _: float("inf"))


@pytest.fixture
def forget():
    """Return what makes the next call be planned anew, and do it at the end, too."""
    yield forget_plans
    forget_plans()
