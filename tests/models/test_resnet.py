import pytest
import torch
from torch import nn

from ninefold.errors import ArgumentError
from ninefold.models import Bottleneck, resnet, resnet50, resnext50


def weights(module):
    return sum(p.numel() for p in module.parameters() if p.ndim == 4)


def test_cardinality_costs_what_width_does(macs):
    plain, paths = Bottleneck(256, 64, 256), Bottleneck(256, 128, 256, groups=32)
    assert weights(plain) == 69_632
    assert weights(paths) == 70_144 == 32 * (256 * 4 + 9 * 16 + 4 * 256)
    assert sum(macs(paths, 256, 14, 7).values()) == 70_144 * 14 * 7


@pytest.mark.parametrize(("make", "count"), [(resnet50, 25_557_032), (resnext50, 25_028_904)])
def test_whole_networks(make, count):
    with torch.device("meta"):
        net = make().eval()
        assert sum(p.numel() for p in net.parameters()) == count
        part = net[: list(dict(net.named_children())).index("average")]
        assert part(torch.zeros(1, 3, 224, 192)).shape == (1, 2048, 7, 6)


def normed(y, norm, channels=slice(None)):
    """Normalise some channels by their own statistics of a layer in evaluation mode."""
    scale = norm.weight[channels] / (norm.running_var[channels] + norm.eps).sqrt()
    return (y - norm.running_mean[channels].view(-1, 1, 1)) * scale.view(-1, 1, 1) + norm.bias[channels].view(-1, 1, 1)


def test_three_equal_forms():
    """Figure 3 of ResNeXt: split, transform and sum; join before one last convolution; a convolution in groups."""
    torch.manual_seed(0)
    groups, width = 4, 3
    block = Bottleneck(10, groups * width, 10, groups=groups).double().eval()
    for norm in (m for m in block.modules() if isinstance(m, nn.BatchNorm2d)):
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            nn.init.uniform_(tensor, 0.5, 1.5)
    x = torch.randn(2, 10, 6, 9, dtype=torch.float64)
    first, middle, last = block.reduce, block.conv, block.expand
    joined, summed = [], 0
    for g in range(groups):
        own = slice(g * width, (g + 1) * width)
        y = torch.relu(normed(torch.conv2d(x, first.conv.weight[own]), first.bn, own))
        y = torch.relu(normed(torch.conv2d(y, middle.conv.weight[own], padding=1), middle.bn, own))
        joined.append(y)
        summed = summed + torch.conv2d(y, last.conv.weight[:, own])
    split = torch.relu(normed(summed, last.bn) + x)
    concatenated = torch.relu(normed(torch.conv2d(torch.cat(joined, 1), last.conv.weight), last.bn) + x)
    grouped = block(x)
    torch.testing.assert_close(split, concatenated)
    torch.testing.assert_close(grouped, concatenated)


def test_the_shortcut_is_projected_only_where_shapes_change():
    assert isinstance(Bottleneck(8, 4, 8).shortcut, nn.Identity)
    assert Bottleneck(8, 4, 8, stride=2)(torch.zeros(1, 8, 5, 7)).shape == (1, 8, 3, 4)
    assert Bottleneck(8, 4, 12)(torch.zeros(1, 8, 5, 7)).shape == (1, 12, 5, 7)


def test_a_network_without_stages_is_none():
    with pytest.raises(ArgumentError, match="depths"):
        resnet(())
