from dataclasses import replace

import pytest
import torch

import ninefold as nf
from ninefold.engines import ENGINES
from ninefold.engines.machine import Machine
from ninefold.errors import NoEngineError
from ninefold.planning import measure as measure_module
from ninefold.planning import plan_problem, prepare
from ninefold.planning.choose import choose, judge
from ninefold.planning.cost import machine_for
from ninefold.rewrites import REWRITES, engine_named
from ninefold.spec import ConvSpec, Problem

LONG = Problem("c", ConvSpec(64, 64, (511,), groups=64).form(2048), 2, threads=2)


@pytest.mark.usefixtures("without_native")
def test_every_engine_is_judged_and_the_fastest_admitted_one_runs():
    plan = choose(LONG)
    assert [c.engine for c in plan.candidates[: len(ENGINES)]] == [e.name for e in ENGINES]
    assert [c.engine.partition(" after ")[2] or c.engine for c in plan.candidates[len(ENGINES) :]] == [r.name for r in REWRITES]
    admitted = [c for c in plan.candidates if c.reason is None]
    assert plan.chosen.cost == min(c.cost for c in admitted)
    assert plan.engine == "fft"


@pytest.mark.parametrize(
    ("change", "engine", "words"),
    [
        ({"tolerance": 0.0}, "fft", ["exceeds the tolerance 0e+00"]),
        ({"max_scratch": 1000}, "fft", ["bytes of scratch", "max_scratch=1,000"]),
        ({}, "separable", ["not frozen"]),
        ({"frozen": True, "rank": None}, "separable", ["1-D"]),
    ],
)
def test_each_option_excludes_with_a_reason(change, engine, words):
    fields = {"tolerance": 1e-5, "max_scratch": None, "frozen": False, "rank": None} | change
    problem = Problem("c", LONG.form, 2, threads=2, **fields)
    reason = judge(engine_named(engine), problem).reason
    assert reason is not None
    for word in words:
        assert word in reason


def test_strict_admits_direct_summation_only():
    problem = Problem("c", LONG.form, 2, tolerance=0.0)
    admitted = {c.engine for c in choose(problem).candidates if c.reason is None}
    assert admitted >= {e.name for e in ENGINES if e.traits.plain_sums and e.refuses(problem) is None}
    assert all(engine_named(name).traits.plain_sums for name in admitted)


def test_nothing_admitted_is_an_error_with_every_reason():
    problem = Problem("c", LONG.form, 2, max_scratch=0)
    with pytest.raises(NoEngineError, match="max_scratch=0") as caught:
        choose(problem)
    assert all(e.name in str(caught.value) for e in ENGINES)
    assert isinstance(caught.value, RuntimeError)


def test_a_determinism_that_is_asked_for_is_respected(monkeypatch):
    fft = next(e for e in ENGINES if e.name == "fft")
    monkeypatch.setattr(
        type(fft), "traits", type(fft.traits)(plain_sums=False, exact=False, confines_nan=False, deterministic=False)
    )
    assert judge(fft, LONG).reason is None
    reason = judge(fft, Problem("c", LONG.form, 2, deterministic=True)).reason
    assert reason is not None
    assert "same bits" in reason


def test_an_estimate_never_runs_anything(monkeypatch):
    def never(*_):
        raise AssertionError("an estimate called a clock or an engine")

    monkeypatch.setattr(measure_module, "perf_counter", never)
    for engine in ENGINES:
        monkeypatch.setattr(type(engine), "prepare", never)
    assert nf.plan(ConvSpec(3, 5, (7, 3)), (40, 41)).source == "estimate"


@pytest.mark.usefixtures("without_native")
def test_measure_prefers_the_faster_and_forgives_the_earlier(monkeypatch):
    times = {"aten": 1.0, "aten after other memory format": 2.0, "fft": 0.98, "gemm": 5.0}
    monkeypatch.setattr(measure_module, "interleaved", lambda runs, _: {name: [times[name]] * 3 for name in runs})
    assert measure_module.measure(LONG).engine == "aten"
    times["fft"] = 0.5
    plan = measure_module.measure(LONG)
    assert plan.engine == "fft"
    assert plan.chosen.measured == 0.5


def test_what_is_slow_only_at_its_first_call_is_timed_on(clock):
    clock.tick = 0.0
    calls = []

    def warming():
        calls.append(1)
        clock.sleep(0.05 if len(calls) == 1 else 0.001)

    times = measure_module.interleaved({"steady": lambda: clock.sleep(0.001), "warming": warming}, 0.0201)
    assert times["warming"] == pytest.approx([0.001] * 11)
    assert len(times["steady"]) == 11


def test_what_stays_slow_is_not_called_again(clock):
    clock.tick = 0.0
    times = measure_module.interleaved({"steady": lambda: clock.sleep(0.01), "slow": lambda: clock.sleep(0.06)}, 0.0)
    assert times["slow"] == pytest.approx([0.06])
    assert len(times["steady"]) == 1


def test_what_ran_before_is_not_warmed_up_again_unless_it_was_slow(clock):
    clock.tick = 0.0
    calls = {"steady": 0, "prepared": 0, "slow": 0}

    def takes(name, seconds):
        def run():
            calls[name] += 1
            clock.sleep(seconds)

        return run

    runs = {"steady": takes("steady", 0.01), "prepared": takes("prepared", 0.01), "slow": takes("slow", 0.08)}
    times = measure_module.interleaved(runs, 0.0, warm={"steady": 0.01, "prepared": 0.2, "slow": 0.2})
    assert calls == {"steady": 1, "prepared": 2, "slow": 1}
    assert {name: [round(t, 3) for t in found] for name, found in times.items()} == {
        "steady": [0.01],
        "prepared": [0.01],
        "slow": [0.08],
    }


def test_sampling_stops_when_the_order_is_certain(clock):
    clock.tick = 0.0

    def takes(seconds):
        return lambda: clock.sleep(seconds)

    runs = {"best": takes(0.010), "slower": takes(0.012), "close": takes(0.0107), "alike": takes(0.0101)}
    times = {name: len(found) for name, found in measure_module.interleaved(runs, 9.0).items()}
    assert times == {"best": 12, "slower": 3, "close": 8, "alike": 12}
    times = {name: len(found) for name, found in measure_module.interleaved(runs, 9.0, always="slower").items()}
    assert times["slower"] == times["best"] > 12  # is never dropped, and so there is something to tell apart to the end
    pair = {"best": takes(0.010), "slower": takes(0.02)}
    assert {name: len(found) for name, found in measure_module.interleaved(pair, 9.0).items()} == {"best": 5, "slower": 3}
    assert {name: len(found) for name, found in measure_module.interleaved(pair, 0.01).items()} == {"best": 1, "slower": 1}


def test_a_test_sees_no_time_and_no_rates_but_those_it_makes_up(tmp_path, monkeypatch):
    """What the clock of this machine says, or a cache of an earlier run, must not decide any test."""
    monkeypatch.setenv("NINEFOLD_CACHE", str(tmp_path))
    plans = [plan_problem(replace(LONG, threads=torch.get_num_threads()), "measure") for _ in range(2)]
    assert [plan.source for plan in plans] == ["measure", "cache"]
    assert plans[0].engine == next(c.engine for c in plans[0].candidates if c.measured is not None)
    assert all(c.measured is None or c.measured == pytest.approx(0.05) for c in plans[0].candidates)
    assert machine_for(LONG) == Machine()


@pytest.mark.usefixtures("without_native")
def test_printing_a_plan_says_everything():
    text = str(choose(LONG))
    for words in ("map c (output) of a 511 convolution, groups 64", "2x64x2048 -> 2x64x1538", "engine fft (estimate)", "--> fft"):
        assert words in text
    assert "no: " in text
    assert text.count("times the chosen one") >= 2


def test_plan_takes_layers_and_specs_and_says_what_does_not_fit():
    assert nf.plan(torch.nn.ConvTranspose2d(4, 6, 3, stride=2), (5, 7)).problem.map == "h"
    assert nf.plan(torch.nn.Conv1d(4, 6, 3), 20, map="g").problem.form.n_out == (18,)
    with pytest.raises(ValueError, match="spans 3 positions"):
        nf.plan(torch.nn.Conv1d(4, 6, 3), 2)


def test_check_finite_recomputes_directly():
    problem = Problem("c", ConvSpec(2, 2, (33,), groups=2).form(200), 1, finite=True)
    plan = choose(problem)
    fft = type(plan)(problem, "fft", plan.candidates, "estimate")
    x, w = torch.randn(1, 2, 200), torch.randn(2, 1, 33)
    x[0, 1, 100] = float("nan")
    out = prepare(fft)(w, x, None)
    expected = torch.conv1d(x, w, groups=2)
    assert torch.equal(out.isnan(), expected.isnan())
    assert not out[0, 0].isnan().any()
