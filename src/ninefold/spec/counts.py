"""What sparse connections and shared weights save: a layer counted as dense, unshared, tiled, convolutional (section 9.2)."""

from dataclasses import dataclass
from math import prod
from typing import Any

from ninefold.errors import ArgumentError
from ninefold.spec import parse
from ninefold.spec.conv import ConvSpec
from ninefold.spec.form import Form
from ninefold.text_table import Printable, TextTable

__all__ = ["Counted", "Counts", "connectivity_counts"]


@dataclass(frozen=True)
class Counted:
    """One way to connect the units.

    Parameters
    ----------
    kind : str
        ``"dense"``, ``"unshared"``, ``"tiled"`` or ``"convolution"``.
    parameters : int
        Numbers that are learned: weights, and biases if the layer has them, shared as the weights are.
    connections : int
        Pairs of an input unit and an output unit; zeros of a border are no units. The non-zeros of the matrix.
    operations : int
        Multiplications and additions per example.
    """

    kind: str
    parameters: int
    connections: int
    operations: int


@dataclass(frozen=True)
class Counts(Printable):
    """The result of `connectivity_counts`: print it, or ask it for a row.

    Parameters
    ----------
    inputs, outputs : int
        Units of one example.
    rows : tuple of Counted
        Dense, unshared, tiled, convolution.
    """

    inputs: int
    outputs: int
    rows: tuple[Counted, ...]

    def __getitem__(self, kind: str) -> Counted:
        """Return the row of this kind."""
        for row in self.rows:
            if row.kind == kind:
                return row
        raise ArgumentError(f"kind={kind!r} is not one of {[row.kind for row in self.rows]}")

    def text(self, width: int) -> str:
        """Return the table as text."""
        table = TextTable(f"{self.inputs:,} units to {self.outputs:,}")
        table.add_column("connected as")
        heads = ("parameters", "connections", "operations")
        for head in heads:
            table.add_column(head, right=True)
            table.add_column("times", right=True)
        for row in self.rows:
            cells = [(getattr(row, head), getattr(self.rows[-1], head)) for head in heads]
            table.add_row(row.kind, *(text for n, least in cells for text in (f"{n:,}", _times(n, least))))
        return table.text(width)


def connectivity_counts(layer: Any, input_size: Any, *, period: Any = 2) -> Counts:
    """Count parameters, connections and operations of one layer as dense, unshared, tiled and convolutional.

    Parameters
    ----------
    layer : module or ConvSpec
        A convolution layer of ``torch.nn`` or ``ninefold.nn``, or a description; whether its kernels repeat does not matter.
    input_size : int or sequence of int
        Spatial size of what the layer reads.
    period : int or tuple of int
        Kernels per axis of the tiled version.

    Returns
    -------
    Counts

    Raises
    ------
    ArgumentError, ShapeError
        If the layer does not fit the size.

    Notes
    -----
    With ``m`` inputs, ``n`` outputs and ``k`` connections per output a dense layer has ``m n`` weights, an unshared one ``k n``,
    a convolution ``k``; the last two take the same time, ``2 k - 1`` operations per output.

    Examples
    --------
    >>> counts = connectivity_counts(ConvSpec(1, 1, (1, 2)), (280, 320))  # the edge detector of figure 9.6
    >>> [(row.kind, row.parameters, row.operations) for row in counts.rows][::3]
    [('dense', 8003072000, 16006054680), ('convolution', 2, 267960)]
    """
    spec = layer if isinstance(layer, ConvSpec) else ConvSpec.from_module(layer)
    spec = spec.replace(period=1)
    size = parse.size(input_size, spec.ndim, "input_size")
    form = spec.form(size)
    ends = prod(form.input_shape(1)), prod(form.output_shape(1))
    inputs, outputs = ends[::-1] if spec.transposed else ends
    reached, channels = _reached(form, transposed=spec.transposed), spec.in_channels if spec.transposed else spec.out_channels
    rows = [Counted("dense", inputs * outputs + outputs * spec.bias, inputs * outputs, outputs * (2 * inputs - 1 + spec.bias))]
    for kind, repeat in (("unshared", None), ("tiled", period), ("convolution", 1)):
        tiled = spec.replace(period=repeat, bias=False)
        biases = {"unshared": outputs, "tiled": channels * prod(t or 1 for t in tiled.period), "convolution": channels}[kind]
        weights = prod(tiled.weight_shape(size))
        operations = 2 * form.connections - reached + outputs * spec.bias
        rows.append(Counted(kind, weights + biases * spec.bias, form.connections, operations))
    return Counts(inputs, outputs, tuple(rows))


def _reached(form: Form, *, transposed: bool) -> int:
    """Return how many output units have a connection at all: each saves the first addition."""
    if transposed:
        channels = len({i for _, i in form.channels.edges})
        return channels * prod(axis.reached() for axis in form.axes)
    channels = len({o for o, _ in form.channels.edges})
    return channels * prod(axis.reading() for axis in form.axes)


def _times(n: int, least: int) -> str:
    if not least:
        return "-"
    return f"{n / least:,.0f}" if n >= 100 * least else f"{n / least:.3g}"
