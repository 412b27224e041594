"""Made cells with thin walls, in two or three dimensions, with exact objects: for tests and demonstrations."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ninefold.errors import ArgumentError
from ninefold.structured.partition.arrays import Labels, label_array, scipy_part
from ninefold.structured.partition.offsets import ends, neighbour_offsets

__all__ = ["cell_image", "voronoi_cells"]


def voronoi_cells(shape: Sequence[int], cells: int, *, walls: bool = True, seed: int = 0) -> Labels:
    """Return Voronoi cells of random points, numbered from 1, with walls of one voxel, which are 0.

    Walls are as thin as can be so that no two cells touch along an axis.

    Parameters
    ----------
    shape : sequence of int
        Of the image or volume.
    cells : int
        Points drawn, at different voxels.
    walls : bool
        Whether there are walls; without them cells touch.
    seed : int
        Of the points.

    Raises
    ------
    ArgumentError
        If a size or the number of cells is below 1, or there are more cells than voxels.
    MissingExtraError
        If SciPy is not installed.

    Examples
    --------
    >>> voronoi_cells((4, 7), 2)
    array([[0, 0, 2, 2, 2, 2, 2],
           [1, 0, 2, 2, 2, 2, 2],
           [1, 0, 0, 2, 2, 2, 2],
           [1, 1, 0, 2, 2, 2, 2]])
    """
    sizes = tuple(int(n) for n in shape)
    voxels = int(np.prod(sizes))
    if not sizes or min(sizes) < 1 or not 1 <= cells <= voxels:
        raise ArgumentError(f"{cells} cells in a shape of {sizes}; give sizes of at least 1, and 1 to {max(voxels, 0)} cells")
    points = np.stack(np.unravel_index(np.random.default_rng(seed).choice(voxels, cells, replace=False), sizes), 1)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in sizes), indexing="ij"), -1).reshape(-1, len(sizes))
    nearest: Any = scipy_part("spatial", "voronoi_cells").cKDTree(points).query(grid)[1]
    nearest = nearest.reshape(sizes) + 1
    labels = nearest.astype(np.int64)
    if walls:
        for offset in neighbour_offsets(len(sizes)):
            here, there = ends(sizes, offset)
            labels[here][nearest[here] != nearest[there]] = 0
    return np.asarray(labels, np.int64)


def cell_image(labels: Any, *, noise: float = 0.2, blur: float = 0.7, faint: float = 0.0, seed: int = 0) -> NDArray[np.float32]:
    """Return a picture of cells: bright inside, dark walls, blurred, with noise.

    Parameters
    ----------
    labels : array of int
        Cells from 1; 0 is wall.
    noise : float
        Standard deviation of Gaussian noise; cells are 1, walls 0 before the blur.
    blur : float
        Standard deviation of a Gaussian, in voxels.
    faint : float
        Share of wall voxels, drawn, that are no darker than cells.
    seed : int
        Of noise and faint walls.

    Raises
    ------
    DTypeError, ShapeError, ArgumentError
        If labels are none, or a parameter is out of its range.
    MissingExtraError
        If SciPy is not installed.

    Examples
    --------
    >>> cell_image(voronoi_cells((5, 8), 3)).shape
    (5, 8)
    """
    if noise < 0 or blur < 0 or not 0 <= faint <= 1:
        raise ArgumentError(f"noise={noise}, blur={blur}, faint={faint}; the first two are 0 and more, the last from 0 to 1")
    plain, generator = label_array(labels, "labels"), np.random.default_rng(seed)
    bright = (plain > 0) | (generator.random(plain.shape) < faint)
    image = scipy_part("ndimage", "cell_image").gaussian_filter(bright.astype(np.float64), blur) + noise * generator.normal(
        size=plain.shape
    )
    return np.asarray(image, np.float32)
