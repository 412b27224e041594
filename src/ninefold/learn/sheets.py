"""Tiles on a sheet of numbers: what the pictures of filters, images and gratings are made of."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ninefold.drawing.style import INK, bare
from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError
from ninefold.learn.base import whole
from ninefold.learn.images import Channels, Images

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["gap_of", "numbers", "one_size", "pictured", "shades", "sheet", "shown", "tiles"]

_WIDE, _HIGH = 700, 800  # dots of a new figure, about; more only where a value would have less than one
_LARGEST = 12  # dots that a value has at the most


def numbers(values: Any, name: str) -> "Floats":
    """Return finite float64 of an array or a tensor."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = values.double() if values.is_floating_point() else values
    found = np.asarray(values)
    if found.dtype.kind not in "fiub":
        raise ArgumentTypeError(f"{name} must be an array of numbers, got {type(values).__name__} of dtype {found.dtype}")
    found = found.astype(np.float64)
    if not np.isfinite(found).all():
        raise ArgumentError(
            f"{name} must be finite, got NaN or infinity in {int((~np.isfinite(found)).sum())} of {found.size} values"
        )
    return found


def one_size(X: Any, channels: Channels, name: str) -> "Floats":
    """Return images ``(N, C, H, W)`` of one size, of what `Images` takes."""
    batches = list(Images(X, channels, "first"))
    sizes = {tuple(batch.shape[1:]) for batch in batches}
    if len(sizes) != 1:
        raise ShapeError(f"{name} must be of one size, (C, H, W), got {sorted(sizes) or 'none at all'}")
    return torch.cat(batches).double().numpy()


def gap_of(gap: Any) -> int:
    """Return a whole number of at least 0."""
    if isinstance(gap, (int, np.integer)) and gap < 0:
        raise ArgumentError(f"gap={gap} must be at least 0")
    return whole(gap, "gap") if gap else 0


def pictured(images: "Floats", name: str) -> "Floats":
    """Return images ``(N, C, H, W)`` as tiles ``(N, H, W)``, or ``(N, H, W, 3)``."""
    if images.shape[1] not in (1, 3):
        raise ShapeError(f"{name} have {images.shape[1]} channels, and pictures 1 or 3: choose some of them")
    return images[:, 0] if images.shape[1] == 1 else images.transpose(0, 2, 3, 1)


def tiles(stack: "Floats", how: str, gap: int) -> "tuple[Floats, str | None, bool]":
    """Return tiles ``(K, h, w)`` or ``(K, h, w, 3)``, what is to be said of them, and whether they have channels in them."""
    count, channels, height, width = stack.shape
    if how not in ("auto", "colour", "side", "principal"):
        raise ArgumentError(f"channels={how!r} is not one of 'auto', 'colour', 'side', 'principal'")
    if how == "colour" and channels != 3:
        raise ShapeError(f"channels='colour' needs three channels, not {channels}; take 'side' or 'principal'")
    if channels == 1:
        return stack[:, 0], None, False
    if how == "colour" or (how == "auto" and channels == 3):
        return stack.transpose(0, 2, 3, 1), None, False
    if how == "principal":
        direction, share = _principal(stack.transpose(0, 2, 3, 1).reshape(-1, channels))
        note = f"first principal component of {channels} channels: {share:.0%} of their squares"
        return np.einsum("kchw,c->khw", stack, direction), note, False
    beside = np.full((count, height, channels, width + gap), np.nan)
    beside[..., :width] = stack.transpose(0, 2, 1, 3)
    return beside.reshape(count, height, -1)[:, :, : channels * (width + gap) - gap], f"{channels} channels side by side", True


def _principal(rows: "Floats") -> "tuple[Floats, float]":
    """Return the direction of most squares, its largest part positive, and the share of the squares that it has."""
    values, directions = np.linalg.eigh(rows.T @ rows)
    direction = directions[:, -1]
    if direction[np.abs(direction).argmax()] < 0:
        direction = -direction
    return direction, float(values[-1] / (values.sum() or 1.0))


def shades(drawn: "Floats", scale: str) -> "Floats":
    """Return tiles from -1 to 1 if a value is negative, else from 0 to 1; colours always from 0 to 1."""
    if scale not in ("each", "all"):
        raise ArgumentError(f"scale={scale!r} is not one of 'each', 'all'")
    axes = tuple(range(1, drawn.ndim)) if scale == "each" else None
    low, high = np.nanmin(drawn, axes, keepdims=True), np.nanmax(drawn, axes, keepdims=True)
    if np.nanmin(drawn) >= 0:
        return (drawn - low) / np.where(high > low, high - low, 1.0)
    most = np.maximum(high, -low)
    found = drawn / np.where(most > 0, most, 1.0)
    return found if drawn.ndim == 3 else (found + 1) / 2


def sheet(drawn: "Floats", columns: int | None, gaps: tuple[int, int]) -> "Floats":
    """Return tiles in rows: not a number between them, or white where they are colours; gaps are those down and across."""
    count, height, width, *colours = drawn.shape
    rows, cells = height + gaps[0], width + gaps[1]
    across = min(max(1, round((count * rows / cells) ** 0.5)) if columns is None else whole(columns, "columns"), count)
    made = np.full((-(-count // across) * rows, across * cells, *colours), 1.0 if colours else np.nan)
    for k, tile in enumerate(drawn):
        y, x = rows * (k // across), cells * (k % across)
        made[y : y + height, x : x + width] = tile
    return made[: len(made) - gaps[0], : made.shape[1] - gaps[1]]


def shown(
    made: "Floats",
    ax: "Axes | None",
    limits: tuple[float, float],
    title: str | None,
    note: str | None = None,
    labels: "tuple[tuple[float, str], ...]" = (),
) -> "Axes":
    """Draw a sheet on axes, or on a new figure; labels stand left of rows."""
    from matplotlib import colormaps  # noqa: PLC0415  matplotlib is loaded by those who draw

    if ax is None:
        ax = _canvas((made.shape[0], made.shape[1]), title or "", (note or "").splitlines(), [word for _, word in labels])
    grey = colormaps["gray"].with_extremes(bad="white")
    cells = made if made.ndim == 3 else np.ma.masked_invalid(made)
    ax.imshow(cells, cmap=grey, vmin=limits[0], vmax=limits[1], interpolation="nearest")
    bare(ax, title)
    look: Any = {"xycoords": ax.get_yaxis_transform(), "textcoords": "offset points", "fontsize": 9, "color": INK}
    for row, word in labels:
        ax.annotate(word, (0, row), (-5, 0), ha="right", va="center", **look)
    if note:
        ax.annotate(note, (0, 0), (0, -4), **look | {"xycoords": "axes fraction", "fontsize": 8}, ha="left", va="top")
    return ax


def _canvas(cells: tuple[int, int], title: str, note: list[str], labels: list[str]) -> "Axes":
    """Return axes on a new figure of which each cell has as many dots as any other, with room for words of about their width."""
    from matplotlib.figure import Figure  # noqa: PLC0415  see above

    dots = min(max(1, min(_WIDE // cells[1], _HIGH // cells[0])), _LARGEST)
    high, wide = (dots * n for n in cells)
    left = 5 + 7 * max(map(len, labels), default=0) + 6 * bool(labels)
    below, above = 5 + 14 * len(note) + 4 * bool(note), 5 + 20 * bool(title)
    across = left + max(wide, 7 * max(map(len, note), default=0), 9 * len(title)) + 5
    figure = Figure(figsize=(across / 100, (below + high + above) / 100), dpi=100)
    total = below + high + above
    return figure.add_axes((left / across, below / total, wide / across, high / total))
