"""Options: known names and values only, nested, undone, and seen by one thread and task alone."""

import asyncio
import threading

import pytest
import torch

import ninefold as nf
import ninefold.functional as F
from ninefold.errors import ArgumentError, ArgumentTypeError, NoEngineError
from ninefold.settings import CURRENT, Options


def test_options_nest_and_are_undone_after_an_error():
    before = CURRENT.get()
    with nf.options(mode="measure", max_scratch=1000) as outer:
        assert (outer.mode, outer.max_scratch, outer.tolerance) == ("measure", 1000, "default")
        with nf.options(tolerance=1e-7, max_scratch=None) as inner:
            assert (inner.mode, inner.max_scratch, inner.tolerance) == ("measure", None, 1e-7)
        assert CURRENT.get() is outer

    def fail():
        with nf.options(deterministic=True):
            raise KeyError("x")

    with pytest.raises(KeyError):
        fail()
    assert CURRENT.get() is before


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"tolerence": 1}, ArgumentError, r"unknown options \['tolerence'\]; there are \['mode', 'tolerance'"),
        ({"mode": "fast"}, ArgumentError, "mode='fast' is not 'estimate' or 'measure'"),
        ({"tolerance": "loose"}, ArgumentError, "tolerance='loose' is not 'default', 'strict' or a number"),
        ({"tolerance": -1e-3}, ArgumentError, "tolerance=-0.001 must be a number of at least 0"),
        ({"tolerance": float("nan")}, ArgumentError, "tolerance=nan must be"),
        ({"tolerance": None}, ArgumentTypeError, "tolerance must be .* got None"),
        ({"max_scratch": -1}, ArgumentError, "max_scratch must be at least 0, got -1"),
        ({"max_scratch": 1.5}, ArgumentTypeError, "max_scratch must be a whole number, got 1.5"),
        ({"deterministic": "yes"}, ArgumentTypeError, "deterministic must be True or False, got 'yes'"),
        ({"check_finite": 1}, ArgumentTypeError, "check_finite must be True, False or None, got 1"),
    ],
)
def test_unknown_names_and_values_are_refused(changes, kind, words):
    before = CURRENT.get()
    with pytest.raises(kind, match=words), nf.options(**changes):
        pass
    assert CURRENT.get() is before


def test_a_thread_and_a_task_have_their_own():
    seen = []
    with nf.options(mode="measure"):
        thread = threading.Thread(target=lambda: seen.append(CURRENT.get().mode))
        thread.start()
        thread.join()
    assert seen == ["estimate"]

    async def one(tolerance):
        with nf.options(tolerance=tolerance):
            await asyncio.sleep(0)
            return CURRENT.get().tolerance

    async def both():
        return await asyncio.gather(one(1e-3), one(1e-4))

    assert asyncio.run(both()) == [1e-3, 1e-4]


def test_a_call_obeys_the_options_around_it():
    x, w = torch.randn(1, 4, 20000), torch.randn(4, 1, 8000)  # so long that no machine's rates give it to another engine
    size = (20000,)
    spec = nf.ConvSpec(4, 4, (8000,), groups=4)
    assert nf.plan(spec, size).engine == "fft"
    fast = F.conv1d(x, w, groups=4)
    with nf.options(tolerance="strict"):
        assert nf.plan(spec, size).engine != "fft"
        exact = F.conv1d(x, w, groups=4)
    assert not torch.equal(fast, exact)
    assert torch.equal(F.conv1d(x, w, groups=4), fast)
    torch.testing.assert_close(fast, exact, rtol=1e-4, atol=1e-3)


def test_options_that_leave_no_engine_are_one_error_by_every_route():
    x, w = torch.randn(1, 2, 9, 8), torch.randn(3, 2, 5, 4)
    with nf.options(max_scratch=0), pytest.raises(NoEngineError, match="aten: it needs .* max_scratch=0"):
        F.conv2d(x, w, padding="same")
    with nf.options(max_scratch=0), pytest.raises(NoEngineError, match="aten: it needs .* max_scratch=0"):
        torch.func.grad(lambda w: F.conv2d(x, w, padding="same").sum())(w)


def test_options_are_values():
    assert Options() == Options(tolerance="default")
    assert len({Options(), Options(mode="measure"), Options(mode="measure")}) == 2
