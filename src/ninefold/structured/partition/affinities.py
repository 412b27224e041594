"""Affinity graphs of images and volumes, typed: which edges there are, where they are stored, and what stands at the border.

Turaga et al. (2010): one map for each direction of neighbours, 1 where both voxels of an edge are in the same object. What users
mix up most is the direction in which an edge is stored, so it is part of the type, and conversions are methods.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from ninefold.errors import ArgumentError, ArgumentTypeError, DTypeError, ShapeError
from ninefold.structured.partition.arrays import Array, in_kind, label_array, plain_array, whole_label
from ninefold.structured.partition.offsets import Offset, checked_offsets, ends, first, neighbour_offsets, one_of, whole_offsets

__all__ = ["Affinities", "Border", "Neighbour", "edge_mask"]

Neighbour = Literal["next", "previous"]
Border = Literal["zero", "one", "any"]

_STORED = {"zero": 0.0, "one": 1.0, "any": 0.0}
_FLOATS = (np.float32, np.float64)


@dataclass(frozen=True, eq=False)
class Affinities:
    """Affinities of edges between voxels of an image or volume; 1 means the same object, 0 different objects.

    Parameters
    ----------
    values : array or tensor of shape (edges, *space) or (batch, edges, *space)
        float32 or float64, in [0, 1]; space of one to three axes.
    offsets : sequence of tuple of int
        One for each channel, as many numbers as space has axes, in the order of the axes. The first that is not zero is positive:
        an edge leads from a voxel p to the next one, p + offset.
    neighbour : {"next", "previous"}
        Where the edge between p and p + offset is stored: ``"next"`` at p (it joins p to its next neighbour), ``"previous"`` at
        p + offset (it joins that to its previous neighbour).
    border : {"any", "zero", "one"}
        What stands where an edge would leave the image: anything, 0 or 1. Such edges do not exist, and nobody looks at them.

    Raises
    ------
    DTypeError, ShapeError, ArgumentError
        If values are of another dtype, number of axes or channels; are NaN or outside of [0, 1]; if an offset is zero, points
        back, or comes twice; if the border is not what is promised.

    Examples
    --------
    >>> a = Affinities.from_labels(np.array([[1, 1, 2], [1, 0, 2]]))
    >>> a.offsets, a.neighbour
    (((1, 0), (0, 1)), 'next')
    >>> a.values[0]
    array([[1., 0., 1.],
           [0., 0., 0.]], dtype=float32)
    >>> a.to("previous").values[0]
    array([[0., 0., 0.],
           [1., 0., 1.]], dtype=float32)
    """

    values: Array
    offsets: tuple[Offset, ...]
    neighbour: Neighbour = "next"
    border: Border = "any"

    def __post_init__(self) -> None:
        one_of(self.neighbour, ("next", "previous"), "neighbour")
        one_of(self.border, tuple(_STORED), "border")
        object.__setattr__(self, "offsets", checked_offsets(self.offsets))
        self._check_shape()
        self._check_values()

    def _check_shape(self) -> None:
        if not isinstance(self.values, (np.ndarray, Tensor)):
            raise ArgumentTypeError(f"values are a {type(self.values).__name__}; give an array or a tensor")
        shape, axes = tuple(self.values.shape), len(self.offsets[0])
        if len(shape) not in (axes + 1, axes + 2) or shape[len(shape) - axes - 1] != len(self.offsets):
            wanted = f"({len(self.offsets)}, {'n, ' * (axes - 1)}n)"
            raise ShapeError(
                f"values of shape {shape} do not fit {len(self.offsets)} offsets in {axes} axes; give {wanted}, or a batch of it"
            )
        if 0 in shape:
            raise ShapeError(f"values of shape {shape} are empty; give an image of at least 1 voxel")

    def _check_values(self) -> None:
        name = str(self.values.dtype).rpartition(".")[2]
        if name not in ("float32", "float64"):
            raise DTypeError(f"affinities are of {name}; they must be float32 or float64: convert them with a cast")
        values: Any = self.values.detach() if isinstance(self.values, Tensor) else self.values
        least, most = float(values.min()), float(values.max())
        if np.isnan(least) or np.isnan(most):
            raise ArgumentError(f"{int((values != values).sum())} of {_size(values)} affinities are NaN; mend what made them")  # noqa: PLR0124
        if least < 0 or most > 1:
            raise ArgumentError(
                f"affinities lie in [{least:g}, {most:g}], not in [0, 1]; take the sigmoid of scores, divide bytes by 255"
            )
        if self.border != "any" and self._leaving(values, _STORED[self.border]):
            raise ArgumentError(f"border={self.border!r}, but edges that leave the image hold other values; say border='any'")

    def _leaving(self, values: Any, wanted: float) -> bool:
        """Return whether any edge that leaves the image holds another value."""
        for k, step in enumerate(self.signed):
            for axis, d in enumerate(step):
                if d:
                    edge = [slice(None)] * len(step)
                    edge[axis] = slice(-d, None) if d > 0 else slice(None, -d)
                    if bool((values[(..., k, *edge)] != wanted).any()):
                        return True
        return False

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the image or volume."""
        return tuple(self.values.shape[-len(self.offsets[0]) :])

    @property
    def batched(self) -> bool:
        """Whether there is an axis of the batch in front."""
        return self.values.ndim == len(self.offsets[0]) + 2

    @property
    def signed(self) -> tuple[Offset, ...]:
        """Offsets from the voxel where an edge is stored to its other end, as many other packages give them."""
        sign = 1 if self.neighbour == "next" else -1
        return tuple(tuple(sign * d for d in offset) for offset in self.offsets)

    @classmethod
    def from_labels(
        cls,
        labels: Any,
        offsets: Sequence[Offset] | None = None,
        *,
        neighbour: Neighbour = "next",
        border: Border = "zero",
        background: int | None = 0,
        dtype: Any = np.float32,
    ) -> Self:
        """Return the targets of a segmentation: 1 where both ends are in the same object.

        Parameters
        ----------
        labels : array or tensor of int, shape (*space) or, with offsets given, (batch, *space)
            Objects.
        offsets : sequence of tuple of int, optional
            Neighbours along each axis where None.
        neighbour, border
            As of the class.
        background : int or None
            The label that is no object: each of its voxels is one of its own, so that edges at it are 0. None if there is none.
            To leave such edges out of a loss, take `edge_mask` with ``background_as="excluded"``.
        dtype : float32 or float64
            Of the values, as NumPy names it.

        Raises
        ------
        DTypeError, ShapeError, ArgumentError
            If labels are not whole numbers of 0 and more, or offsets do not fit.

        Examples
        --------
        >>> Affinities.from_labels(np.array([[4, 4, 0, 0]]), [(0, 1)]).values.tolist()
        [[[1.0, 0.0, 0.0, 0.0]]]
        >>> Affinities.from_labels(np.array([[4, 4, 0, 0]]), [(0, 1)], background=None).values.tolist()
        [[[1.0, 0.0, 1.0, 0.0]]]
        """
        if np.dtype(dtype) not in _FLOATS:
            raise DTypeError(f"dtype={np.dtype(dtype)}; affinities are of float32 or float64")
        one_of(border, tuple(_STORED), "border")
        one_of(neighbour, ("next", "previous"), "neighbour")
        plain: Any = label_array(labels, "labels")
        chosen = neighbour_offsets(plain.ndim) if offsets is None else checked_offsets(offsets)
        lead = _lead(plain, chosen)
        values: Any = np.full((*plain.shape[:lead], len(chosen), *plain.shape[lead:]), _STORED[border], dtype)
        for k, offset in enumerate(chosen):
            here, there = ends(plain.shape[lead:], offset)
            a, b = plain[(..., *here)], plain[(..., *there)]
            same = a == b if background is None else (a == b) & (a != whole_label(background, "background"))
            values[(..., k, *(here if neighbour == "next" else there))] = same
        return cls(in_kind(values, labels), chosen, neighbour, border)

    @classmethod
    def from_signed(cls, values: Any, signed: Sequence[Offset]) -> Self:
        """Return affinities whose edges lead from where they are stored to p + offset, of any sign, as other packages store them.

        Offsets that all point back are kept as ``"previous"``; those of mixed signs are moved, so that all are ``"next"``.

        Raises
        ------
        DTypeError, ShapeError, ArgumentError
            As the class.

        Examples
        --------
        >>> a = Affinities.from_signed(np.zeros((2, 4, 5), np.float32), [(-1, 0), (0, -3)])
        >>> a.offsets, a.neighbour
        (((1, 0), (0, 3)), 'previous')
        """
        steps = whole_offsets(signed)
        turned = [first(step) < 0 for step in steps]
        forward = tuple(tuple(-d for d in step) if back else step for step, back in zip(steps, turned, strict=True))
        if len(set(turned)) == 1:
            return cls(values, forward, "previous" if turned[0] else "next")
        as_next = cls(values, forward)
        moved = _blank(values, 0.0)
        for k, (offset, back) in enumerate(zip(forward, turned, strict=True)):
            here, there = ends(as_next.shape, offset)
            moved[(..., k, *here)] = values[(..., k, *(there if back else here))]
        return cls(moved, forward, "next", "zero")

    @classmethod
    def from_boundaries(cls, values: Array, offsets: Sequence[Offset], **options: Any) -> Self:
        """Return 1 - values: of maps that are 1 where there is a boundary between the two ends of an edge.

        `options` are those of the class: `neighbour` and `border` (of the affinities that come out).

        Raises
        ------
        DTypeError, ShapeError, ArgumentError
            As the class.

        Examples
        --------
        >>> Affinities.from_boundaries(np.full((1, 2, 3), 0.25, np.float32), [(0, 1)]).values[0, 0]
        array([0.75, 0.75, 0.75], dtype=float32)
        """
        return cls(1 - values, tuple(offsets), **options)

    @classmethod
    def from_boundary_map(
        cls, boundary: Any, offsets: Sequence[Offset] | None = None, *, combine: Literal["max", "mean", "min"] = "max"
    ) -> Self:
        """Return the affinities of a map that is 1 on boundary voxels: 1 minus the larger of an edge's two ends.

        Long offsets look at their two ends only, not at what lies between.

        Parameters
        ----------
        boundary : array or tensor of shape (*space) or, with offsets given, (batch, *space)
            float32 or float64, in [0, 1].
        offsets : sequence of tuple of int, optional
            Neighbours along each axis where None.
        combine : {"max", "mean", "min"}
            How the two ends make one number.

        Raises
        ------
        DTypeError, ShapeError, ArgumentError
            As the class.

        Examples
        --------
        >>> Affinities.from_boundary_map(np.array([[0.0, 1.0, 0.5, 0.5]]), [(0, 1)]).values.tolist()
        [[[0.0, 0.0, 0.5, 0.0]]]
        """
        one_of(combine, ("max", "mean", "min"), "combine")
        plain: Any = plain_array(boundary, "boundary")
        chosen = neighbour_offsets(plain.ndim) if offsets is None else checked_offsets(offsets)
        lead = _lead(plain, chosen)
        values: Any = np.zeros((*plain.shape[:lead], len(chosen), *plain.shape[lead:]), plain.dtype)
        for k, offset in enumerate(chosen):
            here, there = ends(plain.shape[lead:], offset)
            a, b = plain[(..., *here)], plain[(..., *there)]
            both = (a + b) / 2 if combine == "mean" else np.maximum(a, b) if combine == "max" else np.minimum(a, b)
            values[(..., k, *here)] = 1 - both
        return cls(in_kind(values, boundary), chosen, "next", "zero")

    def boundaries(self) -> Array:
        """Return 1 - values: how likely there is a boundary between the two ends.

        Examples
        --------
        >>> Affinities(np.full((1, 1, 2), 0.25), ((0, 1),)).boundaries()
        array([[[0.75, 0.75]]])
        """
        return 1 - self.values

    def exists(self) -> Any:
        """Return which edges there are, (edges, *space): False where one would leave the image.

        Examples
        --------
        >>> Affinities(np.zeros((1, 2, 3)), ((0, 2),)).exists()[0, 0]
        array([ True, False, False])
        """
        found: Any = np.zeros((len(self.offsets), *self.shape), bool)
        for k, offset in enumerate(self.offsets):
            found[(k, *ends(self.shape, offset)[self.neighbour == "previous"])] = True
        return found

    def to(self, neighbour: Neighbour, border: Border | None = None) -> "Affinities":
        """Return the same edges, stored at their other end, or with another border.

        Parameters
        ----------
        neighbour : {"next", "previous"}
            Where edges are stored.
        border : {"zero", "one"}, optional
            What is written where an edge would leave the image; the own one where None, 0 for ``"any"``.

        Examples
        --------
        >>> a = Affinities(np.array([[0.1, 0.2, 0.3, 0.4]]), ((1,),))
        >>> b = a.to("previous")
        >>> b.values, b.border
        (array([[0. , 0.1, 0.2, 0.3]]), 'zero')
        """
        one_of(neighbour, ("next", "previous"), "neighbour")
        border = self.border if border is None else border
        one_of(border, tuple(_STORED), "border")
        values: Any = self.values
        moved = _blank(values, _STORED[border])
        for k, offset in enumerate(self.offsets):
            both = ends(self.shape, offset)
            moved[(..., k, *both[neighbour == "previous"])] = values[(..., k, *both[self.neighbour == "previous"])]
        return Affinities(moved, self.offsets, neighbour, "zero" if border == "any" else border)

    def __repr__(self) -> str:
        kind = "torch" if isinstance(self.values, Tensor) else "numpy"
        where = f"offsets={self.offsets}, neighbour={self.neighbour!r}, border={self.border!r}"
        return f"Affinities({kind} {tuple(self.values.shape)}, {where})"


def edge_mask(
    labels: Any,
    offsets: Sequence[Offset] | None = None,
    *,
    neighbour: Neighbour = "next",
    background: int | None = 0,
    background_as: Literal["singletons", "excluded"] = "singletons",
    ignore: int | Iterable[int] = (),
) -> Any:
    """Return which edges have a target, in the layout of `Affinities.from_labels`: for the weights of a loss.

    Parameters
    ----------
    labels : array or tensor of int, shape (*space) or, with offsets given, (batch, *space)
        Objects.
    offsets, neighbour, background
        As of `Affinities.from_labels`.
    background_as : {"singletons", "excluded"}
        Whether edges at background count, with the target 0, or not at all.
    ignore : int or iterable of int
        Labels of voxels that nobody labelled: edges at them do not count.

    Returns
    -------
    array or tensor of bool
        False where an edge would leave the image or does not count.

    Raises
    ------
    DTypeError, ShapeError, ArgumentError
        As `Affinities.from_labels`.

    Examples
    --------
    >>> edge_mask(np.array([[1, 1, 0, 2, 9]]), [(0, 1)], background_as="excluded", ignore=9)
    array([[[ True, False, False, False, False]]])
    """
    one_of(background_as, ("singletons", "excluded"), "background_as")
    one_of(neighbour, ("next", "previous"), "neighbour")
    plain: Any = label_array(labels, "labels")
    chosen = neighbour_offsets(plain.ndim) if offsets is None else checked_offsets(offsets)
    lead = _lead(plain, chosen)
    out = [whole_label(x, "ignore") for x in ([ignore] if isinstance(ignore, (int, np.integer)) else ignore)]
    if background is not None and background_as == "excluded":
        out.append(whole_label(background, "background"))
    counted = ~np.isin(plain, out)
    mask: Any = np.zeros((*plain.shape[:lead], len(chosen), *plain.shape[lead:]), bool)
    for k, offset in enumerate(chosen):
        here, there = ends(plain.shape[lead:], offset)
        mask[(..., k, *(here if neighbour == "next" else there))] = counted[(..., *here)] & counted[(..., *there)]
    return in_kind(mask, labels)


def _blank(values: Any, fill: float) -> Any:
    return torch.full_like(values.detach(), fill) if isinstance(values, Tensor) else np.full_like(values, fill)


def _lead(plain: np.ndarray, offsets: tuple[Offset, ...]) -> int:
    lead = plain.ndim - len(offsets[0])
    if lead not in (0, 1):
        raise ShapeError(
            f"an image of shape {plain.shape} does not fit offsets in {len(offsets[0])} axes, nor does a batch of images"
        )
    return lead


def _size(values: Any) -> int:
    return int(np.prod(values.shape))
