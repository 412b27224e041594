"""Units as dots, connections as lines: what each unit reads, with which weight, through one layer or several."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from ninefold.drawing.style import FAINT, INK, MARK, QUIET, bare, canvas, colour, letter, on
from ninefold.errors import ArgumentError
from ninefold.spec import ConvSpec, PoolSpec, parse
from ninefold.spec.axis import Axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["connectivity", "receptive_field"]

_RISE = 1.6  # of a layer, in distances between units


@dataclass(frozen=True)
class _Line:
    """A connection: from a unit below, or a place in the border, to a unit above."""

    below: int | None
    place: int
    above: int
    weight: int


@dataclass(frozen=True)
class _Layer:
    """One layer: where its units stand, and its connections."""

    below: tuple[Fraction, ...]
    ghosts: dict[int, tuple[Fraction, int | None]]
    above: tuple[Fraction, ...]
    lines: tuple[_Line, ...]
    weights: int
    letters: float  # how far up a line its letter stands: where letters are farthest apart


def connectivity(
    layers: Any,
    input_size: int,
    *,
    reads: int | None = None,
    feeds: int | None = None,
    border: bool = True,
    title: str | None = None,
    ax: "Axes | None" = None,
) -> "Figure":
    """Draw units as dots and connections as lines, coloured and lettered by the weight they use (figures 9.2 to 9.5, 9.14, 9.16).

    Parameters
    ----------
    layers : ConvSpec, PoolSpec, module, or a sequence of them
        One spatial axis and one channel; the first layer is drawn lowest.
    input_size : int
    reads : int, optional
        Show what this output sees, instead of the weights.
    feeds : int, optional
        Show what this input reaches, instead of the weights.
    border : bool
        Whether what stands outside the input is drawn, too.
    title : str, optional
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default on a new figure.

    Returns
    -------
    matplotlib.figure.Figure
        Places of the border are empty dots: 0, or the number of the input that stands there.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If a layer has several axes or channels, if there is none, or if there is no such unit to follow.

    Examples
    --------
    >>> import ninefold as nf
    >>> figure = connectivity(nf.ConvSpec(1, 1, (3,), padding=1), 5)
    >>> len(figure.axes[0].collections[0].get_segments())
    15
    """
    stack = _stacked(layers, input_size)
    if not border:
        stack = [replace(s, ghosts={}, lines=tuple(k for k in s.lines if k.place not in s.ghosts)) for s in stack]
    shown = _seen(stack, reads) if reads is not None else _reached(stack, feeds) if feeds is not None else None
    return on(_drawn(stack, shown, title, ax))  # type: ignore[no-any-return]


def receptive_field(
    layers: Any, input_size: int, *, output: int | None = None, title: str | None = None, ax: "Axes | None" = None
) -> "Figure":
    """Draw what one output of a chain of layers sees, layer by layer, with how many positions that spans and how many it uses.

    Parameters
    ----------
    layers : sequence of ConvSpec, PoolSpec or modules
        One spatial axis and one channel; the first layer is drawn lowest.
    input_size : int
    output : int, optional
        By default the one in the middle.
    title, ax
        As in `connectivity`.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ArgumentError
        As in `connectivity`.

    Examples
    --------
    >>> import ninefold as nf
    >>> figure = receptive_field([nf.ConvSpec(1, 1, (3,), dilation=d) for d in (1, 2, 4)], 17)
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['15 of 15', '7 of 13', '3 of 9', '1']
    """
    stack = _stacked(layers, input_size)
    at = len(stack[-1].above) // 2 if output is None else output
    shown = _seen(stack, at)
    ax = _drawn(stack, shown, title, ax)
    right = max(_xs(stack)) + 0.9
    for level in range(len(stack) + 1):
        here = _places(stack, shown, level)
        span = max(here) - min(here) + 1
        label = "1" if level == len(stack) else f"{len(here)} of {span}"
        ax.text(right, level * _RISE, label, ha="left", va="center", fontsize=9, color=MARK)
    return on(ax)  # type: ignore[no-any-return]


def _stacked(layers: Any, input_size: int) -> list[_Layer]:
    listed = layers if isinstance(layers, Sequence) else [layers]
    if not listed:
        raise ArgumentError("there are 0 layers to draw; give at least 1")
    stack: list[_Layer] = []
    at = tuple(Fraction(i) for i in range(parse.integer(input_size, "input_size", 1)))
    for layer in listed:
        axis, transposed, weights = _one_axis(layer, len(at))
        stack.append(_laid(axis, at, transposed=transposed, shared=weights))
        at = stack[-1].above
    return stack


def _one_axis(layer: Any, n: int) -> tuple[Axis, bool, bool]:
    """Return the axis of a layer, whether it is transposed, and whether it has weights."""
    if isinstance(layer, PoolSpec):
        spec: Any = layer
    elif isinstance(layer, ConvSpec) or not type(layer).__name__.endswith(("Pool1d", "Pool2d", "Pool3d")):
        spec = layer if isinstance(layer, ConvSpec) else ConvSpec.from_module(layer)
    else:
        spec = PoolSpec.from_module(layer)
    if spec.ndim != 1 or (isinstance(spec, ConvSpec) and (spec.in_channels, spec.out_channels) != (1, 1)):
        raise ArgumentError(f"units are drawn along 1 axis with 1 channel, got {spec}; draw one axis and one channel of it")
    if isinstance(spec, PoolSpec):
        return spec.axes((n,))[0], False, False
    return spec.form((n,)).axes[0], spec.transposed, True


def _laid(axis: Axis, at: tuple[Fraction, ...], *, transposed: bool, shared: bool) -> _Layer:
    """Place the units of a layer over what they read, and list its connections."""
    step = at[1] - at[0] if len(at) > 1 else Fraction(1)
    middle = Fraction(axis.extent - 1, 2) - axis.lo

    def weight(j: int, m: int) -> int:
        return (j % axis.period) * axis.kernel + m if shared else 0

    pairs = [(j, m, j * axis.stride + m * axis.dilation - axis.lo) for j in range(axis.n_out) for m in range(axis.kernel)]
    count = axis.period * axis.kernel if shared else 1
    apart = min(0.5, axis.stride / (axis.dilation * axis.kernel))
    if transposed:
        finer = step / axis.stride
        above = tuple(at[0] + (i - middle) * finer for i in range(axis.n_in))
        lines = tuple(_Line(j, j, i, weight(j, m)) for j, m, place in pairs if (i := axis.source(place)) is not None)
        return _Layer(at, {}, above, lines, count, apart)
    above = tuple(at[0] + (j * axis.stride + middle) * step for j in range(axis.n_out))
    ghosts = {p: (at[0] + p * step, axis.source(p)) for _, _, p in pairs if not 0 <= p < axis.n_in}
    lines = tuple(_Line(axis.source(place), place, j, weight(j, m)) for j, m, place in pairs)
    return _Layer(at, ghosts, above, lines, count, 1 - apart)


Shown = list[set[_Line]]


def _xs(stack: list[_Layer]) -> list[float]:
    """Return where all units and places of borders stand."""
    return [float(x) for layer in stack for x in (*layer.below, *layer.above, *(x for x, _ in layer.ghosts.values()))]


def _unit(value: int, what: str, count: int) -> int:
    """Check the number of a unit."""
    unit = parse.integer(value, f"the {what} to follow", 0)
    if unit >= count:
        raise ArgumentError(f"{what} {unit} is none of the {count} there are, which are numbered from 0")
    return unit


def _seen(stack: list[_Layer], output: int) -> Shown:
    shown: Shown = []
    units = {_unit(output, "output", len(stack[-1].above))}
    for layer in reversed(stack):
        lines = {line for line in layer.lines if line.above in units}
        units = {line.below for line in lines if line.below is not None}
        shown.append(lines)
    return shown[::-1]


def _reached(stack: list[_Layer], place: int) -> Shown:
    shown: Shown = []
    units = {_unit(place, "input", len(stack[0].below))}
    for layer in stack:
        lines = {line for line in layer.lines if line.below in units}
        units = {line.above for line in lines}
        shown.append(lines)
    return shown


def _places(stack: list[_Layer], shown: Shown, level: int) -> set[int]:
    """Return the units of a level that take part, those of a border included."""
    if level == len(stack):
        return {line.above for line in shown[-1]}
    return {line.place for line in shown[level]} | ({line.above for line in shown[level - 1]} if level else set())


def _drawn(stack: list[_Layer], shown: Shown | None, title: str | None, ax: "Axes | None") -> "Axes":
    from matplotlib.collections import LineCollection  # noqa: PLC0415  matplotlib is loaded by those who draw

    xs = _xs(stack)
    span = max(xs) - min(xs) + 1
    labelled = 2.0 if shown is not None and len(stack) > 1 else 0.0  # room for what stands at the right
    unit = min(7 / (span + 0.4 + labelled), 0.62)
    ax = canvas(unit * (span + 0.4 + labelled), unit * (_RISE * len(stack) + 1) + (0.3 if title else 0), ax)
    most = max(Counter(line.above for layer in stack for line in layer.lines if line.below is not None).values())
    few = shown is None and sum(len(layer.lines) for layer in stack) <= 48 and most <= 4
    for level, layer in enumerate(stack):
        plain, marked = _split(layer, None if shown is None else shown[level])
        for lines, front in ((plain, False), (marked, True)):
            colours = [FAINT if shown is not None and not front else _tint(layer, line, shown) for line in lines]
            width = 1.6 if front or shown is None else 1
            ends = [_ends(layer, line, level) for line in lines]
            ax.add_collection(LineCollection(ends, colors=colours, linewidths=width, zorder=1 + front))
        if few and layer.weights > 1:
            _lettered(ax, layer, level)
    for level in range(len(stack) + 1):
        _dots(ax, stack, shown, level)
    ax.set_xlim(min(xs) - 0.7, max(xs) + 0.7 + labelled)
    ax.set_ylim(-0.5, _RISE * len(stack) + 0.5)
    bare(ax, title)
    return ax


def _split(layer: _Layer, marked: set[_Line] | None) -> tuple[list[_Line], list[_Line]]:
    if marked is None:
        return list(layer.lines), []
    return [line for line in layer.lines if line not in marked], [line for line in layer.lines if line in marked]


def _tint(layer: _Layer, line: _Line, shown: Shown | None) -> str:
    if shown is not None:
        return MARK
    return colour(line.weight, layer.weights) if layer.weights > 1 else QUIET


def _ends(layer: _Layer, line: _Line, level: int) -> list[tuple[float, float]]:
    start = layer.ghosts[line.place][0] if line.place in layer.ghosts else layer.below[line.place]
    return [(float(start), level * _RISE), (float(layer.above[line.above]), (level + 1) * _RISE)]


def _lettered(ax: "Axes", layer: _Layer, level: int) -> None:
    for line in layer.lines:
        (x0, y0), (x1, y1) = _ends(layer, line, level)
        look = {"boxstyle": "round,pad=0.12", "facecolor": "white", "edgecolor": "none"}
        where = (x0 + layer.letters * (x1 - x0), y0 + layer.letters * (y1 - y0))
        ink = colour(line.weight, layer.weights) if layer.weights <= 8 else INK
        ax.text(*where, letter(line.weight), ha="center", va="center_baseline", fontsize=8.5, color=ink, bbox=look, zorder=3)


def _dots(ax: "Axes", stack: list[_Layer], shown: Shown | None, level: int) -> None:
    at = stack[level].below if level < len(stack) else stack[-1].above
    ghosts = stack[level].ghosts if level < len(stack) else {}
    there = None if shown is None else _places(stack, shown, level)
    y, size = level * _RISE, 110
    for i, x in enumerate(at):
        fill = INK if there is None else MARK if i in there else "white"
        ax.scatter([float(x)], [y], s=size, facecolor=fill, edgecolor=INK if there is None or i in there else QUIET, zorder=4)
    for place, (x, source) in ghosts.items():
        edge = QUIET if there is None or place in there else FAINT
        look: Any = {"facecolor": "white", "edgecolor": edge, "linestyle": (0, (2, 1.5))}
        ax.scatter([float(x)], [y], s=size * 1.3, zorder=4, **look)
        text = "0" if source is None else str(source)
        ax.text(float(x), y, text, ha="center", va="center_baseline", fontsize=7, color=edge, zorder=5)
