"""The trilinear form with every number settled: axes with both sizes, channels, and the direction of the kernel."""

from dataclasses import dataclass, fields
from functools import cached_property
from math import prod

from ninefold.spec.axis import Axis
from ninefold.spec.channels import Channels

__all__ = ["Form"]


@dataclass(frozen=True)
class Form:
    """A trilinear form in an input ``V``, a kernel ``K`` and an output ``G``; policies are resolved, sizes are data.

    ``V`` has shape ``(batch, inputs, *n_in)`` and ``G`` has ``(batch, outputs, *n_out)``. ``K`` has
    ``(outputs, inputs // groups, *kernel)``; tiled, ``(outputs, *period, inputs // groups, *kernel)``, which is the
    order of indices of eq. 9.9 (``W[i, j, k, l, m, n]``); with a channel table ``(edges, *kernel)``, a kernel per edge.

    Parameters
    ----------
    axes : tuple of Axis
        The spatial axes.
    channels : Grouped or ChannelTable
        The connections.
    tiled : bool
        Whether the weight has a dimension per axis for the period.
    flip : bool
        True convolution: the kernel is read backwards along every axis.

    Examples
    --------
    >>> from ninefold.spec import Grouped
    >>> form = Form((Axis(3, 2, 1, 1, n_in=7, n_out=4), Axis(5, 1, 1, 0, n_in=9, n_out=5)), Grouped(2, 3))
    >>> form.weight_shape, form.input_shape(8), form.output_shape(8)
    ((3, 2, 3, 5), (8, 2, 7, 9), (8, 3, 4, 5))
    >>> form.macs, form.connections
    (1800, 1500)
    """

    axes: tuple[Axis, ...]
    channels: Channels
    tiled: bool = False
    flip: bool = False

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """The hash, once: a form is a key of every cache, and is looked up many times for a plan."""
        return hash((self.axes, self.channels, self.tiled, self.flip))

    def __getstate__(self) -> dict[str, object]:
        """Return the fields: another process hashes text differently."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @property
    def ndim(self) -> int:
        """Number of spatial axes."""
        return len(self.axes)

    @cached_property
    def kernel(self) -> tuple[int, ...]:
        """Taps per axis."""
        return tuple(a.kernel for a in self.axes)

    @cached_property
    def stride(self) -> tuple[int, ...]:
        """Steps between outputs, per axis."""
        return tuple(a.stride for a in self.axes)

    @cached_property
    def dilation(self) -> tuple[int, ...]:
        """Steps between taps, per axis."""
        return tuple(a.dilation for a in self.axes)

    @cached_property
    def n_in(self) -> tuple[int, ...]:
        """Spatial size of ``V``."""
        return tuple(a.n_in for a in self.axes)

    @cached_property
    def n_out(self) -> tuple[int, ...]:
        """Spatial size of ``G``."""
        return tuple(a.n_out for a in self.axes)

    @cached_property
    def period(self) -> tuple[int, ...]:
        """Kernels cycled through, per axis."""
        return tuple(a.period for a in self.axes)

    @cached_property
    def mode(self) -> str:
        """What stands outside the border; a form that never reads outside needs no mode."""
        return next((a.mode for a in self.axes if a.border), "zeros")

    @cached_property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of ``K``."""
        tile = self.period if self.tiled else ()
        return (*self.channels.weight_head, *tile, *self.channels.weight_tail, *self.kernel)

    def input_shape(self, batch: int) -> tuple[int, ...]:
        """Shape of ``V``."""
        return (batch, self.channels.inputs, *self.n_in)

    def output_shape(self, batch: int) -> tuple[int, ...]:
        """Shape of ``G``."""
        return (batch, self.channels.outputs, *self.n_out)

    @cached_property
    def macs(self) -> int:
        """Multiply-adds per example, counting those with a zero of the border, as PyTorch executes them."""
        return self.channels.connections * prod(self.kernel) * prod(self.n_out)

    @cached_property
    def connections(self) -> int:
        """Pairs (output unit, input unit) that are connected, per example; zeros of the border are none."""
        return self.channels.connections * prod(a.connections() for a in self.axes)
