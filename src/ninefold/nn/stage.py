"""The three stages of a convolutional layer as one: convolution, detector, pooling (section 9.3 and fig. 9.7 of the book).

The maximum of a non-decreasing function is the function of the maximum, so that a detector may stand behind max pooling, where
there are fewer elements. In floating point this holds bit for bit only if the function as computed is non-decreasing, too, and
the same at every position: so it is for comparisons and a single multiplication, but not for exponentials, which vectorised loops
and their remainders round differently.
"""

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ninefold.errors import ArgumentTypeError
from ninefold.functional.sliding import describe
from ninefold.nn import pool as own
from ninefold.nn.conv import fuses, hooked
from ninefold.ops.traced import node
from ninefold.spec.parse import per_axis
from ninefold.spec.pool import PoolSpec

__all__ = ["ConvStage"]

_POOLS = {getattr(torch.nn, f"MaxPool{n}d"): n for n in (1, 2, 3)}
_OWN = {getattr(own, f"MaxPool{n}d"): n for n in (1, 2, 3)}
_AVERAGES = tuple(getattr(module, f"AvgPool{n}d") for module in (torch.nn, own) for n in (1, 2, 3))
_ADAPTIVE = tuple(getattr(module, f"AdaptiveMaxPool{n}d") for module in (torch.nn, own) for n in (1, 2, 3))
_FRESH = 32 << 20
"""Bytes from which glibc hands out fresh pages at every call: touching them takes longer than convolving few channels does."""
_FUNCTIONS = (torch.relu, torch.relu_, functional.relu, functional.relu6, functional.hardtanh, functional.leaky_relu)
_ROUNDED = (torch.nn.Sigmoid, torch.nn.Tanh, torch.nn.ELU, torch.nn.SELU, torch.nn.CELU, torch.nn.Softplus, torch.nn.LogSigmoid)


class ConvStage(torch.nn.Module):
    """Convolution, detector and pooling as one layer, max pooling taken first where that changes no bit and saves work.

    Parameters
    ----------
    conv : torch.nn.Module
        The first stage, a convolution of ``torch.nn`` or ``ninefold.nn``.
    detector : torch.nn.Module or callable
        The second, a pointwise function such as ``torch.nn.ReLU()`` or ``torch.relu``.
    pool : torch.nn.Module
        The third. With max pooling by steps greater than 1, a detector that is non-decreasing as it is computed (ReLU, ReLU6,
        Hardtanh, and LeakyReLU and Threshold by their arguments) runs behind it.

    Without gradients, a result of the convolution of more than 32 MiB is never there as a whole: a few images at a time go
    through all stages, in memory that is used again.

    Attributes
    ----------
    exchanged : bool
        Whether pooling comes before the detector.
    reason : str
        Why, or why not.

    Raises
    ------
    ArgumentTypeError
        If `conv` or `pool` is no module, or the detector cannot be called.

    Examples
    --------
    >>> import torch, ninefold.nn as nn
    >>> stage = nn.ConvStage(nn.Conv2d(3, 8, 5), torch.nn.ReLU(), torch.nn.MaxPool2d(2))
    >>> stage(torch.zeros(1, 3, 10, 12)).shape, stage.exchanged
    (torch.Size([1, 8, 3, 4]), True)
    >>> nn.ConvStage(nn.Conv2d(3, 8, 5), torch.nn.ReLU(), torch.nn.AvgPool2d(2)).reason
    'AvgPool2d does not take the maximum'
    """

    def __init__(self, conv: torch.nn.Module, detector: Callable[[Tensor], Tensor], pool: torch.nn.Module) -> None:
        for name, module in (("conv", conv), ("pool", pool)):
            if not isinstance(module, torch.nn.Module):
                raise ArgumentTypeError(f"{name} must be a module of torch.nn or ninefold.nn, got type {type(module).__name__}")
        if not callable(detector):
            raise ArgumentTypeError(f"detector must be a module or a function of a tensor, got type {type(detector).__name__}")
        super().__init__()
        self.conv, self.detector, self.pool = conv, detector, pool

    @property
    def exchanged(self) -> bool:
        """Whether pooling comes before the detector; of the stages as they are now."""
        return _against(self.detector, self.pool) is None

    @property
    def reason(self) -> str:
        """Why pooling comes first, or why not."""
        against = _against(self.detector, self.pool)
        return against or f"max pooling commutes with {_name(self.detector)}, bit for bit, and leaves it fewer elements"

    @node
    def forward(self, input: Tensor) -> Any:  # noqa: A002  torch's name
        """Run the three stages; what the pooling gives (with indices, where it gives them)."""
        if torch.compiler.is_compiling() or torch.is_grad_enabled() or not isinstance(input, Tensor):
            return self._run(input)
        run = self._run_rectified if self._rectifies() else self._run
        many = self._images(input)
        return run(input) if many is None else torch.cat([run(part) for part in input.split(many)])

    def _run(self, x: Tensor) -> Any:
        x = self.conv(x)
        if not self.exchanged:
            return self.pool(self.detector(x))
        x = self.detector(self.pool(x))
        # A detector may keep its result for the gradient; what a pooling gives, as this stage does, may be changed in place.
        return x.clone() if torch.is_grad_enabled() else x

    def _run_rectified(self, x: Tensor) -> Any:
        conv: Any = self.conv
        return self.pool(conv.site.then("relu")(x, conv.weight, conv.bias))

    def _images(self, x: Tensor) -> int | None:
        """Return how many images to take through all stages at a time, in memory that is used again; None for all at once."""
        conv: Any = self.conv
        parts = [m for m in (conv, self.detector, self.pool) if isinstance(m, torch.nn.Module)]
        known = fuses(conv) and (type(self.pool) in (*_POOLS, *_OWN, *_ADAPTIVE, *_AVERAGES)) and not _not_monotone(self.detector)
        if not known or any(map(hooked, parts)) or getattr(self.pool, "return_indices", False) or x.ndim != conv.weight.ndim:
            return None
        steps = prod(conv.stride)
        places = prod(x.shape[2:]) * steps if conv.site.spec.transposed else prod(x.shape[2:]) // steps  # about
        between = conv.out_channels * places * x.element_size()
        return None if len(x) * between <= _FRESH else max(1, _FRESH // 2 // max(between, 1))

    def _rectifies(self) -> bool:
        """Whether the convolution may apply the detector: a ReLU, and nobody looks at what is between."""
        conv: Any = self.conv
        if self.exchanged or not fuses(conv) or hooked(conv) or conv.epilogue is not None:
            return False
        if isinstance(self.detector, torch.nn.Module):
            return type(self.detector) is torch.nn.ReLU and not hooked(self.detector)
        return any(self.detector is f for f in (torch.relu, torch.relu_, functional.relu))

    def extra_repr(self) -> str:
        """Return the order of the last two stages and why, and a detector that is no module."""
        lines = [] if isinstance(self.detector, torch.nn.Module) else [f"(detector): {_name(self.detector)}"]
        order = "conv, pool, detector" if self.exchanged else "conv, detector, pool"
        return "\n".join([f"order: {order}, for {self.reason}", *lines])


def _name(detector: Any) -> str:
    return type(detector).__name__ if isinstance(detector, torch.nn.Module) else str(getattr(detector, "__name__", detector))


def _against(detector: Any, pool: torch.nn.Module) -> str | None:
    """Return why the detector stays before the pooling, or None."""
    return _not_max(pool) or _not_monotone(detector)


def _not_max(pool: torch.nn.Module) -> str | None:
    name, spec = type(pool).__name__, getattr(pool, "spec", None)
    if getattr(pool, "return_indices", False):
        return f"{name} also gives the indices, which differ among equal values"
    if type(pool) in _ADAPTIVE:
        return None
    if type(pool) in _OWN:
        layer: Any = pool
        how = (layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.ceil_mode, layer.padding_mode)
        spec = describe(_OWN[type(pool)], *how).spec
    if type(pool) in _POOLS:
        steps = prod(per_axis(pool.stride, _POOLS[type(pool)], "stride", 1))
    elif isinstance(spec, PoolSpec) and spec.reduction == "max":
        if getattr(spec, "padding_mode", None) == "zeros":
            return f"{name} takes the maximum with zeros of a border, which a detector need not leave zeros"
        if _may_be_empty(spec):
            return f"{name} may have windows around the input that hold nothing, whose -inf a detector would change"
        steps = prod(spec.stride)
    else:
        return f"{name} does not take the maximum"
    return None if steps > 1 else f"{name} with stride 1 leaves as many elements"


def _may_be_empty(spec: PoolSpec) -> bool:
    """Whether windows may lie around the input, which a border narrower than a window lets only dilated ones do."""
    padded = isinstance(spec.padding, str) or any(n for pads in spec.padding for n in pads)
    return padded and any(d > 1 for d in spec.dilation)


def _not_monotone(detector: Any) -> str | None:
    name, kind = _name(detector), type(detector)
    known = kind in (torch.nn.ReLU, torch.nn.ReLU6, torch.nn.Hardtanh) or any(detector is f for f in _FUNCTIONS)
    if kind is torch.nn.LeakyReLU:
        return None if detector.negative_slope >= 0 else f"{name} with slope {detector.negative_slope} decreases"
    if kind is torch.nn.Threshold:
        known = detector.value <= detector.threshold
        return None if known else f"{name} falls from {detector.value} to {detector.threshold}"
    if kind in _ROUNDED:
        return f"{name} is not rounded alike at all positions, so that bits could change"
    return None if known else f"{name} is not known to be non-decreasing"
