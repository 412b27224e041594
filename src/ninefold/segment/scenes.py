"""Pictures with exact labels: made of textures, or bundled with packages that are installed. Nothing is ever fetched."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ninefold.errors import DataError

__all__ = ["TEXTURES", "bundled", "nuclei", "texture_scenes"]

TEXTURES = ("brick", "grass", "gravel")


def bundled(package: str, *place: str) -> Path | None:
    """Return a file inside an installed package, or None if it is not there; the package is not imported.

    Examples
    --------
    >>> bundled("skimage", "data", "coins.png").name
    'coins.png'
    >>> bundled("no_such_package", "a.png")
    """
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        return None
    path = Path(next(iter(found.submodule_search_locations)), *place)
    return path if path.is_file() else None


def _photograph(name: str) -> NDArray[np.float32]:
    path = bundled("skimage", "data", f"{name}.png")
    if path is None:
        raise DataError(f"scikit-image's picture {name} is not inside the installed package")
    with Image.open(path) as image:
        return (np.asarray(image.convert("L"), np.float32) / np.float32(255)).astype(np.float32)


def texture_scenes(
    count: int, seed: int, *, size: tuple[int, int] = (96, 112), regions: int = 6, half: str = "left", tint: float = 0.0
) -> list[tuple[Tensor, Tensor]]:
    """Return pictures cut together from photographs of brick, grass and gravel, and the class of every pixel.

    Regions are the Voronoi cells of points drawn; each shows a place of its texture. All have one brightness and contrast:
    only the texture tells.

    Parameters
    ----------
    count, seed : int
    size : pair of int
        Height and width.
    regions : int
        Of a picture.
    half : {"left", "right"}
        Of the photographs; those that are tested on come from the other one than those that are learned from.
    tint : float
        Deviation of the colour that each region is painted with, where textures have 1. Colours are drawn: they say where a
        region ends, and nothing of its class. With 0 pictures are grey.

    Returns
    -------
    list of (image, mask)
        (1, height, width) of float32, or 3 channels with `tint`; (height, width) of int64.

    Examples
    --------
    >>> (image, mask), *_ = texture_scenes(2, seed=0)
    >>> tuple(image.shape), tuple(mask.shape), sorted(set(mask.flatten().tolist()))
    ((1, 96, 112), (96, 112), [0, 1, 2])
    """
    draw, (height, width) = np.random.default_rng([seed, 17]), size
    halves = []
    for name in TEXTURES:
        photograph = _photograph(name)
        middle = photograph.shape[1] // 2
        part = photograph[:, :middle] if half == "left" else photograph[:, middle:]
        halves.append((part - part.mean()) / part.std())
    rows, columns = np.mgrid[:height, :width]
    scenes = []
    for _ in range(count):
        points = draw.uniform(size=(regions, 2)) * size
        nearest = ((rows - points[:, 0, None, None]) ** 2 + (columns - points[:, 1, None, None]) ** 2).argmin(0)
        classes = draw.permutation(np.arange(regions) % len(TEXTURES))
        image = np.empty(size, np.float32)
        for region, kind in enumerate(classes):
            part = halves[kind]
            top, left = (int(draw.integers(n - m + 1)) for n, m in zip(part.shape, size, strict=True))
            inside = nearest == region
            image[inside] = part[top : top + height, left : left + width][inside]
        colours = tint * draw.standard_normal((regions, 3 if tint else 1)).astype(np.float32)
        painted = image + colours[nearest].transpose(2, 0, 1)
        scenes.append((torch.from_numpy(painted), torch.from_numpy(classes[nearest].astype(np.int64))))
    return scenes


def nuclei(axes: int = 2) -> tuple[Tensor, Tensor] | None:
    """Return the labelled nuclei that stardist's wheel brings along, or None where it is not installed.

    Parameters
    ----------
    axes : {2, 3}
        A picture of 512x512 with 125 objects, or a volume of 31x61x57 with 51.

    Returns
    -------
    image : Tensor of float32, shape (1, *space)
    objects : Tensor of int64, shape (*space)
    """
    paths = [bundled("stardist", "data", "images", f"{kind}{axes}d.tif") for kind in ("img", "mask")]
    if None in paths:
        return None
    import tifffile  # noqa: PLC0415  comes with an extra

    image, objects = (tifffile.imread(path) for path in paths if path is not None)
    found: Any = torch.from_numpy(np.asarray(image, np.float32))[None]
    return found, torch.from_numpy(np.asarray(objects, np.int64))
