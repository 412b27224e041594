"""Patches as columns and back, as layers: subclasses of torch's, with borders, policies and any number of axes."""

from typing import Any

import torch
from torch import Tensor

from ninefold import functional as F
from ninefold.functional.patches import patches_spec
from ninefold.nn.pool import extras
from ninefold.ops.traced import node

__all__ = ["Fold", "Unfold"]


class Unfold(torch.nn.Unfold):
    """Line up what a convolution's windows read as columns, a drop-in for ``torch.nn.Unfold``; see `ninefold.functional.unfold`.

    Parameters
    ----------
    kernel_size, dilation, padding, stride
        As in torch, in torch's order. Tuples say how many axes there are, 2 by default; `padding` may be pairs or a policy.
    padding_mode : str
        What stands on the border.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        For what cannot be such windows, and ShapeError at a call whose input they do not fit.

    Examples
    --------
    >>> import torch, ninefold.nn as nn
    >>> nn.Unfold((3, 2), padding="same", stride=2)(torch.zeros(2, 3, 8, 9)).shape
    torch.Size([2, 18, 20])
    """

    def __init__(
        self, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1, *, padding_mode: str = "zeros"
    ) -> None:
        patches_spec(None, kernel_size, dilation, padding, stride, padding_mode)
        super().__init__(kernel_size, dilation, padding, stride)
        self.padding_mode = padding_mode

    @node
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch's name
        """Unfold ``(batch, channels, *size)``, batched or not."""
        how = (self.kernel_size, self.dilation, self.padding, self.stride)
        return F.unfold(input, *how, padding_mode=self.padding_mode)

    def extra_repr(self) -> str:
        """Return torch's text, with what torch lacks where it is set."""
        return super().extra_repr() + extras(self, {"padding_mode": "zeros"})


class Fold(torch.nn.Fold):
    """Add columns up where `Unfold` reads them, a drop-in for ``torch.nn.Fold``; see `ninefold.functional.fold`.

    Parameters
    ----------
    output_size, kernel_size, dilation, padding, stride
        As in torch, in torch's order. Tuples say how many axes there are, 2 by default; `padding` may be pairs or a policy.
    padding_mode : str
        What stood on the border, which is added to where it came from.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        For what cannot be such windows, and ShapeError at a call whose columns do not fit the size.

    Examples
    --------
    >>> import torch, ninefold.nn as nn
    >>> nn.Fold((8, 9), (3, 2), padding="same", stride=2)(torch.zeros(2, 18, 20)).shape
    torch.Size([2, 3, 8, 9])
    """

    def __init__(
        self,
        output_size: Any,
        kernel_size: Any,
        dilation: Any = 1,
        padding: Any = 0,
        stride: Any = 1,
        *,
        padding_mode: str = "zeros",
    ) -> None:
        patches_spec(output_size, kernel_size, dilation, padding, stride, padding_mode)
        super().__init__(output_size, kernel_size, dilation, padding, stride)
        self.padding_mode = padding_mode

    @node
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch's name
        """Fold ``(batch, channels * taps, positions)``, batched or not."""
        how = (self.output_size, self.kernel_size, self.dilation, self.padding, self.stride)
        return F.fold(input, *how, padding_mode=self.padding_mode)

    def extra_repr(self) -> str:
        """Return torch's text, with what torch lacks where it is set."""
        return super().extra_repr() + extras(self, {"padding_mode": "zeros"})
