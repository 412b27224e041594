"""Pieces that several networks are made of."""

from collections import OrderedDict

from torch import nn

from ninefold.nn import Conv2d

__all__ = ["conv_bn", "conv_bn_relu", "conv_relu"]


def conv_bn(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, padding: int | None = None, groups: int = 1
) -> nn.Sequential:
    """Return convolution without bias and batch normalisation; padded so that stride 1 keeps the size, unless told.

    Examples
    --------
    >>> list(dict(conv_bn(3, 4, 5).named_children()))
    ['conv', 'bn']
    """
    pads = kernel // 2 if padding is None else padding
    conv = Conv2d(inputs, outputs, kernel, stride, padding=pads, groups=groups, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(outputs)))


def conv_bn_relu(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, padding: int | None = None, groups: int = 1
) -> nn.Sequential:
    """Return convolution without bias, batch normalisation and ReLU.

    Examples
    --------
    >>> list(dict(conv_bn_relu(3, 4, 5).named_children()))
    ['conv', 'bn', 'relu']
    """
    layers = conv_bn(inputs, outputs, kernel, stride=stride, padding=padding, groups=groups)
    layers.add_module("relu", nn.ReLU(inplace=True))
    return layers


def conv_relu(inputs: int, outputs: int, kernel: int, *, stride: int = 1) -> nn.Sequential:
    """Return convolution with bias, padded so that stride 1 keeps the size, and ReLU.

    Examples
    --------
    >>> conv_relu(3, 4, 5).conv.padding
    (2, 2)
    """
    conv = Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)
    return nn.Sequential(OrderedDict(conv=conv, relu=nn.ReLU(inplace=True)))
