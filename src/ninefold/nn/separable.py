"""Depthwise separable convolution as one layer: space first, channel by channel, then channels, position by position."""

from collections.abc import Callable
from fractions import Fraction
from math import prod
from typing import Any

import torch
from torch import Tensor

from ninefold.errors import ArgumentTypeError, UnsupportedError
from ninefold.nn.conv import Conv1d, Conv2d, Conv3d
from ninefold.spec.conv import ConvSpec
from ninefold.spec.parse import integer

__all__ = ["DepthwiseSeparableConv1d", "DepthwiseSeparableConv2d", "DepthwiseSeparableConv3d"]


class _DepthwiseSeparable(torch.nn.Module):
    """Two planned convolutions in a row; the docstring is shared by the three of them."""

    _conv: Any

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        multiplier: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        between: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if not (between is None or callable(between)):
            raise ArgumentTypeError(f"between={between!r} cannot be called; give a module, a function of a tensor, or None")
        super().__init__()
        inputs = integer(in_channels, "in_channels", 1)
        middle = inputs * integer(multiplier, "multiplier", 1)
        where, how = (kernel_size, stride, padding, dilation), (padding_mode, device, dtype)
        self.depthwise = self._conv(inputs, middle, *where, inputs, False, *how)
        self.between = between
        self.pointwise = self._conv(middle, out_channels, 1, bias=bias, device=device, dtype=dtype)

    @property
    def multiplier(self) -> int:
        """Kernels per input channel."""
        return int(self.depthwise.out_channels // self.depthwise.in_channels)

    @property
    def dense_spec(self) -> ConvSpec:
        """The dense convolution that reads and gives the same shapes."""
        spec: ConvSpec = self.depthwise.spec
        return spec.replace(out_channels=self.pointwise.out_channels, groups=1, bias=self.pointwise.bias is not None)

    @property
    def ratio(self) -> Fraction:
        """Multiply-adds, and weights, against the dense convolution's: ``multiplier * (1 / out_channels + 1 / taps)`` (eq. 9)."""
        return self.multiplier * (Fraction(1, self.pointwise.out_channels) + Fraction(1, prod(self.depthwise.kernel_size)))

    def macs(self, input_size: Any) -> int:
        """Return the multiply-adds of both stages per example, those with zeros of the border included."""
        spec: ConvSpec = self.depthwise.spec
        return int(spec.macs(input_size) + self.pointwise.spec.macs(spec.output_size(input_size)))

    def to_dense(self) -> Any:
        """Return the dense convolution that this layer equals, with a weight of its own.

        Its kernel from input channel ``l`` to output channel ``i`` is ``sum_m P[i, l, m] D[l, m]``: seen from one input channel,
        all kernels lie in a space of as many dimensions as the multiplier.

        Raises
        ------
        UnsupportedError
            If something stands between the stages: then there is no such convolution.
        """
        if self.between is not None:
            raise UnsupportedError(
                f"with {type(self.between).__name__} between the stages this layer is no single convolution; "
                "to_dense needs between=None"
            )
        deep, point = self.depthwise, self.pointwise
        how = (deep.kernel_size, deep.stride, deep.padding, deep.dilation)
        has_bias = deep.bias is not None or point.bias is not None
        device, dtype = deep.weight.device, deep.weight.dtype
        dense = self._conv(deep.in_channels, point.out_channels, *how, 1, has_bias, deep.padding_mode, device, dtype)
        with torch.no_grad():
            mixing = point.weight.flatten(1)
            kernels = deep.weight.unflatten(0, (deep.in_channels, self.multiplier)).squeeze(2)
            dense.weight.copy_(torch.einsum("ilm,lm...->il...", mixing.unflatten(1, kernels.shape[:2]), kernels))
            if has_bias:
                offset = 0 if point.bias is None else point.bias
                dense.bias.copy_(offset if deep.bias is None else mixing @ deep.bias + offset)
        return dense

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch's name
        """Convolve each channel, apply what stands between, mix the channels; shapes as those of torch's convolutions."""
        x: Tensor = self.depthwise(input)
        out: Tensor = self.pointwise(x if self.between is None else self.between(x))
        return out

    def extra_repr(self) -> str:
        """Return what the stages do not show: a function between them."""
        plain = self.between is None or isinstance(self.between, torch.nn.Module)
        return "" if plain else f"between={getattr(self.between, '__name__', self.between)}"


_TEXT = """A depthwise separable {n}-D convolution: kernels per input channel, then a 1x1 convolution that mixes them.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, padding_mode, device, dtype
        As in `Conv{n}d`; all but the channels belong to the depthwise stage.
    multiplier : int
        Kernels per input channel.
    bias : bool
        Of the pointwise stage; the depthwise stage has none.
    between : module or callable, optional
        What stands between the stages: batch normalisation and ReLU in MobileNet (Howard et al. 2017, arXiv 1704.04861), nothing
        in Xception (Chollet 2017, arXiv 1610.02357). A function that is to be pickled must have a name.

    Attributes
    ----------
    depthwise, pointwise : Conv{n}d
    between : module, callable or None

    Raises
    ------
    ArgumentError, ArgumentTypeError
        With the actual numbers, for what cannot be such a layer.

    Examples
    --------
    >>> import torch, ninefold.nn as nn
    >>> layer, x = nn.DepthwiseSeparableConv{n}d(4, 6, 3, stride=2, padding="same"), torch.randn(2, 4, {size})
    >>> torch.allclose(layer(x), layer.to_dense()(x), atol=1e-6)
    True
    >>> layer.ratio * layer.dense_spec.macs(({size},)) == layer.macs(({size},))
    True
    """


def _text(n: int) -> str:
    return _TEXT.format(n=n, size=", ".join("9876"[:n]))


class DepthwiseSeparableConv1d(_DepthwiseSeparable):
    __doc__ = _text(1)
    _conv = Conv1d


class DepthwiseSeparableConv2d(_DepthwiseSeparable):
    __doc__ = _text(2)
    _conv = Conv2d


class DepthwiseSeparableConv3d(_DepthwiseSeparable):
    __doc__ = _text(3)
    _conv = Conv3d
