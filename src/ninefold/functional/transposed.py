"""The transposed forms of unshared and tiled convolution: the map h with a kernel that depends on the position that is read."""

from typing import Any

from torch import Tensor

from ninefold.errors import ArgumentError
from ninefold.functional.conv import _check_weight, _conv_transpose, _run
from ninefold.functional.named import make
from ninefold.spec.parse import per_axis, spatial

__all__ = [
    "locally_connected_transpose1d",
    "locally_connected_transpose2d",
    "locally_connected_transpose3d",
    "tiled_conv_transpose1d",
    "tiled_conv_transpose2d",
    "tiled_conv_transpose3d",
]


def _locally_connected_transpose(
    ndim: int,
    input: Tensor,  # noqa: A002  torch's name
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
    *,
    output_size: Any = None,
    padding_mode: str = "zeros",
    flip_kernel: bool = False,
) -> Tensor:
    """Transpose {n}-D unshared convolution (eq. 9.9): every position of the input is spread by a kernel of its own.

    The exact adjoint of ``locally_connected{n}d`` with the same weight.

    Parameters
    ----------
    input : Tensor of shape ``(batch, in_channels, {sizes})`` or without the batch
    weight : Tensor of shape ``(in_channels, {sizes}, out_channels / groups, {kernels})``
        The weight of the convolution that is transposed, whose outputs are read here.
    bias : Tensor of shape ``(out_channels,)``, optional
    stride, padding, output_padding, groups, dilation, output_size, padding_mode, flip_kernel
        As in ``conv_transpose{n}d``.

    Returns
    -------
    Tensor of shape ``(batch, out_channels, *output_size)``

    Raises
    ------
    ShapeError, DTypeError, DeviceError, ArgumentError
        With the actual numbers and the repair.

    Examples
    --------
    >>> import torch, ninefold.functional as F
    >>> F.locally_connected_transpose{n}d(torch.ones(1, 2, {five}), torch.ones(2, {five}, 4, {three}), stride=2).shape
    torch.Size([1, 4, {eleven}])
    """
    dims = f"(in_channels, {ndim} input sizes, out_channels / groups, {ndim} kernel sizes)"
    _check_weight(weight, 2 * ndim + 2, dims, groups)
    how = (stride, padding, dilation, groups, padding_mode, flip_kernel)
    return _spread(ndim, input, weight, bias, how, None, output_padding, output_size)


def _tiled_conv_transpose(
    ndim: int,
    input: Tensor,  # noqa: A002  torch's name
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
    *,
    period: Any = None,
    output_size: Any = None,
    padding_mode: str = "zeros",
    flip_kernel: bool = False,
) -> Tensor:
    """Transpose {n}-D tiled convolution (eq. 9.10): position ``j`` of the input is spread by kernel ``j mod period``.

    The exact adjoint of ``tiled_conv{n}d`` with the same weight. A period of 1 is ``conv_transpose{n}d``, one of the input's
    size is ``locally_connected_transpose{n}d``.

    Parameters
    ----------
    input : Tensor of shape ``(batch, in_channels, {sizes})`` or without the batch
    weight : Tensor of shape ``(in_channels, *period, out_channels / groups, {kernels})``
    bias : Tensor of shape ``(out_channels,)``, optional
    stride, padding, output_padding, groups, dilation, output_size, padding_mode, flip_kernel
        As in ``conv_transpose{n}d``.
    period : int or tuple of int, optional
        By default what the weight's shape says; a different one is an error.

    Returns
    -------
    Tensor of shape ``(batch, out_channels, *output_size)``

    Raises
    ------
    ShapeError, DTypeError, DeviceError, ArgumentError
        With the actual numbers and the repair.

    Examples
    --------
    >>> import torch, ninefold.functional as F
    >>> F.tiled_conv_transpose{n}d(torch.ones(1, 2, {five}), torch.ones(2, {twos}, 4, {three}), stride=2, period=2).shape
    torch.Size([1, 4, {eleven}])
    """
    _check_weight(weight, 2 * ndim + 2, f"(in_channels, {ndim} periods, out_channels / groups, {ndim} kernel sizes)", groups)
    held = tuple(weight.shape[1 : 1 + ndim])
    wanted = held if period is None else per_axis(period, ndim, "period", 1)
    if wanted != held:
        raise ArgumentError(
            f"period={period} but the weight {tuple(weight.shape)} holds {held} kernels; give it {wanted}, or leave period out"
        )
    if all(t == 1 for t in held):
        how = (stride, padding, output_padding, groups, dilation)
        kinds: dict[str, Any] = {"output_size": output_size, "padding_mode": padding_mode, "flip_kernel": flip_kernel}
        return _conv_transpose(ndim, input, weight.flatten(1, 1 + ndim), bias, *how, **kinds)
    kind = (stride, padding, dilation, groups, padding_mode, flip_kernel)
    return _spread(ndim, input, weight, bias, kind, held, output_padding, output_size)


def _spread(
    ndim: int,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    how: tuple[Any, ...],
    period: tuple[int, ...] | None,
    output_padding: Any,
    output_size: Any,
) -> Tensor:
    """Run the map h of a form whose kernel depends on the position; `how` ends with groups, padding mode and flip."""
    size = None if output_size is None else spatial(output_size, ndim)
    ends = (weight.shape[1 + ndim] * how[3], weight.shape[0], tuple(weight.shape[2 + ndim :]))
    fields = (*ends, *how, period, True, output_padding if size is None else 0)
    return _run(x, weight, bias, size, fields)


locally_connected_transpose1d, locally_connected_transpose2d, locally_connected_transpose3d = (
    make(_locally_connected_transpose, f"locally_connected_transpose{n}d", n) for n in (1, 2, 3)
)
tiled_conv_transpose1d, tiled_conv_transpose2d, tiled_conv_transpose3d = (
    make(_tiled_conv_transpose, f"tiled_conv_transpose{n}d", n) for n in (1, 2, 3)
)

for _template in (_locally_connected_transpose, _tiled_conv_transpose):
    _template.__doc__ = None  # it holds places to fill, and the functions made from it have it filled
__test__ = {name: globals()[name].__doc__ for name in __all__}
"""The examples, for doctest, which does not look into partial functions."""
