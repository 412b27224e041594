"""Convolutions whose channels are connected by a table (fig. 9.15 of the book; C3 of LeNet-5), with one kernel per edge."""

from collections import Counter
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from ninefold.errors import ArgumentError
from ninefold.nn.conv import Conv1d, Conv2d, Conv3d, Planned
from ninefold.ops import PlannedCall
from ninefold.ops.fields import call_traced, spec_of
from ninefold.ops.traced import node
from ninefold.spec.channels import ChannelTable
from ninefold.spec.conv import ConvSpec
from ninefold.spec.parse import boolean, per_axis

__all__ = ["ChannelTableConv1d", "ChannelTableConv2d", "ChannelTableConv3d"]

_DENSE = (Conv1d, Conv2d, Conv3d)


class _ChannelTableConv(Planned):
    """Forward layers; the docstring is shared by the three of them."""

    _ndim: int

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        table: Any,
        flip_kernel: bool = False,
    ) -> None:
        kernel = per_axis(kernel_size, self._ndim, "kernel_size", 1)
        edges = table.edges if isinstance(table, ChannelTable) else table
        how = (stride, padding, dilation, 1, padding_mode, flip_kernel)
        spec = ConvSpec(in_channels, out_channels, kernel, *how, table=edges)
        if not spec.table:
            raise ArgumentError(f"a table of 0 edges connects none of {in_channels} inputs to {out_channels} outputs")
        super().__init__()
        self.in_channels, self.out_channels, self.table = spec.in_channels, spec.out_channels, spec.table
        self.kernel_size, self.stride, self.padding, self.dilation = spec.kernel_size, spec.stride, spec.padding, spec.dilation
        self.padding_mode = spec.padding_mode
        if boolean(flip_kernel, "flip_kernel"):
            self.flip_kernel = True
        self.weight = Parameter(torch.empty(spec.weight_shape(), device=device, dtype=dtype))
        if bias:
            self.bias = Parameter(torch.empty(out_channels, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights and biases evenly from ``+-1 / sqrt(inputs of the output)``, each output's fan-in being its own."""
        taps, fan_in = prod(self.kernel_size), Counter(o for o, _ in self.table)
        with torch.no_grad():
            for parameter, outputs in ((self.weight, [o for o, _ in self.table]), (self.bias, range(self.out_channels))):
                if parameter is not None:
                    bounds = parameter.new_tensor([(fan_in[o] * taps) ** -0.5 if fan_in[o] else 0.0 for o in outputs])
                    parameter.uniform_(-1, 1).mul_(bounds.view(-1, *(1,) * (parameter.ndim - 1)))

    def to_dense(self) -> Conv1d | Conv2d | Conv3d:
        """Return the dense layer that computes the same: zeros where the table has no edge, parameters copied."""
        ends = (self.in_channels, self.out_channels, self.kernel_size, self.stride, self.padding, self.dilation, 1)
        own: Tensor = self.weight
        how = (self.bias is not None, self.padding_mode, own.device, own.dtype)
        layer: Any = _DENSE[self._ndim - 1](*ends, *how, flip_kernel=self.flip_kernel)
        with torch.no_grad():
            outputs, inputs = torch.tensor(self.table, dtype=torch.int64, device=own.device).unbind(1)
            layer.weight.zero_()[outputs, inputs] = own
            if self.bias is not None:
                layer.bias.copy_(self.bias)
        dense: Conv1d | Conv2d | Conv3d = layer
        return dense

    def _make_site(self) -> PlannedCall:
        return PlannedCall(spec_of(self._fields()), self.plan_options)

    def _fields(self) -> tuple[Any, ...]:
        how = (self.kernel_size, self.stride, self.padding, self.dilation, 1, self.padding_mode, self.flip_kernel)
        return (self.in_channels, self.out_channels, *how, 1, False, 0, self.table)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "table":
            self.__dict__.pop("_site", None)
        super().__setattr__(name, value)

    @node
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch's name
        """Convolve; shapes as those of torch's convolutions, batched or not."""
        if torch.compiler.is_compiling():
            return call_traced(input, self.weight, self.bias, None, self._fields(), self.plan_options)
        return self.site(input, self.current_weight(), self.bias)

    def extra_repr(self) -> str:
        """Return the arguments that make this layer, the table by its number of edges."""
        given = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        plain = {"padding": ((0, 0),) * self._ndim, "dilation": (1,) * self._ndim, "padding_mode": "zeros"}
        parts = [f"{name}={getattr(self, name)}" for name, value in plain.items() if getattr(self, name) != value]
        parts += [f"table of {len(self.table)} edges"]
        parts += [text for text, on in (("flip_kernel=True", self.flip_kernel), ("bias=False", self.bias is None)) if on]
        return ", ".join((given, *parts))


_TABLE = """A {n}-D convolution whose output channels see only the input channels that a table names (fig. 9.15 of the book).

    Its time is that of the edges, or that of the dense layer with zeros where this is sooner; its parameters are the edges'.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, bias, padding_mode, device, dtype
        As in `Conv{n}d`; the table takes the place of groups.
    table : sequence of (int, int), or ChannelTable
        Edges ``(output, input)``, each at most once; `ninefold.spec` has ``grouped_table``, ``window_table``, ``random_table``
        and ``lenet5_table``. An output without an edge gives its bias.
    flip_kernel : bool
        Read the kernels backwards along every axis.

    Attributes
    ----------
    weight : Parameter of shape ``(edges, *kernel_size)``, in the order of the table
    bias : Parameter of shape ``(out_channels,)``, or None

    Raises
    ------
    ArgumentError, ArgumentTypeError
        With the actual numbers, for what cannot be such a layer.

    Examples
    --------
    >>> import torch, ninefold.nn as nn
    >>> from ninefold.spec import lenet5_table
    >>> layer = nn.ChannelTableConv{n}d(6, 16, 5, table=lenet5_table())
    >>> layer(torch.zeros(1, 6, {nine})).shape, sum(p.numel() for p in layer.parameters())
    (torch.Size([1, 16, {five}]), {count})
    """


def _text(n: int) -> str:
    return _TABLE.format(n=n, nine=", ".join(["9"] * n), five=", ".join(["5"] * n), count=60 * 5**n + 16)


class ChannelTableConv1d(_ChannelTableConv):
    __doc__ = _text(1)
    _ndim = 1


class ChannelTableConv2d(_ChannelTableConv):
    __doc__ = _text(2)
    _ndim = 2


class ChannelTableConv3d(_ChannelTableConv):
    __doc__ = _text(3)
    _ndim = 3
