"""Every engine on an accelerator, where there is one: the same numbers as on the CPU, and on the device they came from."""

import pytest
import torch

import ninefold as nf
from ninefold.planning.choose import judge
from ninefold.rewrites import engine_named
from ninefold.spec import ConvSpec, Problem

SPECS = {
    "grouped": (ConvSpec(4, 6, (5, 3), stride=(2, 1), padding=((2, 1), (0, 1)), groups=2), (13, 17)),
    "long": (ConvSpec(3, 3, (33,), groups=3, padding=16), (200,)),
    "unshared": (ConvSpec(3, 5, (3, 2), period=None), (8, 9)),
    "reflect": (ConvSpec(2, 3, (3, 4), padding=2, padding_mode="reflect", flip_kernel=True), (9, 10)),
}
ENGINE_NAMES = [c.engine for c in nf.plan(ConvSpec(1, 1, 3), (8, 9)).candidates]


@pytest.mark.gpu
@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("map_", ["c", "h", "g"])
@pytest.mark.parametrize("engine", ENGINE_NAMES)
def test_the_device_gives_the_numbers_of_the_cpu(engine, map_, name):
    spec, size = SPECS[name]
    form = spec.form(size)
    problem = Problem(map_, form, 2, "float64", "cuda:any")
    if (reason := judge(engine_named(engine), problem).reason) is not None:
        pytest.skip(reason)
    torch.manual_seed(0)
    V, G, K = (torch.randn(s, dtype=torch.float64) for s in (form.input_shape(2), form.output_shape(2), form.weight_shape))
    a, b = {"c": (K, V), "h": (K, G), "g": (V, G)}[map_]
    out = engine_named(engine).prepare(problem)(a.cuda(), b.cuda(), None)
    assert out.device.type == "cuda"
    expected = engine_named("reference").prepare(Problem(map_, form, 2, "float64"))(a, b, None)
    torch.testing.assert_close(out.cpu(), expected, rtol=1e-10, atol=1e-10)
