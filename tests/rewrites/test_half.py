"""Half types through float32: chosen where the processor does not multiply them, one rounding away from the float32 engine."""

import pytest
import torch

from ninefold.engines import aten
from ninefold.engines.final import Final
from ninefold.planning.choose import choose
from ninefold.rewrites import engine_named
from ninefold.rewrites.half import ConversionToFloat32
from ninefold.spec import ConvSpec, Problem

SPEC = ConvSpec(24, 40, (3, 5), padding=((1, 0), (2, 1)))


@pytest.fixture(params=[True, False])
def multiplies(request, monkeypatch):
    monkeypatch.setattr(aten, "_multiplies", lambda half: request.param)
    return request.param


@pytest.mark.usefixtures("without_native")  # whose direct summation takes bfloat16 itself
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_it_is_chosen_where_the_processor_does_not_multiply(dtype, multiplies):
    chosen = choose(Problem("c", SPEC.form((40, 44)), 8, dtype, tolerance=3e-2)).engine
    assert ("conversion to float32" in chosen) is not multiplies


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_result_is_the_float32_one_rounded_once(dtype):
    half = getattr(torch, dtype)
    torch.manual_seed(0)
    x, w, b = torch.randn(2, 24, 12, 14).to(half), torch.randn(40, 24, 3, 5).to(half), torch.randn(40).to(half)
    problem = Problem("c", SPEC.form((12, 14)), 2, dtype, tolerance=3e-2)
    out = engine_named("aten after conversion to float32").prepare(problem)(w, x, b)
    wide = torch.conv2d(torch.nn.functional.pad(x.float(), (2, 1, 1, 0)), w.float(), b.float())
    assert out.dtype == half
    torch.testing.assert_close(out, wide.to(half), rtol=2**-7, atol=1e-2)
    kept = engine_named("aten after conversion to float32").prepare(problem, Final(w))
    torch.testing.assert_close(kept(torch.zeros_like(w), x, b), out)  # what is kept is the weight that was given


def test_what_it_refuses():
    form = SPEC.form((12, 14))
    assert "not float32" in ConversionToFloat32().refuses(Problem("c", form, 2))
    assert "not on cuda" in ConversionToFloat32().refuses(Problem("c", form, 2, "bfloat16", "cuda:any"))
