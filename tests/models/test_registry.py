"""What holds of every network: it runs at its own size, reverts to torch's layers, and says what it takes."""

import pytest
import torch

import ninefold as nf
from ninefold.models import (
    MODELS,
    context_module,
    figure_9_11,
    large_kernel_net,
    mobilenet_v1,
    network_in_network,
    resnet,
    shufflenet_v1,
)
from ninefold.nn.conv import Planned


def test_names():
    assert set(MODELS) == {
        *("alexnet", "network_in_network", "googlenet", "resnet50", "resnext50", "xception", "mobilenet_v1", "large_kernel_net"),
        *(f"shufflenet_v1_g{g}" for g in (1, 2, 3, 4, 8)),
        *(f"figure_9_11_{k}" for k in ("fixed", "variable", "convolutional")),
        *(f"deeplab_v1_{h}" for h in ("7x7", "4x4", "large_fov")),
        *("context_basic", "context_large"),
    }


@pytest.mark.parametrize("name", MODELS)
def test_every_network_runs_at_its_size_and_reverts(name):
    with torch.device("meta"):
        model = MODELS[name](num_classes=6).eval()
        example = torch.zeros(1, *model.input_size)
    out = model(example)
    assert out.shape[:2] == (1, 6)
    assert out.shape[2:] in ((), example.shape[2:])
    assert any(isinstance(m, Planned) for m in model.modules())
    plain = nf.revert(model)
    assert not [n for n, m in plain.named_modules() if isinstance(m, Planned)]
    assert all(a is b for a, b in zip(model.parameters(), plain.parameters(), strict=True))
    assert plain(example).shape == out.shape


SMALL = {
    "mobilenet": (lambda: mobilenet_v1(0.25, num_classes=5), (3, 45, 38)),
    "shufflenet": (lambda: shufflenet_v1(3, num_classes=5, width=0.5), (3, 45, 38)),
    "resnext": (lambda: resnet((1, 1), width=16, groups=4, num_classes=5), (3, 45, 38)),
    "nin": (lambda: network_in_network(5), (3, 13, 18)),
    "figure": (lambda: figure_9_11("convolutional", 5), (3, 29, 38)),
    "large": (lambda: large_kernel_net((4, 6), (1, 1), 7, 31, 5), (3, 24, 30)),
    "context": (lambda: context_module("large", 2, noise=0.1), (2, 25, 31)),
}


@pytest.mark.parametrize("name", SMALL)
def test_reverted_networks_give_the_same_numbers_and_gradients(name):
    torch.manual_seed(0)
    make, size = SMALL[name]
    model = make().double().eval()
    plain = nf.revert(model)
    x = torch.randn(2, *size, dtype=torch.float64)
    out, expected = model(x), plain(x)
    torch.testing.assert_close(out, expected)
    assert (out[0] - out[1]).abs().max() > 1e-6  # it looks at the image
    up = torch.randn_like(out)
    ours = torch.autograd.grad(out, list(model.parameters()), up)
    theirs = torch.autograd.grad(expected, list(plain.parameters()), up)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)
