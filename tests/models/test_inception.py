import pytest
import torch

from ninefold.models import Inception, googlenet


def weights(module):
    return sum(p.numel() for p in module.parameters() if p.ndim == 4)


def test_module_3a(macs):
    net = googlenet(10)
    assert weights(net.inception3a) == 163_328
    assert sum(macs(net.inception3a, 192, 28, 28).values()) == 128_049_152
    assert weights(net.inception3b) == 128 * 256 + (128 * 256 + 192 * 128 * 9) + (32 * 256 + 96 * 32 * 25) + 64 * 256


def test_without_reductions():
    naive = Inception(192, 64, (96, 128), (16, 32), 32, reduce=False)
    assert weights(naive) == 387_072
    out = naive(torch.randn(1, 192, 4, 6))
    assert out.shape == (1, naive.out_channels, 4, 6) == (1, 64 + 128 + 32 + 192, 4, 6)


def test_branches_side_by_side():
    torch.manual_seed(0)
    module = Inception(5, 2, (3, 4), (2, 3), 6).double()
    x = torch.randn(2, 5, 7, 9, dtype=torch.float64)
    relu, conv = torch.relu, torch.conv2d
    c = {n.rsplit(".", 1)[0]: m for n, m in module.named_modules() if n.endswith(".conv") and not list(m.children())}
    assert sorted(c) == ["five.conv", "five.reduce", "one", "pool.project", "three.conv", "three.reduce"]

    def apply(name, y):
        return relu(conv(y, c[name].weight, c[name].bias, padding=c[name].weight.shape[-1] // 2))

    pooled = torch.nn.functional.pad(x, (1, 1, 1, 1), value=-torch.inf).unfold(2, 3, 1).unfold(3, 3, 1).amax((4, 5))
    expected = [
        apply("one", x),
        apply("three.conv", apply("three.reduce", x)),
        apply("five.conv", apply("five.reduce", x)),
        apply("pool.project", pooled),
    ]
    torch.testing.assert_close(module(x), torch.cat(expected, 1))
    assert c["five.conv"].kernel_size == (5, 5)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("pool2", (192, 28, 28)),
        ("inception3a", (256, 28, 28)),
        ("inception3b", (480, 28, 28)),
        ("inception4a", (512, 14, 14)),
        ("inception4e", (832, 14, 14)),
        ("inception5b", (1024, 7, 7)),
    ],
)
def test_maps_are_those_of_the_paper(name, shape):
    net = googlenet(3).to("meta").eval()
    part = net[: list(dict(net.named_children())).index(name) + 1]
    assert part(torch.zeros(1, 3, 224, 224, device="meta")).shape == (1, *shape)
