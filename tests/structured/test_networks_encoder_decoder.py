from itertools import product

import pytest
import torch

from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError
from ninefold.structured.networks import EncoderDecoder, UNet, UnitStrideNet


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize(("kind", "up"), list(product([EncoderDecoder, UNet], ["transposed", "resize"])))
def test_any_size_and_batch(ndim, kind, up):
    torch.manual_seed(0)
    net = kind(2, 3, widths=(4, 5, 6), ndim=ndim, up=up).double().eval()
    for size in [(13, 6, 9), (8, 12, 4), (1, 3, 2)]:
        x = torch.randn(2, 2, *size[:ndim], dtype=torch.float64)
        out = net(x)
        assert out.shape == (2, 3, *size[:ndim])
        torch.testing.assert_close(net(x[1:]), out[1:])


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_parameters(ndim):
    k, t = 3**ndim, 2**ndim
    level = lambda a, b: k * (a * b + b * b) + 4 * b
    down = level(2, 4) + level(4, 6)
    head = 4 * 3 + 3
    up = t * 6 * 4 + 4
    count = lambda net: sum(p.numel() for p in net.parameters())
    assert count(UNet(2, 3, widths=(4, 6), ndim=ndim)) == down + head + up + level(8, 4)
    assert count(EncoderDecoder(2, 3, widths=(4, 6), ndim=ndim)) == down + head + up + level(4, 4)
    assert count(UNet(2, 3, widths=(4, 6), ndim=ndim, up="resize")) == down + head + k * 24 + 4 + level(8, 4)


def test_a_multiple_of_the_unit_is_neither_padded_nor_cropped():
    torch.manual_seed(0)
    net = UNet(1, 2, widths=(3, 4, 5)).double().eval()
    x = torch.randn(1, 1, 12, 7, dtype=torch.float64)
    longer = torch.cat((x, x[..., -1:]), -1)  # the border continued, to 8
    torch.testing.assert_close(net(x), net(longer)[..., :7])


def test_skips_keep_what_pooling_loses():
    """With no gradient through the pooling, the image is reached beside it only."""

    class Cut(torch.nn.MaxPool2d):
        def forward(self, x):
            return super().forward(x).detach()

    for kind, reads in ((UNet, True), (EncoderDecoder, False)):
        torch.manual_seed(0)
        net = kind(1, 2, widths=(8, 9), norm="none").double()
        x = torch.randn(1, 1, 8, 8, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.grad(net(x).square().sum(), x)[0].any()
        net.pool = Cut(2)
        (grad,) = torch.autograd.grad(net(x).square().sum(), x, allow_unused=True)
        assert (grad is not None) == reads


@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
def test_norms_and_gradients(norm):
    torch.manual_seed(0)
    net = UNet(1, 2, widths=(2, 3), ndim=1, norm=norm).double()
    x = torch.randn(2, 1, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(net, x)


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("up", ["transposed", "resize"])
def test_weights_without_normalisation_pass_on_as_much_as_they_get(ndim, up):
    torch.manual_seed(0)
    net = EncoderDecoder(9, 4, widths=(30, 40, 50), ndim=ndim, up=up, norm="none").double()
    for name, weight in net.named_parameters():
        if name.endswith("bias"):
            assert not weight.any(), name
        else:
            reads = weight.shape[0] if weight.shape[2:] == (2,) * ndim else weight[0].numel()
            assert (weight.var() * reads / 2).item() == pytest.approx(1, abs=0.15 if weight.numel() > 500 else 0.5), name
    plain = UNet(1, 2, widths=(8, 9), ndim=ndim).down[0][0].weight  # with it, they are as PyTorch draws them: from an interval
    assert plain.abs().max() <= 3 ** (-ndim / 2)


def test_a_deep_network_without_normalisation_depends_on_its_image():
    torch.manual_seed(0)
    net = EncoderDecoder(2, 3, widths=(8,) * 5, norm="none").double()
    x = torch.randn(2, 2, 32, 48, dtype=torch.float64)
    for level in net.down:
        y = level(net.pool(x) if x.shape[1] == 8 else x)
        assert 0.1 < (y.square().mean() / x.square().mean()).item() < 10
        x = y
    out = net(torch.randn(2, 2, 32, 48, dtype=torch.float64))
    assert out.std() > 0.1


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("pool", ["max", "average"])
def test_unit_stride(ndim, pool):
    torch.manual_seed(0)
    size = (9, 7, 6)[:ndim]
    net = UnitStrideNet(2, 3, widths=(4, 5), kernel_size=3, pool_size=2, pool=pool, ndim=ndim).double()
    x = torch.randn(2, 2, *size, dtype=torch.float64)
    out = net(x)
    assert out.shape == (2, 3, *size)
    conv = getattr(torch.nn.functional, f"conv{ndim}d")
    y = x
    for first in (net.layers[0], net.layers[3]):
        y = conv(y, first.weight, first.bias, padding=1).relu()
        around = (0, 1) * ndim  # an even window looks one position further ahead
        if pool == "max":
            y = getattr(torch.nn.functional, f"max_pool{ndim}d")(torch.nn.functional.pad(y, around, value=-1e9), 2, 1)
        else:
            sums, ones = (
                getattr(torch.nn.functional, f"avg_pool{ndim}d")(torch.nn.functional.pad(v, around), 2, 1)
                for v in (y, torch.ones_like(y))
            )
            y = sums / ones
    torch.testing.assert_close(out, conv(y, net.classifier.weight, net.classifier.bias))


def test_what_does_not_fit_is_said():
    with pytest.raises(ArgumentError, match="'nearest'"):
        UNet(1, 2, up="nearest")
    with pytest.raises(ArgumentError, match="'layer'"):
        UNet(1, 2, norm="layer")
    with pytest.raises(ArgumentTypeError, match="widths=16"):
        UNet(1, 2, widths=16)
    with pytest.raises(ArgumentError, match="'median'"):
        UnitStrideNet(1, 2, pool="median")
    with pytest.raises(ShapeError, match=r"\(1, 1, 0, 5\)"):
        UNet(1, 2)(torch.zeros(1, 1, 0, 5))
