"""Networks with random weights: small ones for `bench.compiled`, one per kind of work; whole ones for `bench.networks`."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from ninefold import models
from ninefold import nn as ours
from ninefold.models.parts import conv_bn, conv_bn_relu


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


class _Norm(nn.LayerNorm):
    """Normalisation over the channels of an image, as ConvNeXt has it between stages."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _Next(nn.Module):
    """ConvNeXt's block (Liu et al. 2022, arXiv 2201.03545): 7x7 depthwise, then a dense network at every position."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.spread = ours.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.mix = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(self.spread(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def convnext_like(widths: tuple[int, ...] = (48, 96, 192), depth: int = 2) -> nn.Module:
    """Return a small ConvNeXt: patches, stages of blocks, halved in between."""
    layers: list[nn.Module] = [ours.Conv2d(3, widths[0], 4, stride=4), _Norm(widths[0])]
    for k, width in enumerate(widths):
        if k:
            layers += [_Norm(widths[k - 1]), ours.Conv2d(widths[k - 1], width, 2, stride=2)]
        layers += [_Next(width) for _ in range(depth)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 100))


class _Basic(nn.Module):
    """The block of ResNet-18 and 34: two 3x3 convolutions and the input added."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = conv_bn_relu(inputs, outputs, 3, stride=stride)
        self.second = conv_bn(outputs, outputs, 3)
        self.short = nn.Identity() if stride == 1 and inputs == outputs else conv_bn(inputs, outputs, 1, stride=stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.second(self.first(x)) + self.short(x))


def resnet_3x3(widths: tuple[int, ...] = (64, 128, 256, 512), depth: int = 2) -> nn.Module:
    """Return ResNet-18: nearly all of its work is 3x3 convolutions (He et al. 2015, arXiv 1512.03385)."""
    layers: list[nn.Module] = [conv_bn_relu(3, widths[0], 7, stride=2), nn.MaxPool2d(3, stride=2, padding=1)]
    inputs = widths[0]
    for k, width in enumerate(widths):
        for block in range(depth):
            layers.append(_Basic(inputs, width, 2 if k and block == 0 else 1))
            inputs = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 100))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "mobilenet_v1": (partial(models.mobilenet_v1, num_classes=100), 128),
    "shufflenet_v1": (partial(models.shufflenet_v1, num_classes=100), 128),
    "resnext": (partial(models.resnet, depths=(2, 2, 2), width=128, groups=32, num_classes=100), 96),
    "resnet_bottleneck": (partial(models.resnet, depths=(2, 2, 2), num_classes=100), 96),
    "resnet_3x3": (resnet_3x3, 96),
    "convnext_like": (convnext_like, 128),
    "large_kernel_net": (partial(models.large_kernel_net, num_classes=100), 64),
}
"""Whole networks for `bench.networks`, each with the height and width of its images."""
