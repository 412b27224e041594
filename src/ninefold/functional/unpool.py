"""Back from pooled maps to large ones: by the switches that maximum pooling remembers, or into a corner of each window."""

from typing import Any

import torch
from torch import Tensor

from ninefold.errors import ArgumentError, DTypeError, ShapeError
from ninefold.functional.named import make
from ninefold.functional.sliding import check_input, exactly, refusal
from ninefold.ops.layout import channels_last
from ninefold.spec import parse
from ninefold.spec.pool import PoolSpec
from ninefold.tensors.layout import in_format

__all__ = ["max_unpool1d", "max_unpool2d", "max_unpool3d", "top_left_unpool1d", "top_left_unpool2d", "top_left_unpool3d"]


def _max_unpool(
    ndim: int,
    input: Tensor,  # noqa: A002  torch's name
    indices: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    output_size: Any = None,
) -> Tensor:
    """Put every {n}-D maximum back where it was found, and zero elsewhere: torch's ``max_unpool{n}d``.

    Pooling forgets which of several sizes it was given: name the size, or take the one that the windows fill.

    Parameters
    ----------
    input : Tensor of shape ``(batch, channels, {sizes})`` or without the batch
    indices : Tensor of int64 of the same shape
        What ``max_pool{n}d(..., return_indices=True)`` returned.
    kernel_size, stride, padding
        Of the pooling; `padding` as numbers or pairs.
    output_size : sequence of int, optional
        Spatial size of the result, or its whole shape; of the pooling's input.

    Returns
    -------
    Tensor of shape ``(batch, channels, *output_size)``

    Raises
    ------
    ShapeError, DTypeError, ArgumentError, ArgumentTypeError
        With the actual numbers and the repair.

    Examples
    --------
    >>> import torch, ninefold.functional as F
    >>> x = torch.rand(1, 1, {five})
    >>> z, switches = F.max_pool{n}d(x, 2, return_indices=True)
    >>> torch.equal(F.max_pool{n}d(F.max_unpool{n}d(z, switches, 2, output_size=x.shape), 2), z)
    True
    """
    check_input(input, ndim)
    size = tuple(input.shape[-ndim:])
    if not isinstance(indices, Tensor) or indices.dtype != torch.int64:
        raise DTypeError(f"indices must be a tensor of int64, got {getattr(indices, 'dtype', type(indices).__name__)}")
    if indices.shape != input.shape:
        raise ShapeError(
            f"indices have shape {tuple(indices.shape)}, but the input has {tuple(input.shape)}; they must be the same"
        )
    kernel = parse.per_axis(kernel_size, ndim, "kernel_size", 1)
    left_out = stride is None or (isinstance(stride, (list, tuple)) and not stride)
    steps = kernel if left_out else parse.per_axis(stride, ndim, "stride", 1)
    pads = parse.paddings(padding, ndim)
    if isinstance(pads, str):
        raise ArgumentError(f"padding={padding!r} depends on the size before pooling; give the pads as numbers or pairs")
    PoolSpec(kernel, steps, pads)  # checks the pads
    filled = tuple((n - 1) * s + k - lo - hi for n, s, k, (lo, hi) in zip(size, steps, kernel, pads, strict=True))
    whole = _whole(output_size, filled, tuple(s - 1 for s in steps))
    try:
        return _unpooled(input, indices, whole, steps)
    except RuntimeError as error:
        if "index" not in str(error):
            raise refusal(input, error, ndim) from error
        least = int(indices.min())
        raise ShapeError(
            f"the least index is {least}, and positions count from 0; give the indices that max pooling returned"
            if least < 0
            else f"the largest index is {int(indices.max())}, outside an output of {whole}; give the output_size that was pooled"
        ) from error


def _unpooled(x: Tensor, at: Tensor, whole: tuple[int, ...], steps: tuple[int, ...]) -> Tensor:
    ndim = len(whole)
    if exactly(x):
        flat = x.new_zeros((*x.shape[:-ndim], torch.Size(whole).numel())).scatter(-1, at.flatten(-ndim), x.flatten(-ndim))
        return in_format(flat.view(*x.shape[:-ndim], *whole), channels_last(x))
    if ndim == 1:
        return torch._C._nn.max_unpool2d(x.unsqueeze(-1), at.unsqueeze(-1), (*whole, 1)).squeeze(-1)  # noqa: SLF001
    if ndim == 2:
        return torch._C._nn.max_unpool2d(x, at, whole)  # noqa: SLF001
    return in_format(torch._C._nn.max_unpool3d(x, at, whole, steps, (0, 0, 0)), channels_last(x))  # noqa: SLF001


def _top_left_unpool(
    ndim: int,
    input: Tensor,  # noqa: A002  torch's name
    kernel_size: Any,
    output_size: Any = None,
) -> Tensor:
    """Put every element into the first corner of a {n}-D window of zeros: ``out[i k] = in[i]``.

    It inverts maximum pooling without switches (section 20.10.6 of the book; Dosovitskiy et al. 2015), on the assumption that
    windows do not overlap and the maximum sits top left. Pooling the result gives back what is not negative.

    Parameters
    ----------
    input : Tensor of shape ``(batch, channels, {sizes})`` or without the batch
    kernel_size : int or tuple
        The windows, which are also the steps.
    output_size : sequence of int, optional
        Spatial size of the result, or its whole shape, by less than a window smaller or larger than what the windows fill.

    Returns
    -------
    Tensor of shape ``(batch, channels, *output_size)``

    Raises
    ------
    ShapeError, ArgumentError, ArgumentTypeError
        With the actual numbers and the repair.

    Examples
    --------
    >>> import torch, ninefold.functional as F
    >>> x = torch.rand(1, 1, {five})
    >>> torch.equal(F.max_pool{n}d(F.top_left_unpool{n}d(x, 2), 2), x)
    True
    """
    check_input(input, ndim)
    size = tuple(input.shape[-ndim:])
    kernel = parse.per_axis(kernel_size, ndim, "kernel_size", 1)
    filled = tuple(n * k for n, k in zip(size, kernel, strict=True))
    whole = _whole(output_size, filled, tuple(k - 1 for k in kernel))
    pads = [p for k in reversed(kernel) for p in (0, k - 1, 0, 0)]
    spread = torch.constant_pad_nd(input.reshape(*input.shape[:-ndim], *(n for k in size for n in (k, 1))), pads)
    y = spread.reshape(*input.shape[:-ndim], *filled)
    if whole != filled:
        y = torch.constant_pad_nd(y, [p for a, b in zip(reversed(whole), reversed(filled), strict=True) for p in (0, a - b)])
    return in_format(y, channels_last(input))


def _whole(output_size: Any, filled: tuple[int, ...], slack: tuple[int, ...]) -> tuple[int, ...]:
    """Return the size that is asked for, checked against the one that the windows fill."""
    if output_size is None:
        return filled
    ndim = len(filled)
    given = tuple(output_size) if isinstance(output_size, (tuple, list)) else parse.size(output_size, ndim, "output_size")
    whole = parse.size(given[-ndim:] if len(given) in (ndim + 1, ndim + 2) else given, ndim, "output_size")
    for k, (n, f, s) in enumerate(zip(whole, filled, slack, strict=True)):
        if not f - s <= n <= f + s:
            raise ShapeError(f"output_size={whole} must lie between {f - s} and {f + s} along axis {k}, for the windows fill {f}")
    return whole


max_unpool1d, max_unpool2d, max_unpool3d = (make(_max_unpool, f"max_unpool{n}d", n) for n in (1, 2, 3))
top_left_unpool1d, top_left_unpool2d, top_left_unpool3d = (make(_top_left_unpool, f"top_left_unpool{n}d", n) for n in (1, 2, 3))

for _template in (_max_unpool, _top_left_unpool):
    _template.__doc__ = None  # it holds places to fill, and the functions made from it have it filled
__test__ = {name: globals()[name].__doc__ for name in __all__}
"""The examples, for doctest, which does not look into partial functions."""
