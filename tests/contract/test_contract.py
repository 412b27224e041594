"""Every engine, every map, every named shape that it does not refuse; nothing here knows an engine."""

import re
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ninefold.engines import ENGINES
from ninefold.testing import CHECKS, check_against_reference, check_dot, load_shapes, refusal
from ninefold.testing.strategies import shapes as drawn_shapes

SHAPES = [shape for shape in load_shapes(Path(__file__).parents[2] / "bench" / "shapes") if shape.contract]
MAPS = ("c", "h", "g")
# shapes on the outside: what the definition gives for one is remembered for all engines
PROBLEMS = [(shape, map_, engine) for shape in SHAPES for map_ in shape.maps for engine in ENGINES]


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


@pytest.mark.parametrize("map_", MAPS)
def test_every_shape_runs_somewhere_and_every_engine_runs_something(map_):
    """The reference accepts everything; an engine that refuses all of a map says so for the map, not by accident."""
    accepted = {engine.name: [s.name for s in SHAPES if refusal(engine, map_, s) is None] for engine in ENGINES}
    assert accepted[ENGINES[-1].name] == [s.name for s in SHAPES]
    assert all(any(refusal(engine, m, s) is None for m in MAPS for s in SHAPES) for engine in ENGINES)
