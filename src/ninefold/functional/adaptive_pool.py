"""Pooling to a grid of cells whatever the size of the input (figure 9.11 of the book), and pyramids of such grids.

Two conventions say what belongs to cell i of o over n positions: PyTorch's overlapping bins
``[floor(i n / o), ceil((i + 1) n / o))``, and disjoint ones between the rounded boundaries ``i n / o``. They agree where o
divides n.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ninefold.errors import ArgumentError, DTypeError, ShapeError
from ninefold.functional.named import make
from ninefold.functional.sliding import check_floating, check_input, exactly, refusal, taken
from ninefold.ops.layout import channels_last
from ninefold.spec.parse import integer, per_axis
from ninefold.tensors.layout import in_format

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
    size = _output_size(input, ndim, output_size, bins, of_nothing=True)
    check_floating(input, "an average")
    if bins == "overlapping" and not exactly(input) and not input.is_complex():
        return _run(_AVERAGE[ndim], input, size)  # type: ignore[no-any-return]
    y = input
    for dim, o in enumerate(size, -ndim):
        if o == 0:
            y = y.narrow(dim, 0, 0)
            continue
        cells, _, counts = _cells(y, dim, o, bins)
        behind = counts[:, None] <= torch.arange(cells.shape[dim], device=y.device)
        column = (-1, *(1,) * (-dim - 1))
        wide = torch.float32 if y.dtype in (torch.float16, torch.bfloat16) else y.dtype
        total = cells.masked_fill(behind.view(*behind.shape, *column[1:]), 0).sum(dim, dtype=wide)
        y = (total / counts.view(column)).to(y.dtype)
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
        z, at = _run(_MAX[ndim], input, size)
        return (z, at) if return_indices else z
    if input.is_complex():
        raise DTypeError(f"the input has dtype {input.dtype}, and complex numbers have no order: take the maximum of real ones")
    flat = torch.arange(input.shape[-ndim:].numel(), device=input.device).view(input.shape[-ndim:])
    at = flat.expand(input.shape)
    y = input.detach()
    for dim, o in reversed(list(enumerate(size, -ndim))):
        if o == 0:
            y, at = y.narrow(dim, 0, 0), at.narrow(dim, 0, 0)
            continue
        cells, starts, _ = _cells(y, dim, o, bins)
        y, where = cells.max(dim)
        at = at.gather(dim, where + starts.view(-1, *(1,) * (-dim - 1)))
    z = in_format(taken(input, at, ndim), channels_last(input))
    return (z, at) if return_indices else z


def _run(kernel: Callable[..., Any], x: Tensor, size: tuple[int, ...]) -> Any:
    try:
        return kernel(x, size)
    except RuntimeError as error:
        raise refusal(x, error, len(size)) from error


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


def _output_size(x: Any, ndim: int, output_size: Any, bins: str, *, of_nothing: bool = False) -> tuple[int, ...]:
    """Return the cells along each axis, checked; torch's averages alone take one cell of nothing, and call it NaN."""
    check_input(x, ndim)
    size = tuple(x.shape[-ndim:])
    if bins not in ("overlapping", "disjoint"):
        raise ArgumentError(f"bins={bins!r} is not one of ['overlapping', 'disjoint']")
    if isinstance(output_size, (tuple, list)) and len(output_size) == ndim:
        output_size = tuple(n if o is None else integer(o, "output_size", 0) for o, n in zip(output_size, size, strict=True))
    cells = size if output_size is None else per_axis(output_size, ndim, "output_size", 0)
    if of_nothing and bins == "overlapping" and all(o == 1 for o in cells):
        return cells
    for k, (o, n) in enumerate(zip(cells, size, strict=True)):
        if n == 0 or (bins == "disjoint" and o > n):
            raise ShapeError(
                f"output_size={cells} with bins={bins!r} needs at least {o if bins == 'disjoint' else 1} positions along "
                f"axis {k}, but the input has {n}"
            )
    return cells


def _cells(x: Tensor, dim: int, o: int, bins: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return what is in every cell along an axis, as one more dimension behind it; where cells begin, and how much is in each.

    All have room for the largest: behind what is in a smaller one, its last element is repeated.
    """
    n, cell = x.shape[dim], torch.arange(o + 1, device=x.device)
    if bins == "overlapping":
        starts, ends = cell[:-1] * n // o, (cell[1:] * n + o - 1) // o
    else:
        bounds = (2 * cell * n + o) // (2 * o)
        starts, ends = bounds[:-1], bounds[1:]
    room = n // o if n % o == 0 else n // o + (2 if bins == "overlapping" else 1)
    if n % o == 0:
        return x.unflatten(dim, (o, room)), starts, ends - starts
    places = torch.minimum(starts[:, None] + torch.arange(room, device=x.device), ends[:, None] - 1)
    return x.index_select(dim, places.flatten()).unflatten(dim, (o, room)), starts, ends - starts


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
