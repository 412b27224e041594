"""Label maps laid over pictures."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ninefold.errors import ShapeError

__all__ = ["as_picture", "overlay", "side_by_side", "stretched"]


def as_picture(image: Tensor) -> NDArray[np.uint8]:
    """Return an image as (height, width, 3) of bytes: its values stretched from least to most; of volumes the middle slice.

    Parameters
    ----------
    image : Tensor of shape (channels, height, width) or (channels, depth, height, width)
        Three channels are colours; of any other number the first one is shown.

    Examples
    --------
    >>> import torch
    >>> as_picture(torch.tensor([[[0.0, 0.5, 1.0]]], device="cpu"))[0, :, 0]
    array([  0, 127, 255], dtype=uint8)
    """
    if image.dim() not in (3, 4):
        raise ShapeError(
            f"an image of shape {tuple(image.shape)} cannot be shown; it must be (channels, height, width) or a volume"
        )
    flat = image[:, image.shape[1] // 2] if image.dim() == 4 else image
    shown = stretched(flat if len(flat) == 3 else flat[:1].expand(3, *flat.shape[1:]))
    found: NDArray[np.uint8] = shown.detach().cpu().numpy().astype(np.uint8)
    return np.ascontiguousarray(found.transpose(1, 2, 0))


def stretched(image: Tensor) -> Tensor:
    """Return an image in float32 with its values from 0 to 255.

    Examples
    --------
    >>> import torch
    >>> stretched(torch.tensor([2.0, 3.0, 4.0], dtype=torch.float32, device="cpu"))
    tensor([  0.0000, 127.5000, 255.0000])
    """
    values = image.float()
    low, high = values.aminmax()
    return (values - low) * (255 / (high - low).clamp(min=1e-12))


def overlay(
    picture: NDArray[np.uint8], labels: NDArray[Any] | Tensor, *, ignore: int | None = None, background: int | None = 0
) -> NDArray[np.uint8]:
    """Return a picture with its labels in colours over it, and their borders drawn.

    Parameters
    ----------
    picture : ndarray of uint8, shape (height, width, 3)
    labels : ndarray or Tensor of int, shape (height, width), or (depth, height, width), of which the middle is shown
    ignore : int, optional
        A label that is left as the picture is.
    background : int, optional
        Another one.

    Raises
    ------
    ShapeError
        If sizes differ.

    Examples
    --------
    >>> drawn = overlay(np.full((4, 5, 3), 100, np.uint8), np.repeat([[0, 0, 1, 1, 1]], 4, 0))
    >>> bool((drawn[:, 0] == 100).all()), bool((drawn[:, 4] == 100).all())
    (True, False)
    """
    from skimage.color import label2rgb  # noqa: PLC0415  takes a second to load
    from skimage.segmentation import find_boundaries  # noqa: PLC0415

    labels = np.asarray(labels)
    flat = labels[labels.shape[0] // 2] if labels.ndim == 3 else labels
    if flat.shape != picture.shape[:2]:
        raise ShapeError(f"labels of {flat.shape} do not fit a picture of {picture.shape[:2]}")
    shown = flat.astype(np.int64) + 1
    for hidden in (ignore, background):
        if hidden is not None:
            shown[flat == hidden] = 0
    coloured = label2rgb(shown, picture / 255.0, alpha=0.35, bg_label=0, kind="overlay", saturation=1.0)
    border = find_boundaries(shown, mode="inner")
    coloured[border] = label2rgb(shown, bg_label=0)[border]
    coloured[shown == 0] = picture[shown == 0] / 255.0
    found: NDArray[np.uint8] = np.round(coloured * 255).astype(np.uint8)
    return found


def side_by_side(pictures: list[NDArray[np.uint8]], gap: int = 4) -> NDArray[np.uint8]:
    """Return pictures of one height in a row, white between.

    Examples
    --------
    >>> side_by_side([np.zeros((2, 3, 3), np.uint8)] * 2, gap=1).shape
    (2, 7, 3)
    """
    white = np.full((pictures[0].shape[0], gap, 3), 255, np.uint8)
    row = [part for picture in pictures for part in (white, picture)][1:]
    return np.concatenate(row, 1)
