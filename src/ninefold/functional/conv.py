"""Convolutions in torch's positional order, transposed ones, and the maps h and g by torch's names.

Whatever torch's function of the same name accepts is accepted here, with the same meaning; values are within the ``tolerance`` of
`ninefold.options`. Beyond it, for 1-D, 2-D and 3-D:
``padding`` may be a policy (``"same"`` with any stride, ``"same_lower"``, ``"full"``, ``"causal"``) or pairs
``((top, bottom), (left, right))``; ``padding_mode`` says what stands on the border; ``flip_kernel=True`` is the convolution of
mathematics; and the weight may change with the position (`locally_connected2d`, `tiled_conv2d`).
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError
from ninefold.functional.named import make
from ninefold.ops import PlannedCall, trilinear
from ninefold.ops.checks import check_operands, check_tensor
from ninefold.ops.fields import call_traced, spec_of, text_of
from ninefold.spec import parse
from ninefold.spec.conv import ConvSpec
from ninefold.spec.form import Form
from ninefold.spec.parse import integer, per_axis

__all__ = [
    "conv1d",
    "conv1d_input",
    "conv1d_weight",
    "conv2d",
    "conv2d_input",
    "conv2d_weight",
    "conv3d",
    "conv3d_input",
    "conv3d_weight",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "locally_connected1d",
    "locally_connected2d",
    "locally_connected3d",
    "tiled_conv1d",
    "tiled_conv2d",
    "tiled_conv3d",
]


@lru_cache(maxsize=256)
def _site(spec: ConvSpec) -> PlannedCall:
    return PlannedCall(spec)


def _run(x: Tensor, weight: Tensor, bias: Tensor | None, size: Any, fields: tuple[Any, ...]) -> Tensor:
    if torch.compiler.is_compiling():
        return call_traced(x, weight, bias, size, fields)
    return _site(spec_of(fields))(x, weight, bias, size)


def _check_weight(weight: Tensor, ndim: int, layout: str, groups: Any) -> None:
    if not isinstance(weight, Tensor):
        raise ArgumentTypeError(f"the weight must be a tensor {layout}, got type {type(weight).__name__}")
    integer(groups, "groups", 1)
    if weight.ndim != ndim:
        raise ShapeError(f"the weight has shape {tuple(weight.shape)}, {weight.ndim} dimensions; it must be {layout}")


def _conv(
    ndim: int,
    input: Tensor,  # noqa: A002  torch's name
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    flip_kernel: bool = False,
) -> Tensor:
    """Convolve {n}-D images with one kernel for all positions (eq. 9.7 and 9.8 of the book): torch's ``conv{n}d``.

    Parameters
    ----------
    input : Tensor of shape ``(batch, in_channels, {sizes})`` or without the batch
        Any floating-point or complex dtype.
    weight : Tensor of shape ``(out_channels, in_channels / groups, {kernels})``
    bias : Tensor of shape ``(out_channels,)``, optional
    stride, dilation : int or tuple
    padding : int, tuple, tuple of pairs, or str
        Pads, or ``"valid"``, ``"same"``, ``"same_upper"``, ``"same_lower"``, ``"full"``, ``"causal"``.
    groups : int
    padding_mode : str
        ``"zeros"``, ``"reflect"``, ``"symmetric"``, ``"replicate"``, ``"circular"``.
    flip_kernel : bool
        Convolution instead of cross-correlation.

    Returns
    -------
    Tensor of shape ``(batch, out_channels, {outs})``, in the memory format of the input

    Raises
    ------
    ShapeError, DTypeError, DeviceError, ArgumentError
        With the actual numbers and the repair.

    Examples
    --------
    >>> import torch, ninefold.functional as F
    >>> F.conv{n}d(torch.ones(1, 1, {five}), torch.ones(2, 1, {three}), padding="full").shape
    torch.Size([1, 2, {seven}])
    """
    _check_weight(weight, ndim + 2, f"(out_channels, in_channels / groups, {ndim} kernel sizes)", groups)
    out, tail = weight.shape[:2]
    kernel = tuple(weight.shape[2:])
    fields = (tail * groups, out, kernel, stride, padding, dilation, groups, padding_mode, flip_kernel, 1, False, 0)
    return _run(input, weight, bias, None, fields)


def _conv_transpose(
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
    """Transpose a {n}-D convolution: the map h of the same form (eq. 9.13 of the book), torch's ``conv_transpose{n}d``.

    It is the adjoint, not the inverse. Several output sizes may belong to one input size: name one by `output_size`, or
    count up from the smallest by `output_padding`.

    Parameters
    ----------
    input : Tensor of shape ``(batch, in_channels, {sizes})`` or without the batch
    weight : Tensor of shape ``(in_channels, out_channels / groups, {kernels})``
    bias : Tensor of shape ``(out_channels,)``, optional
    stride, padding, output_padding, groups, dilation
        As in torch, in torch's order; `padding` of the convolution that is transposed.
    output_size : int or sequence of int, optional
        Spatial size of the result, or its whole shape.
    padding_mode : str
        Of the convolution that is transposed: what a border continued is folded back. This is the exact adjoint; it is not
        a border put around the input.
    flip_kernel : bool

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
    >>> F.conv_transpose{n}d(torch.ones(1, 2, {five}), torch.ones(2, 3, {three}), stride=2).shape
    torch.Size([1, 3, {eleven}])
    """
    _check_weight(weight, ndim + 2, f"(in_channels, out_channels / groups, {ndim} kernel sizes)", groups)
    inputs, tail = weight.shape[:2]
    if output_size is not None:
        output_padding, output_size = 0, parse.spatial(output_size, ndim)
    how = (stride, padding, dilation, groups, padding_mode, flip_kernel, 1, True, output_padding)
    fields = (tail * groups, inputs, tuple(weight.shape[2:]), *how)
    return _run(input, weight, bias, output_size, fields)


def _conv_input(
    ndim: int,
    input_size: Sequence[int],
    weight: Tensor,
    grad_output: Tensor,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    flip_kernel: bool = False,
) -> Tensor:
    """Return the gradient of a {n}-D convolution with respect to its input: the map h (eq. 9.13), differentiable itself.

    Parameters
    ----------
    input_size : sequence of int
        Shape of the input, ``(batch, in_channels, {sizes})``; several sizes give one output, so it must be said.
    weight : Tensor of shape ``(out_channels, in_channels / groups, {kernels})``
    grad_output : Tensor of the output's shape
    stride, padding, dilation, groups, padding_mode, flip_kernel
        Of the convolution, as in ``conv{n}d``.

    Returns
    -------
    Tensor of shape `input_size`

    Raises
    ------
    ShapeError, DTypeError, DeviceError, ArgumentError

    Examples
    --------
    >>> import torch, ninefold.functional as F
    >>> F.conv{n}d_input((1, 1, {five}), torch.ones(2, 1, {three}), torch.ones(1, 2, {three})).shape
    torch.Size([1, 1, {five}])
    """
    _check_weight(weight, ndim + 2, f"(out_channels, in_channels / groups, {ndim} kernel sizes)", groups)
    options = (stride, padding, dilation, groups, padding_mode, flip_kernel, 1, False, 0)
    fields = (weight.shape[1] * groups, weight.shape[0], tuple(weight.shape[2:]), *options)
    return _map("h", weight, grad_output, parse.shape(input_size, "input_size"), fields)


def _conv_weight(
    ndim: int,
    input: Tensor,  # noqa: A002  torch's name
    weight_size: Sequence[int],
    grad_output: Tensor,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    flip_kernel: bool = False,
) -> Tensor:
    """Return the gradient of a {n}-D convolution with respect to its kernel: the map g (eq. 9.11), differentiable itself.

    Parameters
    ----------
    input : Tensor of shape ``(batch, in_channels, {sizes})``
    weight_size : sequence of int
        Shape of the kernel, ``(out_channels, in_channels / groups, {kernels})``.
    grad_output : Tensor of the output's shape
    stride, padding, dilation, groups, padding_mode, flip_kernel
        Of the convolution, as in ``conv{n}d``.

    Returns
    -------
    Tensor of shape `weight_size`

    Raises
    ------
    ShapeError, DTypeError, DeviceError, ArgumentError

    Examples
    --------
    >>> import torch, ninefold.functional as F
    >>> F.conv{n}d_weight(torch.ones(1, 1, {five}), (2, 1, {three}), torch.ones(1, 2, {three})).shape
    torch.Size([2, 1, {three}])
    """
    integer(groups, "groups", 1)
    check_tensor(input)
    weight_size = parse.shape(weight_size, "weight_size")
    if len(weight_size) != ndim + 2:
        raise ShapeError(f"weight_size={weight_size} must name {ndim + 2} sizes: (out, in / groups, {ndim} kernel sizes)")
    options = (stride, padding, dilation, groups, padding_mode, flip_kernel, 1, False, 0)
    fields = (weight_size[1] * groups, weight_size[0], tuple(weight_size[2:]), *options)
    return _map("g", input, grad_output, tuple(input.shape), fields)


def _map(map_: Literal["h", "g"], a: Tensor, grad: Tensor, shape: tuple[int, ...], fields: tuple[Any, ...]) -> Tensor:
    """Run h or g on an operand and an output gradient, for an input of this shape."""
    check_tensor(grad, "grad_output")
    if torch.compiler.is_compiling():
        out: Tensor = getattr(torch.ops.ninefold, map_)(a, grad, text_of(fields), shape[2:], grad.shape[2:])
        return out
    spec, name = spec_of(fields), ("input's shape", "input_size")[map_ == "h"]
    form = _form(spec, shape, grad, name)
    first = ("weight", a, form.weight_shape) if map_ == "h" else ("input", a, form.input_shape(shape[0]))
    check_operands(form, first, ("grad_output", grad, form.output_shape(shape[0])))
    return trilinear(map_, spec, form, a, grad)


def _form(spec: ConvSpec, shape: tuple[int, ...], grad: Tensor, name: str) -> Form:
    """Return the form of an input's shape and an output gradient, checked against each other."""
    for k, n in enumerate(shape):
        integer(n, f"{name}[{k}]", 0)
    if len(shape) != spec.ndim + 2 or shape[1] != spec.in_channels:
        raise ShapeError(f"{name} {shape} must be (batch, {spec.in_channels}, {spec.ndim} sizes)")
    if grad.ndim != spec.ndim + 2:
        raise ShapeError(f"grad_output has shape {tuple(grad.shape)}; it must have {spec.ndim + 2} dimensions")
    form = spec.form(shape[2:], grad.shape[2:])
    if tuple(grad.shape) != form.output_shape(shape[0]):
        raise ShapeError(f"grad_output has shape {tuple(grad.shape)}; this convolution gives {form.output_shape(shape[0])}")
    return form


def _locally_connected(
    ndim: int,
    input: Tensor,  # noqa: A002  torch's name
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    flip_kernel: bool = False,
) -> Tensor:
    """Connect {n}-D images locally, with a kernel of its own at every output position: unshared convolution (eq. 9.9).

    Parameters
    ----------
    input : Tensor of shape ``(batch, in_channels, {sizes})`` or without the batch
    weight : Tensor of shape ``(out_channels, {outs}, in_channels / groups, {kernels})``
        The book's ``W[i, j, k, l, m, n]``: output channel, output position, input channel, kernel offset.
    bias : Tensor of shape ``(out_channels,)``, optional
    stride, padding, dilation, groups, padding_mode, flip_kernel
        As in ``conv{n}d``.

    Returns
    -------
    Tensor of shape ``(batch, out_channels, {outs})``

    Raises
    ------
    ShapeError, DTypeError, DeviceError, ArgumentError

    Examples
    --------
    >>> import torch, ninefold.functional as F
    >>> F.locally_connected{n}d(torch.ones(1, 1, {five}), torch.ones(2, {three}, 1, {three})).shape
    torch.Size([1, 2, {three}])
    """
    _check_weight(weight, 2 * ndim + 2, f"(out_channels, {ndim} output sizes, in_channels / groups, {ndim} kernel sizes)", groups)
    kernel = tuple(weight.shape[2 + ndim :])
    ends = (weight.shape[1 + ndim] * groups, weight.shape[0])
    fields = (*ends, kernel, stride, padding, dilation, groups, padding_mode, flip_kernel, None, False, 0)
    return _run(input, weight, bias, None, fields)


def _tiled_conv(
    ndim: int,
    input: Tensor,  # noqa: A002  torch's name
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    period: Any = None,
    padding_mode: str = "zeros",
    flip_kernel: bool = False,
) -> Tensor:
    """Convolve {n}-D images with kernels cycled through along the outputs: tiled convolution (eq. 9.10 of the book).

    Output position ``j`` uses kernel ``j mod period`` along each axis. A period of 1 is a convolution, a period of the output's
    size is unshared.

    Parameters
    ----------
    input : Tensor of shape ``(batch, in_channels, {sizes})`` or without the batch
    weight : Tensor of shape ``(out_channels, *period, in_channels / groups, {kernels})``
    bias : Tensor of shape ``(out_channels,)``, optional
    stride, padding, dilation, groups, padding_mode, flip_kernel
        As in ``conv{n}d``.
    period : int or tuple of int, optional
        By default what the weight's shape says; a different one is an error.

    Returns
    -------
    Tensor of shape ``(batch, out_channels, {outs})``

    Raises
    ------
    ShapeError, DTypeError, DeviceError, ArgumentError

    Examples
    --------
    >>> import torch, ninefold.functional as F
    >>> F.tiled_conv{n}d(torch.ones(1, 1, {five}), torch.ones(2, {twos}, 1, {three}), period=2).shape
    torch.Size([1, 2, {three}])
    """
    _check_weight(weight, 2 * ndim + 2, f"(out_channels, {ndim} periods, in_channels / groups, {ndim} kernel sizes)", groups)
    held = tuple(weight.shape[1 : 1 + ndim])
    wanted = held if period is None else per_axis(period, ndim, "period", 1)
    if wanted != held:
        raise ArgumentError(
            f"period={period} but the weight {tuple(weight.shape)} holds {held} kernels; give it {wanted}, or leave period out"
        )
    if all(t == 1 for t in held):
        return _conv(
            ndim,
            input,
            weight.flatten(1, 1 + ndim),
            bias,
            stride,
            padding,
            dilation,
            groups,
            padding_mode=padding_mode,
            flip_kernel=flip_kernel,
        )
    kernel = tuple(weight.shape[2 + ndim :])
    ends = (weight.shape[1 + ndim] * groups, weight.shape[0])
    fields = (*ends, kernel, stride, padding, dilation, groups, padding_mode, flip_kernel, held, False, 0)
    return _run(input, weight, bias, None, fields)


conv1d, conv2d, conv3d = (make(_conv, f"conv{n}d", n) for n in (1, 2, 3))
conv_transpose1d, conv_transpose2d, conv_transpose3d = (make(_conv_transpose, f"conv_transpose{n}d", n) for n in (1, 2, 3))
conv1d_input, conv2d_input, conv3d_input = (make(_conv_input, f"conv{n}d_input", n) for n in (1, 2, 3))
conv1d_weight, conv2d_weight, conv3d_weight = (make(_conv_weight, f"conv{n}d_weight", n) for n in (1, 2, 3))
locally_connected1d, locally_connected2d, locally_connected3d = (
    make(_locally_connected, f"locally_connected{n}d", n) for n in (1, 2, 3)
)
tiled_conv1d, tiled_conv2d, tiled_conv3d = (make(_tiled_conv, f"tiled_conv{n}d", n) for n in (1, 2, 3))

for _template in (_conv, _conv_transpose, _conv_input, _conv_weight, _locally_connected, _tiled_conv):
    _template.__doc__ = None  # it holds places to fill, and the functions made from it have it filled
__test__ = {name: globals()[name].__doc__ for name in __all__}
"""The examples, for doctest, which does not look into partial functions."""
