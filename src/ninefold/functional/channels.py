"""Pooling over channels: invariance to whatever the filters of a group differ in (figure 9.9 of the book), and maxout."""

from collections.abc import Callable

import torch
from torch import Tensor

from ninefold.errors import ArgumentError, DTypeError, ShapeError
from ninefold.functional.sliding import check_floating
from ninefold.ops import windows
from ninefold.ops.checks import check_tensor
from ninefold.ops.layout import channels_last
from ninefold.ops.traced import overridable
from ninefold.spec.axis import Axis
from ninefold.spec.parse import integer
from ninefold.tensors.layout import in_format

__all__ = ["channel_pool", "channel_shuffle", "maxout"]

_REDUCTIONS = ("max", "average")


@overridable
def channel_pool(
    input: Tensor,  # noqa: A002  torch's name
    groups: int | None = None,
    reduction: str | Callable[[Tensor, int], Tensor] = "max",
    *,
    size: int | None = None,
    dim: int = 1,
) -> Tensor:
    """Pool over groups of neighbouring channels: output channel g sees channels ``g size`` to ``(g + 1) size - 1``.

    Parameters
    ----------
    input : Tensor
        Any shape with channels along `dim`.
    groups : int, optional
        Channels of the result. Give this or `size`.
    reduction : "max", "average" or callable
        A callable takes a tensor ``(..., groups, size, ...)`` and the dimension of `size`, and reduces it. The gradient of a
        maximum goes to one channel, the first of equal ones.
    size : int, optional
        Channels in a group.
    dim : int
        Where the channels are: 1 in a batch, -3 in images with or without one.

    Returns
    -------
    Tensor with `groups` channels

    Raises
    ------
    ShapeError
        If the groups do not divide the channels.
    ArgumentError, ArgumentTypeError

    Examples
    --------
    >>> import torch, ninefold.functional as F
    >>> x = torch.tensor([1.0, 4.0, 3.0, 2.0]).reshape(1, 4, 1, 1)
    >>> F.channel_pool(x, 2).flatten(), F.channel_pool(x, size=4, reduction="average").flatten()
    (tensor([4., 3.]), tensor([2.5000]))
    """
    check_tensor(input)
    dim = integer(dim, "dim")
    if not -input.ndim <= dim < input.ndim:
        raise ShapeError(f"dim={dim} is no dimension of an input of shape {tuple(input.shape)}")
    if (groups is None) == (size is None):
        raise ArgumentError(f"give either groups or size, got groups={groups} and size={size}")
    if not callable(reduction) and reduction not in _REDUCTIONS:
        raise ArgumentError(
            f"reduction={reduction!r} is not one of {list(_REDUCTIONS)}, nor a function of a tensor and a dimension"
        )
    given = integer(groups if size is None else size, "groups" if size is None else "size", 1)
    channels = input.shape[dim]
    if channels % given or not channels:
        raise ShapeError(
            f"{channels} channels along dimension {dim} are no multiple of {'groups' if size is None else 'size'}={given}"
        )
    count, each = (given, channels // given) if size is None else (channels // given, given)
    at = dim % input.ndim
    grouped = input.unflatten(at, (count, each))
    if callable(reduction):
        return reduction(grouped, at + 1)
    if reduction == "max" and input.is_complex():
        raise DTypeError(f"the input has dtype {input.dtype}, and complex numbers have no order: take the maximum of real ones")
    if reduction == "average":
        check_floating(input, "an average")
    if reduction == "max" and windows.recorded(input):  # torch's amax spreads the gradient over equal ones
        # Channels are an axis like others, with windows that do not overlap.
        axes = [Axis(each, each, 1, 0, channels, count), *(Axis(1, 1, 1, 0, n, n) for n in input.shape[at + 1 :])]
        return windows.maximum(input, axes)
    pooled = grouped.amax(at + 1) if reduction == "max" else grouped.mean(at + 1)
    return in_format(pooled, channels_last(input))


@overridable
def maxout(input: Tensor, pieces: int, *, dim: int = 1) -> Tensor:  # noqa: A002  torch's name
    """Take the maximum over `pieces` neighbouring channels: the maxout unit (Goodfellow et al. 2013), given its linear part.

    Parameters
    ----------
    input : Tensor
        Any shape with channels along `dim`, a multiple of `pieces`.
    pieces : int
        Linear pieces a unit.
    dim : int

    Returns
    -------
    Tensor

    Raises
    ------
    ShapeError, ArgumentError, ArgumentTypeError
        As in `channel_pool`.

    Examples
    --------
    >>> import torch, ninefold.functional as F
    >>> F.maxout(torch.tensor([[1.0, 4.0, 3.0, 2.0]]), 2)
    tensor([[4., 3.]])
    """
    return channel_pool(input, size=pieces, dim=dim)


@overridable
def channel_shuffle(input: Tensor, groups: int) -> Tensor:  # noqa: A002  torch's name
    """Interleave the channels of groups, torch's ``channel_shuffle``: ``out[i * groups + j] = in[j * n + i]`` for n a group.

    Parameters
    ----------
    input : Tensor of shape ``(batch, channels, ...)``
        Channels in a multiple of `groups`.
    groups : int

    Returns
    -------
    Tensor of the same shape

    Raises
    ------
    ShapeError, ArgumentError, ArgumentTypeError

    Examples
    --------
    >>> import torch, ninefold.functional as F
    >>> F.channel_shuffle(torch.arange(6).reshape(1, 6), 2)
    tensor([[0, 3, 1, 4, 2, 5]])
    """
    check_tensor(input)
    if input.ndim < 2 or input.shape[1] % integer(groups, "groups", 1):
        raise ShapeError(
            f"the input has shape {tuple(input.shape)}; shuffling takes (batch, channels, ...) with channels "
            f"that are a multiple of groups={groups}"
        )
    if input.ndim == 2:
        return torch.channel_shuffle(input.unsqueeze(-1), groups).squeeze(-1)
    return torch.channel_shuffle(input, groups)


channel_pool.__module__ = channel_shuffle.__module__ = maxout.__module__ = "ninefold.functional"
__test__ = {name: globals()[name].__doc__ for name in __all__}
"""The examples, for doctest, which does not look behind decorators."""
