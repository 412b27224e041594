"""torch's own checks of the operators, gradients of first and second order, and what vmap folds into."""

import itertools

import pytest
import torch
from torch import func

from ninefold.ops import PlannedCall, operator
from ninefold.ops.batching import fold_vmap, widen
from ninefold.spec import ConvSpec
from ninefold.testing.tolerances import defined

MAPS = ("c", "h", "g")
ENGINES = {  # where the engine's own arithmetic is differentiated through; else the cheapest
    "strided groups": ("aten", "fft"),
    "reflect, uneven pads": ("fft", "gemm"),
    "flipped, 1-D": ("fft",),
    "3-D": ("aten",),
}
SPECS = {
    "strided groups": (ConvSpec(4, 6, (3, 2), (2, 1), (1, 0), (1, 2), 2), (6, 5)),
    "reflect, uneven pads": (ConvSpec(2, 3, (2, 4), 1, ((1, 0), (2, 1)), padding_mode="reflect"), (4, 6)),
    "same, strided": (ConvSpec(2, 3, (3, 4), (3, 2), "same"), (7, 5)),
    "flipped, 1-D": (ConvSpec(3, 2, (4,), 2, 1, flip_kernel=True), (9,)),
    "3-D": (ConvSpec(2, 3, (2, 1, 3), (1, 2, 1), (0, 0, 1)), (3, 4, 5)),
    "depthwise": (ConvSpec(3, 6, (2, 3), groups=3), (4, 5)),
    "unshared": (ConvSpec(2, 3, (2, 3), (2, 1), period=None), (5, 4)),
    "tiled": (ConvSpec(2, 4, (2, 3), groups=2, period=(2, 3)), (5, 7)),
    "table": (ConvSpec(3, 2, (2, 3), (1, 2), table=((0, 0), (0, 2), (1, 1))), (4, 6)),
}


def operands(map_, spec, size, dtype=torch.double, batch=2):
    """Return the two operands of a map as leaves, and the form's sizes."""
    form = spec.form(size)
    generator = torch.Generator().manual_seed(2)
    shapes = {"K": form.weight_shape, "V": form.input_shape(batch), "G": form.output_shape(batch)}
    made = [torch.randn(shapes[n], generator=generator, dtype=dtype) for n in operator._OPERANDS[map_]]
    return [t.requires_grad_() for t in made], form


@pytest.mark.parametrize("map_", MAPS)
@pytest.mark.parametrize("name", SPECS)
def test_opcheck_of_the_maps(name, map_):
    spec, size = SPECS[name]
    (a, b), form = operands(map_, spec, size)
    report = torch.library.opcheck(
        getattr(torch.ops.ninefold, map_).default, (a, b, spec.to_text(), list(form.n_in), list(form.n_out))
    )
    assert set(report.values()) == {"SUCCESS"}
    assert len(report) == 4


@pytest.mark.parametrize("name", ["strided groups", "same, strided", "tiled", "table"])
def test_opcheck_of_a_layer(name, prefer):
    spec, size = SPECS[name]
    (w, x), _ = operands("c", spec, size)
    bias = torch.arange(spec.out_channels, dtype=x.dtype).requires_grad_()
    prefer("fft")  # where it does not refuse
    report = torch.library.opcheck(torch.ops.ninefold.conv.default, (x, w, bias, spec.to_text(), None))
    assert set(report.values()) == {"SUCCESS"}


def test_opcheck_of_a_transposed_layer():
    spec = ConvSpec(4, 6, (3, 2), (2, 3), (1, 0), groups=2, transposed=True)
    x = torch.randn(2, 6, 4, 5, dtype=torch.double, requires_grad=True)
    w = torch.randn(spec.weight_shape(), dtype=torch.double, requires_grad=True)
    report = torch.library.opcheck(torch.ops.ninefold.conv.default, (x, w, None, spec.to_text(), [8, 15]))
    assert set(report.values()) == {"SUCCESS"}


@pytest.mark.parametrize("map_", MAPS)
@pytest.mark.parametrize(("name", "engine"), [(n, e) for n in SPECS for e in ENGINES.get(n, ("gemm",))])
def test_gradients_of_first_and_second_order(name, engine, map_, prefer):
    spec, size = SPECS[name]
    prefer(engine)
    (a, b), form = operands(map_, spec, size, batch=1)
    run = lambda a, b: operator.call(map_, spec.to_text(), form.n_in, form.n_out, a, b)
    assert torch.autograd.gradcheck(run, (a, b), fast_mode=True, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(run, (a, b), fast_mode=True)


@pytest.mark.parametrize("map_", MAPS)
@pytest.mark.parametrize(
    ("name", "engine"), [("strided groups", "aten"), ("flipped, 1-D", "fft"), ("tiled", "gemm"), ("table", "reference")]
)
def test_gradients_of_complex_maps(name, engine, map_, prefer):
    spec, size = SPECS[name]
    prefer(engine)
    (a, b), form = operands(map_, spec, size, torch.complex128, batch=1)
    run = lambda a, b: operator.call(map_, spec.to_text(), form.n_in, form.n_out, a, b)
    assert torch.autograd.gradcheck(run, (a, b), fast_mode=True, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(run, (a, b), fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.double, torch.complex128])
@pytest.mark.parametrize("name", ["strided groups", "tiled", "table"])
def test_gradients_by_the_thin_route(name, dtype):
    spec, size = SPECS[name]
    (w, x), _ = operands("c", spec, size, dtype)
    bias = torch.randn(spec.out_channels, dtype=dtype, requires_grad=True)
    assert torch.autograd.gradcheck(PlannedCall(spec), (x, w, bias), fast_mode=True)
    assert torch.autograd.gradgradcheck(PlannedCall(spec), (x, w, bias), fast_mode=True)


@pytest.mark.parametrize("map_", MAPS)
@pytest.mark.parametrize("name", SPECS)
def test_vmap_folds_into_batch_or_groups(name, map_):
    spec, size = SPECS[name]
    (a, b), form = operands(map_, spec, size)
    a, b = a.detach(), b.detach()
    stacked = [torch.stack([a, a.sin(), a.cos()], 1), torch.stack([b, b.cos(), b.sin()], 2)]
    run = lambda a, b: operator.call(map_, spec.to_text(), form.n_in, form.n_out, a, b)
    for dims in ((1, None), (None, 2), (1, 2)):
        given = [s if d is not None else t for s, t, d in zip(stacked, (a, b), dims, strict=True)]
        got = func.vmap(run, dims)(*given)
        for k in range(3):
            one = [s.select(d, k) if d is not None else t for s, t, d in zip(stacked, (a, b), dims, strict=True)]
            torch.testing.assert_close(got[k], defined(map_, form, *one), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["table", "tiled", "depthwise"])
def test_a_wide_spec_is_copies_side_by_side(name):
    spec, size = SPECS[name]
    wide = widen(spec, 3)
    assert (wide.in_channels, wide.out_channels) == (3 * spec.in_channels, 3 * spec.out_channels)
    assert wide.macs(size) == 3 * spec.macs(size)
    edges = set(spec.channels.edges)
    moved = {(o + k * spec.out_channels, i + k * spec.in_channels) for k, (o, i) in itertools.product(range(3), edges)}
    assert set(wide.channels.edges) == moved


def test_data_alone_goes_into_the_batch_and_not_into_the_groups():
    spec, size = SPECS["depthwise"]
    (w, x), _ = operands("c", spec, size)
    seen = []

    def run(a, b, used):
        seen.append((used, tuple(b.shape)))
        return b

    out, dim = fold_vmap(run, 5, (None, 1), w, torch.stack([x] * 5, 1), "c", spec)
    assert (seen, dim, tuple(out.shape)) == ([(spec, (10, 3, 4, 5))], 0, (5, 2, 3, 4, 5))
    fold_vmap(run, 5, (0, None), torch.stack([w] * 5), x, "c", spec)
    assert seen[1] == (widen(spec, 5), (2, 15, 4, 5))
