"""Boundary F: how much of the boundary of a label map lies near the true one, and the other way round.

A boundary is the set of voxels with a neighbour along an axis that has another label; the edge of the image is none. With B and
B* the predicted and the true boundary and d the distance between centres of voxels: precision is the share of B with d(x, B*)
<= tolerance, recall the share of B* with d(x, B) <= tolerance, F their harmonic mean. Per class after Csurka, Larlus and
Perronnin (BMVC 2013), where B holds the boundary voxels of the class itself and the score is the mean over classes; over all
boundaries as in DAVIS (Perazzi et al., CVPR 2016), which measures one object's outline. No voxel is matched to one other only,
unlike in BSDS (Martin, Fowlkes and Malik 2004).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ninefold.errors import ArgumentError, ArgumentTypeError
from ninefold.structured.partition.arrays import Labels, label_array, same_shape, scipy_part, whole_label
from ninefold.structured.partition.contingency import counted_voxels, ignored
from ninefold.structured.partition.offsets import ends, neighbour_offsets

__all__ = ["BoundaryScores", "boundary_f", "boundary_voxels"]

Mask = NDArray[np.bool_]
Scores = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class BoundaryScores:
    """Precision, recall and F of boundaries; printed as a table.

    Attributes
    ----------
    precision, recall, f : float
        Over all boundaries, whatever classes they part.
    classes : array of int64
        Those with a boundary, in truth or prediction, but for the background.
    class_precision, class_recall, class_f : array of float64, shape (classes,)
        Of each of them. A class that has a boundary in one of the two only has F 0.
    """

    precision: float
    recall: float
    f: float
    classes: Labels
    class_precision: Scores
    class_recall: Scores
    class_f: Scores

    @property
    def mean_f(self) -> float:
        """The mean F of classes; 1 if no class has a boundary, in truth or prediction."""
        return float(self.class_f.mean()) if len(self.classes) else 1.0

    def __str__(self) -> str:
        rows: list[tuple[Any, ...]] = [*zip(self.classes, self.class_precision, self.class_recall, self.class_f, strict=True)]
        rows = [("all boundaries", self.precision, self.recall, self.f), *rows]
        lines = [f"{'class':<24}{'precision':>10}{'recall':>10}{'F':>10}"]
        lines += [f"{name!s:<24}" + "".join(f"{s:>10.4f}" for s in scores) for name, *scores in rows]
        return "\n".join([*lines, f"{'mean F of classes':<44}{self.mean_f:>10.4f}"])


def boundary_voxels(labels: Any, counted: Mask | None = None) -> Mask:
    """Return which voxels have a neighbour along an axis with another label; both of such a pair are boundary.

    Parameters
    ----------
    labels : array or tensor of int
        An image or volume.
    counted : array of bool, optional
        A pair with a voxel that does not count is no boundary.

    Raises
    ------
    DTypeError, ShapeError, ArgumentError
        If they are no labels, or of two shapes.

    Examples
    --------
    >>> boundary_voxels([[1, 1, 1, 2, 2]])
    array([[False, False,  True,  True, False]])
    """
    plain = label_array(labels, "labels")
    if counted is not None:
        same_shape(plain, counted, "labels", "counted")
    found = np.zeros(plain.shape, bool)
    for offset in neighbour_offsets(plain.ndim):
        here, there = ends(plain.shape, offset)
        part = plain[here] != plain[there]
        if counted is not None:
            part &= counted[here] & counted[there]
        found[here] |= part
        found[there] |= part
    return found


def boundary_f(
    true: Any,
    predicted: Any,
    *,
    tolerance: float,
    spacing: Sequence[float] | None = None,
    background: int | None = None,
    ignore: int | Iterable[int] = (),
) -> BoundaryScores:
    """Return precision, recall and F of boundaries: of each class, and of all boundaries together.

    A share of no voxels is 1: without a boundary in truth and prediction everything is 1; with one in truth only, precision is
    1, recall and F are 0.

    Parameters
    ----------
    true, predicted : array or tensor of int, shape (*space)
        One image or volume; labels of classes, or of objects (then each object is a class).
    tolerance : float
        The largest distance that counts as found, in units of `spacing`. MATLAB's ``bfscore`` takes 0.75%, DAVIS 0.8% of
        the image's diagonal, in whole pixels. A boundary is two voxels thick, one on either side: with a tolerance of 0 half of
        one that is off by a voxel is found.
    spacing : sequence of float, optional
        Distance of neighbouring voxels along each axis; 1 without it.
    background : int, optional
        A label that is not scored as a class; where others touch it is their boundary. None if all are scored.
    ignore : int or iterable of int
        True labels whose voxels do not count: neither they nor what touches them is boundary, in truth or prediction.

    Raises
    ------
    DTypeError, ShapeError, ArgumentError, ArgumentTypeError
        If they are not labels of one shape, a parameter is out of its range, or nothing is left to score.
    MissingExtraError
        If SciPy is not installed.

    Examples
    --------
    >>> true, found = [[1, 1, 1, 2, 2, 2]], [[1, 1, 2, 2, 2, 2]]
    >>> print(boundary_f(true, found, tolerance=0))
    class                    precision    recall         F
    all boundaries              0.5000    0.5000    0.5000
    1                           0.0000    0.0000    0.0000
    2                           0.0000    0.0000    0.0000
    mean F of classes                               0.0000
    >>> boundary_f(true, found, tolerance=1).mean_f
    1.0
    """
    a, b = label_array(true, "true"), label_array(predicted, "predicted")
    same_shape(a, b, "true", "predicted")
    steps = _checked(a, tolerance, spacing)
    kept = counted_voxels(a, ignored(ignore))
    lines = boundary_voxels(a, kept), boundary_voxels(b, kept)
    everything = _shares(*lines, tolerance, steps)
    names, index = np.unique(np.concatenate([x[line] for x, line in zip((a, b), lines, strict=True)]), return_inverse=True)
    places = np.zeros((2, *a.shape), np.int64)  # from 1; 0 is no boundary
    places[np.stack(lines)] = index + 1
    rows = _per_class(places, len(names), tolerance, steps)
    if background is not None:
        scored = names != whole_label(background, "background")
        names, rows = names[scored], rows[scored]
    return BoundaryScores(*everything, names, *rows.T)


def _checked(labels: Labels, tolerance: Any, spacing: Any) -> tuple[float, ...]:
    """Refuse a wrong tolerance; return the spacing of all axes."""
    if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float, np.number)):
        raise ArgumentTypeError(f"tolerance={tolerance!r}; it is a distance, a number")
    if not 0 <= tolerance < np.inf:
        raise ArgumentError(f"tolerance={tolerance}; it is a distance of 0 or more, and finite")
    try:
        steps = (1.0,) * labels.ndim if spacing is None else tuple(float(s) for s in spacing)
    except (TypeError, ValueError) as error:
        raise ArgumentTypeError(f"spacing={spacing!r}; give a number for each of the {labels.ndim} axes") from error
    if len(steps) != labels.ndim or not all(0 < s < np.inf for s in steps):
        raise ArgumentError(f"spacing={steps} of an image of {labels.ndim} axes; give {labels.ndim} numbers above 0")
    return steps


def _per_class(places: Labels, classes: int, tolerance: float, spacing: tuple[float, ...]) -> Scores:
    """Return precision, recall and F of each class, within the box that holds its boundaries: as far as any distance can lead."""
    boxes = [scipy_part("ndimage", "boundary_f").find_objects(x, classes) for x in places]
    rows = np.empty((classes, 3))
    for k in range(classes):
        there = [box[k] for box in boxes if box[k] is not None]
        both = tuple(slice(min(s.start for s in axis), max(s.stop for s in axis)) for axis in zip(*there, strict=True))
        rows[k] = _shares(places[0][both] == k + 1, places[1][both] == k + 1, tolerance, spacing)
    return rows


def _shares(true: Mask, predicted: Mask, tolerance: float, spacing: tuple[float, ...]) -> tuple[float, float, float]:
    precision, recall = _near(predicted, true, tolerance, spacing), _near(true, predicted, tolerance, spacing)
    return precision, recall, 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _near(line: Mask, other: Mask, tolerance: float, spacing: tuple[float, ...]) -> float:
    """Return the share of a boundary within a distance of another one; without the other SciPy's distances mean nothing."""
    if not line.any() or not other.any():
        return float(not line.any())
    distances = scipy_part("ndimage", "boundary_f").distance_transform_edt(~other, sampling=spacing)
    return float((distances[line] <= tolerance * (1 + 1e-12)).mean())  # 3 voxels of 0.1 are 0.30000000000000004
