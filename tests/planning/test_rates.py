"""The machine's rates: measured by a clock that is made up, stored once, and what estimates are made of."""

import json
import multiprocessing
import sqlite3
import warnings
from dataclasses import astuple, replace
from itertools import count

import pytest
import torch

import ninefold as nf
from ninefold.engines.machine import Machine
from ninefold.errors import ArgumentError, ArgumentTypeError, CacheWarning, CalibrationError, PlanFileError
from ninefold.planning import cache as cache_module
from ninefold.planning import cost, decide, plan_problem, rates
from ninefold.planning.cache import PlanCache, plan_cache
from ninefold.planning.choose import choose
from ninefold.planning.cost import machine_for
from ninefold.planning.rates import measured_rates, unlikely
from ninefold.spec import ConvSpec, Problem

MINE = Machine(product=7e10, stream=3e10, transform=5e9, call=2e-6)
SLOW = Machine(product=4e9, stream=2e9, transform=3e8, call=3e-5)
LONG = Problem("c", ConvSpec(64, 64, (511,), groups=64).form(2048), 2, threads=2)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("NINEFOLD_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def turns(monkeypatch):
    """Runs that take what `seconds` says in turn, on `share` of two processors."""

    class Clock:
        def __init__(self):
            self.now, self.cpu, self.share = 0.0, 0.0, 2.0
            self.seconds = {"product": [0.02], "stream": [0.01], "transform": [0.004], "call": [0.001]}
            self.amounts = {"product": 1e9, "stream": 3e8, "transform": 2e7, "call": 300.0}
            self.calls = dict.fromkeys(self.seconds, 0)

        def run(self, name):
            taken = self.seconds[name][self.calls[name] % len(self.seconds[name])]
            self.calls[name] += 1
            self.now += taken
            self.cpu += taken * self.share

    it = Clock()
    monkeypatch.setattr(rates, "perf_counter", lambda: it.now)
    monkeypatch.setattr(rates, "process_time", lambda: it.cpu)
    monkeypatch.setattr(rates, "_runs", lambda: {name: (lambda n=name: it.run(n), amount) for name, amount in it.amounts.items()})
    return it


def test_each_rate_is_that_of_the_median_run_in_turns(turns):
    turns.seconds["product"] = [0.5, 0.02, 0.02, 0.02, 0.9]  # whoever runs first or is disturbed is not what counts
    found = measured_rates(2, seconds=0.3)
    assert astuple(found) == pytest.approx((1e9 / 0.02, 3e8 / 0.01, 2e7 / 0.004, 0.001 / 300))
    assert len(set(turns.calls.values())) == 1


def test_rounds_go_on_for_about_the_time_that_is_given(turns):
    measured_rates(2, seconds=0.35)
    assert turns.calls["call"] == 2 + 10
    measured_rates(2, seconds=0.0)
    assert turns.calls["call"] == 12 + 2 + 5
    measured_rates(2, seconds=1e9)
    assert turns.calls["call"] == 19 + 2 + 60


def test_what_is_really_run_is_work_of_the_amount_that_is_stated(monkeypatch):
    threads, real, times = 2, rates._runs, count()
    monkeypatch.setattr(rates, "perf_counter", lambda: 0.02 * next(times))
    monkeypatch.setattr(rates, "process_time", lambda: 0.02 * threads * next(times))
    assert unlikely(measured_rates(threads, seconds=0.01), threads) is None
    for run, amount in real().values():
        run()
        assert amount > 0


def test_a_busy_moment_gives_no_rates(turns):
    turns.share = 1.4
    with pytest.raises(CalibrationError, match="2 threads had 70% of the processor time"):
        measured_rates(2)
    assert turns.calls["product"] == 2 + 5  # and is noticed early
    turns.share = 0.9
    assert measured_rates(1).product == pytest.approx(5e10)


@pytest.mark.parametrize(
    ("name", "amount", "words"),
    [
        ("product", 1e15, "product=5e\\+16 per second of 2 threads is not between 2e\\+08 and 2e\\+12"),
        ("stream", 1.0, "stream=100 per second"),
        ("transform", 1e-3, "transform=0.25 per second"),
        ("call", 1e-9, "call=1e\\+06 seconds"),
    ],
)
def test_rates_that_no_machine_has_are_refused_with_the_limits(turns, name, amount, words):
    turns.amounts = turns.amounts | {name: amount}
    with pytest.raises(CalibrationError, match=words):
        measured_rates(2)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 0.0, None, "fast"])
def test_no_number_is_no_rate(value):
    assert "stream" in unlikely(replace(MINE, stream=value), 2)


def test_rates_are_stored_for_other_processes_by_threads_and_machine(folder, monkeypatch):
    plan_cache().put_rates({2: MINE, 1: SLOW})
    anew = PlanCache(plan_cache().path)
    assert anew.rates() == {1: SLOW, 2: MINE}
    monkeypatch.setattr(cache_module, "_machine", lambda: "another processor")
    assert PlanCache(plan_cache().path).rates() == {}
    assert plan_cache().clear() == 0
    assert plan_cache().rates() == {}


def test_estimates_use_what_was_measured_with_as_many_threads(folder):
    before = {c.engine: c.cost for c in choose(LONG).candidates}
    plan_cache().put_rates({2: MINE})
    assert machine_for(LONG) == MINE
    after = {c.engine: c.cost for c in choose(LONG).candidates}
    assert before != after
    halves = machine_for(replace(LONG, threads=1))
    assert astuple(halves) == pytest.approx((3.5e10, 1.5e10, 2.5e9, 2e-6))
    plan_cache().put_rates({1: SLOW})
    assert machine_for(replace(LONG, threads=1)) == SLOW  # measured, not halved
    assert machine_for(replace(LONG, threads=8)).product == pytest.approx(4 * MINE.product)
    assert machine_for(replace(LONG, threads=8)).stream == pytest.approx(1.5 * MINE.stream)
    assert machine_for(replace(LONG, dtype="float64")).product == pytest.approx(MINE.product / 2)
    assert machine_for(replace(LONG, device="cuda:some")) == Machine()


def test_without_a_measurement_the_constants_serve(folder):
    assert machine_for(LONG) == Machine()
    assert machine_for(replace(LONG, threads=1)).stream == pytest.approx(Machine().stream / 2)
    assert not (folder / "plans.sqlite").exists()


def short(threads=None):
    form = ConvSpec(3, 4, (2, 3)).form((8, 9))
    return Problem("c", form, 2, threads=threads or torch.get_num_threads())


def test_the_first_measurement_calibrates_and_no_estimate_does(folder, monkeypatch):
    asked = []
    monkeypatch.setattr(cost, "measured_rates", lambda threads: asked.append(threads) or MINE)
    plan_problem(short())
    assert asked == []
    plan_problem(short(), "measure")
    assert asked == [torch.get_num_threads()]
    plan_problem(replace(short(), batch=3), "measure")
    assert PlanCache(plan_cache().path).rates() == {torch.get_num_threads(): MINE}
    assert len(asked) == 1


def test_neither_does_one_for_threads_that_are_not_in_use(folder, monkeypatch):
    monkeypatch.setattr(cost, "measured_rates", lambda _: pytest.fail("measured"))
    plan_problem(short(threads=torch.get_num_threads() + 3), "measure")
    assert plan_cache().rates() == {}


def test_a_busy_machine_keeps_the_constants_and_is_asked_once_in_a_process(folder, monkeypatch):
    asked = []

    def busy(threads):
        asked.append(threads)
        raise CalibrationError("busy")

    monkeypatch.setattr(cost, "measured_rates", busy)
    for batch in (2, 3, 4):
        assert plan_problem(replace(short(), batch=batch), "measure").source == "measure"
    assert len(asked) == 1
    assert plan_cache().rates() == {}


def test_calibrate_measures_each_number_of_threads_and_puts_the_own_back(folder, monkeypatch, request):
    before = torch.get_num_threads()
    seen = []
    monkeypatch.setattr(cost, "measured_rates", lambda threads: seen.append((threads, torch.get_num_threads())) or MINE)
    assert nf.calibrate([1, 3, 1]) == {1: MINE, 3: MINE}
    assert seen == [(1, 1), (3, 3)]
    assert torch.get_num_threads() == before
    request.addfinalizer(lambda: torch.set_num_threads(before))  # six are "put back" for real
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    assert list(nf.calibrate()) == [1, 2, 4, 6]
    assert list(nf.calibrate(2)) == [2]
    assert set(plan_cache().rates()) == {1, 2, 3, 4, 6}


def test_a_calibration_that_fails_tries_again_and_then_changes_nothing(folder, monkeypatch):
    answers = iter([CalibrationError("busy"), MINE, CalibrationError("a"), CalibrationError("b"), CalibrationError("last")])

    def measure(_):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    before = torch.get_num_threads()
    monkeypatch.setattr(cost, "measured_rates", measure)
    with pytest.raises(CalibrationError, match="last"):
        nf.calibrate([1, 2])
    assert torch.get_num_threads() == before
    assert plan_cache().rates() == {}


@pytest.mark.parametrize(
    ("threads", "error"), [(0, ArgumentError), ([2, -1], ArgumentError), (1.5, TypeError), ("two", ArgumentTypeError)]
)
def test_what_is_no_number_of_threads_is_refused(folder, threads, error):
    with pytest.raises(error):
        nf.calibrate(threads)


def test_the_stamp_is_that_of_the_rates_this_process_plans_by(folder):
    first = plan_cache().stamp()
    plan_cache().put_rates({2: MINE})
    second = plan_cache().stamp()
    assert first != second
    other = PlanCache(plan_cache().path)
    assert other.stamp() == second
    other.put_rates({2: SLOW})
    assert plan_cache().stamp() == second
    assert plan_cache().rates() == {2: MINE}
    assert PlanCache(plan_cache().path).stamp() == other.stamp() != second


def test_what_another_process_measured_meanwhile_is_kept(folder):
    mine, other = PlanCache(folder / "plans.sqlite"), PlanCache(folder / "plans.sqlite")
    assert mine.rates() == {}
    other.put_rates({2: SLOW}, keep=True)
    mine.put_rates({2: MINE}, keep=True)
    assert mine.rates() == {2: SLOW}
    mine.put_rates({2: MINE})
    assert PlanCache(mine.path).rates() == {2: MINE}


@pytest.mark.parametrize("how", ["damaged", "locked"])
def test_a_file_that_cannot_be_used_costs_one_warning_and_the_rates_stay_in_memory(folder, monkeypatch, how):
    path = folder / "plans.sqlite"
    if how == "damaged":
        path.write_bytes(b"this is no database, whatever its name says" * 50)
    else:
        PlanCache(path).put_rates({1: SLOW})
        monkeypatch.setattr(cache_module, "PATIENCE", 0.01)
        blocker = sqlite3.connect(path)
        blocker.execute("BEGIN EXCLUSIVE")
    cache = PlanCache(path)
    with pytest.warns(CacheWarning) as caught:
        cache.put_rates({2: MINE})
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cache.rates() == {2: MINE}
        cache.stamp()
    if how == "locked":
        blocker.close()


def test_a_file_with_one_of_the_tables_only_is_no_damage(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for table, statement in (("plans", cache_module._PLANS), ("rates", cache_module._RATES), ("none", None)):
            path = folder / f"{table}.sqlite"
            with sqlite3.connect(path) as db:
                if statement:
                    db.execute(statement)
            db.close()
            path.touch()
            cache = PlanCache(path)
            assert (cache.rates(), cache.rows(), cache.get(short())) == ({}, [], None)
            cache.stamp()
            cache.put_rates({2: MINE})
            cache.put(short(), "aten", {})
            assert PlanCache(path).get(short())[0] == "aten"
            assert PlanCache(path).rates() == {2: MINE}


def test_stored_rates_that_no_machine_has_are_not_used(folder):
    cache = plan_cache()
    cache.put_rates({2: MINE, 1: SLOW})
    with sqlite3.connect(cache.path) as db:
        db.execute("UPDATE rates SET stream = 'fast' WHERE threads = 2")
    db.close()
    assert PlanCache(cache.path).rates() == {1: SLOW}


def store(path, threads):
    cache_module.PATIENCE = 600.0
    for k in range(20):
        PlanCache(path).put_rates({threads: replace(MINE, call=(1 + k) / 1e6)})


def test_two_processes_store_at_once(folder):
    path = folder / "plans.sqlite"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=store, args=(path, threads)) for threads in (1, 2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert {threads: machine.call for threads, machine in PlanCache(path).rates().items()} == {1: 2e-5, 2: 2e-5}


def test_an_exported_file_has_the_rates_too_so_that_every_process_estimates_alike(folder, tmp_path):
    plan_cache().put_rates({2: MINE})
    target = tmp_path / "plans.json"
    nf.export_plans(target)
    plan_cache().clear()
    plan_cache().put_rates({2: SLOW})
    nf.load_plans(target)
    assert machine_for(LONG) == MINE
    plan_cache().clear()
    assert machine_for(LONG) == Machine()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"2": [1e10, 1e10, 1e9]}, "4 rates"),
        ({"2": [1e10, 1e10, 1e9, 5.0]}, "call=5 seconds"),
        ([1], "no numbers"),
        ({"x": []}, "no numbers"),
    ],
)
def test_rates_of_a_file_are_looked_at_and_a_bad_one_changes_nothing(folder, given, words):
    path = folder / "plans.json"
    path.write_text(json.dumps({"format": "ninefold-plans-1", "plans": {short().key: "gemm"}, "rates": given}))
    with pytest.raises(PlanFileError, match=words):
        nf.load_plans(path)
    assert plan_cache().loaded == {}
    assert plan_cache().rates() == {}


def test_rates_print_with_units():
    assert str(MINE) == "70.0 G multiply-adds/s, 30.0 GB/s copied, 5.00 G elements x log2(length)/s transformed, 2.0 us a call"


def test_decide_calibrates_before_it_measures(folder, monkeypatch):
    order = []
    monkeypatch.setattr(decide, "calibrate_once", lambda _: order.append("rates"))
    real = decide.measure
    monkeypatch.setattr(decide, "measure", lambda *given: order.append("plans") or real(*given))
    plan_problem(short(), "measure")
    assert order == ["rates", "plans"]
