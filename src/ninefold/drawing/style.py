"""One look for all pictures: a palette that colour-blind readers can tell apart, letters beside it, and nothing but data."""

from string import ascii_lowercase
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["FAINT", "INK", "MARK", "QUIET", "bare", "canvas", "cell", "colour", "letter", "mixed", "on", "text_on"]

INK, QUIET, FAINT = "#22272e", "#8a929c", "#dfe3e8"
MARK = "#0072b2"
# Okabe and Ito (2008), without the yellow, which white paper swallows
_FEW = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c6d46", "#6b6fb4")


def colour(index: int, count: int) -> str:
    """Return the colour of one thing out of so many: a name's for few, a step of a scale for many.

    Examples
    --------
    >>> colour(0, 3), colour(0, 30)
    ('#0072b2', '#00224e')
    """
    if count <= len(_FEW):
        return _FEW[index]
    from matplotlib import colormaps, colors  # noqa: PLC0415  matplotlib is loaded by those who draw

    return colors.to_hex(colormaps["cividis"](0.82 * index / (count - 1)))


def letter(index: int) -> str:
    """Return a name for a weight: a to z, then with a number.

    Examples
    --------
    >>> letter(0), letter(27)
    ('a', 'b1')
    """
    turns, place = divmod(index, 26)
    return ascii_lowercase[place] + (str(turns) if turns else "")


def mixed(hue: str, strength: float) -> str:
    """Return a colour thinned with white.

    Examples
    --------
    >>> mixed("#0072b2", 1), mixed("#0072b2", 0)
    ('#0072b2', '#ffffff')
    """
    parts = (round(255 - strength * (255 - int(hue[k : k + 2], 16))) for k in (1, 3, 5))
    return "#" + "".join(f"{part:02x}" for part in parts)


def text_on(background: str) -> str:
    """Return the colour of text that can be read on a background.

    Examples
    --------
    >>> text_on("#00224e"), text_on("#ffffff")
    ('#ffffff', '#22272e')
    """
    red, green, blue = (int(background[k : k + 2], 16) / 255 for k in (1, 3, 5))
    return "#ffffff" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.6 else INK


def canvas(width: float, height: float, ax: "Axes | None" = None) -> "Axes":
    """Return the axes given, or new ones on a figure of this size in inches."""
    if ax is None:
        from matplotlib.figure import Figure  # noqa: PLC0415  see above

        ax = Figure(figsize=(width, height), dpi=100, layout="constrained").add_subplot()
    return ax


def bare(ax: "Axes", title: str | None, *, equal: bool = True) -> None:
    """Take away what is no data, and write a title."""
    ax.set_axis_off()
    if equal:
        ax.set_aspect("equal")
    if title:
        ax.set_title(title, fontsize=10, color=INK, loc="left")


def cell(ax: "Axes", x: float, y: float, fill: str, text: str = "", *, empty: bool = False, size: float = 9, **more: Any) -> None:
    """Draw a unit square about a point; an empty one is an outline of dashes."""
    from matplotlib.patches import Rectangle  # noqa: PLC0415  see above

    dashed = {"facecolor": "white", "edgecolor": QUIET, "linestyle": (0, (2, 2))}
    look: dict[str, Any] = dashed if empty else {"facecolor": fill, "edgecolor": "white"}
    ax.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, linewidth=1, **look | more))
    if text:
        ax.text(x, y, text, ha="center", va="center_baseline", fontsize=size, color=QUIET if empty else text_on(fill))


def on(ax: "Axes") -> Any:
    """Return the figure that axes stand on."""
    return ax.figure
