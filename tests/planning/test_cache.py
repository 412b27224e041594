import json
import multiprocessing
import os
import sqlite3
import warnings

import pytest
import torch

import ninefold as nf
from ninefold import storing
from ninefold.errors import CacheWarning, PlanFileError
from ninefold.ops import PlannedCall
from ninefold.planning import cache as cache_module
from ninefold.planning import make_problem, plan_problem
from ninefold.planning.cache import PlanCache, plan_cache
from ninefold.settings import Options
from ninefold.spec import ConvSpec


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("NINEFOLD_CACHE", str(tmp_path))
    return tmp_path


def problem(width=9):
    form = ConvSpec(3, 4, (2, 3)).form((8, width))
    return make_problem("c", form, 2, torch.float32, torch.device("cpu"), Options())


def test_a_measurement_is_remembered_across_processes(folder):
    measured = plan_problem(problem(), "measure")
    assert measured.source == "measure"
    assert plan_problem(problem()).source == "cache"
    anew = PlanCache(plan_cache().path)
    engine, seconds, _ = anew.get(problem())
    assert engine == measured.engine
    assert set(seconds) >= {"aten", engine}


def test_what_is_known_is_preferred_but_never_against_a_refusal(folder):
    cache = plan_cache()
    cache.put(problem(), "gemm", {"gemm": 1e-6})
    assert plan_problem(problem()).engine == "gemm"
    cache.put(problem(), "separable", {"separable": 1e-6})
    assert plan_problem(problem()).engine != "separable"
    cache.put(problem(), "an engine of the future", {})
    assert plan_problem(problem()).source == "estimate"


def test_the_stamp_changes_with_what_may_be_planned_and_not_with_what_is_read(folder):
    stamps = [plan_cache().stamp()]
    plan_problem(problem(), "measure")
    stamps.append(plan_cache().stamp())
    anew = PlanCache(plan_cache().path)
    assert anew.get(problem()) is not None
    assert anew.stamp() == stamps[-1]
    plan_cache().put(problem(), "gemm", {"gemm": 1e-6})
    stamps.append(plan_cache().stamp())
    plan_cache().loaded[problem().key] = "fft"
    stamps.append(plan_cache().stamp())
    plan_cache().loaded.clear()
    assert len(set(stamps)) == 4


def test_the_file_is_bounded_and_the_least_recently_used_go_first(folder, monkeypatch):
    monkeypatch.setattr(cache_module, "LIMIT", 3)
    clock = iter(range(100))
    monkeypatch.setattr(cache_module.time, "time", lambda: float(next(clock)))
    cache = PlanCache(folder / "plans.sqlite")
    for width in (9, 10, 11):
        cache.put(problem(width), "aten", {})
    assert PlanCache(cache.path).get(problem(9)) is not None  # used again: 10 is now the oldest
    cache.put(problem(12), "aten", {})
    fresh = PlanCache(cache.path)
    assert len(fresh.rows()) == 3
    assert fresh.get(problem(10)) is None
    assert fresh.get(problem(9)) is not None
    assert len(cache._memory) <= 3


def damage(path):
    path.write_bytes(b"this is no database, whatever its name says" * 50)


@pytest.mark.parametrize("how", ["damaged", "locked", "folder"])
def test_a_cache_that_cannot_be_used_costs_one_warning(folder, monkeypatch, how):
    path = folder / "plans.sqlite"
    blocker = None
    if how == "damaged":
        damage(path)
    elif how == "locked":
        PlanCache(path).put(problem(20), "aten", {})
        monkeypatch.setattr(cache_module, "PATIENCE", 0.01)
        blocker = sqlite3.connect(path)
        blocker.execute("BEGIN EXCLUSIVE")
    else:
        path.mkdir()
    before = path.read_bytes() if path.is_file() else None
    cache = PlanCache(path)
    with pytest.warns(CacheWarning, match="plans are kept in memory") as caught:
        cache.put(problem(), "gemm", {"gemm": 1.0})
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cache.get(problem())[0] == "gemm"
        cache.put(problem(11), "aten", {})
        assert cache.get(problem(11))[0] == "aten"
    if blocker is not None:
        blocker.rollback()
        blocker.close()
    if before is not None:
        assert path.read_bytes() == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes to read-only folders")
def test_a_read_only_folder_costs_one_warning(folder):
    folder.chmod(0o500)
    with pytest.warns(CacheWarning):
        PlanCache(folder / "plans.sqlite").put(problem(), "aten", {})
    folder.chmod(0o700)


def test_a_folder_that_cannot_be_made_costs_one_warning_and_no_result(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("NINEFOLD_CACHE", str(tmp_path / "file" / "cache"))
    x, w = torch.randn(1, 3, 8, 9), torch.randn(4, 3, 2, 3)
    with nf.options(mode="measure"), pytest.warns(CacheWarning, match="NINEFOLD_CACHE"):
        out = PlannedCall(ConvSpec(3, 4, (2, 3)))(x, w)
    torch.testing.assert_close(out, torch.conv2d(x, w))
    assert (tmp_path / "file").read_text() == "in the way"


def test_clear_mends_a_damaged_file(folder):
    damage(folder / "plans.sqlite")
    cache = PlanCache(folder / "plans.sqlite")
    with pytest.warns(CacheWarning):
        assert cache.clear() == 0
    cache.put(problem(), "aten", {})
    assert len(cache.rows()) == 1


def write_many(path, start):
    cache_module.PATIENCE = 600.0
    cache = PlanCache(path)
    for width in range(start, start + 20):
        cache.put(problem(width), "aten", {"aten": 1.0})


def test_two_processes_write_at_once(folder):
    path = folder / "plans.sqlite"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=write_many, args=(path, start)) for start in (10, 40)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert len(PlanCache(path).rows()) == 40


def test_export_and_load(folder, tmp_path):
    plan_cache().put(problem(), "gemm", {"gemm": 1e-6})
    target = tmp_path / "plans.json"
    assert nf.export_plans(target) == 1
    plan_cache().clear()
    assert plan_problem(problem()).source == "estimate"
    assert nf.load_plans(target) == 1
    plan = plan_problem(problem())
    assert (plan.engine, plan.source) == ("gemm", "file")
    plan_cache().clear()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("not json", "cannot read plans"),
        ('{"format": "other"}', "is no plan file"),
        ('{"format": "ninefold-plans-1", "plans": {"a": "warp"}}', "warp"),
        ("[]", "is no plan file"),
    ],
)
def test_a_bad_plan_file_is_one_sentence_and_changes_nothing(folder, text, words):
    path = folder / "plans.json"
    path.write_text(text)
    with pytest.raises(PlanFileError, match=words):
        nf.load_plans(path)
    assert plan_cache().loaded == {}
    with pytest.raises(PlanFileError, match="cannot read"):
        nf.load_plans(folder / "gone.json")


def test_an_export_that_fails_leaves_the_old_file(folder, monkeypatch):
    target = folder / "plans.json"
    target.write_text(json.dumps({"old": True}))

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storing.os, "fsync", full)
    with pytest.raises(PlanFileError, match="No space left"):
        nf.export_plans(target)
    assert json.loads(target.read_bytes()) == {"old": True}


def test_ever_new_sizes_do_not_grow_memory_without_bound(folder):
    site = PlannedCall(ConvSpec(2, 3, (3,)))
    w = torch.randn(3, 2, 3)
    for width in range(5, 700):
        site(torch.zeros(1, 2, width), w)
    assert len(site._runs) <= 256
    assert not (folder / "plans.sqlite").exists()
