"""A chain of layers: what one output sees of the chain's input, how far outputs lie apart, and what is left out.

With kernel ``k``, dilation ``d``, stride ``s`` and pad ``lo`` of the layers, first layer first::

    R_0 = 1    R_i = R_{i-1} + (k_i - 1) d_i J_{i-1}      positions from the first to the last that are seen
    J_0 = 1    J_i = J_{i-1} s_i                          input positions between neighbouring outputs
    S_0 = 0    S_i = S_{i-1} - lo_i J_{i-1}               first position that output 0 sees; negative in the padding

Padding changes where an output looks, never how much it sees; at the border, part of that is padding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ninefold.errors import ArgumentError, ArgumentTypeError
from ninefold.spec import parse
from ninefold.spec.conv import ConvSpec
from ninefold.spec.pool import PoolSpec

__all__ = ["ReceptiveField", "coverage", "positions", "receptive_field", "receptive_fields"]

Layer = ConvSpec | PoolSpec


@dataclass(frozen=True, slots=True)
class ReceptiveField:
    """What the outputs of a layer see of the chain's input.

    Parameters
    ----------
    size : tuple of int
        Input positions from the first to the last that one output sees, per axis.
    jump : tuple of int
        Input positions between neighbouring outputs.
    start : tuple of int
        First input position that output 0 sees; negative in the padding.

    Examples
    --------
    >>> field = ReceptiveField(size=(7,), jump=(2,), start=(-3,))
    >>> field.span((4,))
    ((5, 12),)
    """

    size: tuple[int, ...]
    jump: tuple[int, ...]
    start: tuple[int, ...]

    def span(self, output: Sequence[int]) -> parse.Pads:
        """Return per axis the half-open range of input positions that the output at this position sees."""
        at = parse.per_axis(output, len(self.size), "output")
        return tuple((s + j * a, s + j * a + n) for s, j, a, n in zip(self.start, self.jump, at, self.size, strict=True))


def receptive_fields(specs: Sequence[Layer], input_size: Any = None) -> tuple[ReceptiveField, ...]:
    """Return what the outputs of every layer of a chain see of the chain's input.

    Parameters
    ----------
    specs : sequence of ConvSpec or PoolSpec
        The layers, first layer first.
    input_size : int or sequence of int, optional
        Spatial size of the chain's input. Needed only where ``"same"`` meets a stride, which makes the pads, and so the
        starts, depend on it.

    Raises
    ------
    ArgumentError
        If there is no layer, their numbers of axes differ, one is transposed, or `input_size` is needed.

    Examples
    --------
    >>> fields = receptive_fields([ConvSpec(1, 2, (5,), stride=2, padding=1), PoolSpec((3,), stride=2)])
    >>> [(field.size, field.jump, field.start) for field in fields]
    [((5,), (2,), (-1,)), ((9,), (4,), (-1,))]
    """
    layers = _checked(specs)
    ndim = layers[0].ndim
    read = None if input_size is None else parse.size(input_size, ndim, "input_size")
    size, jump, start = (1,) * ndim, (1,) * ndim, (0,) * ndim
    fields = []
    for index, layer in enumerate(layers):
        pads = _pads(layer, index, read)
        start = tuple(a - lo * j for a, (lo, _), j in zip(start, pads, jump, strict=True))
        size, jump = _grown(layer, size, jump)
        fields.append(ReceptiveField(size, jump, start))
        read = None if read is None else layer.output_size(read)
    return tuple(fields)


def receptive_field(specs: Sequence[Layer]) -> tuple[int, ...]:
    """Return per axis how many input positions, from the first to the last, one output of a chain sees.

    Examples
    --------
    >>> receptive_field([ConvSpec(1, 1, (3,), dilation=d) for d in (1, 2, 4)])
    (15,)
    """
    layers = _checked(specs)
    size, jump = (1,) * layers[0].ndim, (1,) * layers[0].ndim
    for layer in layers:
        size, jump = _grown(layer, size, jump)
    return size


def positions(specs: Sequence[Layer]) -> tuple[tuple[int, ...], ...]:
    """Return per axis the input positions that one output uses, counted from the first of them.

    Dilated chains leave holes (gridding): every axis is a sum of combs, one per layer, and the set of an output is the
    product of its axes.

    Examples
    --------
    >>> positions([ConvSpec(1, 1, (3,), dilation=2), ConvSpec(1, 1, (2,), dilation=4)])
    ((0, 2, 4, 6, 8),)
    """
    layers = _checked(specs)
    return tuple(_comb(layers, axis) for axis in range(layers[0].ndim))


def coverage(specs: Sequence[Layer]) -> tuple[tuple[int, int], ...]:
    """Return per axis how many input positions one output uses, and how many there are from the first to the last.

    Examples
    --------
    >>> coverage([ConvSpec(1, 1, (3,), dilation=d) for d in (2, 4, 8)])
    ((15, 29),)
    """
    return tuple((len(used), used[-1] + 1) for used in positions(specs))


def _grown(layer: Layer, size: tuple[int, ...], jump: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return (
        tuple(r + (e - 1) * j for r, e, j in zip(size, layer.extent, jump, strict=True)),
        tuple(j * s for j, s in zip(jump, layer.stride, strict=True)),
    )


def _comb(layers: Sequence[Layer], axis: int) -> tuple[int, ...]:
    used, jump = {0}, 1
    for layer in layers:
        step = layer.dilation[axis] * jump
        used = {p + m * step for p in used for m in range(layer.kernel_size[axis])}
        jump *= layer.stride[axis]
    return tuple(sorted(used))


def _pads(layer: Layer, index: int, read: tuple[int, ...] | None) -> parse.Pads:
    if read is not None:
        return layer.pads(read)
    if isinstance(layer.padding, str) and layer.padding.startswith("same") and any(s > 1 for s in layer.stride):
        raise ArgumentError(
            f"layer {index} has padding={layer.padding!r} with stride {layer.stride}, so that its pads depend on the "
            "input's size: give input_size"
        )
    return layer.pads((1,) * layer.ndim)


def _checked(specs: Sequence[Layer]) -> tuple[Layer, ...]:
    layers = tuple(specs) if isinstance(specs, Sequence) else (specs,)
    if not layers:
        raise ArgumentError("a chain needs at least 1 layer, got 0; give a sequence of ConvSpec and PoolSpec")
    for index, layer in enumerate(layers):
        if not isinstance(layer, (ConvSpec, PoolSpec)):
            raise ArgumentTypeError(f"layer {index} must be a ConvSpec or a PoolSpec, got {type(layer).__name__}")
        if layer.ndim != layers[0].ndim:
            raise ArgumentError(
                f"layer {index} has {layer.ndim} spatial axes, but layer 0 has {layers[0].ndim}; a chain keeps them"
            )
        if isinstance(layer, ConvSpec) and layer.transposed:
            raise ArgumentError(
                f"layer {index} is transposed, and the outputs of such a layer do not all see equally much; "
                "give the layers before and after it as two chains"
            )
    return layers
