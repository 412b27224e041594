"""Which channels see which: dots for channels, lines for the edges of groups, tables and shuffles."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ninefold.drawing.style import INK, QUIET, bare, canvas, colour, on
from ninefold.errors import ArgumentError
from ninefold.spec import ConvSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["channels"]

Edges = tuple[tuple[int, int], ...]


def channels(layers: Any, *, title: str | None = None, ax: "Axes | None" = None) -> "Figure":
    """Draw which input channels each output channel sees (figure 9.15), through one layer or several, shuffles among them.

    Parameters
    ----------
    layers : ConvSpec, module, or a sequence of them
        Convolutions, and permutations such as `ninefold.nn.ChannelShuffle`; the first layer is drawn lowest.
    title : str, optional
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default on a new figure.

    Returns
    -------
    matplotlib.figure.Figure
        Channels that a layer joins, directly or through others, have one colour.

    Raises
    ------
    ArgumentError
        If a layer reads another number of channels than the one before it gives, or is neither a convolution nor a permutation.

    Examples
    --------
    >>> import ninefold as nf
    >>> figure = channels([nf.ConvSpec(6, 6, 1, groups=3), nf.nn.ChannelShuffle(3), nf.ConvSpec(6, 3, 1, groups=3)])
    >>> [len(lines.get_segments()) for lines in figure.axes[0].collections[:3]]
    [12, 6, 6]
    """
    from matplotlib.collections import LineCollection  # noqa: PLC0415  matplotlib is loaded by those who draw

    listed = list(layers) if isinstance(layers, Sequence) else [layers]
    tables: list[tuple[Edges, int, bool]] = []
    counts: list[int] = []
    for layer in listed:
        edges, read, given, plain = _table(layer, counts[-1] if counts else None)
        if counts and counts[-1] != read:
            raise ArgumentError(f"layer {len(tables)} reads {read} channels, but the one before it gives {counts[-1]}")
        counts = [*(counts or [read]), given]
        tables.append((edges, read, plain))
    widest, rise = max(counts), 1.5
    ax = canvas(min(7, 0.42 * widest + 0.4), min(0.42, 6.6 / widest) * rise * (len(tables) + 0.6) + 0.2, ax)
    for level, (edges, read, plain) in enumerate(tables):
        part = _components(edges, read)
        ends = [[(_x(i, read, widest), level * rise), (_x(o, counts[level + 1], widest), (level + 1) * rise)] for o, i in edges]
        tints = [QUIET if plain else colour(part[i], max(part.values()) + 1) for _, i in edges]
        ax.add_collection(LineCollection(ends, colors=tints, linewidths=1.3, zorder=1))
    for level, count in enumerate(counts):
        ax.scatter([_x(k, count, widest) for k in range(count)], [level * rise] * count, s=70, color=INK, zorder=3)
    ax.set(xlim=(-0.7, widest - 0.3), ylim=(-0.4, rise * len(tables) + 0.4))
    bare(ax, title)
    return on(ax)  # type: ignore[no-any-return]


def _x(k: int, count: int, widest: int) -> float:
    return (k + 0.5) * widest / count - 0.5


def _table(layer: Any, before: int | None) -> tuple[Edges, int, int, bool]:
    """Return edges ``(output, input)``, channels read and given, and whether the layer only moves them."""
    if not isinstance(layer, ConvSpec) and not hasattr(layer, "kernel_size"):
        order = _moved(layer, before)
        return tuple(enumerate(order)), len(order), len(order), True
    spec = layer if isinstance(layer, ConvSpec) else ConvSpec.from_module(layer)
    edges = spec.channels.edges
    if spec.transposed:
        return tuple((i, o) for o, i in edges), spec.out_channels, spec.in_channels, False
    return edges, spec.in_channels, spec.out_channels, False


def _moved(layer: Any, count: int | None) -> list[int]:
    """Return which input channel each output channel is, by asking the layer."""
    import torch  # noqa: PLC0415  descriptions need none

    if count is None:
        raise ArgumentError(f"{type(layer).__name__} alone tells no number of channels; put a convolution before it")
    order = [int(k) for k in layer(torch.arange(count, device="cpu").reshape(1, count, 1)).flatten()]
    if sorted(order) != list(range(count)):
        raise ArgumentError(
            f"{type(layer).__name__} is neither one convolution nor a permutation of {count} channels; give its parts"
        )
    return order


def _components(edges: Edges, inputs: int) -> dict[int, int]:
    """Return for each input channel the number of the part that it is joined to, counted from the left."""
    parent = list(range(inputs))

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    first: dict[int, int] = {}
    for o, i in edges:
        parent[root(i)] = root(first.setdefault(o, i))
    roots = list(dict.fromkeys(root(i) for i in range(inputs)))
    return {i: roots.index(root(i)) for i in range(inputs)}
