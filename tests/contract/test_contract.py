"""Every engine, every map, every named shape that it does not refuse; nothing here knows an engine."""

import re
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ninefold.engines import ENGINES
from ninefold.rewrites import REWRITES, after, engine_named
from ninefold.testing import CHECKS, check_against_reference, check_dot, load_shapes, refusal
from ninefold.testing.strategies import shapes as drawn_shapes

SHAPES = [shape for shape in load_shapes(Path(__file__).parents[2] / "bench" / "shapes") if shape.contract]
MAPS = ("c", "h", "g")
# shapes on the outside: what the definition gives for one is remembered for all engines
REWRITTEN = [
    engine_named(name)
    for name in (
        "aten after conversion to float32",
        "gemm after conversion to float32, channel clusters",
        "aten after border written out",
        "direct after border written out",
        "aten after channel clusters",
        "aten after table filled with zeros",
        "gemm after border written out, table filled with zeros",
        "aten after border written out, residues of the tile",
        "aten after border written out, phases as channels",
        "implicit after residues of the stride",
        "aten after other memory format",
    )
]
"""Every rewrite with an engine that takes what it leaves; `test_any_engine_after_any_rewrite` draws the others."""

PROBLEMS = [
    pytest.param(shape, map_, engine, marks=[pytest.mark.native] if engine.native else [])
    for shape in SHAPES
    for map_ in shape.maps
    for engine in (*ENGINES, *REWRITTEN)
]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("shape", "map_", "engine"), PROBLEMS, ids=lambda x: getattr(x, "name", x))
def test_contract(shape, map_, engine, contract_counts, error_ratios):
    reason = refusal(engine, map_, shape)
    if reason is not None:
        contract_counts[engine.name, map_, "refused"] += 1
        assert re.search(r"\d", reason), f"a refusal says the numbers: {reason!r}"
        assert len(reason.split()) >= 4, f"a refusal is a sentence: {reason!r}"
        return
    contract_counts[engine.name, map_, "run"] += 1
    for check in CHECKS:
        outcome = check(engine, map_, shape)
        contract_counts[engine.name, map_, "runs"] += outcome.runs
        for dtype, ratio in outcome.ratios.items():
            error_ratios[engine.name, dtype] = max(ratio, error_ratios.get((engine.name, dtype), 0.0))


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn_shapes(), st.sampled_from(MAPS))
def test_drawn_shapes(shape, map_):
    for engine in ENGINES:
        check_against_reference(engine, map_, shape)
        check_dot(engine, map_, shape)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn_shapes(), st.sampled_from(MAPS), st.sampled_from(["float32", "float64", "bfloat16"]), st.data())
def test_any_engine_after_any_rewrite(shape, map_, dtype, data):
    problem = shape.problem(map_, dtype=dtype)
    rewrites = [rewrite for rewrite in REWRITES if rewrite.refuses(problem) is None]
    taking = [e for rewrite in rewrites for e in after(rewrite, problem) if e.refuses(problem) is None]
    if taking:
        engine = data.draw(st.sampled_from(taking), label="engine")
        check_against_reference(engine, map_, shape)
        check_dot(engine, map_, shape)


def test_rewrites_that_the_contract_runs_are_all_of_them():
    assert {rewrite.name for engine in REWRITTEN for rewrite in engine.chain} == {rewrite.name for rewrite in REWRITES}


@pytest.mark.parametrize("map_", MAPS)
def test_the_reference_runs_every_shape(map_):
    assert [s.name for s in SHAPES if refusal(ENGINES[-1], map_, s) is not None] == []


def test_every_engine_runs_something():
    """An engine that refuses all of a map says so for the map, not by accident."""
    assert all(any(refusal(engine, m, s) is None for m in MAPS for s in SHAPES) for engine in ENGINES)
