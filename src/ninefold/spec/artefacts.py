"""Two artefacts that integers foretell: the checkerboard of uneven overlaps, and the holes of a dilated stack.

Along one axis a transposed layer with kernel ``k``, stride ``s`` and dilation ``d`` writes position ``i`` once for every tap
``m`` with ``m d = i + lo (mod s)``: in the interior the count depends on the residue alone, and counts of axes multiply. They
are all equal exactly if ``d`` and ``s`` have no common factor and ``s`` divides ``k`` (Odena, Dumoulin and Olah 2016; of a
forward layer it is the gradient that is uneven).

Along one axis an output of a stack reads a sum of combs, one per layer, with ``k`` teeth and steps ``d J``. Taken by ascending
step, combs leave no hole exactly if no step exceeds the number of positions that those before it cover without a hole.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from math import gcd, prod
from typing import Any

from ninefold.spec.chain import positions
from ninefold.spec.conv import ConvSpec
from ninefold.spec.pool import PoolSpec

__all__ = ["Checkerboard", "Gridding", "checkerboard", "gridding"]

Layer = ConvSpec | PoolSpec

_LEARNED = "even overlap or not, artefacts can be learned: resizing before a convolution of stride 1 makes that less likely"


@dataclass(frozen=True)
class Checkerboard:
    """How evenly a strided layer overlaps in its interior; made by `checkerboard`.

    Parameters
    ----------
    kernel_size, stride, dilation : tuple of int
    transposed : bool
        Whether the result shows it, or, of a forward layer, the gradient to the input.
    per_axis : tuple of tuple of int
        For every residue modulo the stride, how many taps meet at such a position.
    """

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    per_axis: tuple[tuple[int, ...], ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """The different overlaps of the interior, in order: products of one count per axis."""
        return tuple(sorted({prod(some) for some in product(*self.per_axis)}))

    @property
    def even(self) -> bool:
        """Whether all positions of the interior overlap alike."""
        return len(self.counts) == 1

    @property
    def unevenness(self) -> Fraction | None:
        """The largest overlap against the smallest, 1 where even; None where some positions are never met."""
        return Fraction(self.counts[-1], self.counts[0]) if self.counts[0] else None

    @property
    def even_kernels(self) -> tuple[tuple[int, ...], ...]:
        """Per axis the nearest kernels that overlap evenly: multiples of the stride; none if the dilation shares a factor."""
        return tuple(
            () if gcd(d, s) > 1 else tuple(n for n in sorted({k // s * s, -(-k // s) * s}) if n)
            for k, s, d in zip(self.kernel_size, self.stride, self.dilation, strict=True)
        )

    def __str__(self) -> str:
        kind, where = ("transposed", "result") if self.transposed else ("strided", "gradient to the input")
        lines = [f"{kind} convolution, kernel {_x(self.kernel_size)}, stride {_x(self.stride)}, dilation {_x(self.dilation)}"]
        for axis, (counts, fits) in enumerate(zip(self.per_axis, self.even_kernels, strict=True)):
            said = f"  axis {axis}: positions overlap {', '.join(map(str, counts))} times in turn"
            if len(set(counts)) > 1:
                said += f"; even with kernel {' or '.join(map(str, fits))}" if fits else "; this dilation leaves positions out"
            lines.append(said)
        if self.even:
            lines.append(f"even: every position of the {where} meets {self.counts[0]} taps")
        else:
            factor = "some are never met" if self.unevenness is None else f"a factor of {self.unevenness}"
            lines.append(f"uneven: positions of the {where} meet {_or(self.counts)} taps, {factor}")
        lines.append(_LEARNED)
        return "\n".join(lines)


def checkerboard(layer: Any) -> Checkerboard:
    """Return how evenly a strided or transposed convolution overlaps in its interior.

    Uneven overlap is the checkerboard of generated images; of a forward layer it is the gradient that shows it.

    Parameters
    ----------
    layer : ConvSpec or module
        A description, or a convolution layer of ``torch.nn`` or ``ninefold.nn``.

    Returns
    -------
    Checkerboard
        Print it: counts per axis, the factor, and the kernel sizes near it that overlap evenly.

    Raises
    ------
    ArgumentTypeError
        If the layer is no convolution.

    Examples
    --------
    >>> from ninefold import ConvSpec
    >>> board = checkerboard(ConvSpec(1, 1, (3, 3), stride=2, transposed=True))
    >>> board.counts, board.unevenness, board.even_kernels
    ((1, 2, 4), Fraction(4, 1), ((2, 4), (2, 4)))
    >>> checkerboard(ConvSpec(1, 1, (4, 4), stride=2, transposed=True)).counts
    (4,)
    """
    spec = layer if isinstance(layer, ConvSpec) else ConvSpec.from_module(layer)
    per_axis = tuple(
        tuple(sum(m * d % s == r for m in range(k)) for r in range(s))
        for k, s, d in zip(spec.kernel_size, spec.stride, spec.dilation, strict=True)
    )
    return Checkerboard(spec.kernel_size, spec.stride, spec.dilation, spec.transposed, per_axis)


@dataclass(frozen=True)
class Gridding:
    """Which input positions an output of a stack uses; made by `gridding`.

    Parameters
    ----------
    dilations : tuple of tuple of int
        Of the layers, per axis.
    extent : tuple of int
        Positions from the first used to the last, per axis.
    holes : tuple of tuple of int
        Positions in between that are not used, counted from the first that is.
    repair : tuple of tuple of int or None
        Dilations, as in `dilations`, that leave no hole and see at least as far if so many layers can; None where nothing is
        to be repaired, or strides larger than what lies before them are at fault.
    repaired_extent : tuple of int or None
        The extent that these have.
    """

    dilations: tuple[tuple[int, ...], ...]
    extent: tuple[int, ...]
    holes: tuple[tuple[int, ...], ...]
    repair: tuple[tuple[int, ...], ...] | None
    repaired_extent: tuple[int, ...] | None

    @property
    def coverage(self) -> tuple[tuple[int, int], ...]:
        """Per axis how many positions are used, and how many there are."""
        return tuple((n - len(h), n) for n, h in zip(self.extent, self.holes, strict=True))

    @property
    def complete(self) -> bool:
        """Whether no axis has a hole."""
        return not any(self.holes)

    def __str__(self) -> str:
        lines = [f"dilations {', '.join(map(_x, self.dilations))}"]
        for axis, ((used, total), holes) in enumerate(zip(self.coverage, self.holes, strict=True)):
            shown = ", ".join(map(str, holes[:12])) + (", ..." if len(holes) > 12 else "")
            where = "no hole" if not holes else f"hole{'s' if len(holes) > 1 else ''} at {shown}"
            lines.append(f"  axis {axis}: {used} of {total} positions are used; {where}")
        if self.repair is not None and self.repaired_extent is not None:
            lines.append(
                f"repair: dilations {', '.join(map(_x, self.repair))} leave no hole and span {_x(self.repaired_extent)} positions"
            )
        elif not self.complete:
            lines.append("no dilations repair this: a stride is larger than what the layers before it cover")
        return "\n".join(lines)


def gridding(layers: Sequence[Any]) -> Gridding:
    """Return which input positions an output of a stack of layers leaves out, and dilations that leave out none.

    Parameters
    ----------
    layers : sequence of ConvSpec, PoolSpec or convolution modules
        First layer first.

    Returns
    -------
    Gridding
        Print it: coverage per axis, where the holes are, and a repair.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If there is no layer, one is transposed or no convolution, or their numbers of axes differ.

    Examples
    --------
    >>> from ninefold import ConvSpec
    >>> found = gridding([ConvSpec(1, 1, (3,), dilation=2) for _ in range(3)])
    >>> found.coverage, found.holes, found.repair
    (((7, 13),), ((1, 3, 5, 7, 9, 11),), ((1,), (2,), (3,)))
    """
    items = list(layers) if isinstance(layers, Sequence) else [layers]
    specs: list[Layer] = [x if isinstance(x, (ConvSpec, PoolSpec)) else ConvSpec.from_module(x) for x in items]
    used = positions(specs)
    extent = tuple(at[-1] + 1 for at in used)
    holes = tuple(tuple(sorted(set(range(n)) - set(at))) for n, at in zip(extent, used, strict=True))
    dilations = tuple(spec.dilation for spec in specs)
    repair = _repair(specs, extent) if any(holes) else None
    fixed = None
    if repair is not None:
        fixed = tuple(at[-1] + 1 for at in positions([_with(x, d) for x, d in zip(specs, repair, strict=True)]))
    return Gridding(dilations, extent, holes, repair, fixed)


def _with(spec: Layer, dilation: tuple[int, ...]) -> Layer:
    if isinstance(spec, ConvSpec):
        return spec.replace(dilation=dilation, padding=0)
    return PoolSpec(spec.kernel_size, spec.stride, 0, dilation, reduction=spec.reduction)


def _repair(specs: Sequence[Layer], extent: tuple[int, ...]) -> tuple[tuple[int, ...], ...] | None:
    columns = [_repaired_axis(specs, axis, extent[axis]) for axis in range(specs[0].ndim)]
    return None if None in columns else tuple(zip(*columns, strict=True))


def _repaired_axis(specs: Sequence[Layer], axis: int, extent: int) -> tuple[int, ...] | None:
    """Lower dilations until no step leaves a hole, and raise others, as little as keeps the extent; None where none will do."""
    jumps = [prod(spec.stride[axis] for spec in specs[:n]) for n in range(len(specs))]
    found = [spec.dilation[axis] for spec in specs]
    order = sorted((n for n, x in enumerate(specs) if x.kernel_size[axis] > 1), key=lambda n: (jumps[n], found[n]))
    covered = 1
    for place, n in enumerate(order):
        most, teeth = covered // jumps[n], specs[n].kernel_size[axis] - 1
        if most == 0:  # nor can any layer after it, for jumps ascend
            return None
        rest = order[place + 1 :]
        need = next(
            (d for d in range(1, most) if _reach(specs, axis, jumps, rest, covered + teeth * d * jumps[n]) >= extent), most
        )
        found[n] = min(most, max(found[n], need))
        covered += teeth * found[n] * jumps[n]
    return tuple(found)


def _reach(specs: Sequence[Layer], axis: int, jumps: Sequence[int], rest: Sequence[int], covered: int) -> int:
    """Return how far layers can extend what is covered, without a hole."""
    for n in rest:
        covered += (specs[n].kernel_size[axis] - 1) * (covered // jumps[n]) * jumps[n]
    return covered


def _x(numbers: Sequence[int]) -> str:
    return "x".join(map(str, numbers))


def _or(numbers: Sequence[int]) -> str:
    return f"{', '.join(map(str, numbers[:-1]))} or {numbers[-1]}"
