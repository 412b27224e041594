"""NaN and infinity reach what the definition says and nothing else, by default and whichever engine runs."""

import math
from dataclasses import replace

import pytest
import torch

import ninefold as nf
from ninefold.engines import ENGINES
from ninefold.planning import prepare
from ninefold.planning.choose import choose
from ninefold.planning.decide import make_problem
from ninefold.rewrites import engine_named
from ninefold.settings import Options
from ninefold.spec import ConvSpec, Problem
from ninefold.tensors.layout import all_finite

GAPS = {  # channels, groups, kernel, size: depthwise and long, one channel and large, dense
    "long": (4, 4, (1024,), (20_000,)),
    "large": (1, 1, (31, 31), (200, 180)),
    "dense": (32, 1, (3, 3), (30, 26)),
}


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", GAPS)
def test_a_gap_in_the_data_stays_in_its_windows(name, value, frozen):
    """As in torch.nn's layers, whichever engine runs."""
    channels, groups, kernel, size = GAPS[name]
    net = getattr(torch.nn, f"Conv{len(kernel)}d")(channels, channels, kernel, groups=groups).eval()
    twin = nf.freeze(nf.convert(net)) if frozen else nf.convert(net)
    x = torch.randn(2, channels, *size)
    at = (1, channels // 2, *(n // 2 for n in size))
    x[at] = value
    with torch.inference_mode():
        want, got = net(x), twin(x)
    assert int((~got.isfinite()).sum()) == math.prod(kernel) * channels // groups
    assert torch.equal(got.isfinite(), want.isfinite())
    if not frozen:
        leaves = [x.clone().requires_grad_() for _ in range(2)]
        up = torch.rand_like(want)
        up[(0, *at[1:2], *(n // 3 for n in size))] = value
        grads = [
            torch.autograd.grad(layer(leaf), (leaf, layer.weight), up) for layer, leaf in zip((net, twin), leaves, strict=True)
        ]
        assert all(torch.equal(a.isfinite(), b.isfinite()) for a, b in zip(*grads, strict=True))


def test_a_gap_stays_in_its_windows_compiled_and_vmapped():
    net = torch.nn.Conv1d(2, 2, 512, groups=2).eval()
    twin = nf.convert(net)
    x = torch.randn(3, 2, 4000)
    x[1, 1, 2000] = torch.nan
    with torch.no_grad():
        want = net(x).isnan()
        torch._dynamo.reset()
        assert torch.equal(torch.compile(twin, backend="aot_eager", fullgraph=True)(x).isnan(), want)
        assert torch.equal(torch.func.vmap(twin)(x).isnan(), want)
        assert torch.equal(torch.export.export(twin, (x,)).module()(x).isnan(), want)


@pytest.mark.parametrize("dtype", [torch.float, torch.double, torch.half, torch.bfloat16, torch.cfloat])
def test_a_sum_tells_whether_all_is_finite(dtype):
    x = torch.full((3, 40_000), 3.0, dtype=dtype)
    assert all_finite(x)
    assert all_finite(x[:, :0])
    for value in (torch.nan, torch.inf, -torch.inf):
        y = x.clone()
        y[1, 777] = value
        assert not all_finite(y)
    assert not all_finite(torch.tensor([torch.inf, -torch.inf], dtype=dtype))


def test_what_is_not_finite_is_looked_for_on_cpus():
    form = ConvSpec(2, 2, (33,), groups=2).form(200)

    def finite(device, **options):
        return make_problem("c", form, 1, torch.float32, torch.device(device), Options(**options)).finite

    assert (finite("cpu"), finite("meta")) == (True, False)
    assert (finite("cpu", check_finite=False), finite("meta", check_finite=True)) == (False, True)


@pytest.mark.parametrize("engine", ["fft", "winograd"])
def test_the_second_run_is_by_the_fastest_local_engine(engine, monkeypatch):
    """Not by the first of the list, which may take a hundred times as long; and by none where all is finite."""
    form = ConvSpec(16, 16, (7, 7), padding=3).form((20, 24))
    problem = Problem("c", form, 1, finite=True)
    plan = replace(choose(problem), engine=engine)
    if plan.standing(engine).reason is not None:
        return  # built without kernels
    prepared = []
    for other in ENGINES:
        given = type(other).prepare
        monkeypatch.setattr(
            type(other), "prepare", lambda self, *a, given=given: prepared.append(self.name) or given(self, *a), raising=True
        )
    run = prepare(plan, epilogue="relu")
    x, w = torch.randn(1, 16, 20, 24), torch.randn(16, 16, 7, 7)
    run(w, x, None)
    before = list(prepared)
    x[0, 3, 10, 12] = -torch.inf
    out = run(w, x, None)
    local = {c.engine: c.seconds for c in plan.candidates if c.reason is None and engine_named(c.engine).traits.confines_nan}
    assert prepared[len(before) :][0] == min(local, key=local.get)
    assert min(local, key=local.get) not in before
    want = torch.conv2d(x, w, padding=3).relu()
    assert torch.equal(out.isfinite(), want.isfinite())
    torch.testing.assert_close(out[want.isfinite()], want[want.isfinite()], rtol=1e-3, atol=1e-3)
