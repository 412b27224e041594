"""Pooling: the windows over the positions they read, and curves of what pooling keeps."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ninefold.drawing.style import FAINT, INK, QUIET, bare, canvas, cell, colour, on, text_on
from ninefold.errors import ArgumentError, ShapeError
from ninefold.spec import PoolSpec, parse

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["curves", "pooling_regions"]


def pooling_regions(
    pool: Any, input_size: int, *, values: Sequence[float] | None = None, title: str | None = None, ax: "Axes | None" = None
) -> "Figure":
    """Draw the windows of a pooling layer over the positions they read, a last, truncated one included (figure 9.10).

    Parameters
    ----------
    pool : PoolSpec, pooling layer of ``torch.nn``, or sequence of (int, int)
        Along one axis; or regions as half-open ranges, such as the bins of adaptive pooling.
    input_size : int
    values : sequence of float, optional
        Written into the positions; the pooled values, by the reduction, above the windows.
    title : str, optional
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default on a new figure.

    Returns
    -------
    matplotlib.figure.Figure
        What a window would read outside the input is an outline of dashes.

    Raises
    ------
    ArgumentError
        If the pooling has several axes, or a region is no pair.
    ShapeError
        If there are not as many values as positions.

    Examples
    --------
    >>> from ninefold.spec import PoolSpec
    >>> figure = pooling_regions(PoolSpec((3,), stride=2, ceil_mode=True), 6, values=[0.1, 1, 0.2, 0.1, 0, 0.1])
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['0.1', '1', '0.2', '0.1', '0', '0.1', '1', '0.2', '0.1']
    """
    n = parse.integer(input_size, "input_size", 1)
    windows, reduction = _windows(pool, n)
    if not windows:
        raise ArgumentError("there are 0 regions to draw; give at least 1")
    if values is not None and len(values) != n:
        raise ShapeError(f"there are {len(values)} values for {n} positions; give one per position")
    outside = [place for window in windows for place in window if not 0 <= place < n]
    left, right = min(0, *outside, 0), max(n, *(p + 1 for p in outside), n)
    levels = _levels(windows)
    top = 1.05 + 0.5 * (max(levels) + 1)
    fine = right - left <= 24
    unit = min(0.62, 7 / (right - left)) if fine else 0.5
    ax = canvas(min(7, 0.62 * (right - left) + 0.3), unit * (top + (1.3 if values else 0.2)) + 0.3, ax)
    for place in range(n):
        cell(ax, place, 0, FAINT, f"{values[place]:g}" if values is not None else "", edgecolor="white" if fine else FAINT)
    for place in set(outside):
        cell(ax, place, 0, "white", empty=True)
    for j, (window, level) in enumerate(zip(windows, levels, strict=True)):
        hue, y = colour(j % 6, 6), 0.8 + 0.5 * level
        _bars(ax, window, n, y, hue)
        inside = [p for p in window if 0 <= p < n]
        if not fine:
            look: Any = {"ha": "center", "va": "center_baseline", "fontsize": 9, "color": text_on(hue)}
            ax.text((min(window) + max(window)) / 2, y, f"{min(window)} to {max(window)}", **look)
        if values is not None and inside:
            read = [values[p] for p in inside]
            found = max(read) if reduction == "max" else sum(read) / len(read)
            middle = (min(window) + max(window)) / 2
            ax.plot([middle, middle], [y + 0.2, top - 0.1], color=hue, linewidth=1, zorder=1)
            cell(ax, middle, top + 0.4, hue, f"{found:.3g}")
    ax.set(xlim=(left - 0.6, right - 0.4), ylim=(-0.6, top + (1 if values is not None else 0)))
    bare(ax, title, equal=fine)
    return on(ax)  # type: ignore[no-any-return]


def _windows(pool: Any, n: int) -> tuple[list[list[int]], str]:
    """Return the places that each window reads, those outside included, and the reduction."""
    if isinstance(pool, Sequence):
        return [list(_region(each)) for each in pool], "average"
    spec = pool if isinstance(pool, PoolSpec) else PoolSpec.from_module(pool)
    if spec.ndim != 1:
        raise ArgumentError(f"windows are drawn along 1 axis, got {spec}; draw one axis of it")
    (axis,) = spec.axes(n)
    places = [[j * axis.stride + m * axis.dilation - axis.lo for m in range(axis.kernel)] for j in range(axis.n_out)]
    return places, spec.reduction


def _region(each: Any) -> range:
    """Check a region that is given as a half-open range."""
    if not (isinstance(each, Sequence) and len(each) == 2 and all(isinstance(end, int) for end in each) and each[0] < each[1]):
        raise ArgumentError(f"a region is a pair of whole numbers (first, past the last), such as (0, 3), got {each!r}")
    return range(*each)


def _levels(windows: list[list[int]]) -> list[int]:
    """Return for each window the lowest level at which it overlaps none before it."""
    ends: list[int] = []
    levels = []
    for window in windows:
        free = next((k for k, end in enumerate(ends) if end < min(window)), len(ends))
        ends[free : free + 1] = [max(window)]
        levels.append(free)
    return levels


def _bars(ax: "Axes", window: list[int], n: int, y: float, hue: str) -> None:
    from matplotlib.patches import Rectangle  # noqa: PLC0415  matplotlib is loaded by those who draw

    inside = [p for p in window if 0 <= p < n]
    runs = [p for p in inside if p - 1 not in inside]
    for start in runs:
        length = next(k for k in range(1, len(inside) + 1) if start + k not in inside)
        ax.add_patch(Rectangle((start - 0.42, y - 0.17), length - 0.16, 0.34, facecolor=hue, linewidth=0, zorder=2))
    for place in (p for p in window if p not in inside):
        ax.add_patch(
            Rectangle((place - 0.42, y - 0.17), 0.84, 0.34, facecolor="white", edgecolor=hue, linestyle=(0, (2, 2)), zorder=2)
        )
    if len(runs) > 1:
        ax.plot([min(window), max(window)], [y, y], color=hue, linewidth=1, zorder=1)


def curves(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    across: str,
    up: str,
    marks: Mapping[str, tuple[float, float]] | None = None,
    log: bool = False,
    title: str | None = None,
    ax: "Axes | None" = None,
) -> "Figure":
    """Draw curves, each with its name at its end, such as those of the theory of pooling.

    Parameters
    ----------
    lines : mapping of str to (x, y)
        Two sequences of numbers, as long as each other, by name.
    across, up : str
        What is on the axes.
    marks : mapping of str to (float, float), optional
        Points to be named.
    log : bool
        Whether the horizontal axis is logarithmic.
    title, ax
        As in `pooling_regions`.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> pool = range(1, 100)
    >>> gap = [0.98**p - 0.95**p for p in pool]
    >>> figure = curves({"max": (pool, gap)}, across="units in a pool", up="gap between classes", marks={"30": (30, max(gap))})
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['max', '30']
    """
    ax = canvas(7, 3.4, ax)
    for k, (name, (xs, ys)) in enumerate(lines.items()):
        hue = colour(k, max(len(lines), 2))
        ax.plot(list(xs), list(ys), color=hue, linewidth=2, label=name)
        ax.annotate(name, (xs[-1], ys[-1]), (6, 0), textcoords="offset points", color=hue, fontsize=9, va="center")
    for name, point in (marks or {}).items():
        ax.plot([point[0]], [point[1]], "o", color=INK, markersize=6)
        ax.annotate(name, point, (0, 8), textcoords="offset points", color=INK, fontsize=9, ha="center")
    if log:
        ax.set_xscale("log")
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(QUIET)
    ax.tick_params(colors=QUIET, labelcolor=INK, labelsize=9)
    ax.set_xlabel(across, fontsize=9, color=INK)
    ax.set_ylabel(up, fontsize=9, color=INK)
    ax.margins(y=0.12)
    if title:
        ax.set_title(title, fontsize=10, color=INK, loc="left")
    return on(ax)  # type: ignore[no-any-return]
