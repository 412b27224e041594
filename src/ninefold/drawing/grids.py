"""Pictures made of cells: the matrix of a layer, the kernels of its positions, what stands in a border, and maps of numbers."""

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from ninefold import reference
from ninefold.drawing.style import FAINT, INK, QUIET, bare, canvas, cell, colour, letter, mixed, on, text_on
from ninefold.errors import ArgumentError
from ninefold.spec import ConvSpec, parse
from ninefold.spec.form import Form
from ninefold.spec.padding import MODES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["borders", "kernels", "maps", "matrix", "overlap"]

_MOST = 40_000


def matrix(layer: Any, input_size: Any, *, title: str | None = None, ax: "Axes | None" = None) -> "Figure":
    """Draw the matrix of a convolution: entries that use the same weight have the same colour, empty ones none.

    Parameters
    ----------
    layer : module or ConvSpec
    input_size : int or sequence of int
        Spatial size of what the layer reads.
    title : str, optional
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default on a new figure.

    Returns
    -------
    matplotlib.figure.Figure
        A row per output unit, a column per input unit; lines stand between channels, and between rows of an image. An entry to
        which a continued border gives several weights is divided among them. Small matrices have letters.

    Raises
    ------
    ArgumentError
        If the matrix has too many connections to be seen.

    Examples
    --------
    >>> import ninefold as nf
    >>> figure = matrix(nf.ConvSpec(1, 1, (2,)), 4)
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['a', 'b', 'a', 'b', 'a', 'b']
    """
    from matplotlib.collections import PolyCollection  # noqa: PLC0415  matplotlib is loaded by those who draw

    spec = layer if isinstance(layer, ConvSpec) else ConvSpec.from_module(layer)
    form = spec.form(parse.per_axis(input_size, spec.ndim, "input_size", 1))
    outputs, inputs, weights = reference.terms(form)
    ends = ((form.channels.outputs, *form.n_out), (form.channels.inputs, *form.n_in))
    if spec.transposed:
        outputs, inputs, ends = inputs, outputs, ends[::-1]
    if len(outputs) > _MOST:
        raise ArgumentError(f"{len(outputs):,} connections are too many to be seen; draw a smaller input_size than {input_size}")
    rows, columns = (prod(end) for end in ends)
    scale = min(7 / columns, 0.42, 9 / rows)
    ax = canvas(columns * scale + 0.3, rows * scale + (0.55 if title else 0.3), ax)
    entries: dict[tuple[int, int], list[int]] = {}
    for o, i, w in zip(outputs.tolist(), inputs.tolist(), weights.tolist(), strict=True):
        entries.setdefault((o, i), []).append(w)
    count = prod(form.weight_shape)
    strips = [(o, i, w, k / len(ws), (k + 1) / len(ws)) for (o, i), ws in sorted(entries.items()) for k, w in enumerate(ws)]
    boxes = [[(i + a, o), (i + b, o), (i + b, o + 1), (i + a, o + 1)] for o, i, _, a, b in strips]
    fills = [colour(w, count) for _, _, w, _, _ in strips]
    edge = "white" if columns <= 60 else "none"
    ax.add_collection(PolyCollection(boxes, facecolors=fills, edgecolors=edge, linewidths=0.8))
    if columns <= 26 and count <= 26 and scale > 0.2:
        for (o, i, w, a, b), fill in zip(strips, fills, strict=True):
            ax.text(i + (a + b) / 2, o + 0.5, letter(w), ha="center", va="center_baseline", fontsize=8, color=text_on(fill))
    _ruled(ax, ends)
    ax.set(xlim=(-0.02 * columns, 1.02 * columns), ylim=(1.02 * rows, -0.02 * rows))
    bare(ax, title)
    return on(ax)  # type: ignore[no-any-return]


def _ruled(ax: "Axes", ends: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    """Draw a frame, strong lines between channels, and fine ones between the last axis' runs."""
    rows, columns = (prod(end) for end in ends)
    for end, draw, length in ((ends[0], ax.hlines, columns), (ends[1], ax.vlines, rows)):
        total, run, plane = prod(end), end[-1], prod(end[1:])
        if len(end) > 2:
            draw([k for k in range(run, total, run) if k % plane], 0, length, color=FAINT, linewidth=0.8, zorder=0)
        draw(range(plane, total, plane), 0, length, color=QUIET, linewidth=1.2)
        draw([0, total], 0, length, color=INK, linewidth=1)


def kernels(layer: Any, input_size: Any, *, title: str | None = None, ax: "Axes | None" = None) -> "Figure":
    """Draw which kernel each output position uses: one for all in a convolution, a cycle in a tiled layer, each its own unshared.

    Parameters
    ----------
    layer : module or ConvSpec
        Of 1 or 2 spatial axes. Of a layer the weights of the first channels are shown, dark where they are large; of a
        description a colour and a letter per kernel.
    input_size : int or sequence of int
    title, ax
        As in `matrix`.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ArgumentError
        If there are more than 2 spatial axes.

    Examples
    --------
    >>> import ninefold as nf
    >>> figure = kernels(nf.ConvSpec(1, 1, (2, 2), period=(2, 3)), (3, 5))
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['a', 'b', 'c', 'a', 'd', 'e', 'f', 'd']
    """
    spec = layer if isinstance(layer, ConvSpec) else ConvSpec.from_module(layer)
    form = spec.form(parse.per_axis(input_size, spec.ndim, "input_size", 1))
    if form.ndim > 2:
        raise ArgumentError(f"kernels are drawn over 1 or 2 spatial axes, not {form.ndim}")
    high, wide = (1, *form.n_out)[-2:]
    ax = canvas(min(7, 0.62 * wide + 0.3), min(7, 0.62 * wide + 0.3) / wide * high + (0.4 if title else 0.1), ax)
    weight = _first_kernels(form, getattr(layer, "weight", None))
    count = prod(form.period)
    for position in np.ndindex(*form.n_out):
        which = tuple(j % t for j, t in zip(position, form.period, strict=True))
        number = int(np.ravel_multi_index(which, form.period))
        (y, x), fill = (0, *position)[-2:], colour(number, count)
        if weight is None:
            cell(ax, x, y, fill, letter(number))
        else:
            _shaded(ax, x, y, weight[number], fill)
    ax.set(xlim=(-0.55, wide - 0.45), ylim=(high - 0.45, -0.55))
    bare(ax, title)
    return on(ax)  # type: ignore[no-any-return]


def _first_kernels(form: Form, weight: Any) -> Any:
    """Return the kernels of the first edge as an array (kernels, rows, columns) from 0 to 1, or None without weights."""
    if weight is None:
        return None
    first: Any = (0, *((slice(None),) * form.ndim if form.tiled else ()), *(0 for _ in form.channels.weight_tail))
    flat = np.asarray(weight.detach().cpu().double())[first].reshape(prod(form.period), *(1, *form.kernel)[-2:])
    low, high = flat.min(), flat.max()
    return (flat - low) / (high - low or 1)


def _shaded(ax: "Axes", x: float, y: float, values: Any, hue: str) -> None:
    from matplotlib import colors  # noqa: PLC0415  see above

    base = np.array(colors.to_rgb(hue))
    shades = 1 - (0.12 + 0.88 * values[..., None]) * (1 - base)
    ax.imshow(shades, extent=(x - 0.44, x + 0.44, y + 0.44, y - 0.44), interpolation="nearest", zorder=1)


def borders(n: int = 5, width: int = 4, *, ax: "Axes | None" = None) -> "Figure":
    """Draw what every padding mode puts outside an input.

    Parameters
    ----------
    n : int
        Elements of the input.
    width : int
        Elements outside, at each end.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> figure = borders(3, 2)
    >>> [text.get_text() for text in figure.axes[0].texts][8:16]
    ['reflect', 'c', 'b', 'a', 'b', 'c', 'b', 'a']
    """
    n, width = parse.integer(n, "n", 1), parse.integer(width, "width", 0)
    ax = canvas(7, 0.36 * (len(MODES) + 0.4), ax)
    for row, (name, mode) in enumerate(MODES.items()):
        ax.text(-width - 0.9, row, name, ha="right", va="center", fontsize=10, color=INK)
        for place in range(-width, n + width):
            source = mode(place, n)
            if source is None:
                cell(ax, place, row, "white", "0", empty=True)
            else:
                inside = 0 <= place < n
                cell(ax, place, row, mixed(colour(source, n), 1 if inside else 0.4), letter(source))
    for edge in (-0.5, n - 0.5):
        ax.vlines(edge, -0.6, len(MODES) - 0.4, color=INK, linewidth=1.5)
    ax.set(xlim=(-width - 4.2, n + width - 0.3), ylim=(len(MODES) - 0.3, -0.7))
    bare(ax, None)
    return on(ax)  # type: ignore[no-any-return]


def overlap(layer: Any, input_size: Any, *, title: str | None = None, ax: "Axes | None" = None) -> "Figure":
    """Draw how often each position of ``V`` is read, or of a transposed layer written: where it is uneven, the checkerboard.

    Parameters
    ----------
    layer : ConvSpec or torch.nn.Module
        Of 1 or 2 spatial axes.
    input_size : int or sequence of int
    title, ax
        As in `matrix`.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ArgumentError
        If there are more than 2 spatial axes.

    Examples
    --------
    >>> import ninefold as nf
    >>> figure = overlap(nf.ConvSpec(1, 1, (3,), stride=2, transposed=True), 4)
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['1', '1', '2', '1', '2', '1', '2', '1', '1']
    """
    counts = (layer if isinstance(layer, ConvSpec) else ConvSpec.from_module(layer)).overlap(input_size)
    if len(counts) > 2:
        raise ArgumentError(f"overlaps are drawn over 1 or 2 spatial axes, not {len(counts)}")
    table = np.outer(*((np.ones(1, int), *map(np.array, counts))[-2:]))
    high, wide = table.shape
    ax = canvas(min(7, 0.4 * wide + 0.3), min(7, 0.4 * wide + 0.3) / wide * high + (0.4 if title else 0.1), ax)
    for y, x in np.ndindex(high, wide):
        strength = table[y, x] / max(table.max(), 1)
        cell(ax, x, y, mixed("#0072b2", 0.1 + 0.9 * strength), str(table[y, x]))
    ax.set(xlim=(-0.55, wide - 0.45), ylim=(high - 0.45, -0.55))
    bare(ax, title)
    return on(ax)  # type: ignore[no-any-return]


def maps(pictures: Mapping[str, Any], *, scale: float | None = None) -> "Figure":
    """Draw maps of numbers side by side on one scale, white for 0; what is not a number is grey.

    Parameters
    ----------
    pictures : mapping of str to array or Tensor of shape ``(rows, columns)``
        With a title each.
    scale : float, optional
        The value that is darkest; by default the largest.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> figure = maps({"zeros": np.zeros((3, 4)), "ones": np.ones((3, 4))})
    >>> [ax.get_title("left") for ax in figure.axes]
    ['zeros', 'ones']
    """
    from matplotlib import colormaps  # noqa: PLC0415  see above
    from matplotlib.figure import Figure  # noqa: PLC0415  see above

    arrays = {title: np.atleast_2d(np.asarray(picture, dtype=float)) for title, picture in pictures.items()}
    top = max(float(np.nanmax(a)) for a in arrays.values()) if scale is None else scale
    ratio = max(a.shape[0] / a.shape[1] for a in arrays.values())
    width = min(7 / len(arrays), 0.35 * max(a.shape[1] for a in arrays.values()))
    figure = Figure(figsize=(width * len(arrays), width * ratio + 0.3), dpi=100, layout="constrained")
    shades = colormaps["Blues"].with_extremes(bad=FAINT)
    for k, (title, array) in enumerate(arrays.items(), start=1):
        ax = figure.add_subplot(1, len(arrays), k)
        ax.imshow(array, cmap=shades, vmin=0, vmax=top or 1, interpolation="nearest")
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_color(QUIET)
        ax.set_title(title, fontsize=10, color=INK, loc="left")
    return figure
