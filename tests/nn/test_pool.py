"""Pooling layers: drop-ins of torch's where torch has them, and functions with remembered arguments everywhere."""

import copy
import pickle

import pytest
import torch

import ninefold.functional as F
from ninefold import nn
from ninefold.errors import ArgumentError, ArgumentTypeError
from ninefold.spec import PoolSpec, receptive_field

SIZES = {1: (11,), 2: (9, 13), 3: (5, 7, 6)}
WINDOWS = {1: 3, 2: (3, 2), 3: (2, 3, 1)}


def image(n):
    return torch.randn(2, 6, *SIZES[n])


DROP_INS = {
    "MaxPool": [(3,), (2, 1), (3, 2, 1), (2, 2, 0, 2), (3, 2, 1, 1, False, True)],
    "AvgPool": [(3,), (2, 1), (3, 2, 1), (3, 2, 1, True), (3, 2, 1, True, False)],
    "LPPool": [(2, 3), (1, 2, 1), (4, 3, 2, True)],
    "AdaptiveAvgPool": [(3,), (2,)],
    "AdaptiveMaxPool": [(3,), (2,)],
}


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize(("name", "arguments"), [(name, a) for name, each in DROP_INS.items() for a in each])
def test_a_drop_in_is_torchs(name, arguments, n):
    ours, theirs = (getattr(module, f"{name}{n}d") for module in (nn, torch.nn))
    layer, torchs, x = ours(*arguments), theirs(*arguments), image(n)
    assert isinstance(layer, theirs)
    torch.testing.assert_close(layer(x), torchs(x))
    torch.testing.assert_close(layer(x[0]), torchs(x[0]))
    for key, value in vars(torchs).items():
        assert key.startswith("_") or getattr(layer, key) == value
    assert torchs.extra_repr() in layer.extra_repr()
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x), layer(x))
    assert not layer.state_dict()


@pytest.mark.parametrize("n", [1, 2, 3])
def test_switches_travel_from_layer_to_layer(n):
    x = image(n)
    pool, back = getattr(nn, f"MaxPool{n}d")(2, return_indices=True), getattr(nn, f"MaxUnpool{n}d")(2)
    z, at = pool(x)
    want = getattr(torch.nn, f"MaxUnpool{n}d")(2)(z, at, x.shape)
    assert isinstance(back, getattr(torch.nn, f"MaxUnpool{n}d"))
    assert torch.equal(back(z, at, x.shape), want)
    assert back.extra_repr() == getattr(torch.nn, f"MaxUnpool{n}d")(2).extra_repr()
    uneven = getattr(nn, f"MaxUnpool{n}d")(3, 2, ((0, 1),) * n)
    z, at = getattr(nn, f"MaxPool{n}d")(3, 2, ((0, 1),) * n, return_indices=True)(x)
    assert torch.equal(uneven(z, at, x.shape), getattr(F, f"max_unpool{n}d")(z, at, 3, 2, ((0, 1),) * n, x.shape))
    assert "(0, 1)" in repr(uneven)


EXTRAS = {
    "MaxPool": ("max_pool", (), {"padding": "same", "dilation": 2, "ceil_mode": "cover", "padding_mode": "symmetric"}),
    "AvgPool": ("avg_pool", (), {"padding": "full", "divisor_override": 3, "dilation": 2, "padding_mode": "replicate"}),
    "LPPool": ("lp_pool", (3,), {"padding": "same", "dilation": 2, "padding_mode": "symmetric", "convention": "mean"}),
    "GaussianPool": ("gaussian_pool", (), {"padding": "same", "dilation": 2, "sigma": 0.7}),
    "LogSumExpPool": ("log_sum_exp_pool", (), {"padding": "causal", "ceil_mode": "cover", "r": 4.0}),
}


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("name", EXTRAS)
def test_extras_reach_the_function_and_the_text(name, n):
    function, first, extras = EXTRAS[name]
    layer, x = getattr(nn, f"{name}{n}d")(*first, WINDOWS[n], 2, **extras), image(n)
    if "Pool" in name and first:
        want = getattr(F, f"{function}{n}d")(x, *first, WINDOWS[n], 2, **extras)
    else:
        want = getattr(F, f"{function}{n}d")(x, WINDOWS[n], 2, **extras)
    assert torch.equal(layer(x), want)
    for key, value in extras.items():
        assert f"{key}={value}" in repr(layer) or f"{key}={value!r}" in repr(layer)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x), want)
        assert repr(twin) == repr(layer)
    plain = getattr(nn, f"{name}{n}d")(*first, WINDOWS[n], 2, **({"sigma": 1.0} if name == "GaussianPool" else {}))
    assert "padding_mode" not in repr(plain)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_grids_pyramids_and_corners(n):
    x = image(n)
    for name in ("Avg", "Max"):
        layer = getattr(nn, f"Adaptive{name}Pool{n}d")(4, bins="disjoint")
        assert torch.equal(layer(x), getattr(F, f"adaptive_{name.lower()}_pool{n}d")(x, 4, bins="disjoint"))
        assert "bins='disjoint'" in repr(layer)
    pyramid = getattr(nn, f"SpatialPyramidPool{n}d")([1, (2,) * n, 4], "average", bins="disjoint")
    assert torch.equal(pyramid(x), getattr(F, f"spatial_pyramid_pool{n}d")(x, (1, 2, 4), "average", bins="disjoint"))
    assert pyramid(x).shape[1] == 6 * pyramid.cells()
    assert "levels=(1, (2" in repr(pyramid)
    corner = getattr(nn, f"TopLeftUnpool{n}d")(WINDOWS[n])
    assert torch.equal(corner(x), getattr(F, f"top_left_unpool{n}d")(x, WINDOWS[n]))
    assert torch.equal(getattr(F, f"max_pool{n}d")(corner(x.abs()), WINDOWS[n]), x.abs())


def test_channels():
    x = image(2)
    assert torch.equal(nn.ChannelPool(2)(x), F.channel_pool(x, 2))
    assert torch.equal(nn.ChannelPool(size=2, reduction="average", dim=-3)(x[0]), F.channel_pool(x, 3, "average")[0])
    assert torch.equal(nn.MaxOut(3)(x), F.maxout(x, 3))
    assert repr(nn.MaxOut(3)) == "MaxOut(pieces=3)"
    assert repr(nn.ChannelPool(2, dim=-3)) == "ChannelPool(groups=2, reduction='max', dim=-3)"
    with pytest.raises(ArgumentError, match="pieces must be at least 1, got 0"):
        nn.MaxOut(0)


def test_576_values_whatever_the_size_of_the_image():
    """The middle network of figure 9.11, behind its first pooling, by stride 4."""
    grid = nn.AdaptiveMaxPool2d(3)
    for size in ((3, 3), (64, 64), (17, 40)):
        assert grid(torch.randn(1, 64, *size)).flatten(1).shape == (1, 576)
    assert nn.MaxPool2d(4)(torch.zeros(1, 64, 64, 64)).flatten(1).shape[1] == 16_384


def test_pooling_by_average_and_a_dense_layer_commute():
    """The right network of figure 9.11 with a last convolution of 1x1."""
    x, last = image(2).double(), nn.Conv2d(6, 5, 1).double()
    dense = lambda v: v @ last.weight[:, :, 0, 0].T + last.bias
    torch.testing.assert_close(nn.AdaptiveAvgPool2d(1)(last(x)).flatten(1), dense(nn.AdaptiveAvgPool2d(1)(x).flatten(1)))


def test_a_layer_describes_itself():
    layer = nn.MaxPool2d((3, 2), 2, "same", ceil_mode="cover", padding_mode="reflect")
    spec = PoolSpec.from_module(layer)
    assert spec == PoolSpec((3, 2), (2, 2), "same", ceil_mode="cover", padding_mode="reflect")
    assert spec.output_size(SIZES[2]) == tuple(layer(image(2)).shape[2:])
    assert PoolSpec.from_module(nn.AvgPool1d(3, 2, dilation=4)).dilation == (4,)
    assert receptive_field([PoolSpec.from_module(nn.AvgPool1d(3, 2)), PoolSpec.from_module(nn.MaxPool1d(2))]) == (5,)


@pytest.mark.parametrize(
    "layer",
    [nn.MaxPool2d(3, 2, "same"), nn.AvgPool2d(3, 1, dilation=2), nn.LPPool2d(2, 3, convention="norm"), nn.LogSumExpPool2d(3, 2)],
)
def test_in_a_compiled_network(layer):
    net = torch.nn.Sequential(torch.nn.Conv2d(6, 4, 3), layer)
    x = image(2)
    torch.testing.assert_close(torch.compile(net, backend="aot_eager", fullgraph=True)(x), net(x))


@pytest.mark.parametrize("name", ["MaxPool2d", "AvgPool2d", "LogSumExpPool2d"])
def test_mistakes_are_told_when_the_layer_is_made(name):
    with pytest.raises(ArgumentError, match="kernel_size must be at least 1, got 0"):
        getattr(nn, name)(0)
    with pytest.raises(ArgumentTypeError, match="stride must be a whole number, got 1.5"):
        getattr(nn, name)(2, 1.5)
    with pytest.raises(ArgumentError, match=r"padding \(2, 2\) along axis 0"):
        getattr(nn, name)(2, padding=2)
