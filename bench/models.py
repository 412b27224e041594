"""Small networks for `bench.compiled`: one per kind of work, random weights, evaluation mode."""

import torch
from torch import Tensor, nn


def dense() -> tuple[nn.Module, Tensor]:
    """Return 3x3 layers as in residual networks."""
    layers = [nn.Conv2d(32, 48, 3, padding=1), nn.ReLU(), nn.Conv2d(48, 40, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers).eval(), torch.randn(4, 32, 56, 44)


def separated() -> tuple[nn.Module, Tensor]:
    """Return depthwise and pointwise layers with what compilers fuse in between."""
    layers: list[nn.Module] = []
    for _ in range(2):
        layers += [nn.Conv2d(48, 48, 3, padding=1, groups=48, bias=False), nn.BatchNorm2d(48), nn.ReLU6()]
        layers += [nn.Conv2d(48, 48, 1, bias=False), nn.BatchNorm2d(48), nn.ReLU6()]
    return nn.Sequential(*layers).eval(), torch.randn(2, 48, 40, 56)


def large() -> tuple[nn.Module, Tensor]:
    """Return a large depthwise kernel between pointwise layers."""
    layers = [
        nn.Conv2d(24, 32, 1),
        nn.GELU(),
        nn.Conv2d(32, 32, 31, padding=15, groups=32),
        nn.GELU(),
        nn.Conv2d(32, 24, 1),
    ]
    return nn.Sequential(*layers).eval(), torch.randn(2, 24, 48, 56)


def long() -> tuple[nn.Module, Tensor]:
    """Return a long 1-D depthwise kernel."""
    layers = [nn.Conv1d(32, 32, 511, padding=255, groups=32), nn.SiLU(), nn.Conv1d(32, 20, 1)]
    return nn.Sequential(*layers).eval(), torch.randn(4, 32, 2048)


MODELS = {"dense": dense, "separated": separated, "large": large, "long": long}
