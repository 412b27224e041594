"""What can be done to a picture, on grids of any step: exact moves, and turns and zooms that have to interpolate."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import product
from math import ceil, cos, floor, radians, sin
from typing import Any

import torch
from torch import Tensor

from ninefold.errors import ArgumentError, ArgumentTypeError
from ninefold.spec.parse import integer

__all__ = ["Custom", "Flip", "Rot90", "Rotate", "Scale", "Shift", "Steps", "Transform", "transforms_for"]

Steps = tuple[Fraction, ...]
"""Positions of the input between neighbouring positions of a map, per spatial axis; 0 along an axis that is gone."""


class Transform(ABC):
    """Something done to a picture and to every map made from it; spatial axes are a tensor's last dimensions."""

    name: str
    interpolated: bool = False
    spatial: bool = True

    @abstractmethod
    def __call__(self, x: Tensor, steps: Steps) -> Tensor:
        """Return what becomes of a tensor whose positions lie `steps` of the input apart."""

    def known(self, sizes: Sequence[int], steps: Steps) -> Tensor:
        """Return where, on a map of these sizes, the result is the picture itself and not what has come into view."""
        return self(torch.ones(tuple(sizes), dtype=torch.bool, device="cpu"), steps)

    def fits(self, steps: Steps) -> bool:
        """Return whether a map with these steps can be moved exactly."""
        del steps
        return True

    def choices(self, steps: Steps) -> "Iterator[Transform]":
        """Yield what could count as the same on a map with these steps: of a shift by half a position, none and one."""
        del steps
        yield self

    def __repr__(self) -> str:
        return self.name


class Shift(Transform):
    """Move the picture; what leaves at one end comes in at the other.

    Parameters
    ----------
    *by : int
        Positions of the input per spatial axis. A map at stride ``s`` moves by ``by / s``.

    Examples
    --------
    >>> Shift(2)(torch.arange(5), (Fraction(1),)), Shift(2)(torch.arange(5), (Fraction(2),))
    (tensor([3, 4, 0, 1, 2]), tensor([4, 0, 1, 2, 3]))
    """

    def __init__(self, *by: int) -> None:
        self.by = tuple(Fraction(integer(b, "by")) for b in by)
        if not by:
            raise ArgumentError("Shift needs a number of positions per spatial axis, got none; write Shift(1, 0) for an image")
        self.name = f"Shift({', '.join(map(str, by))})"

    def _moves(self, steps: Steps) -> tuple[Fraction, ...]:
        return tuple(b / s if s else Fraction(0) for b, s in zip(self.by, steps, strict=True))

    def __call__(self, x: Tensor, steps: Steps) -> Tensor:
        """Roll by the whole part of the move."""
        moves = [floor(m) for m in self._moves(steps)]
        return x.roll(moves, list(range(-len(moves), 0)))

    def known(self, sizes: Sequence[int], steps: Steps) -> Tensor:
        """Return where nothing has come in from the other end."""
        mask = torch.ones(tuple(sizes), dtype=torch.bool, device="cpu")
        for axis, (n, move) in enumerate(zip(sizes, map(floor, self._moves(steps)), strict=True)):
            at = torch.arange(n, device=mask.device)
            mask.movedim(axis, 0)[(at < move) | (at >= n + move)] = False
        return mask

    def fits(self, steps: Steps) -> bool:
        """Return whether the map moves by a whole number of positions."""
        return all(move.denominator == 1 for move in self._moves(steps))

    def choices(self, steps: Steps) -> Iterator[Transform]:
        """Yield the whole moves around a fraction of a position."""
        moves = self._moves(steps)
        for whole in product(*({floor(m), ceil(m)} for m in moves)):
            yield _Moved(self, whole)


class _Moved(Shift):
    """A shift that moves the map at hand by whole positions, whatever its steps."""

    def __init__(self, shift: Shift, moves: tuple[int, ...]) -> None:
        self.by, self.moves, self.name = shift.by, moves, shift.name

    def _moves(self, steps: Steps) -> tuple[Fraction, ...]:
        del steps
        return tuple(map(Fraction, self.moves))


class Flip(Transform):
    """Mirror the picture along an axis.

    Parameters
    ----------
    axis : int
        Spatial axis; the last by default.

    Examples
    --------
    >>> Flip()(torch.arange(4), (Fraction(1),))
    tensor([3, 2, 1, 0])
    """

    def __init__(self, axis: int = -1) -> None:
        self.axis = integer(axis, "axis")
        self.name = f"Flip({axis})"

    def __call__(self, x: Tensor, steps: Steps) -> Tensor:
        """Flip a dimension."""
        return x.flip(_checked(self.name, self.axis, len(steps)) - len(steps))


class Rot90(Transform):
    """Turn the picture by quarters in a plane, exactly.

    Parameters
    ----------
    turns : int
        Quarters, from the first axis of the plane towards the second, as in ``torch.rot90``.
    axes : pair of int
        The plane; the last two spatial axes by default.

    Examples
    --------
    >>> Rot90()(torch.tensor([[1, 2], [3, 4]]), (Fraction(1), Fraction(1))).tolist()
    [[2, 4], [1, 3]]
    """

    def __init__(self, turns: int = 1, axes: tuple[int, int] = (-2, -1)) -> None:
        self.turns, self.axes = integer(turns, "turns"), axes
        self.name = f"Rot90({turns}{'' if axes == (-2, -1) else f', {axes}'})"

    def __call__(self, x: Tensor, steps: Steps) -> Tensor:
        """Turn two dimensions."""
        plane = [_checked(self.name, axis, len(steps)) - len(steps) for axis in self.axes]
        return x.rot90(self.turns, plane)


class _Sampled(Transform):
    """Read the picture at other places, about its centre, linearly between positions; nothing stands outside."""

    interpolated = True

    @abstractmethod
    def matrix(self, ndim: int) -> Tensor:
        """Return where a position of the result reads, relative to the centre: a matrix in double precision."""

    def _places(self, sizes: Sequence[int], steps: Steps) -> Tensor:
        if len(sizes) == 0:
            raise ArgumentError(f"{self.name} needs a spatial axis, got none")
        centre = torch.tensor([(n - 1) / 2 for n in sizes], dtype=torch.double, device="cpu")
        apart = torch.tensor([float(s) or 1.0 for s in steps], dtype=torch.double, device="cpu")
        lines = [torch.arange(n, dtype=torch.double, device="cpu") for n in sizes]
        grid = torch.stack(torch.meshgrid(*lines, indexing="ij"), dim=-1)
        turned: Tensor = (grid - centre) * apart @ self.matrix(len(sizes)).T / apart + centre
        return turned.mul(2**20).round() / 2**20  # a position that is hit is hit, whatever the sine was

    def __call__(self, x: Tensor, steps: Steps) -> Tensor:
        """Sum over the corners around each place that is read."""
        if x.dtype == torch.bool:
            return self.known(x.shape[-len(steps) :], steps) & (self(x.double(), steps) > 1 - 1e-9)
        sizes = x.shape[x.dim() - len(steps) :]
        places = self._places(sizes, steps)
        low = places.floor()
        total = torch.zeros_like(x)
        for corner in product((0, 1), repeat=len(sizes)):
            at = low.long() + low.new_tensor(corner, dtype=torch.int64)
            share = (1 - (places - at).abs()).clamp_min(0).prod(-1)
            outside = ((at < 0) | (at >= at.new_tensor(sizes))).any(-1)
            index: Any = tuple(a.clamp(0, n - 1).to(x.device) for a, n in zip(at.unbind(-1), sizes, strict=True))
            total = total + x[(..., *index)] * share.masked_fill(outside, 0).to(x)
        return total

    def known(self, sizes: Sequence[int], steps: Steps) -> Tensor:
        """Return where the place that is read lies inside."""
        places = self._places(sizes, steps)
        inside = (places >= 0) & (places <= places.new_tensor([n - 1 for n in sizes]))
        return inside.all(-1)


class Rotate(_Sampled):
    """Turn the picture about its centre by any angle, linearly interpolated.

    Parameters
    ----------
    degrees : float
        In the plane of the last two spatial axes, in the sense of `Rot90`.

    Examples
    --------
    >>> Rotate(90)(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), (Fraction(1), Fraction(1))).tolist()
    [[2.0, 4.0], [1.0, 3.0]]
    """

    def __init__(self, degrees: float) -> None:
        self.degrees = float(degrees)
        self.name = f"Rotate({degrees:g})"

    def matrix(self, ndim: int) -> Tensor:
        """Return a rotation of the last two axes."""
        if ndim < 2:
            raise ArgumentError(f"{self.name} turns a plane, which an input of {ndim} spatial axis does not have; use Flip()")
        c, s = cos(radians(self.degrees)), sin(radians(self.degrees))
        whole = torch.eye(ndim, dtype=torch.double, device="cpu")
        whole[-2:, -2:] = torch.tensor([[c, s], [-s, c]], dtype=torch.double, device="cpu")
        return whole


class Scale(_Sampled):
    """Zoom about the centre, linearly interpolated; sizes stay.

    Parameters
    ----------
    factor : float
        Above 1 the picture grows, and its margins leave.

    Examples
    --------
    >>> Scale(2)(torch.arange(5.0), (Fraction(1),)).tolist()
    [1.0, 1.5, 2.0, 2.5, 3.0]
    """

    def __init__(self, factor: float) -> None:
        if not factor > 0:
            raise ArgumentError(f"factor={factor} must be above 0: 1.2 makes the picture a fifth larger")
        self.factor = float(factor)
        self.name = f"Scale({factor:g})"

    def matrix(self, ndim: int) -> Tensor:
        """Return the same factor along all axes."""
        return torch.eye(ndim, dtype=torch.double, device="cpu") / self.factor


class Custom(Transform):
    """Anything else: what is done to the input, and what should then happen to a map.

    Parameters
    ----------
    on_input : callable
        From the input to another; spatial axes are the last dimensions.
    on_output : callable, optional
        What a layer's output should become; by default the same. For the layers within a network it stands on both sides.
    name : str, optional

    Examples
    --------
    >>> twice = Custom(lambda x: 2 * x, name="twice")
    >>> twice, twice(torch.ones(2), ())
    (twice, tensor([2., 2.]))
    """

    spatial = False

    def __init__(
        self, on_input: Callable[[Tensor], Tensor], on_output: Callable[[Tensor], Tensor] | None = None, name: str = "custom"
    ) -> None:
        self.on_input, self.on_output, self.name = on_input, on_output or on_input, name

    def __call__(self, x: Tensor, steps: Steps) -> Tensor:
        """Apply what is done to the input."""
        del steps
        return self.on_input(x)

    def choices(self, steps: Steps) -> Iterator[Transform]:
        """Yield what should happen to a map."""
        del steps
        yield Custom(self.on_output, name=self.name)


def transforms_for(given: Any, steps: Steps, sizes: Sequence[int]) -> list[Transform]:
    """Return transforms for an input with these sizes; positions of the coarsest map lie `steps` of the input apart.

    Parameters
    ----------
    given : None, str, Transform, callable, or a sequence of them
        ``"shift"`` is by one position along each axis, and by the coarsest map's step where that is more; ``"flip"`` along each
        axis, ``"rot90"``, ``"rotate"`` by 20 degrees, ``"scale"`` by 1.2. None is all of them that the axes allow.

    Examples
    --------
    >>> transforms_for(("shift", Flip(0)), (Fraction(2),), (8,))
    [Shift(1), Shift(2), Flip(0)]
    """
    if given is None:
        square = len(sizes) > 1 and sizes[-1] == sizes[-2]
        given = ["shift", "flip", *(["rot90"] if square else []), *(["rotate"] if len(sizes) > 1 else []), "scale"]
    listed = [given] if isinstance(given, str) or not isinstance(given, Sequence) else given
    found = [t for item in listed for t in _resolved(item, steps)]
    return [t for t in found if not isinstance(t, Shift) or _checked_shift(t, len(sizes))]


def _resolved(item: Any, steps: Steps) -> list[Transform]:
    ndim = len(steps)
    if isinstance(item, Transform):
        return [item]
    if item == "shift":
        wanted = [(axis, by) for axis, s in enumerate(steps) for by in dict.fromkeys((1, s.numerator or 1))]
        return [Shift(*(by if a == axis else 0 for a in range(ndim))) for axis, by in wanted]
    flips = [Flip(axis) for axis in range(ndim)]
    ready: dict[str, list[Transform]] = {"flip": [*flips], "rot90": [Rot90()], "rotate": [Rotate(20)], "scale": [Scale(1.2)]}
    if isinstance(item, str) and item in ready:
        return ready[item]
    if callable(item):
        return [Custom(item, name=getattr(item, "__name__", "custom"))]
    raise ArgumentTypeError(
        f"{item!r} is no transform: give one of {['shift', *ready]}, Shift(1, 0), Flip(), Rot90(), Rotate(20), Scale(1.2), "
        "Custom(on_input, on_output) or a function of a tensor"
    )


def _checked(name: str, axis: int, ndim: int) -> int:
    if not -ndim <= axis < ndim:
        raise ArgumentError(f"{name} names axis {axis}, but there are only {ndim} spatial axes")
    return axis % ndim


def _checked_shift(shift: Shift, ndim: int) -> bool:
    if len(shift.by) != ndim:
        raise ArgumentError(f"{shift.name} has {len(shift.by)} numbers for {ndim} spatial axes; give one per axis")
    return True
