"""One layer of a classifier at stride 1: its taps as far apart as the strides in front of it had put them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any, NoReturn

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from ninefold import nn as layers
from ninefold.errors import ShapeError, UnsupportedError
from ninefold.ops.traced import hooked
from ninefold.spec.parse import per_axis
from ninefold.structured.networks.parts import layer

__all__ = ["ELEMENTWISE", "Seen", "dense_layer", "flattened", "pooled_whole", "refuse"]

ELEMENTWISE: tuple[type[nn.Module], ...] = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Hardtanh),
    *(nn.Hardsigmoid, nn.Sigmoid, nn.LogSigmoid, nn.Tanh, nn.Softplus, nn.Softsign, nn.Softshrink, nn.Hardshrink, nn.Tanhshrink),
    *(nn.Threshold, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout),
)
"""Layers that look at one number, and layers that look at one position."""
_ONE_POSITION = (nn.LocalResponseNorm, nn.ChannelShuffle, layers.ChannelShuffle, nn.Softmax2d, nn.PReLU)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class Seen:
    """What is known of a tensor of the classifier, and of the dense map that stands for it.

    Parameters
    ----------
    step : tuple of int
        Positions of the image between two of the classifier's: the strides so far, and the dilation of what reads the dense map.
    lost : tuple of int
        How many positions fewer than the image the dense map has.
    grid : tuple of int or None
        The classifier's positions, where the size of its image is known.
    channels : int or None
    kind : {"map", "flat", "vector"}
        ``"flat"`` is a map whose channels and positions the classifier has made one axis of, ``"vector"`` one without positions.
    """

    step: tuple[int, ...]
    lost: tuple[int, ...]
    grid: tuple[int, ...] | None
    channels: int | None
    kind: str = "map"

    @property
    def ndim(self) -> int:
        """The number of spatial axes."""
        return len(self.step)


Made = tuple[nn.Module, Seen]


def refuse(name: str, why: str) -> NoReturn:
    """Say which layer it is that cannot be made dense, and why."""
    raise UnsupportedError(f"{name} cannot be made dense: {why}")


def dense_layer(name: str, module: nn.Module, seen: Seen) -> Made:
    """Return the layer that does on a dense map what `module` does on the classifier's, and what comes out.

    Raises
    ------
    UnsupportedError
        With the layer's name, where there is none.

    Examples
    --------
    >>> made, out = dense_layer("pool", nn.MaxPool1d(3, 2), Seen((4,), (0,), None, 5))
    >>> made, out.step, out.lost
    (MaxPool1d(kernel_size=(3,), stride=1, padding=((0, 0),), dilation=(4,), ceil_mode=False), (8,), (8,))
    """
    if type(module) in ELEMENTWISE or (type(module) in _ONE_POSITION and seen.kind != "flat"):
        return module, seen
    for kinds, make in _MAKERS:
        if isinstance(module, kinds):
            if is_parametrized(module) or hooked(module):
                refuse(name, "hooks or parametrizations belong to calls of the layer itself; remove them first")
            return make(name, module, seen)
    return refuse(name, f"{type(module).__name__} is not known to do the same at every position")


def _window(name: str, module: Any, seen: Seen) -> tuple[dict[str, Any], Seen]:
    """Return the arguments of a dense window, and what comes out but for its channels."""
    n = seen.ndim
    if seen.kind != "map":
        refuse(name, "it reads what was flattened")
    kernel, stride = per_axis(module.kernel_size, n, "kernel_size"), per_axis(module.stride or module.kernel_size, n, "stride")
    dilation = per_axis(getattr(module, "dilation", 1), n, "dilation")
    pads = _pads(name, module.padding if hasattr(module, "padding") else 0, kernel, stride, dilation)
    if getattr(module, "ceil_mode", False) and max(stride) > 1:
        pads = _reaching_beyond(name, module, pads, kernel, stride)
    mode = getattr(module, "padding_mode", None)
    if mode not in (None, "zeros") and max(seen.step) > 1 and any(map(any, pads)):
        refuse(name, f"padding_mode={mode!r} behind stride {seen.step} reads other positions of a dense map; use zeros")
    spread = [s * d * (k - 1) for s, d, k in zip(seen.step, dilation, kernel, strict=True)]
    lost = tuple(a + w - s * (lo + hi) for a, w, s, (lo, hi) in zip(seen.lost, spread, seen.step, pads, strict=True))
    grid = None
    if seen.grid is not None:
        whole = zip(seen.grid, pads, dilation, kernel, stride, strict=True)
        grid = tuple((g + lo + hi - d * (k - 1) - 1) // s + 1 for g, (lo, hi), d, k, s in whole)
        if min(grid) < 1:
            raise ShapeError(f"nothing is left of the example behind {name}, whose kernel is {kernel} on {seen.grid} positions")
    how = {
        "kernel_size": kernel,
        "stride": 1,
        "padding": tuple((s * lo, s * hi) for s, (lo, hi) in zip(seen.step, pads, strict=True)),
        "dilation": tuple(s * d for s, d in zip(seen.step, dilation, strict=True)),
    }
    step = tuple(a * b for a, b in zip(seen.step, stride, strict=True))
    return how, replace(seen, step=step, lost=lost, grid=grid)


def _pads(name: str, padding: Any, kernel: Any, stride: Any, dilation: Any) -> tuple[tuple[int, int], ...]:
    """Return pads before and after, per axis."""
    if not isinstance(padding, str):
        single = isinstance(padding, int)
        each = (padding,) * len(kernel) if single else tuple(padding) * (len(kernel) if len(padding) == 1 else 1)
        return tuple((p, p) if isinstance(p, int) else (int(p[0]), int(p[1])) for p in each)
    if padding not in ("valid", "same", "same_upper", "same_lower"):
        refuse(name, f"padding={padding!r} is not known here; give it as numbers")
    if padding == "valid":
        return ((0, 0),) * len(kernel)
    if max(stride) > 1:
        refuse(name, f"padding={padding!r} with stride {stride} depends on the size of the image; give it as numbers")
    total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    return tuple((t - t // 2, t // 2) if padding == "same_lower" else (t // 2, t - t // 2) for t in total)


def _reaching_beyond(name: str, module: Any, pads: Any, kernel: Any, stride: Any) -> tuple[tuple[int, int], ...]:
    """Return the pads of ``ceil_mode``, whose last window may reach ``stride - 1`` positions beyond them.

    ``ceil((n + lo + hi - k) / s) + 1`` is what s - 1 positions more of padding give without it. No window may begin outside, as
    that one is left out, and what is beyond must not count in an average.
    """
    kind = type(module).__name__
    counted = getattr(module, "count_include_pad", False) and any(map(any, pads))
    late = any(k < s + lo for k, s, (lo, _) in zip(kernel, stride, pads, strict=True))
    whole = getattr(module, "divisor_override", None) is None
    if module.ceil_mode is not True or not kind.startswith(("MaxPool", "AvgPool")) or counted or late or not whole:
        refuse(name, f"ceil_mode of this {kind} lets windows reach beyond the border, and what is there counts; use False")
    return tuple((lo, hi + s - 1) for s, (lo, hi) in zip(stride, pads, strict=True))


def _conv(name: str, module: Any, seen: Seen) -> Made:
    if module.transposed or type(module).forward not in _FORWARDS:
        refuse(name, f"{type(module).__name__} is not a convolution that only reads windows")
    how, out = _window(name, module, seen)
    ends = (module.in_channels, module.out_channels)
    more = {"groups": module.groups, "bias": module.bias is not None, "padding_mode": module.padding_mode}
    made = layer("Conv", seen.ndim)(*ends, **how, **more, device="meta", flip_kernel=getattr(module, "flip_kernel", False))
    made.weight, made.bias = module.weight, module.bias
    return made, replace(out, channels=module.out_channels)


_FORWARDS = [getattr(place, f"Conv{n}d").forward for place in (nn, layers) for n in (1, 2, 3)]


def _pool(name: str, module: Any, seen: Seen) -> Made:
    how, out = _window(name, module, seen)
    if getattr(module, "return_indices", False):
        refuse(name, "it returns indices, which are places in the classifier's map")
    if getattr(module, "padding_mode", None) is not None:
        how["padding_mode"] = module.padding_mode
    kind = next(k for k in _POOLS if type(module).__name__.startswith(k))
    if kind == "AvgPool":
        inner = module.count_include_pad and not module.ceil_mode  # what ceil_mode reaches beyond the border does not count
        how |= {"count_include_pad": inner, "divisor_override": getattr(module, "divisor_override", None)}
    elif kind == "LPPool":
        how |= {"norm_type": module.norm_type, "convention": getattr(module, "convention", "torch")}
    elif kind == "LogSumExpPool":
        how["r"] = module.r
    return layer(kind, seen.ndim)(**how), out


_POOLS = ("MaxPool", "AvgPool", "LPPool", "LogSumExpPool")


def _adaptive(name: str, module: Any, seen: Seen) -> Made:
    if seen.kind != "map":
        refuse(name, "it reads what was flattened")
    if getattr(module, "return_indices", False):
        refuse(name, "it returns indices, which are places in the classifier's map")
    if seen.grid is None:
        refuse(name, "what it pools depends on the size of the image; give example=, an image of the size the classifier is for")
    asked = module.output_size
    cells = tuple(asked) if isinstance(asked, (tuple, list)) else (asked,) * seen.ndim
    cells = tuple(g if c is None else int(c) for g, c in zip(seen.grid, cells, strict=True))
    if any(g % c for g, c in zip(seen.grid, cells, strict=True)):
        refuse(name, f"{seen.grid} positions in {cells} cells are cells of several sizes; choose an example that these divide")
    kernel = tuple(g // c for g, c in zip(seen.grid, cells, strict=True))
    kind = "MaxPool" if "Max" in type(module).__name__ else "AvgPool"
    stride = tuple(k if c > 1 else 1 for k, c in zip(kernel, cells, strict=True))  # one cell has no next one
    return _pool(name, layer(kind, seen.ndim)(kernel, stride), seen)


def pooled_whole(name: str, seen: Seen) -> Made:
    """Return the dense layer of a mean over all positions."""
    return _adaptive(name, layer("AdaptiveAvgPool", seen.ndim)(1), seen)


def flattened(seen: Seen) -> Seen:
    """Return a map whose channels and positions are one axis, which for one position is what it was."""
    one = seen.grid is not None and prod(seen.grid) == 1
    return replace(seen, kind="vector" if one or seen.kind == "vector" else "flat")


def _flatten(name: str, module: Any, seen: Seen) -> Made:
    if module.start_dim != 1 or module.end_dim != -1:
        refuse(name, f"it flattens from axis {module.start_dim} to {module.end_dim}; only from 1 to -1 is it a window's vector")
    return nn.Identity(), flattened(seen)


def _linear(name: str, module: Any, seen: Seen) -> Made:
    """Return the convolution whose kernel is as large as the classifier's map."""
    n = seen.ndim
    if seen.kind == "map":
        refuse(name, "it reads the last axis of a map; only what is flattened becomes a convolution")
    grid = (1,) * n if seen.kind == "vector" else seen.grid or _root(name, module.in_features, seen)
    channels, rest = divmod(module.in_features, prod(grid))
    if rest or (seen.channels is not None and channels != seen.channels):
        raise ShapeError(
            f"{name} reads {module.in_features} numbers, but {seen.channels} channels of {grid} positions reach it; the example "
            "must have the size that the classifier is for"
        )
    made = layer("Conv", n)(channels, module.out_features, grid, dilation=seen.step, bias=module.bias is not None, device="meta")
    shape = (module.out_features, channels, *grid)
    made.weight = nn.Parameter(module.weight.detach().view(shape), module.weight.requires_grad)
    made.bias = module.bias
    lost = tuple(a + s * (g - 1) for a, s, g in zip(seen.lost, seen.step, grid, strict=True))
    return made, Seen(seen.step, lost, (1,) * n, module.out_features, "vector")


def _root(name: str, features: int, seen: Seen) -> tuple[int, ...]:
    """Return the square map, or cube, of so many numbers."""
    if seen.channels and features % seen.channels == 0:
        cells = features // seen.channels
        side = round(cells ** (1 / seen.ndim))
        if side**seen.ndim == cells:
            return (side,) * seen.ndim
    return refuse(
        name,
        f"{features} numbers of {seen.channels} channels are no square map; give example=, an image of the classifier's size",
    )


def _norm(name: str, module: Any, seen: Seen) -> Made:
    if seen.kind == "flat":
        refuse(name, "it has statistics of its own for every position of a flattened map")
    if module.running_mean is None:
        refuse(name, "without running statistics it depends on the whole image")
    if seen.kind == "map":
        return module, seen
    made: Any = getattr(nn, f"BatchNorm{seen.ndim}d")(
        module.num_features, module.eps, module.momentum, module.affine, device="meta"
    )
    if module.affine:
        made.weight, made.bias = module.weight, module.bias
    made.running_mean, made.running_var = module.running_mean, module.running_var
    made.num_batches_tracked = module.num_batches_tracked
    return made.train(module.training), seen


def _softmax(name: str, module: Any, seen: Seen) -> Made:
    if seen.kind == "flat" or module.dim not in ((1, -1, None) if seen.kind == "vector" else (1,)):
        refuse(name, f"softmax over axis {module.dim} is not over the channels")
    return type(module)(dim=1), seen


Maker = Callable[[str, Any, Seen], Made]
_MAKERS: list[tuple[Any, Maker]] = [
    (torch.nn.modules.conv._ConvNd, _conv),  # noqa: SLF001  the parent of all of them has no public name
    (
        tuple(getattr(p, f"{k}{n}d") for k in ("AdaptiveMaxPool", "AdaptiveAvgPool") for n in (1, 2, 3) for p in (nn, layers)),
        _adaptive,
    ),
    (tuple(getattr(p, f"{k}{n}d") for k in _POOLS for n in (1, 2, 3) for p in (nn, layers) if hasattr(p, f"{k}{n}d")), _pool),
    (nn.Flatten, _flatten),
    (nn.Linear, _linear),
    (_NORMS, _norm),
    ((nn.Softmax, nn.LogSoftmax), _softmax),
]
