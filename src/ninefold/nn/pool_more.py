"""Pooling layers that torch lacks: smooth ones, pyramids, unpooling without switches, and pooling over channels."""

from collections.abc import Callable, Sequence
from typing import Any, Optional

import torch
from torch import Tensor

from ninefold import functional as F
from ninefold.functional.sliding import describe
from ninefold.ops.traced import node
from ninefold.spec.parse import integer, per_axis

__all__ = [
    "ChannelPool",
    "GaussianPool1d",
    "GaussianPool2d",
    "GaussianPool3d",
    "LogSumExpPool1d",
    "LogSumExpPool2d",
    "LogSumExpPool3d",
    "MaxOut",
    "SpatialPyramidPool1d",
    "SpatialPyramidPool2d",
    "SpatialPyramidPool3d",
    "TopLeftUnpool1d",
    "TopLeftUnpool2d",
    "TopLeftUnpool3d",
]


class _Smooth(torch.nn.Module):
    """Pooling over windows with one number that says how."""

    _ndim: int
    _number: str

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: Any = False,
        *,
        padding_mode: str | None = None,
    ) -> None:
        describe(self._ndim, kernel_size, stride, padding, dilation, ceil_mode, padding_mode)
        super().__init__()
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.dilation, self.ceil_mode, self.padding_mode = padding, dilation, ceil_mode, padding_mode

    def _run(self, function: Callable[..., Tensor], x: Tensor) -> Tensor:
        how = (self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)
        number = {self._number: getattr(self, self._number)}
        return function(x, *how, padding_mode=self.padding_mode, **number)

    def extra_repr(self) -> str:
        """Return the arguments, those that have a default where they differ from it."""
        more = {"padding": 0, "dilation": 1, "ceil_mode": False, "padding_mode": None}
        parts = [f"kernel_size={self.kernel_size}", f"stride={self.stride}"]
        parts += [f"{name}={getattr(self, name)!r}" for name, value in more.items() if getattr(self, name) != value]
        return ", ".join((*parts, f"{self._number}={getattr(self, self._number)}"))


class _GaussianPool(_Smooth):
    _number = "sigma"

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: Any = False,
        *,
        sigma: Any,
        padding_mode: str | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode, padding_mode=padding_mode)
        self.sigma = sigma

    @node
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch's name
        """Pool; shapes as those of torch's poolings, batched or not."""
        return self._run(_GAUSSIAN[self._ndim], input)


class _LogSumExpPool(_Smooth):
    _number = "r"

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: Any = False,
        *,
        r: float = 1.0,
        padding_mode: str | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode, padding_mode=padding_mode)
        self.r = r

    @node
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch's name
        """Pool; shapes as those of torch's poolings, batched or not."""
        return self._run(_LOG_SUM_EXP[self._ndim], input)


class _SpatialPyramidPool(torch.nn.Module):
    _ndim: int

    def __init__(self, levels: Sequence[Any], reduction: str = "max", *, bins: str = "overlapping") -> None:
        super().__init__()
        self.levels, self.reduction, self.bins = tuple(levels), reduction, bins

    def cells(self) -> int:
        """Return how many cells the pyramid has: the length of its vector over the channels."""
        return sum(torch.Size(per_axis(level, self._ndim, "levels", 1)).numel() for level in self.levels)

    @node
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch's name
        """Pool ``(batch, channels, *space)`` to ``(batch, channels * cells)``."""
        vector: Tensor = _PYRAMID[self._ndim](input, self.levels, self.reduction, bins=self.bins)
        return vector

    def extra_repr(self) -> str:
        """Return the arguments."""
        more = "" if self.bins == "overlapping" else f", bins={self.bins!r}"
        return f"levels={self.levels}, reduction={self.reduction!r}{more}"


class _TopLeftUnpool(torch.nn.Module):
    _ndim: int

    def __init__(self, kernel_size: Any) -> None:
        super().__init__()
        self.kernel_size = per_axis(kernel_size, self._ndim, "kernel_size", 1)

    @node
    def forward(self, input: Tensor, output_size: Optional[Sequence[int]] = None) -> Tensor:  # noqa: A002, UP045  as in MaxUnpool
        """Put every element into the first corner of its window."""
        spread: Tensor = _TOP_LEFT[self._ndim](input, self.kernel_size, output_size)
        return spread

    def extra_repr(self) -> str:
        """Return the argument."""
        return f"kernel_size={self.kernel_size}"


class ChannelPool(torch.nn.Module):
    """Pooling over groups of neighbouring channels (figure 9.9 of the book).

    Max over filters that were learned, or made, as rotations of one is invariant to rotation; see
    `ninefold.functional.channel_pool`.

    Parameters
    ----------
    groups : int, optional
        Channels of the result. Give this or `size`.
    reduction : {"max", "average"} or callable
        A callable takes a tensor ``(..., groups, size, ...)`` and the dimension of `size`.
    size : int, optional
        Channels in a group.
    dim : int
        Where the channels are.

    Raises
    ------
    ShapeError, ArgumentError, ArgumentTypeError
        At a call whose channels are no multiple, and for what is no such pooling.

    Examples
    --------
    >>> import torch, ninefold.nn as nn
    >>> nn.ChannelPool(size=3)(torch.zeros(2, 6, 5, 4)).shape
    torch.Size([2, 2, 5, 4])
    """

    def __init__(
        self,
        groups: int | None = None,
        reduction: str | Callable[[Tensor, int], Tensor] = "max",
        *,
        size: int | None = None,
        dim: int = 1,
    ) -> None:
        super().__init__()
        for name, value in (("groups", groups), ("size", size)):
            if value is not None:
                integer(value, name, 1)
        self.groups, self.reduction, self.size, self.dim = groups, reduction, size, dim

    @node
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch's name
        """Pool over channels."""
        return F.channel_pool(input, self.groups, self.reduction, size=self.size, dim=self.dim)

    def extra_repr(self) -> str:
        """Return the arguments."""
        count = f"groups={self.groups}" if self.size is None else f"size={self.size}"
        return f"{count}, reduction={self.reduction!r}" + ("" if self.dim == 1 else f", dim={self.dim}")


class MaxOut(ChannelPool):
    """The maxout unit's maximum over `pieces` neighbouring channels (Goodfellow et al. 2013).

    Parameters
    ----------
    pieces : int
        Linear pieces a unit: what comes before has `pieces` channels for each.
    dim : int
        Where the channels are.

    Raises
    ------
    ShapeError, ArgumentError, ArgumentTypeError
        As `ChannelPool`.

    Examples
    --------
    >>> import torch, ninefold.nn as nn
    >>> unit = torch.nn.Sequential(torch.nn.Linear(5, 4 * 3), nn.MaxOut(3))
    >>> unit(torch.zeros(2, 5)).shape
    torch.Size([2, 4])
    """

    def __init__(self, pieces: int, *, dim: int = 1) -> None:
        super().__init__(size=integer(pieces, "pieces", 1), dim=dim)

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"pieces={self.size}" + ("" if self.dim == 1 else f", dim={self.dim}")


_GAUSSIAN: dict[int, Any] = {1: F.gaussian_pool1d, 2: F.gaussian_pool2d, 3: F.gaussian_pool3d}
_LOG_SUM_EXP: dict[int, Any] = {1: F.log_sum_exp_pool1d, 2: F.log_sum_exp_pool2d, 3: F.log_sum_exp_pool3d}
_PYRAMID: dict[int, Any] = {1: F.spatial_pyramid_pool1d, 2: F.spatial_pyramid_pool2d, 3: F.spatial_pyramid_pool3d}
_TOP_LEFT: dict[int, Any] = {1: F.top_left_unpool1d, 2: F.top_left_unpool2d, 3: F.top_left_unpool3d}

_DOCS = {
    "GaussianPool": """The {n}-D average with weights that fall off with the distance to the window's centre.

    Parameters
    ----------
    kernel_size, stride, padding, dilation, ceil_mode, padding_mode
        As in `MaxPool{n}d`, in that order.
    sigma : float or tuple of float
        Width of the weights ``exp(-r^2 / (2 sigma^2))``: 0 is the centre, infinity the average.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        With the actual numbers, for what cannot be a pooling.

    Examples
    --------
    >>> import torch, ninefold.nn as nn
    >>> nn.GaussianPool{n}d(3, 2, "same", sigma=1.0)(torch.zeros(2, 3, {nine})).shape
    torch.Size([2, 3, {five}])
    """,
    "LogSumExpPool": """Pooling by ``log(mean exp(r x)) / r`` in {n}-D, between average and maximum (Pinheiro and Collobert 2015).

    Parameters
    ----------
    kernel_size, stride, padding, dilation, ceil_mode, padding_mode
        As in `MaxPool{n}d`, in that order.
    r : float
        0 is the average, infinity the maximum, minus infinity the minimum.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        With the actual numbers, for what cannot be a pooling.

    Examples
    --------
    >>> import torch, ninefold.nn as nn
    >>> nn.LogSumExpPool{n}d(3, 2, "same", r=5.0)(torch.zeros(2, 3, {nine})).shape
    torch.Size([2, 3, {five}])
    """,
    "SpatialPyramidPool": """A pyramid of {n}-D grids, lined up to a vector of one length whatever the size (He et al. 2014).

    Parameters
    ----------
    levels : sequence of int or tuple
        Cells along each axis, for each grid.
    reduction : {{"max", "average"}}
    bins : {{"overlapping", "disjoint"}}
        As in `AdaptiveAvgPool{n}d`.

    Examples
    --------
    >>> import torch, ninefold.nn as nn
    >>> pyramid = nn.SpatialPyramidPool{n}d([1, 3])
    >>> pyramid(torch.zeros(2, 7, {nine})).shape[1] == 7 * pyramid.cells() == 7 * (1 + 3**{n})
    True
    """,
    "TopLeftUnpool": """Every element into the first corner of a {n}-D window of zeros (section 20.10.6 of the book).

    Parameters
    ----------
    kernel_size : int or tuple
        The windows, which are also the steps.

    Examples
    --------
    >>> import torch, ninefold.nn as nn
    >>> nn.TopLeftUnpool{n}d(3)(torch.ones(1, 1, {five})).sum().item() == 5**{n}
    True
    """,
}


def _text(name: str, n: int) -> str:
    return _DOCS[name].format(n=n, nine=", ".join(["9"] * n), five=", ".join(["5"] * n))


class GaussianPool1d(_GaussianPool):
    __doc__ = _text("GaussianPool", 1)
    _ndim = 1


class GaussianPool2d(_GaussianPool):
    __doc__ = _text("GaussianPool", 2)
    _ndim = 2


class GaussianPool3d(_GaussianPool):
    __doc__ = _text("GaussianPool", 3)
    _ndim = 3


class LogSumExpPool1d(_LogSumExpPool):
    __doc__ = _text("LogSumExpPool", 1)
    _ndim = 1


class LogSumExpPool2d(_LogSumExpPool):
    __doc__ = _text("LogSumExpPool", 2)
    _ndim = 2


class LogSumExpPool3d(_LogSumExpPool):
    __doc__ = _text("LogSumExpPool", 3)
    _ndim = 3


class SpatialPyramidPool1d(_SpatialPyramidPool):
    __doc__ = _text("SpatialPyramidPool", 1)
    _ndim = 1


class SpatialPyramidPool2d(_SpatialPyramidPool):
    __doc__ = _text("SpatialPyramidPool", 2)
    _ndim = 2


class SpatialPyramidPool3d(_SpatialPyramidPool):
    __doc__ = _text("SpatialPyramidPool", 3)
    _ndim = 3


class TopLeftUnpool1d(_TopLeftUnpool):
    __doc__ = _text("TopLeftUnpool", 1)
    _ndim = 1


class TopLeftUnpool2d(_TopLeftUnpool):
    __doc__ = _text("TopLeftUnpool", 2)
    _ndim = 2


class TopLeftUnpool3d(_TopLeftUnpool):
    __doc__ = _text("TopLeftUnpool", 3)
    _ndim = 3
