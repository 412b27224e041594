"""Maximum and average pooling as subclasses of torch's layers, norms beside them, and pooling to grids."""

from collections.abc import Sequence
from typing import Any, Optional

import torch
from torch import Tensor

from ninefold import functional as F
from ninefold.functional.sliding import describe
from ninefold.ops.traced import node
from ninefold.spec.parse import paddings

__all__ = [
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "LPPool1d",
    "LPPool2d",
    "LPPool3d",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "MaxUnpool1d",
    "MaxUnpool2d",
    "MaxUnpool3d",
]


def extras(layer: Any, defaults: dict[str, Any]) -> str:
    """Return what differs from the defaults, as the end of an `extra_repr`."""
    return "".join(f", {name}={getattr(layer, name)!r}" for name, value in defaults.items() if getattr(layer, name) != value)


class _MaxPool(torch.nn.Module):
    """The docstring is shared by the three of them."""

    _ndim: int
    padding_mode: str | None

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        return_indices: bool = False,
        ceil_mode: Any = False,
        *,
        padding_mode: str | None = None,
    ) -> None:
        describe(self._ndim, kernel_size, stride, padding, dilation, ceil_mode, padding_mode)
        super().__init__(kernel_size, stride, padding, dilation, return_indices, ceil_mode)
        self.padding_mode = padding_mode

    @node
    def forward(self, input: Tensor) -> Any:  # noqa: A002  torch's name
        """Pool; shapes as torch's, batched or not."""
        how = (self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices)
        return _MAX[self._ndim](input, *how, padding_mode=self.padding_mode)

    def extra_repr(self) -> str:
        """Return torch's text, with what torch lacks where it is set."""
        return super().extra_repr() + extras(self, {"return_indices": False, "padding_mode": None})


class _AvgPool(torch.nn.Module):
    """The docstring is shared by the three of them."""

    _ndim: int
    padding: Any
    divisor_override: Any

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: Any = False,
        count_include_pad: bool = True,
        divisor_override: float | None = None,
        *,
        dilation: Any = 1,
        padding_mode: str | None = None,
    ) -> None:
        describe(self._ndim, kernel_size, stride, padding, dilation, ceil_mode, padding_mode)
        super().__init__(kernel_size, stride, 0, ceil_mode, count_include_pad)
        # torch's 1-D layer makes tuples of its arguments
        self.padding = (padding,) if self._ndim == 1 and isinstance(padding, int) else padding
        self.divisor_override, self.dilation, self.padding_mode = divisor_override, dilation, padding_mode

    @node
    def forward(self, input: Tensor) -> Any:  # noqa: A002  torch's name
        """Pool; shapes as torch's, batched or not."""
        how = (self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad, self.divisor_override)
        return _AVERAGE[self._ndim](input, *how, dilation=self.dilation, padding_mode=self.padding_mode)

    def extra_repr(self) -> str:
        """Return torch's text, with what torch lacks where it is set."""
        more = {"ceil_mode": False, "count_include_pad": True, "divisor_override": None, "dilation": 1, "padding_mode": None}
        return super().extra_repr() + extras(self, more)


class _LPPool(torch.nn.Module):
    """The docstring is shared by the three of them."""

    _ndim: int

    def __init__(
        self,
        norm_type: float,
        kernel_size: Any,
        stride: Any = None,
        ceil_mode: Any = False,
        *,
        padding: Any = 0,
        dilation: Any = 1,
        padding_mode: str | None = None,
        convention: str = "torch",
    ) -> None:
        describe(self._ndim, kernel_size, stride, padding, dilation, ceil_mode, padding_mode)
        super().__init__(norm_type, kernel_size, stride, ceil_mode)
        self.norm_type: float = norm_type
        self.padding, self.dilation, self.padding_mode, self.convention = padding, dilation, padding_mode, convention

    @node
    def forward(self, input: Tensor) -> Any:  # noqa: A002  torch's name
        """Pool; shapes as torch's, batched or not."""
        how = (self.norm_type, self.kernel_size, self.stride, self.ceil_mode)
        more = {"padding": self.padding, "dilation": self.dilation, "padding_mode": self.padding_mode}
        return _LP[self._ndim](input, *how, **more, convention=self.convention)

    def extra_repr(self) -> str:
        """Return torch's text, with what torch lacks where it is set."""
        return super().extra_repr() + extras(self, {"padding": 0, "dilation": 1, "padding_mode": None, "convention": "torch"})


class _Adaptive(torch.nn.Module):
    """What averages and maxima share."""

    _ndim: int
    output_size: Any
    bins: str

    def extra_repr(self) -> str:
        """Return torch's text, with what torch lacks where it is set."""
        return super().extra_repr() + extras(self, {"bins": "overlapping"})


class _AdaptiveAvgPool(_Adaptive):
    """The docstring is shared by the three of them."""

    def __init__(self, output_size: Any, *, bins: str = "overlapping") -> None:
        super().__init__(output_size)
        self.bins = bins

    @node
    def forward(self, input: Tensor) -> Any:  # noqa: A002  torch's name
        """Pool; shapes as torch's, batched or not."""
        return _ADAPTIVE_AVERAGE[self._ndim](input, self.output_size, bins=self.bins)


class _AdaptiveMaxPool(_Adaptive):
    """The docstring is shared by the three of them."""

    def __init__(self, output_size: Any, return_indices: bool = False, *, bins: str = "overlapping") -> None:
        super().__init__(output_size, return_indices)
        self.bins = bins

    @node
    def forward(self, input: Tensor) -> Any:  # noqa: A002  torch's name
        """Pool; shapes as torch's, batched or not."""
        return _ADAPTIVE_MAX[self._ndim](input, self.output_size, self.return_indices, bins=self.bins)


class _MaxUnpool(torch.nn.Module):
    """The docstring is shared by the three of them."""

    _ndim: int
    padding: Any

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0) -> None:
        super().__init__(kernel_size, stride)
        if padding != 0:  # torch's constructor takes no pairs
            self.padding = paddings(padding, self._ndim)

    @node
    def forward(self, input: Tensor, indices: Tensor, output_size: Optional[Sequence[int]] = None) -> Any:  # noqa: A002, UP045  torch 2.6's tracer
        """Put every maximum where its index says."""
        return _UNPOOL[self._ndim](input, indices, self.kernel_size, self.stride, self.padding, output_size)


_MAX: dict[int, Any] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE: dict[int, Any] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_LP: dict[int, Any] = {1: F.lp_pool1d, 2: F.lp_pool2d, 3: F.lp_pool3d}
_ADAPTIVE_AVERAGE: dict[int, Any] = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}
_ADAPTIVE_MAX: dict[int, Any] = {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}
_UNPOOL: dict[int, Any] = {1: F.max_unpool1d, 2: F.max_unpool2d, 3: F.max_unpool3d}

_DOCS = {
    "MaxPool": """Maximum pooling in {n}-D, a drop-in for ``torch.nn.MaxPool{n}d``.

    Beyond torch: `padding` as pairs or as ``"same"``, ``"same_lower"``, ``"full"``, ``"causal"``; ``ceil_mode="cover"``; and
    `padding_mode`. See ``ninefold.functional.max_pool{n}d``.

    Parameters
    ----------
    kernel_size, stride, padding, dilation, return_indices, ceil_mode
        As in torch, in torch's order.
    padding_mode : str, optional
        What stands on the border instead of nothing.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        With the actual numbers, for what cannot be a pooling.

    Examples
    --------
    >>> import torch, ninefold.nn as nn
    >>> nn.MaxPool{n}d(3, 2, "same")(torch.zeros(2, 3, {nine})).shape
    torch.Size([2, 3, {five}])
    """,
    "AvgPool": """Average pooling in {n}-D, a drop-in for ``torch.nn.AvgPool{n}d``.

    Beyond torch: `padding` as pairs or as a policy, ``ceil_mode="cover"``, `dilation`, `padding_mode`, and `divisor_override` in
    1-D, too. See ``ninefold.functional.avg_pool{n}d``.

    Parameters
    ----------
    kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
        As in torch, in torch's order.
    dilation : int or tuple
    padding_mode : str, optional
        What stands on the border and is counted.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        With the actual numbers, for what cannot be a pooling.

    Examples
    --------
    >>> import torch, ninefold.nn as nn
    >>> nn.AvgPool{n}d(3, 2, "same", dilation=2)(torch.zeros(2, 3, {nine})).shape
    torch.Size([2, 3, {five}])
    """,
    "LPPool": """Power-average pooling in {n}-D, a drop-in for ``torch.nn.LPPool{n}d``.

    Beyond torch: the `convention`, for the norm ``(sum |x|^p)^(1/p)`` and the generalised mean ``(mean |x|^p)^(1/p)``; borders
    and dilation. See ``ninefold.functional.lp_pool{n}d``.

    Parameters
    ----------
    norm_type, kernel_size, stride, ceil_mode
        As in torch, in torch's order.
    padding, dilation, padding_mode
        As in `MaxPool{n}d`.
    convention : {{"torch", "norm", "mean"}}

    Raises
    ------
    ArgumentError, ArgumentTypeError
        With the actual numbers, for what cannot be a pooling.

    Examples
    --------
    >>> import torch, ninefold.nn as nn
    >>> nn.LPPool{n}d(3, 2, 2, convention="mean")(-torch.ones(1, 1, {nine})).unique()
    tensor([1.])
    """,
    "AdaptiveAvgPool": """Average pooling to a {n}-D grid, a drop-in for ``torch.nn.AdaptiveAvgPool{n}d``.

    Parameters
    ----------
    output_size
        As in torch.
    bins : {{"overlapping", "disjoint"}}
        PyTorch's cells, which overlap where the sizes do not divide, or cells with rounded boundaries, which do not.

    Examples
    --------
    >>> import torch, ninefold.nn as nn
    >>> nn.AdaptiveAvgPool{n}d(5, bins="disjoint")(torch.zeros(2, 3, {nine})).shape
    torch.Size([2, 3, {five}])
    """,
    "AdaptiveMaxPool": """Maximum pooling to a {n}-D grid, a drop-in for ``torch.nn.AdaptiveMaxPool{n}d``.

    Parameters
    ----------
    output_size, return_indices
        As in torch, in torch's order.
    bins : {{"overlapping", "disjoint"}}
        PyTorch's cells, which overlap where the sizes do not divide, or cells with rounded boundaries, which do not.

    Examples
    --------
    >>> import torch, ninefold.nn as nn
    >>> nn.AdaptiveMaxPool{n}d(5, bins="disjoint")(torch.zeros(2, 3, {nine})).shape
    torch.Size([2, 3, {five}])
    """,
    "MaxUnpool": """Maxima back where they were found, in {n}-D, a drop-in for ``torch.nn.MaxUnpool{n}d``; pads may be pairs.

    Parameters
    ----------
    kernel_size, stride, padding
        As in torch, in torch's order.

    Examples
    --------
    >>> import torch, ninefold.nn as nn
    >>> x = torch.rand(1, 2, {nine})
    >>> z, switches = nn.MaxPool{n}d(2, return_indices=True)(x)
    >>> nn.MaxUnpool{n}d(2)(z, switches, output_size=x.shape).shape == x.shape
    True
    """,
}


def _text(name: str, n: int) -> str:
    return _DOCS[name].format(n=n, nine=", ".join(["9"] * n), five=", ".join(["5"] * n))


class MaxPool1d(_MaxPool, torch.nn.MaxPool1d):
    __doc__ = _text("MaxPool", 1)
    _ndim = 1


class MaxPool2d(_MaxPool, torch.nn.MaxPool2d):
    __doc__ = _text("MaxPool", 2)
    _ndim = 2


class MaxPool3d(_MaxPool, torch.nn.MaxPool3d):
    __doc__ = _text("MaxPool", 3)
    _ndim = 3


class AvgPool1d(_AvgPool, torch.nn.AvgPool1d):
    __doc__ = _text("AvgPool", 1)
    _ndim = 1


class AvgPool2d(_AvgPool, torch.nn.AvgPool2d):
    __doc__ = _text("AvgPool", 2)
    _ndim = 2


class AvgPool3d(_AvgPool, torch.nn.AvgPool3d):
    __doc__ = _text("AvgPool", 3)
    _ndim = 3


class LPPool1d(_LPPool, torch.nn.LPPool1d):
    __doc__ = _text("LPPool", 1)
    _ndim = 1


class LPPool2d(_LPPool, torch.nn.LPPool2d):
    __doc__ = _text("LPPool", 2)
    _ndim = 2


class LPPool3d(_LPPool, torch.nn.LPPool3d):
    __doc__ = _text("LPPool", 3)
    _ndim = 3


class AdaptiveAvgPool1d(_AdaptiveAvgPool, torch.nn.AdaptiveAvgPool1d):
    __doc__ = _text("AdaptiveAvgPool", 1)
    _ndim = 1


class AdaptiveAvgPool2d(_AdaptiveAvgPool, torch.nn.AdaptiveAvgPool2d):
    __doc__ = _text("AdaptiveAvgPool", 2)
    _ndim = 2


class AdaptiveAvgPool3d(_AdaptiveAvgPool, torch.nn.AdaptiveAvgPool3d):
    __doc__ = _text("AdaptiveAvgPool", 3)
    _ndim = 3


class AdaptiveMaxPool1d(_AdaptiveMaxPool, torch.nn.AdaptiveMaxPool1d):
    __doc__ = _text("AdaptiveMaxPool", 1)
    _ndim = 1


class AdaptiveMaxPool2d(_AdaptiveMaxPool, torch.nn.AdaptiveMaxPool2d):
    __doc__ = _text("AdaptiveMaxPool", 2)
    _ndim = 2


class AdaptiveMaxPool3d(_AdaptiveMaxPool, torch.nn.AdaptiveMaxPool3d):
    __doc__ = _text("AdaptiveMaxPool", 3)
    _ndim = 3


class MaxUnpool1d(_MaxUnpool, torch.nn.MaxUnpool1d):
    __doc__ = _text("MaxUnpool", 1)
    _ndim = 1


class MaxUnpool2d(_MaxUnpool, torch.nn.MaxUnpool2d):
    __doc__ = _text("MaxUnpool", 2)
    _ndim = 2


class MaxUnpool3d(_MaxUnpool, torch.nn.MaxUnpool3d):
    __doc__ = _text("MaxUnpool", 3)
    _ndim = 3
