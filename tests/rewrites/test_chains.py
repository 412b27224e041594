"""Chains of rewrites: their order and names, what they leave of traits and caps, and which problems now reach which engines."""

from dataclasses import replace

import pytest
import torch

from ninefold.engines import ENGINES, native
from ninefold.engines.final import Final
from ninefold.planning.choose import choose, judge
from ninefold.rewrites import DEPTH, REWRITES, after, engine_named, engine_names
from ninefold.spec import ConvSpec, Problem, random_table

NATIVE = pytest.mark.skipif(native.instruction_set() is None, reason="there is no native extension")
HALF = Problem("c", ConvSpec(24, 40, (3, 5), padding=2, padding_mode="reflect").form((20, 31)), 2, "bfloat16", tolerance=3e-2)


def test_names_say_the_chain_in_the_order_in_which_it_is_applied():
    engine = engine_named("winograd after conversion to float32, border written out")
    assert [rewrite.name for rewrite in engine.chain] == ["conversion to float32", "border written out"]
    assert engine.algorithm.name == "winograd"
    assert "winograd after border written out, conversion to float32" not in engine_names()
    assert max(len(engine_named(name).chain) for name in engine_names() if " after " in name) == DEPTH == 2


def test_a_chain_has_the_traits_that_all_of_it_has():
    for name in engine_names():
        if " after " in name:
            engine = engine_named(name)
            parts = [engine.algorithm, *engine.chain]
            for trait in ("plain_sums", "exact", "confines_nan", "deterministic"):
                assert getattr(engine.traits, trait) == all(getattr(part.traits, trait) for part in parts)


def test_every_engine_but_the_reference_serves_half_types():
    plain = Problem("c", ConvSpec(24, 40, (3, 5)).form((20, 31)), 2, "bfloat16", tolerance=3e-2)
    conversion = next(rewrite for rewrite in REWRITES if rewrite.refuses(plain) is None)
    assert conversion.name == "conversion to float32"
    found = {engine.algorithm.name for engine in after(conversion, plain)}
    assert found == {engine.name for engine in ENGINES} - {"reference"}


@NATIVE
@pytest.mark.parametrize(
    ("problem", "engine"),
    [
        (HALF, "implicit after conversion to float32"),
        (replace(HALF, map="h"), "winograd after conversion to float32, border written out"),
        (replace(HALF, map="h", dtype="float32", tolerance=1e-5), "implicit after border written out"),
        (
            Problem("c", ConvSpec(16, 24, (3, 3), padding=1, table=random_table(16, 24, 12)).form((17, 18)), 2),
            "winograd after table filled with zeros",
        ),
        (Problem("h", ConvSpec(8, 12, (5, 4), stride=2, padding=1).form((21, 18)), 2), "winograd after residues of the stride"),
    ],
    ids=["half", "half, mirrored, h", "mirrored, h", "table", "strided, h"],
)
def test_engines_serve_what_they_never_reached(problem, engine):
    found = engine_named(engine)
    assert found.algorithm.refuses(problem) is not None
    assert judge(found, problem).reason is None
    form, dtype = problem.form, getattr(torch, problem.dtype)
    torch.manual_seed(0)
    K, V, G = (
        torch.randn(s).to(dtype) for s in (form.weight_shape, form.input_shape(problem.batch), form.output_shape(problem.batch))
    )
    x = V if problem.map == "c" else G
    bias = torch.randn(form.channels.outputs if problem.map == "c" else form.channels.inputs).to(dtype)
    expected = engine_named("reference").prepare(replace(problem, dtype="float64"))(K.double(), x.double(), bias.double())
    allowed = 4 * problem.tolerance * float(expected.abs().max())
    for run in (found.prepare(problem), found.prepare(replace(problem, frozen=True), Final(K))):
        torch.testing.assert_close(run(K, x, bias).double(), expected, rtol=0, atol=allowed)
    rectified = found.prepare_with(problem, None, "relu")(K, x, bias).double()
    torch.testing.assert_close(rectified, expected.relu(), rtol=0, atol=allowed)


def test_what_is_kept_of_a_final_weight_is_made_once():
    spec = ConvSpec(3, 4, (3, 2), stride=2, padding=1)
    problem = Problem("h", spec.form((9, 8)), 2, frozen=True)
    weight = Final(torch.randn(spec.form((9, 8)).weight_shape))
    engine = engine_named("gemm after residues of the stride")
    first, bytes_ = engine.prepare(problem, weight), weight.nbytes
    second = engine.prepare(replace(problem, batch=3), weight)
    assert weight.nbytes == bytes_ > 0
    assert first is not second


def test_a_cap_counts_what_the_rewrite_holds():
    problem = replace(HALF, map="h", dtype="float32", tolerance=1e-5)
    engine = engine_named("gemm after border written out")
    held = engine.rewrite.scratch(problem)
    assert engine.rewrite.inner(replace(problem, max_scratch=held + 5000))[0].max_scratch == 5000
    assert "bytes of scratch" in judge(engine, replace(problem, max_scratch=held - 1)).reason


def test_a_rewrite_that_takes_longer_than_the_fastest_engine_is_not_searched():
    plan = choose(Problem("c", ConvSpec(4, 4, 3, padding=1).form((40, 41)), 8, threads=2))
    reason = next(c.reason for c in plan.candidates if c.engine == "other memory format")
    assert "it alone takes" in reason
    assert "without it" in reason


def test_a_pickled_form_is_found_in_a_process_that_hashes_differently(tmp_path):
    import pickle
    import subprocess
    import sys

    path = tmp_path / "problem"
    path.write_bytes(pickle.dumps((hash(HALF), HALF)))
    code = f"import pickle; h, p = pickle.load(open({str(path)!r}, 'rb')); import dataclasses; print(hash(p) == hash(dataclasses.replace(p)), p.form in {{dataclasses.replace(p).form}})"
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "7", **__import__("os").environ},
    )
    assert out.stdout.split() == ["True", "True"]
