"""What `densify` must equal: a classifier run on shifted images and interleaved, and on every window of an image."""

from itertools import product
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError
from ninefold.spec.parse import integer, per_axis

__all__ = ["shift_and_stitch", "slide"]


def shift_and_stitch(model: nn.Module, image: Tensor, stride: Any = None) -> Tensor:
    """Return a convolutional classifier's scores at every position, by running it on all shifts of the image and interleaving.

    For stride s it runs ``s^d`` times, each time with fewer of the first positions (Sermanet et al. 2013, arXiv 1312.6229). This
    is the definition of what `densify` makes at once.

    Parameters
    ----------
    model : torch.nn.Module
        Gives maps of any size: convolutions, poolings and the like, without flattening. `slide` takes any other.
    image : Tensor of shape ``(batch, channels, *space)``
        At least ``stride - 1`` positions larger per axis than the model takes.
    stride : int or tuple of int, optional
        How many positions of the image are between two of the scores; what `densify` finds by default.

    Returns
    -------
    Tensor of shape ``(batch, classes, *positions)``

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If `image` is no tensor or `stride` no number per axis.
    ShapeError
        If sizes show that this is not the model's stride.

    Examples
    --------
    >>> net = nn.Sequential(nn.Conv1d(1, 1, 3, stride=2), nn.MaxPool1d(2))
    >>> image = torch.randn(1, 1, 20)
    >>> dense = shift_and_stitch(net, image)
    >>> dense.shape, torch.equal(dense[..., ::4], net(image))
    (torch.Size([1, 1, 16]), True)
    """
    ndim = _spatial(image)
    if stride is None:
        from ninefold.structured.networks.densify import densify  # noqa: PLC0415  it shows this function in its examples

        stride = densify(model).stride
    steps = per_axis(stride, ndim, "stride", 1)
    parts = {shift: model(image[_from(shift)]) for shift in product(*map(range, steps))}
    zero = parts[(0,) * ndim]
    along = [[(0,) * a + (k,) + (0,) * (ndim - a - 1) for k in range(steps[a])] for a in range(ndim)]
    size = tuple(sum(parts[shift].shape[2 + a] for shift in along[a]) for a in range(ndim))
    dense: Tensor = zero.new_zeros(*zero.shape[:2], *size)
    for shift, part in parts.items():
        place = dense[_from(shift, steps)]
        if place.shape != part.shape:
            raise ShapeError(
                f"the image shifted by {shift} gives scores of {tuple(part.shape[2:])}, where stride {steps} leaves "
                f"{tuple(place.shape[2:])}: the model has another stride"
            )
        place.copy_(part)
    return dense


def _from(first: tuple[int, ...], steps: tuple[int | None, ...] | None = None) -> tuple[Any, ...]:
    each = steps or (None,) * len(first)
    return (..., *(slice(o, None, s) for o, s in zip(first, each, strict=True)))


def _spatial(image: Any) -> int:
    """Return the number of spatial axes of a batch."""
    if not isinstance(image, Tensor):
        raise ArgumentTypeError(f"the image must be a tensor, got {type(image).__name__}")
    if not 3 <= image.dim() <= 5:
        raise ShapeError(
            f"the image has shape {tuple(image.shape)}; it must be (batch, channels, *space) with 1 to 3 spatial axes"
        )
    return image.dim() - 2


def slide(model: nn.Module, image: Tensor, size: Any, *, batch: int = 64) -> Tensor:
    """Return a classifier's scores of every window of an image, one window after the other.

    Parameters
    ----------
    model : torch.nn.Module
        Takes ``(batch, channels, *size)`` and gives ``(batch, classes)``, or maps of one position.
    image : Tensor of shape ``(batch, channels, *space)``
    size : int or tuple of int
        Of the windows that the model takes.
    batch : int
        Windows at once: memory is that of so many.

    Returns
    -------
    Tensor of shape ``(batch, classes, *(space - size + 1))``

    Raises
    ------
    ArgumentError, ArgumentTypeError, ShapeError
        With the actual numbers; also if the image is smaller than a window, or the model gives more than one position.

    Examples
    --------
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    >>> slide(net, torch.randn(2, 1, 6, 9), (3, 4)).shape
    torch.Size([2, 5, 4, 6])
    """
    ndim = _spatial(image)
    sides, most = per_axis(size, ndim, "size", 1), integer(batch, "batch", 1)
    if any(n < k for n, k in zip(image.shape[2:], sides, strict=True)):
        raise ShapeError(f"the image has {tuple(image.shape[2:])} positions, fewer than a window of {sides}")
    views = image
    for axis, side in enumerate(sides):
        views = views.unfold(2 + axis, side, 1)
    places = tuple(views.shape[2 : 2 + ndim])
    total, found = len(image) * prod(places), []
    for first in range(0, total, most):
        rows = torch.arange(first, min(first + most, total), device=image.device)
        at = torch.unravel_index(rows, (len(image), *places))
        chosen: tuple[Any, ...] = (at[0], slice(None), *at[1:])
        out = model(views[chosen])
        if out.dim() < 2 or prod(out.shape[2:]) != 1:
            raise ArgumentError(f"the model gives {tuple(out.shape)} for a window of {sides}; it must give one score per class")
        found.append(out.reshape(len(rows), -1))
    scores = torch.cat(found)
    return scores.reshape(len(image), *places, -1).movedim(-1, 1)
