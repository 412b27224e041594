import pytest
import torch

import ninefold as nf
from ninefold.errors import ArgumentError
from ninefold.models import context_module
from ninefold.network import receptive_fields
from ninefold.nn import Conv2d
from ninefold.spec import chain

FIELDS = (3, 5, 9, 17, 33, 65, 67, 67)


def convolutions(net):
    return [m for m in net.layers if isinstance(m, Conv2d)]


def weights(net):
    return sum(p.numel() for p in net.parameters() if p.ndim == 4)


@pytest.mark.parametrize("channels", [1, 3, 21])
def test_counts(channels):
    with torch.device("meta"):
        assert weights(context_module("basic", channels)) == 64 * channels**2
        assert weights(context_module("large", channels)) == 15_422 * channels**2


@pytest.mark.parametrize("kind", ["basic", "large"])
def test_receptive_fields(kind):
    with torch.device("meta"):
        net = context_module(kind, 2)
        found = receptive_fields(net, torch.zeros(1, 2, 80, 90))
    assert [found[f"layers.conv{k}"] for k in range(1, 9)] == [(n, n) for n in FIELDS]
    assert [f.size[0] for f in chain.receptive_fields([m.spec for m in convolutions(net)])] == list(FIELDS)


@pytest.mark.parametrize("padding", ["once", "each"])
def test_an_impulse_reaches_33_positions_each_way(padding):
    net = context_module("basic", 1, padding=padding).double()
    for m in convolutions(net):
        torch.nn.init.ones_(m.weight)
    x = torch.zeros(1, 1, 81, 93, dtype=torch.float64)
    x[..., 40, 45] = 1
    with nf.options(tolerance="strict"):  # a transform would leave dust where nothing arrives
        rows, columns = net(x)[0, 0].nonzero().T
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (40 - 33, 40 + 33, 45 - 33, 45 + 33)


@pytest.mark.parametrize("kind", ["basic", "large"])
@pytest.mark.parametrize("padding", ["once", "each"])
def test_at_its_identity_it_passes_on_what_is_not_negative(kind, padding):
    torch.manual_seed(0)
    net = context_module(kind, 3, padding=padding, noise=0.0).double()
    x = torch.randint(-9, 10, (2, 3, 11, 14)).double()
    with nf.options(tolerance="strict"):  # all shares are powers of two, and so direct sums are exact
        assert torch.equal(net(x), x.clamp_min(0))
        assert torch.equal(net(x.abs()), x.abs())


def test_noise_parts_the_channels_of_the_large_module_only():
    torch.manual_seed(0)
    net = context_module("large", 3, noise=0.05)
    first = net.layers.conv1.weight  # 3 -> 6 channels: shares of 1/2
    centre = torch.zeros(6, 3, dtype=torch.bool)
    centre[torch.arange(6), torch.arange(6) // 2] = True
    assert (first[:, :, 1, 1][centre] == 0.5).all()
    assert first[:, :, 1, 1][~centre].ne(0).all()
    rest = torch.cat([first[:, :, 1, 1][~centre], first.flatten(2)[:, :, [0, 1, 2, 3, 5, 6, 7, 8]].flatten()])
    assert 0.015 < rest.std() < 0.035
    assert first[0].ne(first[1]).any()
    x = torch.rand(1, 3, 9, 12)
    assert 0 < (net(x) - x).abs().mean() < 0.5
    basic = context_module("basic", 3, noise=0.05)
    torch.testing.assert_close(basic(x), x)


def test_paddings_differ_at_the_border_only():
    torch.manual_seed(0)
    once, each, none = (context_module("basic", 2, padding=p).double() for p in ("once", "each", "none"))
    for m in convolutions(once):
        torch.nn.init.normal_(m.weight, std=0.3)
        torch.nn.init.normal_(m.bias)
    each.load_state_dict(once.state_dict())
    none.load_state_dict(once.state_dict())
    x = torch.randn(1, 2, 70, 75, dtype=torch.float64)
    assert once(x).shape == each(x).shape == x.shape
    inner = once(x)[:, :, 33:-33, 33:-33]
    torch.testing.assert_close(each(x)[:, :, 33:-33, 33:-33], inner)
    torch.testing.assert_close(none(x), inner)
    torch.testing.assert_close(none(torch.nn.functional.pad(x, (33,) * 4)), once(x))
    assert not torch.allclose(each(x), once(x))


def test_what_is_no_module():
    with pytest.raises(ArgumentError, match="'huge'.*'large'"):
        context_module("huge")
    with pytest.raises(ArgumentError, match="'twice'.*'each'"):
        context_module(padding="twice")
