import torch

from ninefold.models import xception
from ninefold.nn import DepthwiseSeparableConv2d


def test_parameters_and_layers():
    with torch.device("meta"):
        net = xception()
    assert sum(p.numel() for p in net.parameters()) == 22_855_952
    separable = [m for m in net.modules() if isinstance(m, DepthwiseSeparableConv2d)]
    assert len(separable) + 2 == 36  # and the two at the start; projections of shortcuts are not counted
    assert all(m.between is None for m in separable)


def test_maps_and_size():
    with torch.device("meta"):
        net = xception(5).eval()
        x = torch.zeros(1, 3, 299, 299)
        sizes = []
        for block in net.entry:
            x = block(x)
            sizes.append((x.shape[1], x.shape[2]))
        assert sizes == [(32, 149), (64, 147), (128, 74), (256, 37), (728, 19)]
        assert net.exit(net.middle(x)).shape == (1, 2048, 10, 10)


def test_a_module_is_its_parts():
    torch.manual_seed(0)
    with torch.device("meta"):
        module = xception(5).entry[3]
    module = module.to_empty(device="cpu").double().eval()
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.ndim:
            torch.nn.init.uniform_(tensor, 0.0, 0.1)
    x = torch.randn(1, 128, 7, 10, dtype=torch.float64)
    y = x
    for part in (module.body[1], module.body[3]):
        y = part.bn(part.separable.to_dense()(torch.relu(y)))
    expected = torch.nn.functional.max_pool2d(y, 3, 2, 1) + module.shortcut.bn(module.shortcut.conv(x))
    torch.testing.assert_close(module(x), expected)
