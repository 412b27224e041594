"""The native extension as a whole: instruction sets, threads, forks, and life without it."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import ninefold as nf
from ninefold.engines import native
from ninefold.engines.direct import Direct
from ninefold.errors import ArgumentError
from ninefold.ops import PlannedCall
from ninefold.ops.executor import EXECUTORS
from ninefold.rewrites import engine_named
from ninefold.settings import Options
from ninefold.spec import ConvSpec
from ninefold.spec.problem import Problem

ROOT = Path(__file__).parents[2]
needs_extension = pytest.mark.skipif(native.instruction_set() is None, reason="1 native extension is needed, none was built")


def python(code, **environment):
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=os.environ | environment)


@needs_extension
@pytest.mark.parametrize("isa", native.extension_module().isas() if native.instruction_set() else [])
def test_every_instruction_set_passes_a_short_fuzz(isa):
    done = python(
        "import runpy, sys; sys.argv = ['fuzz', '--cases', '400']; runpy.run_path('tests/fuzz.py', run_name='__main__')",
        NINEFOLD_ISA=isa,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"on {isa}" in done.stdout


@pytest.mark.skipif(shutil.which("c++") is None, reason="0 compilers are installed")
def test_where_there_is_a_compiler_the_extension_was_built():
    assert native.instruction_set() is not None, native.unavailable(Problem("c", ConvSpec(8, 8, 3).form((13, 17)), 1))


@needs_extension
def test_a_wrong_instruction_set_is_said():
    done = python("import ninefold as nf; nf.plan(nf.ConvSpec(2, 3, 3), (9, 8))", NINEFOLD_ISA="avx3")
    assert "ArgumentError: NINEFOLD_ISA='avx3' is not one that this build and this processor have: baseline" in done.stderr


@pytest.mark.usefixtures("without_native")
def test_without_the_extension_everything_still_works():
    plan = nf.plan(ConvSpec(8, 8, (3, 3), groups=8), (13, 17))
    assert plan.engine == "aten"
    reason = plan.standing("direct").reason
    assert reason is not None
    assert "0 native kernels are installed (No module named 'ninefold._native')" in reason
    with pytest.raises(ImportError, match="built without its native extension"):
        native.extension_module()


def test_other_devices_and_dtypes_are_refused_in_words():
    form = ConvSpec(8, 8, (3, 3), groups=8).form((13, 17))
    assert "not on cuda:any" in native.unavailable(Problem("c", form, 2, device="cuda:any"))
    assert "not int32" in native.unavailable(Problem("c", form, 2, "int32"))


LAYERS = {"direct": ConvSpec(64, 64, (5, 3), padding=(2, 1), groups=64)}
LAYERS |= dict.fromkeys(("implicit", "winograd"), ConvSpec(24, 40, (5, 3), padding=(2, 1)))


def layer(engine, threads=2):
    form = LAYERS[engine].form((67, 93))
    problem = Problem("c", form, 3, threads=threads)
    torch.manual_seed(0)
    return engine_named(engine).prepare(problem), torch.randn(form.weight_shape), torch.randn(form.input_shape(3))


@needs_extension
@pytest.mark.parametrize("engine", LAYERS)
def test_several_python_threads_at_once(engine):
    run, K, V = layer(engine)
    expected = run(K, V, None)
    torch.testing.assert_close(expected, torch.conv2d(V, K, padding=(2, 1), groups=LAYERS[engine].groups), rtol=1e-3, atol=1e-3)
    results = [None] * 6

    def work(k):
        for _ in range(5):
            results[k] = run(K, V, None)

    workers = [threading.Thread(target=work, args=(k,)) for k in range(len(results))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for result in results:
        torch.testing.assert_close(result, expected, rtol=0, atol=0)


def _child(run, K, V, expected, answer):
    signal.alarm(600)  # ends a child that hangs, and no other, however busy the machine is
    answer.put(bool((run(K, V, None).numpy() == expected.numpy()).all()))  # nothing of torch's own pool is asked for


@needs_extension
@pytest.mark.skipif(not hasattr(os, "fork"), reason="1 system call, fork, is missing here")
@pytest.mark.parametrize("engine", LAYERS)
def test_a_forked_child_runs_on_one_thread_and_ends(engine):
    run, K, V = layer(engine)
    expected = run(K, V, None)  # the thread pool is up
    context = multiprocessing.get_context("fork")
    answer = context.Queue()
    child = context.Process(target=_child, args=(run, K, V, expected, answer))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert answer.get()


@needs_extension
def test_an_error_of_the_environment_is_ours():
    native.instruction_set.cache_clear()
    os.environ["NINEFOLD_ISA"], before = "sse1", os.environ.get("NINEFOLD_ISA")
    try:
        with pytest.raises(ArgumentError, match="NINEFOLD_ISA='sse1'"):
            native.instruction_set()
    finally:
        if before is None:
            del os.environ["NINEFOLD_ISA"]
        else:
            os.environ["NINEFOLD_ISA"] = before
        native.instruction_set.cache_clear()


@needs_extension
def test_positions_beyond_two_to_the_31_are_reached():
    """Memory that is never touched costs nothing: of four gigabytes of zeros a stride of two million reads little."""
    V = torch.from_numpy(np.zeros((1, 1, 2**31 + 5), np.int16)).view(torch.bfloat16)  # torch.zeros would write them
    V[..., -5:] = torch.tensor([3.0, -5.0, 7.0, 11.0, 13.0])
    K = torch.tensor([[[1.0, 2.0, 4.0]]], dtype=torch.bfloat16)
    bound = PlannedCall(ConvSpec(1, 1, (3,), stride=2**21), Options()).bind(V, K)
    Z = Direct().prepare(bound.problem("c"))(K, V, None)
    assert Z.shape == (1, 1, 1025)
    assert (Z[0, 0, -1].item(), Z[0, 0, :-1].count_nonzero().item()) == (3.0 - 10.0 + 28.0, 0)
    G = torch.zeros_like(Z)
    G[..., -1] = 2.0
    D = Direct().prepare(bound.problem("g"))(V, G, None)
    assert D.flatten().tolist() == [6.0, -10.0, 14.0]


@needs_extension
def test_products_reach_positions_beyond_two_to_the_31():
    V = torch.from_numpy(np.zeros((1, 2, 2**30 + 5), np.float32))
    V[..., -5:] = torch.tensor([[3.0, -5.0, 7.0, 11.0, 13.0], [1.0, 2.0, -3.0, 5.0, 8.0]])
    K = torch.tensor([[[1.0, 2.0, 4.0], [-1.0, 3.0, 2.0]]])
    bound = PlannedCall(ConvSpec(2, 1, (3,), stride=2**20), Options()).bind(V, K)
    engine = engine_named("implicit")
    assert engine.refuses(bound.problem("c")) is None
    Z = engine.prepare(bound.problem("c"))(K, V, None)
    assert (Z[0, 0, -1].item(), Z[0, 0, :-1].count_nonzero().item()) == (3.0 - 10.0 + 28.0 - 1.0 + 6.0 - 6.0, 0)
    G = torch.zeros_like(Z)
    G[..., -1] = 2.0
    D = engine.prepare(bound.problem("g"))(V, G, None)
    assert D.flatten().tolist() == [6.0, -10.0, 14.0, 2.0, 4.0, -6.0]


@needs_extension
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_both_gradients_of_a_large_depthwise_layer_are_made_together(monkeypatch, last, dtype):
    spec = ConvSpec(5, 5, (3, 4), padding=((1, 0), (2, 1)), stride=(1, 2), groups=5)
    form = spec.form((11, 13))
    h, g = (Problem(m, form, 7, dtype, channels_last=last) for m in ("h", "g"))
    engine = engine_named("direct")
    assert engine.prepare_pair(h, g) is None  # all of it is in the cache
    monkeypatch.setattr("ninefold.engines.direct._SHARED", h.bytes - 1)  # two images at a time, and one that is left
    pair = engine.prepare_pair(h, g)
    torch.manual_seed(0)
    K, V, G = (
        torch.randn(s, dtype=getattr(torch, dtype)) for s in (form.weight_shape, form.input_shape(7), form.output_shape(7))
    )
    R, D = pair(K, V, G)
    torch.testing.assert_close(R, engine.prepare(h)(K, G, None), rtol=0, atol=0)
    torch.testing.assert_close(D, engine.prepare(g)(V, G, None))
    for other in (replace(h, max_scratch=1 << 20), replace(h, dtype="bfloat16")):
        assert engine.prepare_pair(other, g) is None


@needs_extension
def test_a_backward_pass_makes_both_gradients_together_and_a_second_one_does_not(monkeypatch):
    asked = []

    def prepare_pair(self, h, g):
        runs = self.prepare(h), self.prepare(g)

        def pair(K, V, G):
            asked.append(len(V))
            return runs[0](K, G, None), runs[1](V, G, None)

        return pair

    monkeypatch.setattr(type(engine_named("direct")), "prepare_pair", prepare_pair)
    site = PlannedCall(ConvSpec(4, 4, 3, groups=4))
    x, w = torch.randn(3, 4, 9, 10, requires_grad=True), torch.randn(4, 1, 3, 3, requires_grad=True)
    EXECUTORS.clear()
    bound = site.bind(x, w)
    for map_ in ("c", "h", "g"):
        plan = bound.plan(map_)
        bound._plans[map_] = type(plan)(plan.problem, "direct", plan.candidates, "estimate")
    out = bound.apply("c", w, x).square().sum()
    first = torch.autograd.grad(out, (x, w), create_graph=True)
    assert asked == []
    again = torch.autograd.grad(bound.apply("c", w, x).square().sum(), (x, w))
    assert asked == [3]
    torch.autograd.grad(bound.apply("c", w, x.detach()).square().sum(), w)
    assert asked == [3]
    for a, b in zip(first, again, strict=True):
        torch.testing.assert_close(a, b)
    EXECUTORS.clear()
