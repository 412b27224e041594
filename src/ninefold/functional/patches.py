"""Patches side by side as the columns of a matrix, by every kind of window that a convolution has, and back.

A convolution is a product with such a matrix: ``conv2d(x, w)`` is ``w.flatten(1) @ unfold(x, ...)``.
"""

from math import prod
from typing import Any

import torch
from torch import Tensor

from ninefold.errors import ShapeError
from ninefold.functional.sliding import check_input, exactly
from ninefold.ops.checks import check_tensor
from ninefold.ops.traced import overridable
from ninefold.spec import parse
from ninefold.spec.axis import Axis
from ninefold.spec.conv import ConvSpec
from ninefold.tensors.border import extended_along, folded_along
from ninefold.tensors.layout import in_format

__all__ = ["fold", "patches_spec", "unfold"]


@overridable
def unfold(
    input: Tensor,  # noqa: A002  torch's name
    kernel_size: Any,
    dilation: Any = 1,
    padding: Any = 0,
    stride: Any = 1,
    *,
    padding_mode: str = "zeros",
) -> Tensor:
    """Line up what a convolution's windows read as columns: torch's ``unfold``, in 1-D, 2-D and 3-D, with every border.

    Parameters
    ----------
    input : Tensor of shape ``(batch, channels, *size)`` or without the batch
    kernel_size, dilation, stride : int or tuple
        Tuples say how many axes there are: ``(3,)`` is 1-D; numbers alone are 2-D, as in torch.
    padding : int, tuple, tuple of pairs, or str
        As in ``conv2d``: ``"same"`` with any stride, ``"same_lower"``, ``"full"``, ``"causal"``, ``"valid"``.
    padding_mode : str
        ``"zeros"``, ``"reflect"``, ``"symmetric"``, ``"replicate"``, ``"circular"``.

    Returns
    -------
    Tensor of shape ``(batch, channels * taps, positions)``
        Channel after channel, in each tap after tap.

    Raises
    ------
    ShapeError, ArgumentError, ArgumentTypeError
        With the actual numbers and the repair.

    Examples
    --------
    >>> import torch, ninefold.functional as F
    >>> F.unfold(torch.tensor([[[1.0, 2.0, 3.0]]]), (2,), padding="same")
    tensor([[[1., 2., 3.],
             [2., 3., 0.]]])
    """
    spec = patches_spec(None, kernel_size, dilation, padding, stride, padding_mode)
    ndim = spec.ndim
    check_input(input, ndim)
    if input.ndim == ndim + 1:
        return unfold(input.unsqueeze(0), kernel_size, dilation, padding, stride, padding_mode=padding_mode).squeeze(0)
    axes = spec.form(tuple(input.shape[2:])).axes
    if _has_kernel(axes, input):
        how = (spec.kernel_size, spec.dilation, [a.lo for a in axes], spec.stride)
        return torch._C._nn.im2col(input, *how)  # noqa: SLF001  what torch's own calls
    x = input
    for dim, axis in enumerate(axes, 2):
        x = extended_along(x, dim, axis).unfold(dim, axis.extent, axis.stride)[..., :: axis.dilation]
    order = (0, 1, *range(2 + ndim, 2 + 2 * ndim), *range(2, 2 + ndim))
    columns = x.permute(order).clone(memory_format=torch.contiguous_format)  # never the input itself
    return columns.view(x.shape[0], input.shape[1] * prod(spec.kernel_size), prod([a.n_out for a in axes]))


@overridable
def fold(
    input: Tensor,  # noqa: A002  torch's name
    output_size: Any,
    kernel_size: Any,
    dilation: Any = 1,
    padding: Any = 0,
    stride: Any = 1,
    *,
    padding_mode: str = "zeros",
) -> Tensor:
    """Add columns up where `unfold` reads them: torch's ``fold``, the adjoint of `unfold` with the same arguments.

    Parameters
    ----------
    input : Tensor of shape ``(batch, channels * taps, positions)`` or without the batch
    output_size : int or tuple of int
        Spatial size of the result: of what was unfolded.
    kernel_size, dilation, padding, stride, padding_mode
        As in `unfold`. What a mode put on the border is added to where it came from.

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
    >>> F.fold(torch.ones(1, 2, 3), (3,), (2,), padding="same")
    tensor([[[1., 2., 2.]]])
    """
    check_tensor(input)
    spec = patches_spec(output_size, kernel_size, dilation, padding, stride, padding_mode)
    if input.ndim not in (2, 3):
        raise ShapeError(
            f"the input has shape {tuple(input.shape)}; columns have (batch, channels * taps, positions), or that without batch"
        )
    if input.ndim == 2:
        how = (output_size, kernel_size, dilation, padding, stride)
        return fold(input.unsqueeze(0), *how, padding_mode=padding_mode).squeeze(0)
    ndim = spec.ndim
    size = parse.size(output_size, ndim, "output_size")
    axes = spec.form(size).axes
    taps, positions = prod(spec.kernel_size), prod([a.n_out for a in axes])
    if input.shape[1] % taps or input.shape[2] != positions:
        raise ShapeError(
            f"the input has shape {tuple(input.shape)}; an output of {size} unfolds to {positions} positions of channels times "
            f"{taps} taps: (batch, channels * {taps}, {positions})"
        )
    if _has_kernel(axes, input):
        kinds = (size, spec.kernel_size, spec.dilation, [a.lo for a in axes], spec.stride)
        return torch._C._nn.col2im(input, *kinds)  # noqa: SLF001  what torch's own calls
    x = input.reshape(input.shape[0], input.shape[1] // taps, *spec.kernel_size, *(a.n_out for a in axes))
    for k, axis in enumerate(axes):
        x = folded_along(_added(x.movedim(2 + ndim, 3 + k), 2 + k, axis), 2 + k, axis)
    return in_format(x, channels_last=False)


def _added(x: Tensor, dim: int, axis: Axis) -> Tensor:
    """Add taps and positions, two neighbouring dimensions, up to what they read of the extended input."""
    taps = torch.arange(axis.kernel, device=x.device) * axis.dilation
    reads = (taps[:, None] + torch.arange(axis.n_out, device=x.device) * axis.stride).flatten()
    whole = x.new_zeros((*x.shape[:dim], axis.span, *x.shape[dim + 2 :]))
    return whole.index_add(dim, reads, x.flatten(dim, dim + 1))


def patches_spec(size: Any, kernel_size: Any, dilation: Any, padding: Any, stride: Any, padding_mode: str) -> ConvSpec:
    """Return the convolution of one channel with these windows; the first tuple says how many axes there are.

    Examples
    --------
    >>> patches_spec(None, 3, (1, 2, 1), "same", 1, "zeros").kernel_size
    (3, 3, 3)
    """
    ndim = parse.ndim_of(size, kernel_size, dilation, stride, *(() if isinstance(padding, str) else (padding,)))
    kernel = parse.per_axis(kernel_size, ndim, "kernel_size", 1)
    return ConvSpec(1, 1, kernel, stride, padding, dilation, padding_mode=padding_mode)


def _has_kernel(axes: tuple[Axis, ...], x: Tensor) -> bool:
    """Whether torch's own function does it: 2-D images of floating-point numbers, with an even border of zeros."""
    even = all(a.lo >= 0 and (a.n_in + 2 * a.lo - a.extent) // a.stride + 1 == a.n_out for a in axes)
    zeros = even and all(a.mode == "zeros" or not a.border for a in axes)
    numbers = x.is_floating_point() or x.is_complex()
    return len(axes) == 2 and zeros and numbers and not exactly(x) and bool(x.shape[1] and x.shape[2])


unfold.__module__ = fold.__module__ = "ninefold.functional"
__test__ = {name: globals()[name].__doc__ for name in ("fold", "unfold")}
"""The examples, for doctest, which does not look behind decorators."""
