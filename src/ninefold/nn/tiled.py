"""Layers whose kernel depends on the position: unshared (eq. 9.9) and tiled (eq. 9.10), with biases shared as one likes."""

from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from ninefold.errors import ArgumentError, ShapeError
from ninefold.nn.conv import Planned
from ninefold.ops import PlannedCall
from ninefold.ops.fields import call_traced, spec_of
from ninefold.ops.traced import node, overridable
from ninefold.spec.conv import ConvSpec
from ninefold.spec.parse import per_axis

__all__ = ["LocallyConnected1d", "LocallyConnected2d", "LocallyConnected3d", "TiledConv1d", "TiledConv2d", "TiledConv3d"]

_BIASES = (True, False, "channel", "location")


class _Tiled(Planned):
    """What both families share; `period` has None along an axis where no kernel repeats."""

    _ndim: int

    def __init__(
        self,
        spec: ConvSpec,
        input_size: tuple[int, ...] | None,
        bias: bool | str,
        device: Any,
        dtype: Any,
    ) -> None:
        if not isinstance(bias, (bool, str)) or bias not in _BIASES:
            raise ArgumentError(f"bias={bias!r} is not one of {list(_BIASES)}")
        super().__init__()
        ends = (spec.in_channels, spec.out_channels)
        self.in_channels, self.out_channels = ends[::-1] if spec.transposed else ends
        self.groups = spec.groups
        self.kernel_size, self.stride, self.padding, self.dilation = spec.kernel_size, spec.stride, spec.padding, spec.dilation
        self.padding_mode, self.period, self.input_size = spec.padding_mode, spec.period, input_size
        if spec.flip_kernel:
            self.flip_kernel = True
        outputs = None if input_size is None else self._output_size(spec, input_size)
        if outputs is None and bias == "location":
            raise ArgumentError("bias='location' has a number for every output position: give input_size")
        self.weight = Parameter(torch.empty(spec.weight_shape(input_size), device=device, dtype=dtype))
        if bias is False:
            self.register_parameter("bias", None)
        else:
            sets = {True: self._own_sets(spec, outputs), "channel": (1,) * spec.ndim, "location": outputs or ()}[bias]
            self.bias = Parameter(torch.empty((self.out_channels, *sets), device=device, dtype=dtype))
        self.reset_parameters()

    def _output_size(self, spec: ConvSpec, input_size: tuple[int, ...]) -> tuple[int, ...]:
        return spec.output_size(input_size)

    def _own_sets(self, spec: ConvSpec, outputs: tuple[int, ...] | None) -> tuple[int, ...]:
        """Return per axis how many biases ``bias=True`` has: as many as kernels."""
        return tuple(outputs[k] if t is None and outputs else int(t or 1) for k, t in enumerate(spec.period))

    def reset_parameters(self) -> None:
        """Draw weights and biases evenly from ``+-1 / sqrt(inputs of an output)``, as torch's convolutions do.

        As in torch, a transposed layer counts the inputs of the convolution that is transposed.
        """
        bound = (self.weight.shape[-self._ndim - 1] * prod(self.kernel_size)) ** -0.5
        for parameter in (self.weight, self.bias):
            if parameter is not None:
                torch.nn.init.uniform_(parameter, -bound, bound)

    def _make_site(self) -> PlannedCall:
        return PlannedCall(spec_of(self._fields()), self.plan_options)

    def _fields(self) -> tuple[Any, ...]:
        how = (self.kernel_size, self.stride, self.padding, self.dilation, self.groups, self.padding_mode)
        return (self.in_channels, self.out_channels, *how, self.flip_kernel, self.period, False, 0)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "period":
            self.__dict__.pop("_site", None)
        super().__setattr__(name, value)

    @node
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch's name
        """Convolve; shapes as those of torch's convolutions, batched or not."""
        self._check_size(input)
        if torch.compiler.is_compiling():
            out = call_traced(input, self.weight, None, None, self._fields(), self.plan_options)
        else:
            out = self.site(input, self.current_weight())
        return out if self.bias is None else plus_cycled(out, self.bias)

    def _check_size(self, x: Tensor) -> None:
        if self.input_size is None or not isinstance(x, Tensor) or x.is_nested:  # refused by who is called next
            return
        if x.shape[-self._ndim :] != self.input_size:
            raise ShapeError(
                f"the input has size {tuple(x.shape[-self._ndim :])}; this layer was made for input_size={self.input_size}, "
                "which its parameters depend on; make another for other sizes"
            )

    def extra_repr(self) -> str:
        """Return the arguments that make this layer."""
        given = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        plain = {"padding": ((0, 0),) * self._ndim, "dilation": (1,) * self._ndim, "groups": 1, "padding_mode": "zeros"}
        parts = [f"{name}={getattr(self, name)}" for name, value in plain.items() if getattr(self, name) != value]
        parts += [f"input_size={self.input_size}"] if self.input_size is not None else []
        parts += [f"period={self.period}"] if None not in self.period else []
        parts += [
            ", ".join(text for text, on in (("flip_kernel=True", self.flip_kernel), ("bias=False", self.bias is None)) if on)
        ]
        return ", ".join((given, *filter(None, parts)))


@overridable
def plus_cycled(out: Tensor, bias: Tensor) -> Tensor:
    """Add a bias with as many values along each axis as positions, or one for all, or some that are cycled through."""
    for axis, n in enumerate(out.shape[1 - bias.ndim :], start=1):
        if bias.shape[axis] not in (1, n):
            bias = bias.index_select(axis, torch.arange(n, device=bias.device) % bias.shape[axis])
    return out + bias


class _LocallyConnected(_Tiled):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool | str = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        input_size: Any,
        flip_kernel: bool = False,
    ) -> None:
        kernel = per_axis(kernel_size, self._ndim, "kernel_size", 1)
        ends = (in_channels, out_channels, kernel)
        spec = ConvSpec(*ends, stride, padding, dilation, groups, padding_mode, flip_kernel, None)
        super().__init__(spec, per_axis(input_size, self._ndim, "input_size", 1), bias, device, dtype)


class _TiledConv(_Tiled):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool | str = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        period: Any,
        input_size: Any = None,
        flip_kernel: bool = False,
    ) -> None:
        kernel = per_axis(kernel_size, self._ndim, "kernel_size", 1)
        cycle = per_axis(period, self._ndim, "period", 1)
        ends = (in_channels, out_channels, kernel)
        spec = ConvSpec(*ends, stride, padding, dilation, groups, padding_mode, flip_kernel, cycle)
        size = None if input_size is None else per_axis(input_size, self._ndim, "input_size", 1)
        super().__init__(spec, size, bias, device, dtype)


_LOCAL = """A {n}-D locally connected layer, or unshared convolution: a kernel of its own at every output position (eq. 9.9).

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode, device, dtype
        As in `Conv{n}d`.
    bias : bool or {{"channel", "location"}}
        True and ``"location"`` have a number per output unit, as the weights have; ``"channel"`` one per output channel.
    input_size : int or tuple of int
        Spatial size of the input: the parameters depend on it.
    flip_kernel : bool
        Read the kernels backwards along every axis.

    Attributes
    ----------
    weight : Parameter of shape ``(out_channels, *output_size, in_channels / groups, *kernel_size)``
        The order of indices of eq. 9.9, ``W[i, j, k, l, m, n]``.
    bias : Parameter of shape ``(out_channels, *output_size)`` or ``(out_channels, {ones})``, or None

    Raises
    ------
    ArgumentError, ArgumentTypeError
        With the actual numbers, for what cannot be such a layer; ShapeError at a call with an input of another size.

    Examples
    --------
    >>> import torch, ninefold.nn as nn
    >>> layer = nn.LocallyConnected{n}d(3, 4, 2, input_size={size})
    >>> layer(torch.zeros(2, 3, {size})).shape == (2, *layer.bias.shape)
    True
    """
_TILED = """A {n}-D tiled convolution: kernels cycled through along the outputs (eq. 9.10 of the book; Gregor and LeCun 2010).

    Output position ``j`` uses kernel ``j mod period`` along each axis. Period 1 is a convolution, one of the output's size is
    locally connected.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode, device, dtype
        As in `Conv{n}d`.
    bias : bool or {{"channel", "location"}}
        True has a number per kernel; ``"channel"`` one per output channel; ``"location"`` one per output unit, which corrects for
        units at a border that a padding drives less (with ``period=1``, in a plain convolution).
    period : int or tuple of int
        Kernels along each axis.
    input_size : int or tuple of int, optional
        Spatial size of the input: needed for ``bias="location"``, and held to where it is given.
    flip_kernel : bool
        Read the kernels backwards along every axis.

    Attributes
    ----------
    weight : Parameter of shape ``(out_channels, *period, in_channels / groups, *kernel_size)``; period 1: a convolution's
    bias : Parameter of shape ``(out_channels, *period)``, ``(out_channels, {ones})``, ``(out_channels, *output_size)``, or None

    Raises
    ------
    ArgumentError, ArgumentTypeError
        With the actual numbers, for what cannot be such a layer; ShapeError at a call with an input that does not fit.

    Examples
    --------
    >>> import torch, ninefold.nn as nn
    >>> layer = nn.TiledConv{n}d(3, 4, 2, period=2, padding="same")
    >>> layer(torch.zeros(2, 3, {size})).shape == (2, 4, {size})
    True
    """


def _text(template: str, n: int) -> str:
    return template.format(n=n, size="5, 6, 7"[-3 * n + 2 :] if n > 1 else "7", ones=", ".join(["1"] * n))


class LocallyConnected1d(_LocallyConnected):
    __doc__ = _text(_LOCAL, 1)
    _ndim = 1


class LocallyConnected2d(_LocallyConnected):
    __doc__ = _text(_LOCAL, 2).replace("input_size=6, 7", "input_size=(6, 7)")
    _ndim = 2


class LocallyConnected3d(_LocallyConnected):
    __doc__ = _text(_LOCAL, 3).replace("input_size=5, 6, 7", "input_size=(5, 6, 7)")
    _ndim = 3


class TiledConv1d(_TiledConv):
    __doc__ = _text(_TILED, 1)
    _ndim = 1


class TiledConv2d(_TiledConv):
    __doc__ = _text(_TILED, 2)
    _ndim = 2


class TiledConv3d(_TiledConv):
    __doc__ = _text(_TILED, 3)
    _ndim = 3
