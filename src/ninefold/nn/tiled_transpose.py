"""The transposed unshared and tiled layers: the map h (eq. 9.13) with a kernel that depends on the position that is read."""

from typing import Any

import torch
from torch import Tensor

from ninefold.errors import ArgumentError, ShapeError
from ninefold.nn.tiled import _Tiled
from ninefold.ops.call import spatial_end
from ninefold.ops.fields import call_traced
from ninefold.ops.traced import node, overridable
from ninefold.spec.conv import ConvSpec
from ninefold.spec.parse import per_axis

__all__ = [
    "LocallyConnectedTranspose1d",
    "LocallyConnectedTranspose2d",
    "LocallyConnectedTranspose3d",
    "TiledConvTranspose1d",
    "TiledConvTranspose2d",
    "TiledConvTranspose3d",
]


class _TiledTranspose(_Tiled):
    """What both families share: sizes to choose from, and biases of what is produced, which no single kernel makes."""

    output_size: tuple[int, ...] | None = None

    def __init__(
        self,
        spec: ConvSpec,
        input_size: tuple[int, ...] | None,
        output_size: Any,
        bias: bool | str,
        device: Any,
        dtype: Any,
    ) -> None:
        if output_size is not None:
            given = per_axis(output_size, self._ndim, "output_size", 1)
            if input_size is None:
                raise ArgumentError(f"output_size={given} is chosen among those that belong to an input's size: give input_size")
            if any(spec.output_padding):
                raise ArgumentError(f"output_padding={spec.output_padding} and output_size={given} exclude each other; give one")
            self.output_size = spec.form(input_size, given).n_in
        self.output_padding = spec.output_padding
        super().__init__(spec, input_size, bias, device, dtype)

    def _output_size(self, spec: ConvSpec, input_size: tuple[int, ...]) -> tuple[int, ...]:
        return self.output_size or spec.output_size(input_size)

    def _own_sets(self, spec: ConvSpec, outputs: tuple[int, ...] | None) -> tuple[int, ...]:
        return outputs if outputs and None in spec.period else (1,) * spec.ndim

    def _fields(self) -> tuple[Any, ...]:
        how = (self.kernel_size, self.stride, self.padding, self.dilation, self.groups, self.padding_mode)
        return (self.out_channels, self.in_channels, *how, self.flip_kernel, self.period, True, self.output_padding)

    @node
    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:  # noqa: A002  torch's name
        """Transpose; `output_size` chooses among the sizes that belong to the input's."""
        self._check_size(input)
        size = self.output_size if output_size is None else spatial_end(output_size, self._ndim)
        if torch.compiler.is_compiling():
            out = call_traced(input, self.weight, None, size, self._fields(), self.plan_options)
        else:
            out = self.site(input, self.current_weight(), None, size)
        return out if self.bias is None else plus_located(out, self.bias)

    def extra_repr(self) -> str:
        """Return the arguments that make this layer."""
        extras = [f", output_padding={self.output_padding}"] if any(self.output_padding) else []
        extras += [f", output_size={self.output_size}"] if self.output_size is not None else []
        return super().extra_repr() + "".join(extras)


@overridable
def plus_located(out: Tensor, bias: Tensor) -> Tensor:
    """Add a bias with as many values along each axis as positions, or one for all."""
    size = tuple(out.shape[1 - bias.ndim :])
    if any(n not in (1, m) for n, m in zip(bias.shape[1:], size, strict=True)):
        raise ShapeError(
            f"the result has size {size}, but the bias has a number for each of {tuple(bias.shape[1:])} positions; ask for "
            "that size, or make a layer with bias='channel'"
        )
    return out + bias


class _LocallyConnectedTranspose(_TiledTranspose):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        bias: bool | str = True,
        dilation: Any = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        input_size: Any,
        output_size: Any = None,
        flip_kernel: bool = False,
    ) -> None:
        ends = (out_channels, in_channels, per_axis(kernel_size, self._ndim, "kernel_size", 1))
        how = (stride, padding, dilation, groups, padding_mode, flip_kernel)
        spec = ConvSpec(*ends, *how, None, transposed=True, output_padding=output_padding)
        super().__init__(spec, per_axis(input_size, self._ndim, "input_size", 1), output_size, bias, device, dtype)


class _TiledConvTranspose(_TiledTranspose):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        bias: bool | str = True,
        dilation: Any = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        period: Any,
        input_size: Any = None,
        output_size: Any = None,
        flip_kernel: bool = False,
    ) -> None:
        ends = (out_channels, in_channels, per_axis(kernel_size, self._ndim, "kernel_size", 1))
        how = (stride, padding, dilation, groups, padding_mode, flip_kernel)
        cycle = per_axis(period, self._ndim, "period", 1)
        spec = ConvSpec(*ends, *how, cycle, transposed=True, output_padding=output_padding)
        size = None if input_size is None else per_axis(input_size, self._ndim, "input_size", 1)
        super().__init__(spec, size, output_size, bias, device, dtype)


_LOCAL = """A transposed {n}-D locally connected layer: every position of the input is spread by a kernel of its own.

    The exact adjoint of `LocallyConnected{n}d` with the same weight, `stride` and `padding`: the map h of eq. 9.13 for the
    unshared convolution of eq. 9.9.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, output_padding, groups, dilation, device, dtype
        As in `ConvTranspose{n}d`, in its order.
    bias : bool or {{"channel", "location"}}
        True and ``"location"`` have a number per unit that is produced; ``"channel"`` one per output channel.
    padding_mode : str
        Of the convolution that is transposed: what a border continued is folded back.
    input_size : int or tuple of int
        Spatial size of what is read: the parameters depend on it.
    output_size : int or tuple of int, optional
        Of what is given, where several belong to `input_size`; by default `output_padding` more than the smallest.
    flip_kernel : bool
        Read the kernels backwards along every axis.

    Attributes
    ----------
    weight : Parameter of shape ``(in_channels, *input_size, out_channels / groups, *kernel_size)``
    bias : Parameter of shape ``(out_channels, *output_size)`` or ``(out_channels, {ones})``, or None

    Raises
    ------
    ArgumentError, ArgumentTypeError, ShapeError
        With the actual numbers, for what cannot be such a layer; ShapeError at a call with an input of another size.

    Examples
    --------
    >>> import torch, ninefold.nn as nn
    >>> layer = nn.LocallyConnectedTranspose{n}d(4, 3, 2, stride=2, input_size={size})
    >>> layer(torch.zeros(2, 4, {sizes})).shape == (2, *layer.bias.shape)
    True
    """
_TILED = """A transposed {n}-D tiled convolution: kernels cycled through along the input (the map h of eq. 9.10).

    Position ``j`` of the input is spread by kernel ``j mod period`` along each axis. The exact adjoint of `TiledConv{n}d` with
    the same weight; period 1 is `ConvTranspose{n}d`, one of the input's size is `LocallyConnectedTranspose{n}d`.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, output_padding, groups, dilation, device, dtype
        As in `ConvTranspose{n}d`, in its order.
    bias : bool or {{"channel", "location"}}
        True and ``"channel"`` have a number per output channel, for what is produced at a position comes from several kernels;
        ``"location"`` one per unit that is produced.
    padding_mode : str
        Of the convolution that is transposed: what a border continued is folded back.
    period : int or tuple of int
        Kernels along each axis.
    input_size : int or tuple of int, optional
        Spatial size of what is read: needed for ``bias="location"``, and held to where it is given.
    output_size : int or tuple of int, optional
        Of what is given, where several belong to `input_size`; by default `output_padding` more than the smallest.
    flip_kernel : bool
        Read the kernels backwards along every axis.

    Attributes
    ----------
    weight : Parameter of shape ``(in_channels, *period, out_channels / groups, *kernel_size)``; period 1: a transposed layer's
    bias : Parameter of shape ``(out_channels, {ones})`` or ``(out_channels, *output_size)``, or None

    Raises
    ------
    ArgumentError, ArgumentTypeError, ShapeError
        With the actual numbers, for what cannot be such a layer; ShapeError at a call with an input that does not fit.

    Examples
    --------
    >>> import torch, ninefold.nn as nn
    >>> layer = nn.TiledConvTranspose{n}d(4, 3, 2, stride=2, period=2)
    >>> layer(torch.zeros(2, 4, {sizes})).shape[2:] == tuple(2 * n for n in ({sizes},))
    True
    """


def _text(template: str, n: int) -> str:
    sizes = ("7", "6, 7", "3, 6, 7")[n - 1]
    return template.format(n=n, sizes=sizes, size=f"({sizes})" if n > 1 else sizes, ones=", ".join(["1"] * n))


class LocallyConnectedTranspose1d(_LocallyConnectedTranspose):
    __doc__ = _text(_LOCAL, 1)
    _ndim = 1


class LocallyConnectedTranspose2d(_LocallyConnectedTranspose):
    __doc__ = _text(_LOCAL, 2)
    _ndim = 2


class LocallyConnectedTranspose3d(_LocallyConnectedTranspose):
    __doc__ = _text(_LOCAL, 3)
    _ndim = 3


class TiledConvTranspose1d(_TiledConvTranspose):
    __doc__ = _text(_TILED, 1)
    _ndim = 1


class TiledConvTranspose2d(_TiledConvTranspose):
    __doc__ = _text(_TILED, 2)
    _ndim = 2


class TiledConvTranspose3d(_TiledConvTranspose):
    __doc__ = _text(_TILED, 3)
    _ndim = 3
