"""Convolutions that learn their number of input channels at the first call, as torch's lazy layers do."""

from typing import Any

import torch
from torch import Tensor

from ninefold.nn.conv import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
    check_no_border,
    go_beyond,
    torch_mode,
    torch_padding,
)
from ninefold.spec.conv import ConvSpec
from ninefold.spec.parse import integer, per_axis

__all__ = ["LazyConv1d", "LazyConv2d", "LazyConv3d", "LazyConvTranspose1d", "LazyConvTranspose2d", "LazyConvTranspose3d"]


class _Lazy:
    """What both share: a state that was loaded gives the parameters their shape, but in torch not the layer its channels."""

    _ndim: int
    _lazy: Any
    in_channels: int

    def initialize_parameters(self, input: Tensor) -> None:  # noqa: A002  torch's name
        """Make the parameters for an input, where no state was loaded."""
        self._lazy.initialize_parameters(self, input)
        if self.in_channels == 0:
            self.in_channels = self._lazy._get_in_channels(self, input)  # noqa: SLF001  as torch's own method does


class _LazyConv(_Lazy):
    """Forward layers; the docstring is shared by the three of them."""

    def __init__(
        self,
        out_channels: int,
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
        flip_kernel: bool = False,
    ) -> None:
        kernel = per_axis(kernel_size, self._ndim, "kernel_size", 1)
        least = integer(groups, "groups", 1)  # channels come in multiples of it
        spec = ConvSpec(least, out_channels, kernel, stride, padding, dilation, groups, padding_mode)
        known = torch_padding(spec, padding)
        pads = 0 if known is None else known
        how = (spec.stride, pads, spec.dilation, groups, bias, torch_mode(padding_mode))
        self._lazy.__init__(self, out_channels, spec.kernel_size, *how, device, dtype)
        go_beyond(self, spec, known, padding_mode, flip_kernel)


class _LazyConvTranspose(_Lazy):
    """Transposed layers; the docstring is shared by the three of them."""

    def __init__(
        self,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Any = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        flip_kernel: bool = False,
    ) -> None:
        check_no_border(padding_mode)
        kernel = per_axis(kernel_size, self._ndim, "kernel_size", 1)
        least = integer(groups, "groups", 1)  # channels come in multiples of it
        how = (stride, padding, dilation, groups)
        spec = ConvSpec(out_channels, least, kernel, *how, transposed=True, output_padding=output_padding)
        known = torch_padding(spec, padding)
        pads = 0 if known is None else known
        settled = (spec.stride, pads, spec.output_padding, groups, bias, spec.dilation, padding_mode)
        self._lazy.__init__(self, out_channels, spec.kernel_size, *settled, device, dtype)
        go_beyond(self, spec, known, padding_mode, flip_kernel)


_DOC = """A `{base}` whose `in_channels` are those of its first input, a drop-in for ``torch.nn.Lazy{base}``.

    It becomes a `{base}` when it is first called; before that its parameters have no shape, and its ``state_dict`` says so, as
    torch's.

    Parameters
    ----------
    out_channels, kernel_size, ...
        As in `{base}`, without `in_channels`, in torch's order.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        With the actual numbers, for what cannot be such a layer.

    Examples
    --------
    >>> import torch, ninefold.nn as nn
    >>> layer = nn.Lazy{base}(8, 3)
    >>> layer(torch.zeros(2, 5, {sizes})).shape[:2], type(layer).__name__, layer.in_channels
    (torch.Size([2, 8]), '{base}', 5)
    """


def _text(base: str, n: int) -> str:
    return _DOC.format(base=base, sizes=", ".join("765"[:n]))


class LazyConv1d(_LazyConv, Conv1d, torch.nn.LazyConv1d):
    __doc__ = _text("Conv1d", 1)
    cls_to_become = Conv1d
    _lazy = torch.nn.LazyConv1d


class LazyConv2d(_LazyConv, Conv2d, torch.nn.LazyConv2d):
    __doc__ = _text("Conv2d", 2)
    cls_to_become = Conv2d
    _lazy = torch.nn.LazyConv2d


class LazyConv3d(_LazyConv, Conv3d, torch.nn.LazyConv3d):
    __doc__ = _text("Conv3d", 3)
    cls_to_become = Conv3d
    _lazy = torch.nn.LazyConv3d


class LazyConvTranspose1d(_LazyConvTranspose, ConvTranspose1d, torch.nn.LazyConvTranspose1d):
    __doc__ = _text("ConvTranspose1d", 1)
    cls_to_become = ConvTranspose1d
    _lazy = torch.nn.LazyConvTranspose1d


class LazyConvTranspose2d(_LazyConvTranspose, ConvTranspose2d, torch.nn.LazyConvTranspose2d):
    __doc__ = _text("ConvTranspose2d", 2)
    cls_to_become = ConvTranspose2d
    _lazy = torch.nn.LazyConvTranspose2d


class LazyConvTranspose3d(_LazyConvTranspose, ConvTranspose3d, torch.nn.LazyConvTranspose3d):
    __doc__ = _text("ConvTranspose3d", 3)
    cls_to_become = ConvTranspose3d
    _lazy = torch.nn.LazyConvTranspose3d
