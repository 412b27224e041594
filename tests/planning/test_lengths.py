"""What planning costs does not depend on how long an axis is, and what is kept of many lengths stays under a budget of bytes."""

import sys
import tracemalloc

import pytest
import torch

from ninefold import nn
from ninefold.engines import ENGINES
from ninefold.engines.aten import Aten
from ninefold.engines.fft import FFT
from ninefold.engines.final import Final
from ninefold.engines.held import Held, plan_bytes
from ninefold.engines.implicit import Implicit
from ninefold.engines.winograd import Winograd
from ninefold.functional import adaptive_pool, sliding
from ninefold.ops import call, native_pool
from ninefold.planning import choose as choose_module
from ninefold.planning.choose import choose
from ninefold.settings import Options
from ninefold.spec import ConvSpec, PoolSpec, connectivity_counts
from ninefold.spec.padding import MODES
from ninefold.spec.problem import Problem
from ninefold.tensors.border import extension, folding

FORMS = {
    "strided": (ConvSpec(1, 3, (10,), stride=5), (4_001,)),
    "dense": (ConvSpec(6, 5, (3,), padding=1), (4_001,)),
    "depthwise": (ConvSpec(5, 5, (40,), groups=5, padding=20), (4_001,)),
    "dilated": (ConvSpec(4, 6, (5,), dilation=3, stride=2, padding="causal", groups=2), (4_001,)),
    "tiled": (ConvSpec(2, 3, (4,), period=3), (4_001,)),
    "tiled by many": (ConvSpec(2, 3, (4,), period=70), (4_001,)),
    "unshared": (ConvSpec(2, 3, (4,), period=None, padding=2), (4_001,)),
    "table": (ConvSpec(3, 4, (4,), table=((0, 0), (1, 0), (1, 2), (3, 1))), (1_000_001,)),
    "1x1": (ConvSpec(6, 5, (1, 1)), (720, 840)),
    "two axes": (ConvSpec(3, 4, (5, 3), stride=(2, 1), padding=((2, 1), (0, 3))), (720, 840)),
    "separable": (ConvSpec(3, 3, (15, 13), groups=3, padding=7), (1200, 1400)),
    "three axes": (ConvSpec(2, 4, (3, 2, 3), padding=1), (300, 310, 320)),
    **{f"{mode} border": (ConvSpec(3, 4, (5, 3), padding=2, padding_mode=mode), (720, 840)) for mode in MODES if mode != "zeros"},
}
"""Sizes are past those from which tiles, blocks and threads are what they are for every larger one."""
TIMES = 64
LINES, BYTES = 1.1, 65_536  # what longer axes may cost more: numbers with more digits, a few more tiles to choose from


def problems(name, times, frozen):
    spec, size = FORMS[name]
    form = spec.form(tuple(times * n + k for k, n in enumerate(size)))
    for map_ in "ch" if frozen else "chg":
        rank = 1 if frozen and name == "separable" else None
        for last in (False, True) if form.ndim > 1 else (False,):
            yield Problem(map_, form, 2, channels_last=last, threads=2, frozen=frozen, rank=rank)


def work(do):
    """Return the lines of Python that something runs, each as often as it runs, and the bytes that it holds at most."""
    lines = 0

    def trace(_frame, event, _arg):
        nonlocal lines
        lines += event == "line"
        return trace

    before = sys.gettrace()
    tracemalloc.start()
    sys.settrace(trace)
    try:
        do()
    finally:
        sys.settrace(before)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return lines, peak


def grows(do):
    """Raise where something that takes a length's multiple costs more for a long one: Python, and bytes."""
    do(1)  # what is made once is there
    (lines, held), (more, longer) = work(lambda: do(2)), work(lambda: do(2 * TIMES))
    assert more <= LINES * lines + 50, f"{lines} lines of Python, and {more} for an axis {TIMES} times as long"
    for _ in range(3):  # other threads of the process, such as a cluster's that an earlier test left, allocate meanwhile
        if longer <= held + BYTES:
            break
        longer = min(longer, work(lambda: do(2 * TIMES))[1])
    assert longer <= held + BYTES, f"{held} bytes, and {longer} for an axis {TIMES} times as long"


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("frozen", [False, True], ids=["", "frozen"])
def test_choosing_does_not_grow_with_the_length(name, frozen, monkeypatch):
    # what is searched must not depend on what an estimate says of a length
    monkeypatch.setattr(choose_module, "_too_long", lambda *_: None)
    grows(lambda times: [choose(p) for p in problems(name, times, frozen)])


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_preparing_does_not_grow_with_the_length(name, engine):
    def prepare(times):
        for frozen in (False, True):
            for p in problems(name, times, frozen):
                if engine.refuses(p) is None:
                    small = sum(p.form.weight_shape) < 1_000_000
                    final = Final(torch.randn(p.form.weight_shape)) if frozen and small and not p.form.tiled else None
                    if final is not None or engine.name != "separable":
                        engine.prepare(p, final)

    grows(prepare)


@pytest.mark.parametrize("mode", MODES)
def test_writing_out_a_border_takes_as_many_operations_for_every_length(mode):
    def run(times):
        form = ConvSpec(1, 1, (9, 5), padding=((8, 3), (2, 4)), padding_mode=mode).form((300 * times, 400 * times))
        V = torch.empty(form.input_shape(1), device="meta")
        R = torch.empty(1, 1, *(axis.span for axis in form.axes), device="meta")
        assert extension(form)(V).shape == R.shape
        assert folding(form)(R).shape == V.shape

    grows(run)


@pytest.mark.parametrize("include_pad", [False, True])
def test_pooling_does_not_grow_with_the_length(include_pad):
    spec = PoolSpec((5, 3), 2, 1, ceil_mode=True)

    def run(times):
        size = (300 * times, 401 * times)
        axes = spec.axes(size)
        divide = sliding.divisors(axes, spec, include_pad)
        native_pool._made("sum", (2, 3, *size), False, torch.float32, axes, "", "", divide, 2)

    grows(run)


@pytest.mark.parametrize("bins", ["overlapping", "disjoint"])
def test_cells_are_made_in_one_operation(bins):
    def run(times):
        adaptive_pool._cells(torch.empty(1, 3, 1_001 * times, device="meta"), -1, 400 * times, bins)

    grows(run)


def test_counting_connections_does_not_grow_with_the_length():
    for spec in (
        ConvSpec(2, 3, (5,), stride=2, dilation=3, padding=4, bias=True),
        ConvSpec(2, 3, (5,), stride=3, transposed=True),
        ConvSpec(2, 3, (5,), padding=4, padding_mode="reflect"),
    ):
        grows(lambda times, spec=spec: connectivity_counts(spec, 10_001 * times))


def test_lengths_share_the_spectra_of_a_final_kernel():
    K = torch.randint(-3, 4, (4, 1, 100)).float()
    final, runners = Final(K), []
    for n in range(700, 2_000, 13):
        form = ConvSpec(4, 4, (100,), groups=4).form(n)
        runners.append(FFT().prepare(Problem("c", form, 1, frozen=True), final))
        x = torch.randint(-3, 4, (1, 4, n)).float()
        torch.testing.assert_close(runners[-1](K, x), torch.conv1d(x, K, groups=4), rtol=0, atol=0.02)
    assert len(final._forms) <= 10  # five lengths an octave
    assert 0 < final.nbytes <= 10 * 4 * 2_304 * 8
    del runners
    assert final.nbytes == 0


@pytest.mark.parametrize("engine", [FFT(), Implicit(), Winograd()], ids=lambda engine: engine.name)
def test_what_a_frozen_layer_keeps_of_many_lengths_is_bounded(engine, monkeypatch):
    if engine.refuses(Problem("c", ConvSpec(3, 5, (5,)).form(100), 1)) is not None:
        pytest.skip("there is no native extension here")
    monkeypatch.setattr(choose_module, "ENGINES", (engine, Aten()))
    monkeypatch.setattr(type(engine), "cost", lambda *_: 0.0)
    monkeypatch.setattr(call, "_KEPT", 20_000)
    layer = nn.Conv1d(3, 5, 5, padding=2, padding_mode="reflect", flip_kernel=True).eval().requires_grad_(requires_grad=False)
    layer.plan_options = Options(tolerance=1.0)
    layer.freeze()
    with torch.no_grad():
        for n in range(40, 4_000, 61):
            x = torch.randn(2, 3, n)
            z = layer(x)
            expected = torch.conv1d(torch.nn.functional.pad(x, (2, 2), "reflect"), layer.weight.flip(2), layer.bias)
            torch.testing.assert_close(z, expected, rtol=0, atol=1e-3)
            assert layer.site.final.nbytes <= 20_000 + 16 * layer.weight.nbytes
    assert layer.site.final.nbytes
    assert len(layer.site._runs) > 8


def test_long_kernels_are_remembered_for_fewer_lengths(monkeypatch):
    long, short = (plan_bytes(ConvSpec(1, 1, (kernel,)).form(1_000)) for kernel in (500, 3))
    monkeypatch.setattr(call, "_PLANNED", 20 * long)
    weight = torch.ones(1, 1, 500)
    for kernel, most in ((500, 20), (3, 20 * long // short)):
        one = call.PlannedCall(ConvSpec(1, 1, (kernel,)))
        for n in range(600, 656):
            one(torch.ones(1, 1, n), weight[..., :kernel])
        assert len(one._runs) == most


def test_what_is_held_is_the_last_used_under_the_budget():
    held, made = Held(100, lambda thing: thing[1]), []

    def use(key, size):
        return held.get(key, lambda: made.append(key) or (key, size))

    for key, size in (("a", 40), ("b", 40), ("a", 40), ("c", 40), ("a", 40), ("b", 40)):
        assert use(key, size) == (key, size)
    assert made == ["a", "b", "c", "b"]
    assert held.nbytes == 80
    use("large", 101)  # is not held, and drives nothing out
    assert use("b", 40) == ("b", 40)
    assert made == ["a", "b", "c", "b", "large"]
    held.clear()
    use("b", 40)
    assert made[-1] == "b"
    assert held.nbytes == 40
