"""Pictures of what was learned: axes in, axes out; needs Matplotlib (``pip install ninefold[draw]``)."""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from ninefold.drawing.style import INK, bare, canvas
from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError
from ninefold.learn.base import FilterSource, whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["mosaic"]

_WIDE, _HIGH = 700, 800  # dots of a new figure, about; more only where a value would have less than one
_LARGEST = 12  # dots that a value has at the most


def mosaic(
    filters: Any,
    ax: "Axes | None" = None,
    *,
    columns: int | None = None,
    scale: Literal["each", "all"] = "each",
    channels: Literal["auto", "colour", "side", "principal"] = "auto",
    gap: int = 1,
    title: str | None = None,
) -> "Axes":
    """Draw filters as a grid of tiles, a value a cell: nothing is smoothed.

    Where a value is negative, the scale is symmetric about 0, which is the middle grey, whether a tile is scaled by itself or
    all are together; else black is the least value and white the largest.

    Parameters
    ----------
    filters : FilterSource or array or Tensor
        A fitted source, whose ``atoms_`` are drawn; or ``(K, C, h, w)`` or ``(K, h, w)``.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default on a new figure, ``ax.figure``, which is neither shown nor known to pyplot.
    columns : int, optional
        Tiles in a row; by default about as many values across as down.
    scale : {"each", "all"}
        Whether each filter has the full range of shades, or the largest of all.
    channels : {"auto", "colour", "side", "principal"}
        "colour" takes three channels as red, green and blue; "side" draws channels side by side, in a tile as wide as all;
        "principal" projects them on the one direction, the same for all filters, that has most of their squares (a principal
        component without centring, so that 0 stays 0), its largest part positive. What is drawn of several channels is said
        under the picture. "auto" is "colour" for three and "side" for others.
    gap : int
        White cells between tiles; three times as many where the tiles' channels stand side by side, with `gap` between these.
    title : str, optional

    Returns
    -------
    matplotlib.axes.Axes
        With one image, whose array is ``(rows, columns)``, masked in gaps, or ``(rows, columns, 3)``.

    Raises
    ------
    ArgumentError, ArgumentTypeError, ShapeError
        If these are no filters, or there are none, or they hold NaN; or an argument is out of its range.

    Examples
    --------
    >>> ax = mosaic(np.arange(12.0).reshape(3, 2, 2) - 6, columns=2)
    >>> ax.images[0].get_array().shape, ax.images[0].get_clim()
    ((5, 5), (-1.0, 1.0))
    """
    stack = _stack(filters)
    tiles, note, inner = _tiles(stack, channels, _gap(gap))
    if scale not in ("each", "all"):
        raise ArgumentError(f"scale={scale!r} is not one of 'each', 'all'")
    sheet = _sheet(_shades(tiles, scale), columns, 3 * gap if inner else gap)
    return _shown(sheet, ax, title, note, (-1.0 if np.nanmin(tiles) < 0 else 0.0, 1.0))


def _stack(filters: Any) -> "Floats":
    """Return filters as an array ``(K, C, h, w)``."""
    if isinstance(filters, FilterSource):
        check_is_fitted(filters, "atoms_")
    elif hasattr(filters, "filters_of"):
        raise ArgumentTypeError(f"{type(filters).__name__} has several layers; give the filters of one: filters_of(0)")
    stack = _numbers(filters.atoms_ if isinstance(filters, FilterSource) else filters, "filters")
    if stack.ndim not in (3, 4) or 0 in stack.shape:
        raise ShapeError(f"filters have shape {stack.shape}; they must be (K, C, h, w) or (K, h, w), and at least one")
    return stack if stack.ndim == 4 else stack[:, None]


def _numbers(values: Any, name: str) -> "Floats":
    """Return finite float64 of an array or a tensor."""
    found = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
    if found.dtype.kind not in "fiub":
        raise ArgumentTypeError(f"{name} must be an array of numbers, got {type(values).__name__} of dtype {found.dtype}")
    found = found.astype(np.float64)
    if not np.isfinite(found).all():
        raise ArgumentError(f"{name} hold NaN or infinity, {int((~np.isfinite(found)).sum())} of {found.size} values")
    return found


def _gap(gap: Any) -> int:
    if isinstance(gap, (int, np.integer)) and gap < 0:
        raise ArgumentError(f"gap={gap} must be at least 0")
    return whole(gap, "gap") if gap else 0


def _tiles(stack: "Floats", how: str, gap: int) -> "tuple[Floats, str | None, bool]":
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


def _shades(tiles: "Floats", scale: str) -> "Floats":
    """Return tiles from -1 to 1 if a value is negative, else from 0 to 1; colours always from 0 to 1."""
    axes = tuple(range(1, tiles.ndim)) if scale == "each" else None
    low, high = np.nanmin(tiles, axes, keepdims=True), np.nanmax(tiles, axes, keepdims=True)
    if np.nanmin(tiles) >= 0:
        return (tiles - low) / np.where(high > low, high - low, 1.0)
    most = np.maximum(high, -low)
    shades = tiles / np.where(most > 0, most, 1.0)
    return shades if tiles.ndim == 3 else (shades + 1) / 2


def _sheet(tiles: "Floats", columns: int | None, gap: int) -> "Floats":
    """Return tiles in rows: not a number between them, or white where they are colours."""
    count, height, width, *colours = tiles.shape
    across = round((count * (height + gap) / (width + gap)) ** 0.5) if columns is None else whole(columns, "columns")
    across = min(max(1, across), count)
    down = -(-count // across)
    sheet = np.full((down * (height + gap), across * (width + gap), *colours), 1.0 if colours else np.nan)
    for k, tile in enumerate(tiles):
        y, x = (height + gap) * (k // across), (width + gap) * (k % across)
        sheet[y : y + height, x : x + width] = tile
    return sheet[: len(sheet) - gap, : sheet.shape[1] - gap]


def _shown(sheet: "Floats", ax: "Axes | None", title: str | None, note: str | None, limits: tuple[float, float]) -> "Axes":
    """Draw a sheet on axes, or on a new figure on which each value has a whole number of dots."""
    from matplotlib import colormaps  # noqa: PLC0415  matplotlib is loaded by those who draw

    high, wide = sheet.shape[:2]
    dots = min(max(1, min(_WIDE // wide, _HIGH // high)), _LARGEST)
    ax = canvas(max(wide * dots / 100, 2) + 0.0834, high * dots / 100 + 0.15 + (0.3 if title else 0) + (0.25 if note else 0), ax)
    shown = sheet if sheet.ndim == 3 else np.ma.masked_invalid(sheet)
    shades = colormaps["gray"].with_extremes(bad="white")
    ax.imshow(shown, cmap=shades, vmin=limits[0], vmax=limits[1], interpolation="nearest")
    bare(ax, title)
    if note:
        ax.text(0, -0.01, note, transform=ax.transAxes, ha="left", va="top", fontsize=8, color=INK)
    return ax
