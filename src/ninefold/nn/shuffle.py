"""The channel shuffle that lets stacked group convolutions mix (ShuffleNet, Zhang et al. 2017)."""

import torch
from torch import Tensor

from ninefold.errors import ShapeError
from ninefold.functional import channel_shuffle
from ninefold.ops.traced import node
from ninefold.spec.parse import integer

__all__ = ["ChannelShuffle"]


class ChannelShuffle(torch.nn.Module):
    """Interleave the channels of groups: ``out[i * groups + j] = in[j * n + i]`` for ``n`` channels a group.

    This is the paper's permutation. Some published code reshapes to ``(n, groups)`` first and so applies its inverse, which
    is the shuffle with ``n`` groups.

    Parameters
    ----------
    groups : int
        Groups of the convolution before.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If `groups` is no whole number of at least 1; ShapeError at a call whose channels it does not divide.

    Examples
    --------
    >>> import torch, ninefold.nn as nn
    >>> shuffle = nn.ChannelShuffle(3)
    >>> shuffle(torch.arange(12).reshape(1, 12, 1)).flatten().tolist()
    [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]
    >>> shuffle.inverse(12)(shuffle(torch.arange(12).reshape(1, 12, 1))).flatten().tolist() == list(range(12))
    True
    """

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = integer(groups, "groups", 1)

    @node
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch's name
        """Shuffle dimension 1 of ``(batch, channels, ...)``."""
        shuffled: Tensor = channel_shuffle(input, self.groups)
        return shuffled

    def inverse(self, channels: int) -> "ChannelShuffle":
        """Return the shuffle that undoes this one for so many channels.

        Raises
        ------
        ShapeError
            If the groups do not divide them.
        """
        if channels % self.groups:
            raise ShapeError(f"{channels} channels are no multiple of groups={self.groups}")
        return ChannelShuffle(channels // self.groups)

    def extra_repr(self) -> str:
        """Return the argument."""
        return f"groups={self.groups}"
