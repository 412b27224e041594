"""Pooling of encoded maps into rows of features: quadrants, pyramids."""

from typing import Any

import torch
from sklearn.base import BaseEstimator
from torch import Tensor

from ninefold.errors import ArgumentError, ShapeError
from ninefold.learn.base import whole

__all__ = ["GridPool", "Pyramid", "QuadrantSums", "RegionPool", "edges", "pooling_of"]

_START = {"sum": 0.0, "mean": 0.0, "max": float("-inf")}

Region = tuple[int, int, int, int]
"""Top, bottom, left and right, the second and fourth not included."""


class RegionPool(BaseEstimator):
    """The parent of poolings over regions of a map that do not depend on what is in it."""

    def regions(self, height: int, width: int) -> list[Region]:
        """Return top, bottom, left and right of each region."""
        raise NotImplementedError

    def names(self) -> list[str]:
        """Return what each region is called."""
        raise NotImplementedError

    def feature_names(self, width: int) -> list[str]:
        """Return what each pooled value is called, of so many values a position."""
        return [f"{region}_filter{k}" for region in self.names() for k in range(width)]

    def __call__(self, maps: Tensor) -> Tensor:
        """Pool ``(B, F, h, w)`` to ``(B, regions * F)``, region by region."""
        regions = self.regions(maps.shape[2], maps.shape[3])
        pooled = self.start(maps, len(maps), regions)
        self.add(pooled, maps, 0, regions)
        return self.finish(pooled, regions)

    def start(self, maps: Tensor, images: int, regions: list[Region]) -> Tensor:
        """Return what nothing is pooled to yet, ``(images, regions, F)``, for maps such as these."""
        if self.operation not in _START:
            raise ArgumentError(f"operation={self.operation!r} is not one of {list(_START)}")
        return maps.new_full((images, len(regions), maps.shape[1]), _START[self.operation])

    def add(self, pooled: Tensor, maps: Tensor, first: int, regions: list[Region]) -> None:
        """Pool some rows of maps, ``(B, F, rows, w)`` from row `first` on, into what was pooled before."""
        for k, (top, bottom, left, right) in enumerate(regions):
            part = maps[:, :, max(0, top - first) : max(0, bottom - first), left:right]
            if part.shape[2]:
                if self.operation == "max":
                    pooled[:, k] = torch.maximum(pooled[:, k], part.amax((2, 3)))
                else:
                    pooled[:, k] += part.sum((2, 3))

    def finish(self, pooled: Tensor, regions: list[Region]) -> Tensor:
        """Return what was pooled as rows ``(B, regions * F)``."""
        if self.operation == "mean":
            areas = [(bottom - top) * (right - left) for top, bottom, left, right in regions]
            pooled /= pooled.new_tensor(areas)[:, None]
        return pooled.flatten(1)


class GridPool(RegionPool):
    """A grid of regions that do not overlap, split where rounding says (half up): fixed features from any size (fig. 9.11).

    Parameters
    ----------
    grid : int or tuple of int
        Rows and columns of regions.
    operation : {"sum", "mean", "max"}

    Examples
    --------
    >>> GridPool((1, 2), "max")(torch.tensor([[[[1.0, 5.0, 2.0]]]]))
    tensor([[5., 2.]])
    """

    def __init__(self, grid: int | tuple[int, int] = 2, operation: str = "sum") -> None:
        self.grid = grid
        self.operation = operation

    def _cells(self) -> tuple[int, int]:
        rows, columns = self.grid if isinstance(self.grid, (tuple, list)) else (self.grid, self.grid)
        return whole(rows, "grid"), whole(columns, "grid")

    def regions(self, height: int, width: int) -> list[Region]:
        """Return them, row by row."""
        rows, columns = self._cells()
        if height < rows or width < columns:
            raise ShapeError(f"a map of {height}x{width} positions cannot be cut into {rows}x{columns} regions")
        lines, uprights = edges(height, rows), edges(width, columns)
        return [(*lines[i : i + 2], *uprights[j : j + 2]) for i in range(rows) for j in range(columns)]  # type: ignore[misc]

    def names(self) -> list[str]:
        """Return ``r0c0`` and so on."""
        rows, columns = self._cells()
        return [f"r{i}c{j}" for i in range(rows) for j in range(columns)]


class QuadrantSums(GridPool):
    """Sums over the four quadrants, split at half the side, rounded up from one half (Coates, Lee and Ng 2011): 27 is 14 and 13.

    Examples
    --------
    >>> QuadrantSums().regions(27, 9)
    [(0, 14, 0, 5), (0, 14, 5, 9), (14, 27, 0, 5), (14, 27, 5, 9)]
    """

    def __init__(self) -> None:
        super().__init__(2, "sum")


class Pyramid(RegionPool):
    """Grids of growing fineness, all of them: a spatial pyramid.

    Parameters
    ----------
    levels : tuple of int
        Regions along a side, by level.
    operation : {"sum", "mean", "max"}

    Examples
    --------
    >>> Pyramid((1, 2))(torch.ones(1, 3, 4, 6)).shape
    torch.Size([1, 15])
    """

    def __init__(self, levels: tuple[int, ...] = (1, 2, 4), operation: str = "max") -> None:
        self.levels = levels
        self.operation = operation

    def regions(self, height: int, width: int) -> list[Region]:
        """Return them, level by level."""
        return [region for n in self.levels for region in GridPool(n).regions(height, width)]

    def names(self) -> list[str]:
        """Return ``2r0c1`` and so on: level, row, column."""
        return [f"{n}{name}" for n in self.levels for name in GridPool(n).names()]


def edges(size: int, cells: int) -> list[int]:
    """Return where regions along an axis begin, and its end; halves are rounded up, unlike Python's own `round`.

    Examples
    --------
    >>> edges(25, 2), edges(8, 3)
    ([0, 13, 25], [0, 3, 5, 8])
    """
    return [(2 * size * k + cells) // (2 * cells) for k in range(cells + 1)]


def pooling_of(pooling: Any) -> Any:
    """Return a pooling for its name, or itself.

    Raises
    ------
    ArgumentError
        If there is none of that name.
    """
    named = {"quadrants": QuadrantSums, "pyramid": Pyramid}
    if isinstance(pooling, str) and pooling in named:
        return named[pooling]()
    if not callable(pooling) or isinstance(pooling, type):
        raise ArgumentError(f"pooling={pooling!r} is neither a pooling nor one of {list(named)}")
    return pooling
