"""Pictures of what was learned: axes in, axes out; needs Matplotlib (``pip install ninefold[draw]``).

By default each is drawn on a new figure, ``ax.figure``, which is neither shown nor known to pyplot.
"""

from math import hypot
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ninefold.drawing.style import FAINT, INK, MARK, QUIET, canvas, colour
from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError
from ninefold.learn.base import FilterSource
from ninefold.learn.gratings import Grating, optimal_input
from ninefold.learn.images import Channels
from ninefold.learn.omp import OMPFilters
from ninefold.learn.sheets import gap_of, numbers, one_size, pictured, shades, sheet, shown, tiles
from ninefold.learn.sparse import SparseCodingFilters

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["grating", "history", "mosaic", "reconstructions", "samples"]

_SPARSITY = colour(5, 8)


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
        White cells between tiles, and between channels side by side; then three times as many between the tiles of a row.
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
    drawn, note, inner = tiles(stack, channels, gap_of(gap))
    made = sheet(shades(drawn, scale), columns, (gap, 3 * gap if inner else gap))
    return shown(made, ax, (-1.0 if np.nanmin(drawn) < 0 else 0.0, 1.0), title, note)


def _stack(filters: Any) -> "Floats":
    """Return filters as an array ``(K, C, h, w)``."""
    if isinstance(filters, FilterSource):
        check_is_fitted(filters, "atoms_")
    elif hasattr(filters, "filters_of"):
        raise ArgumentTypeError(f"{type(filters).__name__} has several layers; give the filters of one: filters_of(0)")
    stack = numbers(filters.atoms_ if isinstance(filters, FilterSource) else filters, "filters")
    if stack.ndim not in (3, 4) or 0 in stack.shape:
        raise ShapeError(f"filters have shape {stack.shape}; they must be (K, C, h, w) or (K, h, w), and at least one")
    return stack if stack.ndim == 4 else stack[:, None]


def reconstructions(
    images: Any,
    reconstructed: Any,
    ax: "Axes | None" = None,
    *,
    columns: int | None = None,
    offset: tuple[int, int] | None = None,
    channels: Channels = "auto",
    title: str | None = None,
) -> "Axes":
    """Draw images in a row and below each what was made of it, all from the images' least value, black, to their largest, white.

    Under the picture stands the mean squared difference, where there are both, and what share of the images' variance it is.

    Parameters
    ----------
    images : images of one size
        See `Images`; of 1 or 3 channels.
    reconstructed : images of one size
        As many, such as the ``reconstruct`` of `ConvRBM`, `ConvDBN` and `SparseEncoderDecoder` returns, and that of
        `SparseCodingFilters` for images that are normalised as it does. Where they are smaller, the rest is white.
    ax : matplotlib.axes.Axes, optional
    columns : int, optional
        Pairs in a row; by default all up to 10.
    offset : tuple of int, optional
        Row and column of the image at which a smaller reconstruction begins; by default half of what is missing, rounded down,
        as a `ConvRBM` trims images. A `SparseEncoderDecoder` trims them below and at the right: (0, 0).
    channels : {"auto", "first", "last", "none"}
        As in `Images`.
    title : str, optional

    Returns
    -------
    matplotlib.axes.Axes
        With one image, of the values themselves, masked in gaps; or of colours from 0 to 1.

    Raises
    ------
    ShapeError, ArgumentError
        If there are not as many of both, or their channels differ or are not 1 or 3, or a reconstruction does not fit.

    Examples
    --------
    >>> images = np.random.default_rng(0).normal(size=(4, 6, 5))
    >>> ax = reconstructions(images, images / 2)
    >>> ax.images[0].get_array().shape, ax.texts[-1].get_text()[:28]
    ((13, 23), 'mean squared difference 0.23')
    """
    before = one_size(images, channels, "images")
    after = one_size(reconstructed, "auto", "reconstructions")
    if before.shape[:2] != after.shape[:2]:
        raise ShapeError(
            f"{before.shape[0]} images of {before.shape[1]} channels, but {after.shape[0]} reconstructions of {after.shape[1]}"
        )
    top, left = _placed(before.shape[2:], after.shape[2:], offset)
    here = before[:, :, top : top + after.shape[2], left : left + after.shape[3]]
    error, variance = float(np.square(here - after).mean()), float(here.var())
    share = f", {error / variance:.1%} of the images' variance" if variance else ""
    whole_ones = pictured(before, "images")
    partial = np.full_like(whole_ones, np.nan)
    partial[:, top : top + after.shape[2], left : left + after.shape[3]] = pictured(after, "reconstructions")
    low, high = float(before.min()), float(before.max())
    if whole_ones.ndim == 4:
        whole_ones, partial = ((v - low) / (high - low or 1.0) for v in (whole_ones, partial))
        whole_ones, partial = whole_ones.clip(0, 1), np.nan_to_num(partial.clip(0, 1), nan=1.0)
    count, height = whole_ones.shape[:2]
    pairs = np.full((count, 2 * height + 1, *whole_ones.shape[2:]), 1.0 if whole_ones.ndim == 4 else np.nan)
    pairs[:, :height], pairs[:, height + 1 :] = whole_ones, partial
    made = sheet(pairs, min(count, 10) if columns is None else columns, (3, 1))
    starts = range(0, len(made), 2 * height + 4)
    middles = [
        (y + (height - 1) / 2 + k * (height + 1), word) for y in starts for k, word in enumerate(("image", "reconstructed"))
    ]
    note = f"mean squared difference {error:.3g}{share}"
    return shown(made, ax, (low, high if high > low else low + 1), title, note, tuple(middles))


def _placed(size: tuple[int, ...], part: tuple[int, ...], offset: tuple[int, int] | None) -> tuple[int, int]:
    """Return where a part of an image begins."""
    room = size[0] - part[0], size[1] - part[1]
    where = (room[0] // 2, room[1] // 2) if offset is None else tuple(offset)
    if len(where) != 2 or not all(0 <= at <= most for at, most in zip(where, room, strict=True)):
        raise ShapeError(
            f"a reconstruction of {part[0]}x{part[1]} does not fit into an image of {size[0]}x{size[1]}"
            + (f" at offset={offset}" if offset is not None and min(room) >= 0 else "")
        )
    return where[0], where[1]


def samples(
    machine: Any,
    ax: "Axes | None" = None,
    *,
    n_samples: int = 16,
    columns: int | None = None,
    gap: int = 1,
    title: str | None = None,
    **sampling: Any,
) -> "Axes":
    """Draw images that a Boltzmann machine, or a stack of them, makes up: the least value of all is black, the largest white.

    Parameters
    ----------
    machine : ConvRBM or ConvDBN
        Fitted, or whatever has a method ``sample`` like theirs.
    ax : matplotlib.axes.Axes, optional
    n_samples : int
    columns, gap, title
        As in `mosaic`.
    **sampling
        What ``sample`` takes: ``size``, ``n_steps``, ``start``, ``random_state``, and of a `ConvRBM` ``top_down``.

    Returns
    -------
    matplotlib.axes.Axes
        With one image, of the samples' values, masked in gaps; or of colours from 0 to 1.

    Raises
    ------
    ArgumentTypeError
        If it makes up no images.
    ShapeError
        If the images have neither 1 nor 3 channels.

    Examples
    --------
    >>> from ninefold.learn import ConvRBM
    >>> rbm = ConvRBM(4, (3, 2), n_epochs=2, random_state=0).fit(np.random.default_rng(0).normal(size=(30, 9, 8)))
    >>> samples(rbm, n_samples=3, size=(8, 9), columns=3, random_state=0).images[0].get_array().shape
    (8, 29)
    """
    if not hasattr(machine, "sample"):
        raise ArgumentTypeError(
            f"{type(machine).__name__} makes up no images: it has no method sample, as ConvRBM and ConvDBN have"
        )
    made = numbers(machine.sample(n_samples, **sampling), "samples")
    drawn, low, high = pictured(made, "samples"), float(made.min()), float(made.max())
    if drawn.ndim == 4:
        drawn = shades(drawn - low, "all")
    between = gap_of(gap)
    return shown(sheet(drawn, columns, (between, between)), ax, (low, high if high > low else low + 1), title)


def grating(
    kernel: Any,
    size: int | tuple[int, int],
    ax: "Axes | None" = None,
    *,
    phase: float = 0.0,
    title: str | None = None,
) -> "Axes":
    """Draw a filter and, beside it, the input that it answers to most, pixels of both as large as one another.

    See `optimal_input`. Each is scaled by itself, symmetrically about 0, the middle grey; three channels are colours, and other
    channels stand side by side. Under the picture stand the grating's periods; across, a minus is a grating whose stripes fall to
    the right.

    Parameters
    ----------
    kernel : array or Tensor
        ``(h, w)`` or ``(C, h, w)``, such as ``source.filters_[0]``.
    size : int or tuple of int
        Height and width of the grating.
    ax : matplotlib.axes.Axes, optional
    phase : float
        Of the grating, in radians.
    title : str, optional

    Returns
    -------
    matplotlib.axes.Axes
        With one image: the filter, halfway up at the left, and the grating after two cells.

    Raises
    ------
    ArgumentError, ShapeError
        As `optimal_input`.

    Examples
    --------
    >>> ax = grating([[1.0, -1.0]], (6, 8))
    >>> ax.images[0].get_array().shape, ax.texts[0].get_text().splitlines()
    ((6, 12), ['filter of 1x2, grating of 6x8', '0 periods down, 4 across, wavelength 2 pixels'])
    """
    from matplotlib.patches import Rectangle  # noqa: PLC0415  matplotlib is loaded by those who draw

    filters = numbers(kernel, "kernel")
    found = optimal_input(filters, size, phase=phase)
    pair = [values if values.ndim == 3 else values[None] for values in (filters, found.image)]
    (small, note, _), (large, _, _) = (tiles(values[None], "auto", 1) for values in pair)
    parts = [values[0] / np.nanmax(np.abs(values)) for values in (small, large)]
    (height, wide), colours = parts[1].shape[:2], parts[1].shape[2:]
    places = ((height - len(parts[0])) // 2, 0), (0, parts[0].shape[1] + 2)
    made = np.full((height, places[1][1] + wide, *colours), 1.0 if colours else np.nan)
    for (y, x), part in zip(places, parts, strict=True):
        made[y : y + len(part), x : x + part.shape[1]] = (part + 1) / 2 if colours else part
    text = f"filter of {filters.shape[-2]}x{filters.shape[-1]}, {_told(found)}"
    ax = shown(made, ax, (-1.0, 1.0), title, text if note is None else f"{text}\n{note}")
    for (y, x), part in zip(places, parts, strict=True):  # frames, for a grating that is constant may be as white as paper
        ax.add_patch(
            Rectangle((x - 0.5, y - 0.5), part.shape[1], len(part), fill=False, edgecolor=QUIET, linewidth=0.8, clip_on=False)
        )
    return ax


def _told(found: Grating) -> str:
    """Return the size of a grating and, on a line of its own, its periods."""
    height, width = found.image.shape[-2:]
    v, h = found.frequency[0], found.frequency[1] - (width if 2 * found.frequency[1] > width else 0)
    cycles = hypot(v / height, h / width)
    words = f"{v} periods down, {h} across, wavelength {1 / cycles:.3g} pixels" if cycles else "constant"
    return f"grating of {height}x{width}\n{words}"


def history(source: Any, ax: "Axes | None" = None, *, title: str | None = None) -> "Axes":
    """Draw error and sparsity of each pass of learning, as ``source.history_`` has them.

    What they are each source says there. The layers of a `ConvDBN` follow one another; those above the first see no pixels, but
    probabilities, and their errors are not in the units of the first.

    Parameters
    ----------
    source : ConvRBM, ConvDBN, SparseCodingFilters, SparseEncoderDecoder, OMPFilters or KMeansFilters
        Fitted, or interrupted after a pass.
    ax : matplotlib.axes.Axes, optional
    title : str, optional

    Returns
    -------
    matplotlib.axes.Axes
        Those of the error; the sparsity is on their twin, with its scale at the right, the last of ``ax.figure.axes``.

    Raises
    ------
    ArgumentTypeError
        If it is no source that has a history.
    ArgumentError
        If no pass has ended.

    Examples
    --------
    >>> from ninefold.learn import OMPFilters
    >>> source = OMPFilters(7, 3, max_iter=10, random_state=0).fit(np.random.default_rng(0).normal(size=(30, 9, 8)))
    >>> ax = history(source)
    >>> len(ax.lines[0].get_xdata()), [each.get_ylabel() for each in ax.figure.axes]
    (10, ['error', 'sparsity'])
    """
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415  matplotlib is loaded by those who draw

    recorded = _recorded(source)
    ax = canvas(6, 3.2, ax)
    figure: Any = ax.figure
    current = figure.gca()
    twin = ax.twinx()
    figure.sca(current)  # a twin makes itself current
    start = 0
    for k, record in enumerate(recorded):
        for axes, key, hue, line in ((ax, "error", MARK, "-"), (twin, "sparsity", _SPARSITY, "--")):
            passes = range(start + 1, start + 1 + len(record[key]))
            axes.plot(passes, record[key], line, color=hue, linewidth=2, marker="o", markersize=3 if len(passes) < 60 else 0)
        if len(recorded) > 1:
            ax.axvline(start + 0.5, color=FAINT, linewidth=1, zorder=0)
            ax.annotate(f"layer {k}", (start + 0.5, 1), (4, -2), xycoords=ax.get_xaxis_transform(), textcoords="offset points",
                        va="top", fontsize=9, color=INK)  # fmt: skip
        start += len(record["error"])
    for axes, word, hue, side in ((ax, "error", MARK, "left"), (twin, "sparsity", _SPARSITY, "right")):
        axes.spines[["top", "left", "right"]].set_visible(False)
        axes.spines[[side, "bottom"]].set(visible=True, color=QUIET)
        axes.tick_params(colors=QUIET, labelcolor=INK, labelsize=9)
        axes.set_ylabel(word, fontsize=9, color=hue)
        axes.set_ylim(0, 1.15 * max(max(record[word], default=0) for record in recorded) or 1.0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("iteration" if isinstance(source, (OMPFilters, SparseCodingFilters)) else "epoch", fontsize=9, color=INK)
    if title:
        ax.set_title(title, fontsize=10, color=INK, loc="left")
    return ax


def _recorded(source: Any) -> list[dict[str, list[float]]]:
    """Return the histories of a source, or of the layers of a stack."""
    if not hasattr(source, "fit"):
        raise ArgumentTypeError(f"{type(source).__name__} is no source of filters, such as ConvRBM(32)")
    check_is_fitted(source)
    layers = getattr(source, "layers_", [source])
    recorded = [layer.history_ for layer in layers if hasattr(layer, "history_")]
    if not recorded:
        raise ArgumentTypeError(f"{type(source).__name__} learns in no passes of which it could keep a history_")
    if not any(record["error"] for record in recorded):
        raise ArgumentError(f"{type(source).__name__} has not ended a pass: there is no history to draw")
    return recorded
