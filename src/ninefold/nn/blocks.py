"""Blocks that factor the channels: 1x1 convolution in groups, the ShuffleNet unit, and the multilayer perceptron as a kernel."""

from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ninefold.errors import ArgumentError, ArgumentTypeError
from ninefold.nn.conv import Conv1d, Conv2d, Conv3d, _Conv
from ninefold.nn.shuffle import ChannelShuffle
from ninefold.spec.parse import integer

__all__ = [
    "MLPConv1d",
    "MLPConv2d",
    "MLPConv3d",
    "PointwiseGroupConv1d",
    "PointwiseGroupConv2d",
    "PointwiseGroupConv3d",
    "ShuffleUnit",
]


class _PointwiseGroup(_Conv):
    """Convolutions of one tap; the docstring is shared by the three of them."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        groups: int = 1,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        stride: Any = 1,
    ) -> None:
        super().__init__(in_channels, out_channels, 1, stride, groups=groups, bias=bias, device=device, dtype=dtype)


_POINTWISE = """A {n}-D convolution of one tap in groups: a block-diagonal matrix at each position.

    ShuffleNet (Zhang et al. 2017, arXiv 1707.01083) is made of them. Each is a `Conv{n}d` in all
    but its constructor. Two of them mix the channels of different groups only with a `ChannelShuffle` in between.

    Parameters
    ----------
    in_channels, out_channels, groups, bias, device, dtype
        As in `Conv{n}d`.
    stride : int or tuple of int
        Positions in between are left out.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        With the actual numbers, for what cannot be such a layer.

    Examples
    --------
    >>> import torch, ninefold.nn as nn
    >>> layer = nn.PointwiseGroupConv{n}d(6, 9, groups=3, bias=False)
    >>> layer.weight.numel(), layer(torch.zeros(2, 6, {size})).shape == (2, 9, {size})
    (18, True)
    """


class _MLPConv(torch.nn.Module):
    """A convolution and 1x1 convolutions on it; the docstring is shared by the three of them."""

    _conv: Any

    def __init__(
        self,
        in_channels: int,
        channels: Any,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        activation: Callable[[], torch.nn.Module] = torch.nn.ReLU,
    ) -> None:
        super().__init__()
        widths = list(channels) if isinstance(channels, (list, tuple)) else [integer(channels, "channels", 1)]
        if not widths:
            raise ArgumentError("channels=[] must name at least one layer, such as [192, 160, 96]")
        if not callable(activation):
            raise ArgumentTypeError(f"activation must make a layer, such as torch.nn.ReLU, got {activation!r}")
        first = self._conv(
            in_channels, widths[0], kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        )
        layers: OrderedDict[str, torch.nn.Module] = OrderedDict(conv1=first, act1=activation())
        for k, (inputs, outputs) in enumerate(pairwise(widths), start=2):
            layers[f"conv{k}"] = self._conv(inputs, outputs, 1, bias=bias, device=device, dtype=dtype)
            layers[f"act{k}"] = activation()
        self.layers = torch.nn.Sequential(layers)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch's name
        """Apply all layers; shapes as those of torch's convolutions, batched or not."""
        out: Tensor = self.layers(input)
        return out


_MLP = """A {n}-D mlpconv layer: a small network slid over the input in place of a linear kernel.

    A convolution and 1x1 convolutions on it, each followed by an activation: dense layers, the same at every position (Network in
    Network, Lin et al. 2013, arXiv 1312.4400).

    Parameters
    ----------
    in_channels : int
    channels : sequence of int
        Channels after the convolution, and after each 1x1 convolution.
    kernel_size, stride, padding, dilation, groups, padding_mode, device, dtype
        As in `Conv{n}d`; of the first convolution.
    bias : bool
        Whether each layer has one.
    activation : callable
        Makes the module after each layer.

    Attributes
    ----------
    layers : torch.nn.Sequential
        ``conv1``, ``act1``, ``conv2``, ...

    Raises
    ------
    ArgumentError, ArgumentTypeError
        With the actual numbers, for what cannot be such a layer.

    Examples
    --------
    >>> import torch, ninefold.nn as nn
    >>> layer = nn.MLPConv{n}d(3, (8, 7, 4), 5, padding=2)
    >>> layer(torch.zeros(2, 3, {size})).shape == (2, 4, {size})
    True
    """


class ShuffleUnit(torch.nn.Module):
    """The ShuffleNet unit (Zhang et al. 2017, arXiv 1707.01083): a residual bottleneck whose 1x1 convolutions are in groups.

    1x1 convolution in groups to a quarter of `out_channels`, batch normalisation, ReLU; channel shuffle; depthwise 3x3
    convolution, batch normalisation and no ReLU; 1x1 convolution in groups, batch normalisation. With ``stride=1`` the input is
    added. With ``stride=2`` its 3x3 average is concatenated, so that the branch makes ``out_channels - in_channels`` channels
    only. ReLU ends both.

    Parameters
    ----------
    in_channels, out_channels : int
        Equal with stride 1.
    groups : int
        Of the 1x1 convolutions, and of the shuffle between.
    stride : {1, 2}
    first_groups : int, optional
        Of the first 1x1 convolution, where not `groups`: the paper leaves it whole, 1, in the first unit of the network, which
        reads few channels.
    device, dtype
        As in `Conv2d`.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        With the actual numbers, if stride and channels do not fit one another or groups do not divide them.

    Examples
    --------
    >>> import torch, ninefold.nn as nn
    >>> nn.ShuffleUnit(24, 240, groups=3, stride=2, first_groups=1)(torch.zeros(1, 24, 14, 9)).shape
    torch.Size([1, 240, 7, 5])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        groups: int,
        stride: int = 1,
        *,
        first_groups: int | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        inputs, outputs = integer(in_channels, "in_channels", 1), integer(out_channels, "out_channels", 4)
        _check_unit(inputs, outputs, stride)
        middle, made = outputs // 4, outputs if stride == 1 else outputs - inputs
        if middle % integer(groups, "groups", 1) or made % groups:
            raise ArgumentError(f"groups={groups} must divide the {middle} channels in the middle and the {made} that are made")
        first = groups if first_groups is None else first_groups
        where: dict[str, Any] = {"device": device, "dtype": dtype}
        self.stride = stride
        self.reduce = PointwiseGroupConv2d(inputs, middle, first, bias=False, **where)
        self.norm1 = torch.nn.BatchNorm2d(middle, **where)
        self.relu1 = torch.nn.ReLU()
        self.shuffle = ChannelShuffle(groups)
        self.depthwise = Conv2d(middle, middle, 3, stride, padding=1, groups=middle, bias=False, **where)
        self.norm2 = torch.nn.BatchNorm2d(middle, **where)
        self.expand = PointwiseGroupConv2d(middle, made, groups, bias=False, **where)
        self.norm3 = torch.nn.BatchNorm2d(made, **where)
        self.shortcut = torch.nn.Identity() if stride == 1 else torch.nn.AvgPool2d(3, stride=2, padding=1)
        self.relu2 = torch.nn.ReLU()

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch's name
        """Apply the unit to ``(batch, in_channels, height, width)``."""
        x = self.shuffle(self.relu1(self.norm1(self.reduce(input))))
        x = self.norm3(self.expand(self.norm2(self.depthwise(x))))
        kept = self.shortcut(input)
        out: Tensor = self.relu2(x + kept if self.stride == 1 else torch.cat((kept, x), 1))
        return out


def _check_unit(inputs: int, outputs: int, stride: int) -> None:
    if stride not in (1, 2):
        raise ArgumentError(f"stride={stride!r} must be 1, which adds the input, or 2, which concatenates its average")
    if stride == 1 and inputs != outputs:
        raise ArgumentError(f"with stride 1 the input is added: in_channels={inputs} and out_channels={outputs} must be equal")
    if stride == 2 and outputs <= inputs:
        raise ArgumentError(
            f"with stride 2 the output holds the input's channels: out_channels={outputs} must exceed in_channels={inputs}"
        )


def _text(template: str, n: int) -> str:
    return template.format(n=n, size=", ".join("5674"[:n]))


class PointwiseGroupConv1d(_PointwiseGroup, Conv1d):
    __doc__ = _text(_POINTWISE, 1)


class PointwiseGroupConv2d(_PointwiseGroup, Conv2d):
    __doc__ = _text(_POINTWISE, 2)


class PointwiseGroupConv3d(_PointwiseGroup, Conv3d):
    __doc__ = _text(_POINTWISE, 3)


class MLPConv1d(_MLPConv):
    __doc__ = _text(_MLP, 1)
    _conv = Conv1d


class MLPConv2d(_MLPConv):
    __doc__ = _text(_MLP, 2)
    _conv = Conv2d


class MLPConv3d(_MLPConv):
    __doc__ = _text(_MLP, 3)
    _conv = Conv3d
