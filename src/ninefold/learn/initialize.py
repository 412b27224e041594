"""Start a network from filters: what sources have learned, drawn or designed becomes the weight of convolution layers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError, UnsupportedError
from ninefold.learn.base import FilterSource, tensor_of

__all__ = ["initialize"]


def initialize(model: torch.nn.Module, sources: Any, *, frozen: bool | Sequence[str] = True) -> list[str]:
    """Put filters into the 2-D convolution layers of a network, to be kept as they are or to be fine-tuned.

    Layers of ``torch.nn`` and of ``ninefold.nn`` take them; those of a layer that flips its kernel (``flip_kernel=True``) are
    flipped on the way, so that it computes the same. A layer's bias becomes what the filters need for the whitening's mean, if
    that is all their source does to patches, and 0 otherwise: one layer cannot divide every patch by its deviation, so what was
    learned with ``contrast`` starts from the same kernels, not from the same values. Nothing is changed if anything does not fit.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place.
    sources : FilterSource, array, mapping or sequence
        Fitted sources, or arrays ``(K, C, h, w)``: by the names of layers (as in ``model.named_modules()``), or in the order of
        the convolution layers in the model, of which the last ones may be left out.
    frozen : bool or sequence of str
        Whether the layers no longer learn (``requires_grad`` is False, of weight and bias), or the names of those that do not.
        The others are set to learn.

    Returns
    -------
    list of str
        The names of the layers that were started from filters.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If a name is not that of a convolution layer, there are more sources than layers, or filters hold NaN or infinity.
    ShapeError
        If filters do not have the shape of a layer's weight.
    UnsupportedError
        If a layer's weight is not its own: computed, shared with another layer that gets filters, or without a size yet.

    Examples
    --------
    >>> from ninefold import nn
    >>> from ninefold.learn import RandomFilters
    >>> source = RandomFilters(4, (3, 2), random_state=0).fit(np.zeros((1, 9, 8)))
    >>> model = torch.nn.Sequential(nn.Conv2d(1, 4, (3, 2)), torch.nn.ReLU(), nn.Conv2d(4, 6, 3))
    >>> initialize(model, source)
    ['0']
    >>> [p.requires_grad for p in model.parameters()]
    [False, False, True, True]
    """
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, torch.nn.Conv2d)}
    given = _by_name(layers, sources)
    if not isinstance(frozen, bool):
        unknown = [name for name in ([frozen] if isinstance(frozen, str) else frozen) if name not in given]
        if isinstance(frozen, str) or unknown:
            raise ArgumentError(f"frozen={frozen!r} must be True, False or a list of names among {list(given)}")
    ready = [(name, layers[name], *_fitting(name, layers[name], source)) for name, source in given.items()]
    _check_shared(ready)
    for name, layer, filters, bias in ready:
        _put(layer, filters, bias)
        layer.weight.requires_grad_(not (frozen if isinstance(frozen, bool) else name in frozen))
        if layer.bias is not None:
            layer.bias.requires_grad_(layer.weight.requires_grad)
    return list(given)


def _by_name(layers: Mapping[str, torch.nn.Conv2d], sources: Any) -> dict[str, Any]:
    """Return sources by the name of their layer."""
    if isinstance(sources, Mapping):
        unknown = [name for name in sources if name not in layers]
        if unknown or not sources:
            raise ArgumentError(f"sources names {list(sources)}; the convolution layers of the model are {list(layers)}")
        return dict(sources)
    listed = list(sources) if isinstance(sources, (list, tuple)) else [sources]
    if not 1 <= len(listed) <= len(layers):
        raise ArgumentError(
            f"sources holds {len(listed)} sources of filters, and the model has {len(layers)} convolutions, {list(layers)}: "
            "give at least one, and no more than there are layers"
        )
    return dict(zip(layers, listed, strict=False))


def _fitting(name: str, layer: torch.nn.Conv2d, source: Any) -> tuple[Tensor, Tensor]:
    """Return filters and bias for a layer, on its device and in its dtype, checked."""
    if not isinstance(layer._parameters.get("weight"), Tensor):  # noqa: SLF001  torch's table: whether it is computed
        raise UnsupportedError(f"the weight of layer {name!r} is computed by a parametrization or a hook; remove it first")
    if isinstance(layer.weight, torch.nn.parameter.UninitializedParameter):
        raise UnsupportedError(f"layer {name!r} is lazy and has no size yet; run the model on one batch first")
    filters, offsets = _filters(name, source)
    shape = tuple(layer.weight.shape)
    if filters.shape != shape:
        raise ShapeError(_mismatch(name, layer, tuple(filters.shape)))
    if not bool(filters.isfinite().all()):
        raise ArgumentError(f"the filters for layer {name!r} hold {int((~filters.isfinite()).sum())} values of NaN or infinity")
    if getattr(layer, "flip_kernel", False):
        filters = filters.flip(2, 3)
    return filters.to(layer.weight), -offsets.to(layer.weight)


def _filters(name: str, source: Any) -> tuple[Tensor, Tensor]:
    """Return filters ``(K, C, h, w)`` of a source or an array, and what the answers of each are too large by."""
    if isinstance(source, FilterSource):
        check_is_fitted(source, "filters_")
        filters = tensor_of(source.filters_)
        offsets = filters.new_zeros(len(filters))
        if source.preparation_.contrast == float("inf"):
            offsets = filters.flatten(1) @ source.preparation_.mean.to(filters)
        return filters, offsets
    if isinstance(source, Tensor):
        filters = source.detach()
    elif isinstance(source, np.ndarray):
        filters = torch.from_numpy(np.array(source))  # a copy, for what is given may be read-only
    else:
        raise ArgumentTypeError(f"the source for layer {name!r} is a {type(source).__name__}; give a FilterSource or an array")
    if filters.is_complex() or filters.ndim != 4:
        raise ShapeError(
            f"the filters for layer {name!r} are {filters.dtype} of shape {tuple(filters.shape)}; give real (K, C, h, w)"
        )
    return filters, filters.new_zeros(len(filters))


def _mismatch(name: str, layer: torch.nn.Conv2d, found: tuple[int, ...]) -> str:
    wanted = tuple(layer.weight.shape)
    text = f"layer {name!r} takes filters of shape {wanted}, (K, C, h, w), and the source has {found}"
    if layer.groups > 1 and found[1] == layer.in_channels:
        return f"{text}: with groups={layer.groups} each filter sees {wanted[1]} of {layer.in_channels} channels, not all of them"
    names = ("the number of filters", "the number of channels", "the height", "the width")
    return f"{text}: {' and '.join(n for n, a, b in zip(names, wanted, found, strict=True) if a != b)} must agree"


def _check_shared(ready: Sequence[tuple[str, torch.nn.Conv2d, Tensor, Tensor]]) -> None:
    """Refuse two sources for one weight."""
    owners: dict[int, str] = {}
    for name, layer, _, _ in ready:
        other = owners.setdefault(id(layer.weight), name)
        if other != name:
            raise UnsupportedError(f"layers {other!r} and {name!r} share one weight; give filters to one of them only")


def _put(layer: torch.nn.Conv2d, filters: Tensor, bias: Tensor) -> None:
    """Write them; what a planned layer keeps of a final weight is made anew."""
    final = bool(getattr(layer, "frozen", False))
    if final:
        layer.unfreeze()  # type: ignore[operator]
    with torch.no_grad():
        layer.weight.copy_(filters)
        if layer.bias is not None:
            layer.bias.copy_(bias)
    if final:
        layer.freeze()  # type: ignore[operator]
