"""What comes in, as plain arrays, and what goes out in the kind that came: NumPy or torch, checked once."""

from importlib import import_module
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ninefold.errors import ArgumentError, ArgumentTypeError, DTypeError, MissingExtraError, ShapeError

__all__ = ["Array", "Labels", "in_kind", "label_array", "plain_array", "same_shape", "scipy_part", "whole_label"]

Array = NDArray[Any] | Tensor
Labels = NDArray[np.int64]
Kind = TypeVar("Kind")


def plain_array(x: Any, name: str) -> NDArray[Any]:
    """Return an array or tensor as a NumPy array on the CPU, without a copy where there need not be one.

    Raises
    ------
    ArgumentTypeError
        If it is neither an array, a tensor, nor a list.

    Examples
    --------
    >>> plain_array(torch.ones(2, 3, dtype=torch.float32, device="cpu"), "x").shape
    (2, 3)
    """
    if isinstance(x, Tensor):
        x = x.detach()
        found: NDArray[Any] = (x.float() if x.dtype == torch.bfloat16 else x).cpu().resolve_neg().numpy()
        return found
    if isinstance(x, (np.ndarray, list, tuple)):
        return np.asarray(x)
    raise ArgumentTypeError(f"{name} is a {type(x).__name__}; give an array or a tensor")


def label_array(x: Any, name: str, ndims: tuple[int, ...] | None = None) -> Labels:
    """Return labels as a contiguous int64 array: whole numbers of 0 and more.

    Raises
    ------
    DTypeError
        If they are not integers.
    ShapeError
        If there are none, or they have another number of axes.
    ArgumentError
        If one is negative, or too large for int64.

    Examples
    --------
    >>> label_array([[0, 3], [3, 3]], "labels").dtype
    dtype('int64')
    """
    labels = plain_array(x, name)
    if labels.size == 0:
        raise ShapeError(f"{name} has the shape {labels.shape}: there is nothing in it; give at least 1 element")
    if labels.dtype.kind not in "iub":
        raise DTypeError(f"{name} is of {labels.dtype}; labels are whole numbers: convert it, e.g. with .astype(numpy.int64)")
    if ndims is not None and labels.ndim not in ndims:
        raise ShapeError(f"{name} has {labels.ndim} axes, shape {labels.shape}; it must have {' or '.join(map(str, ndims))}")
    least, most = int(labels.min()), int(labels.max())
    if least < 0:
        raise ArgumentError(f"{name} goes down to {least}; labels are 0 and more: give what is not labelled a number of its own")
    if most >= 2**63:
        raise ArgumentError(f"{name} goes up to {most}, which int64 does not hold; number the labels anew")
    return np.ascontiguousarray(labels, dtype=np.int64)


def same_shape(a: NDArray[Any], b: NDArray[Any], first: str, second: str) -> None:
    """Refuse two arrays of different shapes.

    Raises
    ------
    ShapeError
        If they differ.

    Examples
    --------
    >>> same_shape(np.ones((2, 3)), np.ones((2, 3)), "true", "predicted")
    """
    if a.shape != b.shape:
        raise ShapeError(f"{first} has the shape {a.shape}, {second} {b.shape}; they must be of one shape")


def whole_label(label: Any, name: str) -> int:
    """Return one label given as an argument.

    Raises
    ------
    ArgumentTypeError
        If it is not a whole number.

    Examples
    --------
    >>> whole_label(np.uint8(3), "background")
    3
    """
    if isinstance(label, (bool, np.bool_)) or not isinstance(label, (int, np.integer)):
        raise ArgumentTypeError(f"{name}={label!r}; it is a label, a whole number")
    return int(label)


def in_kind(found: NDArray[Any], like: Any) -> Any:
    """Return a result as a tensor on the device of `like` if that is a tensor, else as it is.

    Examples
    --------
    >>> in_kind(np.arange(3), torch.ones(2, dtype=torch.float32, device="cpu"))
    tensor([0, 1, 2])
    """
    return torch.from_numpy(found).to(like.device) if isinstance(like, Tensor) else found


def scipy_part(name: str, what: str) -> Any:
    """Return a module of SciPy: loaded only by what needs it.

    Raises
    ------
    MissingExtraError
        If SciPy is not installed.

    Examples
    --------
    >>> scipy_part("ndimage", "boundary_f").__name__
    'scipy.ndimage'
    """
    try:
        return import_module(f"scipy.{name}")
    except ImportError as error:
        raise MissingExtraError(f"{what} needs SciPy: pip install 'ninefold[segment]' ({error})") from error
