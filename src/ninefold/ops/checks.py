"""What every call is checked for once per kind of operands: rank, channels, weight shape, dtypes, devices."""

from math import prod
from typing import Any

import torch
from torch import Tensor

from ninefold.errors import ArgumentTypeError, DeviceError, DTypeError, ShapeError
from ninefold.spec.conv import ConvSpec
from ninefold.spec.form import Form

__all__ = ["check_data", "check_layer", "check_operands", "check_strided", "check_tensor"]


def check_data(spec: ConvSpec, x: Tensor) -> None:
    """Check what the layer reads: rank and channels.

    Raises
    ------
    ShapeError
        With the shape, and the shape it must have.
    """
    channels = spec.out_channels if spec.transposed else spec.in_channels
    if not isinstance(x, Tensor):
        raise ArgumentTypeError(f"the input must be a tensor {_wanted(spec, channels)}, got type {type(x).__name__}")
    if x.is_nested:
        check_strided(x)
    if x.ndim not in (spec.ndim + 1, spec.ndim + 2):
        raise ShapeError(
            f"the input has shape {tuple(x.shape)}, {x.ndim} dimensions; a {spec.ndim}-D convolution takes "
            f"{_wanted(spec, channels)}, or that without the batch"
        )
    if x.shape[-spec.ndim - 1] != channels:
        hint = " (is it channels-last? use x.movedim(-1, 1))" if x.shape[-1] == channels else ""
        raise ShapeError(
            f"the input has shape {tuple(x.shape)} and {x.shape[-spec.ndim - 1]} channels; "
            f"this layer takes {_wanted(spec, channels)}{hint}"
        )


def check_tensor(x: Any, name: str = "the input") -> None:
    """Raise unless this is an ordinary tensor.

    Raises
    ------
    ArgumentTypeError, DTypeError
    """
    if not isinstance(x, Tensor):
        raise ArgumentTypeError(f"{name} must be a tensor, got type {type(x).__name__}")
    check_strided(x)


def check_strided(*operands: Tensor) -> None:
    """Raise unless each is an ordinary tensor, neither sparse nor nested.

    Raises
    ------
    DTypeError
    """
    for x in operands:
        if x.is_nested:
            raise DTypeError("nested tensors are not supported; pad them with .to_padded_tensor(0.0), or go one by one")
        if x.layout != torch.strided:
            raise DTypeError(f"sparse operands ({x.layout}) are not supported; call .to_dense() first")


def _wanted(spec: ConvSpec, channels: int) -> str:
    sizes = "DHW"[3 - spec.ndim :] if spec.ndim <= 3 else ("...",)
    return f"(batch, {channels}, {', '.join(sizes)})"


def check_layer(spec: ConvSpec, form: Form, x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Check what a layer is called with, all but the input's sizes, which may be symbolic.

    Raises
    ------
    ShapeError, DTypeError, DeviceError
    """
    outputs = spec.in_channels if spec.transposed else spec.out_channels
    for name, operand, shape in (("weight", weight, form.weight_shape), ("bias", bias, (outputs,))):
        if operand is not None:
            check_operands(form, (name, operand, shape), ("input", x, tuple(x.shape)))


def check_operands(form: Form, a: tuple[str, Tensor, tuple[int, ...]], b: tuple[str, Tensor, tuple[int, ...]]) -> None:
    """Check two operands, each with its name and the shape that the form gives it.

    Raises
    ------
    ShapeError, DTypeError, DeviceError
    """
    for name, x, shape in (a, b):
        if tuple(x.shape) != tuple(shape):
            raise ShapeError(f"the {name} has shape {tuple(x.shape)}; this convolution needs {tuple(shape)}")
    (name_a, x, _), (name_b, y, _) = a, b
    if x.dtype != y.dtype:
        raise DTypeError(
            f"the {name_a} is {x.dtype} but the {name_b} is {y.dtype}; convert one of them, e.g. {name_b}.to({x.dtype})"
        )
    if x.device != y.device:
        raise DeviceError(
            f"the {name_a} is on {x.device} but the {name_b} is on {y.device}; move one, e.g. {name_b}.to('{x.device}')"
        )
    check_strided(x, y)
    if max(prod(form.n_in), prod(form.n_out)) >= 2**62:
        raise ShapeError(f"sizes {form.n_in} -> {form.n_out} are past 2**62 elements; cut the input into tiles")
