import pytest
import torch
from torch import nn

from ninefold.errors import ArgumentError
from ninefold.models import figure_9_11


def shapes(net, *size):
    found = {}
    for name, module in net.named_children():
        module.register_forward_hook(lambda _m, _a, out, name=name: found.__setitem__(name, tuple(out.shape)))
    with torch.no_grad():
        net.to("meta")(torch.zeros(1, *size, device="meta"))
    return found


def test_sizes_of_the_figure():
    start = {"conv1": (1, 64, 256, 256), "pool1": (1, 64, 64, 64), "conv2": (1, 64, 64, 64)}
    ends = {
        "fixed": {"pool2": (1, 64, 16, 16), "flatten": (1, 16_384), "dense": (1, 1000)},
        "variable": {"pool2": (1, 64, 3, 3), "flatten": (1, 576), "dense": (1, 1000)},
        "convolutional": {"pool2": (1, 64, 16, 16), "conv3": (1, 1000, 16, 16), "average": (1, 1000, 1, 1)},
    }
    for kind, end in ends.items():
        net = figure_9_11(kind)
        found = shapes(net, *net.input_size)
        assert {n: found[n] for n in (*start, *end)} == start | end
        assert found["softmax"] == (1, 1000)


def test_weights_of_the_dense_layer(macs):
    assert figure_9_11("fixed").dense.weight.numel() == 16_384_000
    assert figure_9_11("variable").dense.weight.numel() == 576_000
    assert not [m for m in figure_9_11("convolutional").modules() if isinstance(m, nn.Linear)]
    assert macs(figure_9_11("variable"), 3, 256, 256)["dense"] == 576_000


@pytest.mark.parametrize("size", [(12, 12), (12, 15), (13, 12), (29, 64), (67, 16)])
def test_variable_gives_576_for_every_size_from_12(size):
    net = figure_9_11("variable", num_classes=11)
    found = shapes(net, 3, *size)
    assert found["flatten"] == (1, 576)
    assert found["softmax"] == (1, 11)


def test_fixed_takes_one_size_only():
    net = figure_9_11("fixed", num_classes=3).to("meta")
    assert net(torch.zeros(1, 3, 256, 256, device="meta")).shape == (1, 3)
    with pytest.raises(RuntimeError, match="16384"):
        net(torch.zeros(1, 3, 272, 256, device="meta"))


def test_convolution_then_average_is_average_then_product():
    torch.manual_seed(7)
    net = figure_9_11("convolutional", num_classes=5, kernel_size=1).double().eval()
    with torch.no_grad():
        image = torch.randn(2, 3, 37, 50, dtype=torch.float64)
        features = net[: list(dict(net.named_children())).index("conv3")](image)
        assert features.shape == (2, 64, 2, 3)
        product = features.mean((2, 3)) @ net.conv3.weight[:, :, 0, 0].T + net.conv3.bias
        torch.testing.assert_close(net(image), product.softmax(1))
        assert (net(image)[0] - net(image)[1]).abs().max() > 1e-6


def test_grid_over_64_has_overlapping_bins():
    pool = figure_9_11("variable").pool2
    row = torch.zeros(64, 1, 1, 64) + torch.eye(64)[:, None, None, :]
    cells = pool(row)[:, 0, 0, :].bool()
    assert [torch.nonzero(cells[:, i])[[0, -1], 0].tolist() for i in range(3)] == [[0, 21], [21, 42], [42, 63]]
    assert cells.any(1).all()


def test_arguments_that_name_no_network():
    with pytest.raises(ArgumentError, match=r"'middle'.*'variable'"):
        figure_9_11("middle")
    with pytest.raises(ArgumentError, match="4"):
        figure_9_11("fixed", kernel_size=4)
