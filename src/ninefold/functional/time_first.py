"""Sequences with the time in front: torch's ``conv_tbc``."""

from typing import Any

from torch import Tensor

from ninefold.errors import ShapeError
from ninefold.functional.conv import conv1d
from ninefold.ops.checks import check_tensor
from ninefold.ops.traced import overridable

__all__ = ["conv_tbc"]


@overridable
def conv_tbc(input: Tensor, weight: Tensor, bias: Tensor, pad: Any = 0) -> Tensor:  # noqa: A002  torch's name
    """Convolve ``(time, batch, channels)`` along the time: torch's ``conv_tbc``, which is `conv1d` with its dimensions moved.

    Parameters
    ----------
    input : Tensor of shape ``(time, batch, in_channels)``
    weight : Tensor of shape ``(kernel, in_channels, out_channels)``
    bias : Tensor of shape ``(out_channels,)``
    pad : int
        Zeros on both sides.

    Returns
    -------
    Tensor of shape ``(out_time, batch, out_channels)``

    Raises
    ------
    ShapeError, DTypeError, DeviceError, ArgumentError
        With the actual numbers and the repair.

    Examples
    --------
    >>> import torch, ninefold.functional as F
    >>> F.conv_tbc(torch.ones(7, 2, 4), torch.ones(3, 4, 5), torch.zeros(5), 1).shape
    torch.Size([7, 2, 5])
    """
    for name, x, dims in (("input", input, "(time, batch, channels)"), ("weight", weight, "(kernel, in_channels, out_channels)")):
        check_tensor(x, f"the {name}")
        if x.ndim != 3:
            raise ShapeError(f"the {name} has shape {tuple(x.shape)}; it must be {dims}")
    out: Tensor = conv1d(input.permute(1, 2, 0), weight.permute(2, 1, 0), bias, padding=pad)
    return out.permute(2, 0, 1).contiguous()


conv_tbc.__module__ = "ninefold.functional"
__test__ = {"conv_tbc": conv_tbc.__doc__}
"""The example, for doctest, which does not look behind decorators."""
