"""What the networks of this folder share: layers by the number of axes, and what is said of wrong inputs."""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ninefold import functional as F
from ninefold import nn as layers
from ninefold.errors import ArgumentError, ArgumentTypeError, DTypeError, ShapeError
from ninefold.spec.parse import integer

__all__ = ["LINEAR", "check_labels", "check_maps", "function", "layer", "resized", "stack", "widths_of"]

LINEAR = ("linear", "bilinear", "trilinear")
"""PyTorch's names of linear interpolation by the number of axes, less 1."""


def layer(name: str, ndim: int) -> Any:
    """Return a layer of ``ninefold.nn`` by its name without the number of axes.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If `ndim` is not 1, 2 or 3.

    Examples
    --------
    >>> layer("Conv", 3).__name__
    'Conv3d'
    """
    return getattr(layers, f"{name}{_axes(ndim)}d")


def function(name: str, ndim: int) -> Any:
    """Return a function of ``ninefold.functional`` by its name without the number of axes.

    Examples
    --------
    >>> function("max_pool", 1).__name__
    'max_pool1d'
    """
    return getattr(F, f"{name}{_axes(ndim)}d")


def _axes(ndim: int) -> int:
    if integer(ndim, "ndim", 1) > 3:
        raise ArgumentError(f"ndim={ndim} must be 1, 2 or 3, the number of spatial axes")
    return ndim


def widths_of(value: Any, name: str = "widths") -> tuple[int, ...]:
    """Return numbers of channels, one at least.

    Examples
    --------
    >>> widths_of([8, 16])
    (8, 16)
    """
    if not isinstance(value, (tuple, list)) or not value:
        raise ArgumentTypeError(f"{name}={value!r} must be a sequence of numbers of channels, such as (16, 32)")
    return tuple(integer(v, f"{name}[{k}]", 1) for k, v in enumerate(value))


def check_maps(x: Any, ndim: int, channels: int | None, what: str) -> None:
    """Refuse what is no batch of floating-point maps ``(batch, channels, *space)``.

    Raises
    ------
    ArgumentTypeError, DTypeError, ShapeError
        With the actual dtype or shape and what it must be.

    Examples
    --------
    >>> check_maps(torch.zeros(5, 7), 2, 3, "the image")
    Traceback (most recent call last):
    ninefold.errors.ShapeError: the image has shape (5, 7); it must be (batch, 3, 2 spatial axes) with at least 1 position each
    """
    if not isinstance(x, Tensor):
        raise ArgumentTypeError(f"{what} must be a tensor, got {type(x).__name__}; torch.as_tensor makes one of an array")
    wanted = "channels" if channels is None else channels
    if x.dim() != ndim + 2 or (channels is not None and x.shape[1] != channels) or 0 in x.shape[1:]:
        axes = "1 spatial axis" if ndim == 1 else f"{ndim} spatial axes"
        raise ShapeError(f"{what} has shape {tuple(x.shape)}; it must be (batch, {wanted}, {axes}) with at least 1 position each")
    if not x.is_floating_point():
        raise DTypeError(f"{what} has dtype {x.dtype}; it must hold floating-point numbers: call .float() first")


def check_labels(labels: Any, shape: tuple[int, ...], what: str = "the labels") -> None:
    """Refuse what is no batch of whole-number label maps of this shape.

    Raises
    ------
    ArgumentTypeError, DTypeError, ShapeError
        With the actual dtype or shape and what it must be.

    Examples
    --------
    >>> check_labels(torch.zeros(1, 4, 4), (1, 4, 4))
    Traceback (most recent call last):
    ninefold.errors.DTypeError: the labels have dtype torch.float32; they must be whole numbers: call .long() first
    """
    if not isinstance(labels, Tensor):
        raise ArgumentTypeError(f"{what} must be a tensor, got {type(labels).__name__}; torch.as_tensor makes one of an array")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise DTypeError(f"{what} have dtype {labels.dtype}; they must be whole numbers: call .long() first")
    if tuple(labels.shape) != tuple(shape):
        raise ShapeError(f"{what} have shape {tuple(labels.shape)}; it must be {tuple(shape)}: one label for every position")


def resized(x: Tensor, size: tuple[int, ...], mode: str = "linear") -> Tensor:
    """Return maps at another size, ``"linear"`` between the centres of pixels or ``"nearest"``.

    Examples
    --------
    >>> resized(torch.tensor([[[0.0, 4.0]]]), (4,))
    tensor([[[0., 1., 3., 4.]]])
    """
    if tuple(x.shape[2:]) == tuple(size):
        return x
    if mode == "linear":
        return nn.functional.interpolate(x, size, mode=LINEAR[len(size) - 1], align_corners=False)
    return nn.functional.interpolate(x, size, mode="nearest")


def stack(ndim: int, channels: tuple[int, ...], kernel_size: Any, activation: Any, padding: Any = "same") -> nn.Sequential:
    """Return convolutions from each number of channels to the next, with an activation between two.

    Examples
    --------
    >>> [type(m).__name__ for m in stack(1, (1, 2, 3), 3, nn.ReLU)]
    ['Conv1d', 'ReLU', 'Conv1d']
    """
    made, parts = layer("Conv", ndim), []
    for inputs, outputs in pairwise(channels):
        parts += [activation(), made(inputs, outputs, kernel_size, padding=padding)]
    return nn.Sequential(*parts[1:])  # no activation before the first
