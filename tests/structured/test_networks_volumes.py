import pytest
import torch

import ninefold as nf
from ninefold.errors import ArgumentError, ShapeError
from ninefold.structured.networks import AffinityNet, RestorationNet


def count(net):
    return sum(p.numel() for p in net.parameters())


def test_counts():
    assert count(RestorationNet()) == 34_041
    assert count(AffinityNet()) == 12_021
    assert count(AffinityNet(ndim=2)) == (6 + 36 + 36 + 12) * 25 + 20


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_sizes_stay(ndim):
    size = (6, 9, 7)[:ndim]
    x = torch.randn(2, 1, *size)
    assert RestorationNet(ndim=ndim)(x).shape == x.shape
    assert AffinityNet(ndim=ndim)(x).shape == (2, ndim, *size)
    assert RestorationNet(2, ndim=ndim, widths=(3,))(x.expand(2, 2, *size)).shape == (2, 2, *size)


def reached(net, *size):
    x = torch.zeros(1, 1, *size, dtype=torch.float64, requires_grad=True)
    with nf.options(tolerance="strict"):  # a transform would leave dust where nothing arrives
        out = net.double()(x)
        middle = out[(0, 0, *(n // 2 for n in out.shape[2:]))]
        where = torch.autograd.grad(middle, x)[0][0, 0].nonzero()
    return (where.amax(0) - where.amin(0) + 1).tolist()


def test_fields_of_view():
    assert reached(AffinityNet(), 19, 21, 20) == [17, 17, 17]
    assert reached(RestorationNet(widths=(2,) * 5), 27, 25, 29) == [25, 25, 25]
    assert AffinityNet(padding="valid")(torch.zeros(1, 1, 17, 18, 19)).shape == (1, 3, 1, 2, 3)


def test_the_same_weights_refine_again():
    torch.manual_seed(0)
    net, x = RestorationNet(widths=(4, 4), ndim=2).double(), torch.randn(2, 1, 8, 11, dtype=torch.float64)
    once, twice, thrice = net.refinements(x, 3)
    assert torch.equal(once, net(x))
    assert torch.equal(twice, net(once.sigmoid()))
    assert torch.equal(thrice, net(x, 3))
    thrice.sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in net.parameters())


def test_where_edges_lead():
    assert AffinityNet().offsets == ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
    assert AffinityNet(ndim=2, neighbour="next").offsets == ((1, 0), (0, 1))


def test_what_does_not_fit_is_said():
    with pytest.raises(ArgumentError, match="'left'"):
        AffinityNet(neighbour="left")
    with pytest.raises(ArgumentError, match="'full'"):
        AffinityNet(padding="full")
    with pytest.raises(ShapeError, match="3 spatial axes"):
        AffinityNet()(torch.zeros(1, 1, 9, 9))
    with pytest.raises(ArgumentError, match="repeats must be at least 1"):
        RestorationNet()(torch.zeros(1, 1, 3, 3, 3), 0)
