"""The functions against torch's own in torch's positional order, and what torch lacks against its definition."""

import inspect

import numpy as np
import pytest
import torch
import torch.nn.functional as tF
from scipy import signal
from torch.nn import grad as torch_grad

import ninefold.functional as F

SIZES = {1: (11,), 2: (9, 8), 3: (5, 4, 6)}
KERNELS = {1: (3,), 2: (3, 2), 3: (2, 1, 3)}
STRIDES = {1: (2,), 2: (2, 1), 3: (1, 2, 3)}
PADS = {1: (2,), 2: (1, 0), 3: (0, 1, 2)}
DILATIONS = {1: (2,), 2: (1, 3), 3: (2, 1, 1)}


def draw(*shape):
    return torch.randn(shape, dtype=torch.double)


def same(got, want):
    assert got.shape == want.shape
    torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_convolutions_in_torchs_positional_order(n):
    x, w, b = draw(2, 4, *SIZES[n]), draw(6, 2, *KERNELS[n]), draw(6)
    ours, torchs = getattr(F, f"conv{n}d"), getattr(tF, f"conv{n}d")
    arguments = (x, w, b, STRIDES[n], PADS[n], DILATIONS[n], 2)
    for count in range(3, 8):
        short = arguments[:count] if count > 6 else (x, draw(6, 4, *KERNELS[n]), *arguments[2:count])
        same(ours(*short), torchs(*short))
    same(ours(x[0], *arguments[1:]), torchs(x[0], *arguments[1:]))
    same(
        ours(input=x, weight=w, groups=2, dilation=1, stride=2),
        torchs(input=x, weight=w, groups=2, dilation=1, stride=2),
    )
    for padding in ("valid", "same"):
        same(ours(x, w, None, 1, padding, DILATIONS[n], 2), torchs(x, w, None, 1, padding, DILATIONS[n], 2))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_transposed_ones_in_torchs_positional_order(n):
    x, w, b = draw(2, 4, *SIZES[n]), draw(4, 3, *KERNELS[n]), draw(6)
    ours, torchs = getattr(F, f"conv_transpose{n}d"), getattr(tF, f"conv_transpose{n}d")
    extra = {1: (1,), 2: (1, 2), 3: (1, 0, 2)}[n]
    arguments = (x, w, b, STRIDES[n], PADS[n], extra, 2, DILATIONS[n])
    same(ours(*arguments), torchs(*arguments))
    same(ours(x[1], *arguments[1:]), torchs(x[1], *arguments[1:]))
    for count in range(2, 6):
        short = (x, w, draw(3), *arguments[3:])[:count]
        same(ours(*short), torchs(*short))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_output_size_names_one_of_the_sizes_that_belong_to_the_input(n):
    layer = getattr(torch.nn, f"ConvTranspose{n}d")(4, 3, KERNELS[n], 3, PADS[n], bias=False).double()
    x = draw(2, 4, *SIZES[n])
    least = layer(x).shape[2:]
    for more in range(3):
        size = [s + more if k == n - 1 else s for k, s in enumerate(least)]
        got = getattr(F, f"conv_transpose{n}d")(x, layer.weight, None, 3, PADS[n], output_size=size)
        same(got, layer(x, output_size=size))
        named = getattr(F, f"conv_transpose{n}d")(x, layer.weight, None, 3, PADS[n], output_size=(2, 3, *size))
        same(named, got)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_gradients_by_torchs_names(n):
    x, w = draw(2, 4, *SIZES[n]), draw(6, 2, *KERNELS[n])
    arguments = (STRIDES[n], PADS[n], DILATIONS[n], 2)
    g = torch.randn_like(getattr(tF, f"conv{n}d")(x, w, None, *arguments))
    want = getattr(torch_grad, f"conv{n}d_input")(x.shape, w, g, *arguments)
    same(getattr(F, f"conv{n}d_input")(x.shape, w, g, *arguments), want)
    want = getattr(torch_grad, f"conv{n}d_weight")(x, w.shape, g, *arguments)
    same(getattr(F, f"conv{n}d_weight")(x, w.shape, g, *arguments), want)


@pytest.mark.parametrize("name", ["conv", "input", "weight"])
def test_the_maps_with_a_border_are_what_autograd_says(name):
    x, w = draw(2, 4, 7, 6).requires_grad_(), draw(6, 2, 3, 4).requires_grad_()
    rest = {"stride": (1, 2), "padding": ((1, 2), (0, 3)), "groups": 2, "padding_mode": "circular", "flip_kernel": True}
    z = F.conv2d(x, w, **rest)
    g = torch.randn_like(z).requires_grad_()
    gx, gw = torch.autograd.grad(z, (x, w), g, create_graph=True)
    padded = tF.pad(x, (0, 3, 1, 2), "circular")
    same(z, tF.conv2d(padded, w.flip(2, 3), None, (1, 2), groups=2))
    if name == "input":
        same(F.conv2d_input(x.shape, w, g, **rest), gx)
        same(
            torch.autograd.grad(F.conv2d_input(x.shape, w, g, **rest).sin().sum(), w)[0],
            torch.autograd.grad(gx.sin().sum(), w)[0],
        )
    if name == "weight":
        same(F.conv2d_weight(x, w.shape, g, **rest), gw)
        same(
            torch.autograd.grad(F.conv2d_weight(x, w.shape, g, **rest).sin().sum(), x)[0],
            torch.autograd.grad(gw.sin().sum(), x)[0],
        )


@pytest.mark.parametrize(
    ("padding", "pads"),
    [
        ("same", (0, 1, 1, 2)),
        ("same_upper", (0, 1, 1, 2)),
        ("same_lower", (1, 0, 2, 1)),
        ("full", (2, 2, 3, 3)),
        ("causal", (2, 0, 3, 0)),
        (((3, 1), (0, 2)), (0, 2, 3, 1)),
        (((-1, 2), (1, -2)), (1, -2, -1, 2)),
    ],
)
def test_policies_and_pairs_are_explicit_pads(padding, pads):
    x, w = draw(2, 3, 9, 8), draw(4, 3, 4, 3)  # along 9 extent 4 and stride 2, along 8 extent 3 and stride 3
    same(F.conv2d(x, w, None, (2, 3), padding), tF.conv2d(tF.pad(x, pads), w, None, (2, 3)))


@pytest.mark.parametrize(("n", "s"), [(9, 2), (10, 3), (7, 4), (12, 5)])
def test_same_gives_the_ceiling(n, s):
    assert F.conv1d(draw(1, 2, n), draw(3, 2, 4), None, s, "same").shape[2] == -(-n // s)


@pytest.mark.parametrize(
    ("mode", "numpys"),
    [
        ("zeros", "constant"),
        ("reflect", "reflect"),
        ("symmetric", "symmetric"),
        ("replicate", "edge"),
        ("circular", "wrap"),
    ],
)
def test_modes_are_numpys_pad(mode, numpys):
    x, w = draw(2, 3, 5, 4), draw(4, 3, 3, 2)
    pads = ((4, 2), (1, 3))
    padded = torch.from_numpy(np.pad(x.numpy(), ((0, 0), (0, 0), *pads), mode=numpys))
    same(F.conv2d(x, w, None, (2, 1), pads, padding_mode=mode), tF.conv2d(padded, w, None, (2, 1)))
    wide = ((9, 11), (0, 7))  # wider than the input: the modes go round again
    padded = torch.from_numpy(np.pad(x.numpy(), ((0, 0), (0, 0), *wide), mode=numpys))
    same(F.conv2d(x, w, None, 1, wide, padding_mode=mode), tF.conv2d(padded, w))


def test_a_flipped_kernel_is_scipys_convolution():
    x, w = draw(1, 1, 9, 7), draw(1, 1, 4, 3)
    for mode, padding in (("full", "full"), ("valid", 0)):
        want = signal.convolve2d(x[0, 0].numpy(), w[0, 0].numpy(), mode)
        same(F.conv2d(x, w, padding=padding, flip_kernel=True)[0, 0], torch.from_numpy(want))
    for boundary, mode in (("wrap", "circular"), ("symm", "symmetric")):
        want = signal.convolve2d(x[0, 0].numpy(), w[0, 0].numpy(), "full", boundary)
        same(F.conv2d(x, w, padding="full", padding_mode=mode, flip_kernel=True)[0, 0], torch.from_numpy(want))
    correlated = signal.correlate2d(x[0, 0].numpy(), w[0, 0].numpy(), "full")
    same(F.conv2d(x, w, padding="full")[0, 0], torch.from_numpy(correlated))


def test_convolution_commutes():
    x, w = draw(1, 1, 9, 7), draw(1, 1, 4, 3)
    same(F.conv2d(x, w, padding="full", flip_kernel=True), F.conv2d(w, x, padding="full", flip_kernel=True))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_locally_connected_is_a_loop_over_positions(n):
    x, groups = draw(2, 4, *SIZES[n]), 2
    pads, rest = PADS[n], (STRIDES[n], 0, DILATIONS[n], groups)
    padded = tF.pad(x, [p for lo in pads[::-1] for p in (lo, lo)])
    shared = getattr(tF, f"conv{n}d")(padded, draw(6, 2, *KERNELS[n]), None, *rest)
    out, b = shared.shape[2:], draw(6)
    w = draw(6, *out, 2, *KERNELS[n])
    got = getattr(F, f"locally_connected{n}d")(x, w, b, STRIDES[n], pads, DILATIONS[n], groups)
    want = torch.empty_like(shared)
    for position in np.ndindex(*out):
        kernel = w[(slice(None), *position)]
        at = (slice(None), slice(None), *position)
        want[at] = getattr(tF, f"conv{n}d")(padded, kernel, b, *rest)[at]
    same(got, want)


@pytest.mark.parametrize(("n", "period"), [(1, (3,)), (2, (2, 3)), (2, (1, 4)), (3, (2, 1, 2))])
def test_tiled_is_strided_convolutions_interleaved(n, period):
    x, w, b = draw(2, 4, *SIZES[n]), draw(6, *period, 2, *KERNELS[n]), draw(6)
    convolve, stride = getattr(tF, f"conv{n}d"), (1, 2, 1)[:n]
    got = getattr(F, f"tiled_conv{n}d")(x, w, b, stride, groups=2, period=period if n > 1 else 3)
    for residue in np.ndindex(*period):  # t ordinary convolutions of stride s t, each begun at residue * s
        kernel = w[(slice(None), *residue)]
        cut = x[(..., *(slice(r * s, None) for r, s in zip(residue, stride, strict=True)))]
        jump = tuple(s * t for s, t in zip(stride, period, strict=True))
        part = got[(..., *(slice(r, None, t) for r, t in zip(residue, period, strict=True)))]
        same(part, convolve(cut, kernel, b, jump, groups=2))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_period_of_one_is_a_convolution(n):
    x, w = draw(2, 4, *SIZES[n]), draw(6, *(1,) * n, 4, *KERNELS[n])
    want = getattr(tF, f"conv{n}d")(x, w.flatten(1, n + 1), None, STRIDES[n], PADS[n])
    same(getattr(F, f"tiled_conv{n}d")(x, w, None, STRIDES[n], PADS[n], period=1), want)
    same(getattr(F, f"tiled_conv{n}d")(x, w, None, STRIDES[n], PADS[n]), want)


def test_the_input_map_compiles_whole():
    torch._dynamo.reset()
    w, g = draw(6, 4, 3, 2), draw(2, 6, 7, 7)
    for size in ((2, 4, 9, 8), (2, 4, 9, 8)):
        run = lambda w, g, size=size: F.conv2d_input(size, w, g)
        same(torch.compile(run, backend="aot_eager", fullgraph=True)(w, g), run(w, g))


def test_a_period_of_the_outputs_is_unshared():
    x, w = draw(2, 3, 6, 7), draw(4, 5, 4, 3, 2, 4)
    same(F.tiled_conv2d(x, w), F.locally_connected2d(x, w))


def test_transposed_with_a_border_is_the_adjoint_and_not_a_border():
    x, w = draw(1, 3, 6, 5), draw(2, 3, 3, 2)
    rest = {"padding": (1, 0), "padding_mode": "reflect"}
    g = torch.randn_like(F.conv2d(x, w, **rest))
    back = F.conv_transpose2d(g, w, **rest)
    same((back * x).sum(), (g * F.conv2d(x, w, **rest)).sum())


@pytest.mark.parametrize("name", F.__all__)
def test_every_function_has_its_own_name_and_documentation(name):
    function = getattr(F, name)
    assert function.__name__ == name
    assert function.__module__ == "ninefold.functional"
    assert "{" not in function.__doc__
    assert inspect.signature(function).parameters  # an editor can show it


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(
    ("name", "shape", "rest"),
    [
        ("conv2d", (6, 2, 3, 2), {"stride": (2, 1), "padding": "same", "groups": 2, "padding_mode": "reflect"}),
        ("conv_transpose2d", (4, 3, 3, 2), {"stride": (2, 3), "output_size": (19, 23)}),
        ("locally_connected2d", (6, 7, 7, 4, 3, 2), {}),
        ("conv2d_weight", (2, 6, 7, 8), {"padding": ((1, 0), (0, 2)), "weight_size": (6, 4, 4, 3)}),
        ("tiled_conv2d", (6, 2, 3, 4, 3, 2), {"padding": ((1, 0), (0, 2))}),
    ],
)
def test_functions_compile_whole(name, shape, rest, dynamic):
    torch._dynamo.reset()
    x, w = draw(2, 4, 9, 8), draw(*shape)
    function = lambda x, w: getattr(F, name)(x, w, **rest)
    if name == "conv2d_weight":
        function = lambda x, g: F.conv2d_weight(x, grad_output=g, **rest)
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    same(compiled(x, w), function(x, w))
    if name in ("conv2d", "tiled_conv2d"):
        wider = draw(3, 4, 11, 13)
        same(compiled(wider, w), function(wider, w))
