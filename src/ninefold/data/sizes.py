"""Networks on inputs of other sizes: layer by layer over a padded batch, and classifiers as convolutions."""

import copy
from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from ninefold.data.batches import Padded
from ninefold.data.masked import FixedGrid
from ninefold.errors import ArgumentTypeError, ShapeError, UnsupportedError
from ninefold.nn import Conv1d, Conv2d, Conv3d

__all__ = ["as_convolution", "fully_convolutional", "run_padded"]

_CONV: dict[int, Any] = {1: Conv1d, 2: Conv2d, 3: Conv3d}
_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_MAXIMA = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_MEANS = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_POINTWISE = (
    *(nn.ReLU, nn.LeakyReLU, nn.ReLU6, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Sigmoid, nn.Tanh, nn.Softplus),
    *(nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.Softmax),
)


def run_padded(net: nn.Module, batch: Padded) -> Any:
    """Run a sequence of layers over a padded batch so that each sample has what it has alone.

    Between layers the padding is set to what a layer takes for nothing: zero before a convolution, minus infinity before a
    maximum. A `FixedGrid` ends it: what follows gets its tensor.

    Parameters
    ----------
    net : Module
        A ``Sequential`` (also of such) of convolutions with zero padding, poolings, activations and normalisations that are in
        evaluation, or one of them.
    batch : Padded

    Returns
    -------
    Padded
        Or a tensor behind a `FixedGrid`.

    Raises
    ------
    UnsupportedError
        With the layer's name and why, if its output in a sample depends on what lies behind the sample.

    Examples
    --------
    >>> net = nn.Sequential(Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), Conv2d(4, 2, 3), FixedGrid(2))
    >>> samples = [torch.rand(1, n, 11, dtype=torch.float32, device="cpu") for n in (9, 14)]
    >>> alone = torch.cat([net(sample[None]) for sample in samples])
    >>> torch.allclose(run_padded(net, Padded.of(samples)), alone, atol=1e-6)
    True
    """
    current: Any = batch
    for name, layer in _layers(net):
        current = layer(current) if isinstance(current, Tensor) or isinstance(layer, FixedGrid) else _step(name, layer, current)
    return current


def _layers(net: nn.Module, prefix: str = "") -> list[tuple[str, nn.Module]]:
    if not isinstance(net, nn.Sequential):
        return [(prefix or type(net).__name__, net)]
    return [pair for name, child in net.named_children() for pair in _layers(child, f"{prefix}.{name}" if prefix else name)]


def _step(name: str, layer: nn.Module, batch: Padded) -> Padded:
    if (why := _refusal(layer)) is not None:
        raise UnsupportedError(
            f"layer {name} ({type(layer).__name__}) {why}: batches of one size (BucketSampler), or one by one, know no padding"
        )
    pointwise = isinstance(layer, (*_POINTWISE, *_NORMS))
    before = batch if pointwise else batch.filled(-torch.inf if isinstance(layer, _MAXIMA) else 0)
    after = layer(before.data)
    sizes = batch.sizes if pointwise else _sizes(layer, batch)
    return Padded(after, sizes).filled(0)


def _refusal(layer: nn.Module) -> str | None:
    """Return why a layer cannot run over padding, None if it can."""
    kind: Any = layer
    if isinstance(layer, _NORMS):
        return "counts padding in its statistics while it trains" if layer.training else None
    if isinstance(layer, nn.Softmax):
        return None if layer.dim == 1 else "sums over space, where padding is"
    if isinstance(layer, _POINTWISE):
        return None
    if isinstance(layer, _CONVS):
        if kind.padding_mode != "zeros":
            return f"has padding_mode={kind.padding_mode!r}, which begins at each sample's own border"
        strided = any(s > 1 for s in kind.stride)
        return "pads by each sample's own size" if isinstance(kind.padding, str) and kind.padding != "valid" and strided else None
    if isinstance(layer, (*_MAXIMA, *_MEANS)):
        if getattr(layer, "padding_mode", None) is not None or isinstance(kind.padding, str):
            return f"has padding={kind.padding!r} by each sample's own border"
        if isinstance(layer, _MAXIMA):
            return "returns indices, which are those of the padded map" if kind.return_indices else None
        around = any(p != 0 for p in torch.utils._pytree.tree_leaves(kind.padding))  # noqa: SLF001  pads are nested or not
        return (
            "divides by what its window covers of the map" if kind.ceil_mode or (around and not kind.count_include_pad) else None
        )
    return "is none of those of which it is known what they do with padding"


def _sizes(layer: nn.Module, batch: Padded) -> tuple[tuple[int, ...], ...]:
    """Return the size of every sample behind a layer, by asking it without computing anything."""
    shape = copy.deepcopy(layer).to("meta")
    found: dict[tuple[int, ...], tuple[int, ...]] = {}
    for size in set(batch.sizes):
        x = torch.empty((1, batch.data.shape[1], *size), dtype=batch.data.dtype, device="meta")
        found[size] = tuple(shape(x).shape[2:])
    return tuple(found[size] for size in batch.sizes)


def as_convolution(linear: nn.Linear, size: int | Sequence[int]) -> nn.Module:
    """Return a dense layer upon flattened maps as a convolution whose kernel is as large as these maps.

    Of maps of that size it gives the same, 1 x 1; of larger ones what the dense layer gives at every position.

    Parameters
    ----------
    linear : Linear
        Of ``C * prod(size)`` values, flattened channel by channel.
    size : int or sequence of int
        Of the maps, along one to three axes; 1s behind a pooling to one value.

    Returns
    -------
    Module
        ``ninefold.nn.Conv1d``, ``Conv2d`` or ``Conv3d``, with copies of the weights.

    Raises
    ------
    ShapeError
        If the layer is not of so many values.

    Examples
    --------
    >>> dense = nn.Linear(4 * 2 * 3, 5)
    >>> maps = torch.rand(2, 4, 2, 3, dtype=torch.float32, device="cpu")
    >>> torch.allclose(as_convolution(dense, (2, 3))(maps).flatten(1), dense(maps.flatten(1)), atol=1e-6)
    True
    """
    if not isinstance(linear, nn.Linear):
        raise ArgumentTypeError(f"a dense layer is torch.nn.Linear, got {type(linear).__name__}")
    kernel = (size,) if isinstance(size, int) else tuple(size)
    if not 1 <= len(kernel) <= 3 or min(kernel) < 1 or linear.in_features % prod(kernel):
        raise ShapeError(f"a layer of {linear.in_features} values is not of whole channels of {kernel}")
    channels, weight = linear.in_features // prod(kernel), linear.weight
    layer = _CONV[len(kernel)](
        channels, linear.out_features, kernel, bias=linear.bias is not None, device=weight.device, dtype=weight.dtype
    )
    with torch.no_grad():
        layer.weight.copy_(weight.view(-1, channels, *kernel))
        if linear.bias is not None:
            layer.bias.copy_(linear.bias)
    return layer  # type: ignore[no-any-return]


def fully_convolutional(net: nn.Module, input_size: Sequence[int]) -> nn.Sequential:
    """Return a classifier with its dense layers turned into convolutions: a map of scores for an image of any size.

    Parameters
    ----------
    net : Sequential
        Of layers over maps, then ``Flatten``, then dense layers with anything pointwise between; it is left as it is.
    input_size : sequence of int
        ``(C, *space)`` that the classifier is made for.

    Returns
    -------
    Sequential
        Of ``input_size`` it gives ``(B, classes, 1, ...)``.

    Raises
    ------
    ShapeError, UnsupportedError
        If there is no ``Flatten`` before dense layers, or the maps before it do not fit.

    Examples
    --------
    >>> net = nn.Sequential(Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 5 * 6, 7), nn.ReLU(), nn.Linear(7, 2))
    >>> fully_convolutional(net, (1, 7, 8))(torch.zeros(3, 1, 9, 8, dtype=torch.float32, device="cpu")).shape
    torch.Size([3, 2, 3, 1])
    """
    size, dtype = tuple(input_size), next((p.dtype for p in net.parameters()), torch.float32)
    x = torch.zeros((1, *size), dtype=dtype, device="meta")
    made: list[nn.Module] = []
    flat: tuple[int, ...] | None = None
    axes = len(size) - 1
    for name, layer in _layers(net):
        if isinstance(layer, nn.Flatten):
            if layer.start_dim != 1 or flat is not None or x.ndim != axes + 2:
                raise UnsupportedError(f"layer {name}: Flatten is turned into a convolution where it joins channels and space")
            flat = tuple(x.shape[2:])
        elif isinstance(layer, nn.Linear):
            if flat is None:
                raise UnsupportedError(f"layer {name}: a Linear before Flatten works along the last axis, not over a map")
            made.append(as_convolution(layer, flat))
            flat = (1,) * axes
        else:
            made.append(copy.deepcopy(layer))
        x = copy.deepcopy(layer).to("meta")(x)
    if flat is None:
        raise UnsupportedError("there is no Flatten: the network is of convolutions only, and takes any size")
    return nn.Sequential(*made)
