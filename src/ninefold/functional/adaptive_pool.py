"""Pooling to a grid of cells whatever the size of the input (figure 9.11 of the book), and pyramids of such grids.

Two conventions say what belongs to cell i of o over n positions: PyTorch's overlapping bins
``[floor(i n / o), ceil((i + 1) n / o))``, and disjoint ones between the rounded boundaries ``i n / o``. They agree where o
divides n.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ninefold.engines.base import in_format
from ninefold.errors import ArgumentError, DTypeError, ShapeError
from ninefold.functional.sliding import check_floating, check_input, exactly, make, refusal, taken
from ninefold.ops.layout import channels_last
from ninefold.spec.parse import integer, per_axis

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "spatial_pyramid_pool1d",
    "spatial_pyramid_pool2d",
    "spatial_pyramid_pool3d",
]

Bins = Sequence[tuple[int, int]]

_AVERAGE: dict[int, Any] = {
    1: torch.adaptive_avg_pool1d,
    2: torch._C._nn.adaptive_avg_pool2d,  # noqa: SLF001  where torch.nn.functional has it
    3: torch._C._nn.adaptive_avg_pool3d,  # noqa: SLF001
}
_MAX: dict[int, Any] = {
    1: torch.adaptive_max_pool1d,
    2: torch._C._nn.adaptive_max_pool2d,  # noqa: SLF001
    3: torch._C._nn.adaptive_max_pool3d,  # noqa: SLF001
}


def _adaptive_avg_pool(
    ndim: int,
    input: Tensor,  # noqa: A002  torch's name
    output_size: Any,
    *,
    bins: str = "overlapping",
) -> Tensor:
    """Average over each cell of a {n}-D grid: torch's ``adaptive_avg_pool{n}d``.

    Parameters
    ----------
    input : Tensor of shape ``(batch, channels, {sizes})`` or without the batch
    output_size : int or tuple
        Cells along each axis; None keeps the input's size.
    bins : "overlapping" or "disjoint"
        PyTorch's ``[floor(i n / o), ceil((i + 1) n / o))``, or boundaries ``i n / o`` rounded, which no two cells share; those
        take at most as many cells as there are positions.

    Returns
    -------
    Tensor of shape ``(batch, channels, *output_size)``

    Raises
    ------
    ShapeError, ArgumentError, ArgumentTypeError
        With the actual numbers and the repair.

    Examples
    --------
    >>> import torch, ninefold.functional as F
    >>> F.adaptive_avg_pool{n}d(torch.ones(1, 3, {five}), 3, bins="disjoint").shape
    torch.Size([1, 3, {three}])
    """
    size = _output_size(input, ndim, output_size, bins)
    check_floating(input, "an average")
    if bins == "overlapping" and not exactly(input) and not input.is_complex():
        return _AVERAGE[ndim](input, size)  # type: ignore[no-any-return]
    y = input
    for dim, o in enumerate(size, -ndim):
        y = torch.stack([y.narrow(dim, a, b - a).mean(dim) for a, b in _ranges(y.shape[dim], o, bins)], dim)
    return in_format(y, channels_last(input))


def _adaptive_max_pool(
    ndim: int,
    input: Tensor,  # noqa: A002  torch's name
    output_size: Any,
    return_indices: bool = False,
    *,
    bins: str = "overlapping",
) -> Any:
    """Take the maximum over each cell of a {n}-D grid: torch's ``adaptive_max_pool{n}d``.

    Parameters
    ----------
    input : Tensor of shape ``(batch, channels, {sizes})`` or without the batch
    output_size : int or tuple
        Cells along each axis; None keeps the input's size.
    return_indices : bool
        Return also the flat position of every maximum, the first of equal ones.
    bins : "overlapping" or "disjoint"
        As in ``adaptive_avg_pool{n}d``.

    Returns
    -------
    Tensor of shape ``(batch, channels, *output_size)``, or that and one of int64

    Raises
    ------
    ShapeError, ArgumentError, ArgumentTypeError
        With the actual numbers and the repair.

    Examples
    --------
    >>> import torch, ninefold.functional as F
    >>> F.adaptive_max_pool{n}d(torch.ones(1, 3, {five}), 3, bins="disjoint").shape
    torch.Size([1, 3, {three}])
    """
    size = _output_size(input, ndim, output_size, bins)
    if bins == "overlapping" and not exactly(input):
        try:
            z, at = _MAX[ndim](input, size)
        except RuntimeError as error:
            raise refusal(input, error, ndim) from error
        return (z, at) if return_indices else z
    if input.is_complex():
        raise DTypeError(f"the input has dtype {input.dtype}, and complex numbers have no order: take the maximum of real ones")
    flat = torch.arange(input.shape[-ndim:].numel(), device=input.device).view(input.shape[-ndim:])
    at = flat.expand(input.shape)
    y = input.detach()
    for dim, o in reversed(list(enumerate(size, -ndim))):
        found = [y.narrow(dim, a, b - a).max(dim, keepdim=True) for a, b in _ranges(y.shape[dim], o, bins)]
        starts = [a for a, _ in _ranges(y.shape[dim], o, bins)]
        at = torch.cat([at.gather(dim, where + a) for (_, where), a in zip(found, starts, strict=True)], dim)
        y = torch.cat([values for values, _ in found], dim)
    z = in_format(taken(input, at, ndim), channels_last(input))
    return (z, at) if return_indices else z


def _spatial_pyramid_pool(
    ndim: int,
    input: Tensor,  # noqa: A002  torch's name
    levels: Sequence[Any],
    reduction: str = "max",
    *,
    bins: str = "overlapping",
) -> Tensor:
    """Pool to a pyramid of {n}-D grids and line up all their cells: a vector of one length whatever the size (He et al. 2014).

    Parameters
    ----------
    input : Tensor of shape ``(batch, channels, {sizes})`` or without the batch
    levels : sequence of int or tuple
        Cells along each axis, for each grid.
    reduction : "max" or "average"
    bins : "overlapping" or "disjoint"
        As in ``adaptive_avg_pool{n}d``.

    Returns
    -------
    Tensor of shape ``(batch, channels * cells)``
        Grid after grid, in each channel after channel.

    Raises
    ------
    ShapeError, ArgumentError, ArgumentTypeError
        With the actual numbers and the repair.

    Examples
    --------
    >>> import torch, ninefold.functional as F
    >>> F.spatial_pyramid_pool{n}d(torch.rand(7, 3, {six}), [1, 2]).shape[1] == 3 * (1 + 2**{n})
    True
    """
    if reduction not in list(_REDUCTIONS):
        raise ArgumentError(f"reduction={reduction!r} is not one of {list(_REDUCTIONS)}")
    if not isinstance(levels, (list, tuple)) or not levels:
        raise ArgumentError(f"levels={levels!r} must be a sequence of grids, such as (1, 2, 4)")
    pool = _REDUCTIONS[reduction]
    return torch.cat([pool(ndim, input, level, bins=bins).flatten(-ndim - 1) for level in levels], -1)


_REDUCTIONS: dict[str, Callable[..., Any]] = {"max": _adaptive_max_pool, "average": _adaptive_avg_pool}


def _output_size(x: Any, ndim: int, output_size: Any, bins: str) -> tuple[int, ...]:
    """Return the cells along each axis, checked."""
    check_input(x, ndim)
    size = tuple(x.shape[-ndim:])
    if bins not in ("overlapping", "disjoint"):
        raise ArgumentError(f"bins={bins!r} is not one of ['overlapping', 'disjoint']")
    if isinstance(output_size, (tuple, list)) and len(output_size) == ndim:
        output_size = tuple(n if o is None else integer(o, "output_size", 1) for o, n in zip(output_size, size, strict=True))
    cells = size if output_size is None else per_axis(output_size, ndim, "output_size", 1)
    for k, (o, n) in enumerate(zip(cells, size, strict=True)):
        if n == 0 or (bins == "disjoint" and o > n):
            raise ShapeError(
                f"output_size={cells} with bins={bins!r} needs at least {o if bins == 'disjoint' else 1} positions along "
                f"axis {k}, but the input has {n}"
            )
    return cells


def _ranges(n: int, o: int, bins: str) -> Bins:
    """Return the half-open range of every cell along an axis."""
    if bins == "overlapping":
        return [(i * n // o, -((i + 1) * n // -o)) for i in range(o)]
    return list(pairwise((2 * i * n + o) // (2 * o) for i in range(o + 1)))


(
    (adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d),
    (adaptive_max_pool1d, adaptive_max_pool2d, adaptive_max_pool3d),
    (spatial_pyramid_pool1d, spatial_pyramid_pool2d, spatial_pyramid_pool3d),
) = (
    [make(template, f"{template.__name__[1:]}{n}d", n) for n in (1, 2, 3)]
    for template in (_adaptive_avg_pool, _adaptive_max_pool, _spatial_pyramid_pool)
)

for _template in (_adaptive_avg_pool, _adaptive_max_pool, _spatial_pyramid_pool):
    _template.__doc__ = None  # it holds places to fill, and the functions made from it have it filled
__test__ = {name: globals()[name].__doc__ for name in __all__}
"""The examples, for doctest, which does not look into partial functions."""
