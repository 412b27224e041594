"""GoogLeNet: kernels of several sizes side by side, 1x1 convolutions before them to keep that affordable."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from ninefold.models.initial import he_init
from ninefold.models.parts import conv_relu

__all__ = ["GoogLeNet", "Inception", "googlenet"]

# channels of the 1x1 branch, (reduced, made) of the 3x3 and the 5x5 branch, and of the one behind the pool
_MODULES: dict[str, tuple[int, tuple[int, int], tuple[int, int], int]] = {
    "3a": (64, (96, 128), (16, 32), 32),
    "3b": (128, (128, 192), (32, 96), 64),
    "4a": (192, (96, 208), (16, 48), 64),
    "4b": (160, (112, 224), (24, 64), 64),
    "4c": (128, (128, 256), (24, 64), 64),
    "4d": (112, (144, 288), (32, 64), 64),
    "4e": (256, (160, 320), (32, 128), 128),
    "5a": (256, (160, 320), (32, 128), 128),
    "5b": (384, (192, 384), (48, 128), 128),
}


class Inception(nn.Module):
    """The Inception module: 1x1, 3x3 and 5x5 convolution and 3x3 maximum side by side, their channels joined.

    Some published code has a 3x3 kernel in the branch called 5x5; here it is 5x5, as in the paper.

    Parameters
    ----------
    inputs : int
    one : int
        Channels of the 1x1 branch.
    three, five : tuple of int
        Channels to which a 1x1 convolution reduces first, and those that the 3x3 or 5x5 convolution makes.
    pool : int
        Channels of the 1x1 convolution behind the maximum.
    reduce : bool
        False leaves the 1x1 convolutions before and behind out: the paper's naive module, whose pool passes on all `inputs`.

    Attributes
    ----------
    out_channels : int

    Examples
    --------
    >>> module = Inception(192, 64, (96, 128), (16, 32), 32)
    >>> module.out_channels, module(torch.zeros(1, 192, 5, 7)).shape
    (256, torch.Size([1, 256, 5, 7]))
    """

    def __init__(
        self, inputs: int, one: int, three: tuple[int, int], five: tuple[int, int], pool: int, *, reduce: bool = True
    ) -> None:
        super().__init__()
        self.out_channels = one + three[1] + five[1] + (pool if reduce else inputs)
        self.one = conv_relu(inputs, one, 1)
        self.three = _branch(inputs, *three, 3, reduce=reduce)
        self.five = _branch(inputs, *five, 5, reduce=reduce)
        self.pool = nn.Sequential(OrderedDict(pool=nn.MaxPool2d(3, stride=1, padding=1)))
        if reduce:
            self.pool.add_module("project", conv_relu(inputs, pool, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the branches' channels, joined in the order of the parameters."""
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], dim=1)


class GoogLeNet(nn.Sequential):
    """The network that `googlenet` makes: its layers in order, by the paper's names.

    Attributes
    ----------
    input_size : tuple of int
        Channels, height and width of one example; any size from 32 on runs.

    Examples
    --------
    >>> googlenet(num_classes=7).inception3a.out_channels
    256
    """

    input_size = (3, 224, 224)


def googlenet(num_classes: int = 1000) -> GoogLeNet:
    """Return an untrained GoogLeNet (Szegedy et al. 2014, arXiv 1409.4842), without its auxiliary classifiers.

    Those act in training only. Module 3a has 163,328 weights and takes 128,049,152 multiply-adds at 28x28; without its
    reductions its convolutions would have 387,072 weights.

    Parameters
    ----------
    num_classes : int

    Notes
    -----
    Reported, not reproduced here: a top-5 error of 6.67% at ILSVRC 2014, by an ensemble.

    Examples
    --------
    >>> net = googlenet(num_classes=7)
    >>> sum(p.numel() for n, p in net.inception3a.named_parameters() if n.endswith("weight"))
    163328
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=conv_relu(3, 64, 7, stride=2),
        pool1=_halve(),
        norm1=_norm(),
        reduce2=conv_relu(64, 64, 1),
        conv2=conv_relu(64, 192, 3),
        norm2=_norm(),
        pool2=_halve(),
    )
    channels = 192
    for name, widths in _MODULES.items():
        if name in ("4a", "5a"):
            layers[f"pool{int(name[0]) - 1}"] = _halve()
        module = layers[f"inception{name}"] = Inception(channels, *widths)
        channels = module.out_channels
    layers["average"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["dropout"] = nn.Dropout(0.4)
    layers["dense"] = nn.Linear(channels, num_classes)
    model = GoogLeNet(layers)
    he_init(model)
    return model


def _branch(inputs: int, reduced: int, made: int, kernel: int, *, reduce: bool) -> nn.Sequential:
    if not reduce:
        return nn.Sequential(OrderedDict(conv=conv_relu(inputs, made, kernel)))
    return nn.Sequential(OrderedDict(reduce=conv_relu(inputs, reduced, 1), conv=conv_relu(reduced, made, kernel)))


def _halve() -> nn.Module:
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)


def _norm() -> nn.Module:
    return nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)
