"""Scores of objects: matched one to one by overlap, average precision, panoptic quality.

With matches TP, predicted objects without one FP and true ones FN: the average precision of instance segmentation, as stardist
(``accuracy``), cellpose (``average_precision``) and the Data Science Bowl of 2018 define it, is TP / (TP + FP + FN) at a
threshold of IoU. It is not the area under a curve of precision over recall. COCO's is: detections are ranked by a confidence,
matched greedily in this order, precision is averaged over 101 levels of recall, then over classes and IoU 0.50, 0.55, ...,
0.95. Labels have no confidence, and both numbers must not be compared.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ninefold.errors import ArgumentError, ArgumentTypeError
from ninefold.structured.partition.arrays import Labels, scipy_part, whole_label
from ninefold.structured.partition.contingency import Contingency, contingency
from ninefold.structured.partition.offsets import one_of

__all__ = ["Criterion", "ObjectMatches", "PanopticQuality", "average_precision", "match_objects", "panoptic_quality"]

Criterion = Literal["iou", "iot", "iop"]
Scores = NDArray[np.float64]
_GROUP = 500  # pairs


@dataclass(frozen=True, eq=False)
class ObjectMatches:
    """Objects matched one to one; printed as a table.

    Attributes
    ----------
    true, predicted : array of int64, shape (matches,)
        Labels of the two of each match, by true label.
    scores : array of float64, shape (matches,)
        Their overlap by the criterion.
    missed : array of int64
        True objects without a match.
    invented : array of int64
        Predicted objects without a match.
    """

    true: Labels
    predicted: Labels
    scores: Scores
    missed: Labels
    invented: Labels

    @property
    def true_positives(self) -> int:
        """Matches."""
        return len(self.true)

    @property
    def false_positives(self) -> int:
        """Predicted objects without a match."""
        return len(self.invented)

    @property
    def false_negatives(self) -> int:
        """True objects without a match."""
        return len(self.missed)

    @property
    def precision(self) -> float:
        """Share of predicted objects with a match; 1 if there are none."""
        return _share(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        """Share of true objects with a match; 1 if there are none."""
        return _share(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def f(self) -> float:
        """Harmonic mean of precision and recall, 2 TP / (2 TP + FP + FN); 1 without any object."""
        return _share(2 * self.true_positives, 2 * self.true_positives + self.false_positives + self.false_negatives)

    @property
    def average_precision(self) -> float:
        """TP / (TP + FP + FN); 1 without any object, where stardist gives 0."""
        return _share(self.true_positives, self.true_positives + self.false_positives + self.false_negatives)

    def __str__(self) -> str:
        names = ("true_positives", "false_positives", "false_negatives", "precision", "recall", "f", "average_precision")
        rows = [(name.replace("_", " "), getattr(self, name)) for name in names]
        return "\n".join(f"{name:<24}{x:>10.4f}" if isinstance(x, float) else f"{name:<24}{x:>10}" for name, x in rows)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0


@dataclass(frozen=True)
class _Overlaps:
    """Pairs of objects that meet, by the place of both, with the voxels of their intersection and of each."""

    rows: Labels
    columns: Labels
    both: Labels
    true_sizes: Labels
    predicted_sizes: Labels
    true: Labels
    predicted: Labels

    @property
    def unions(self) -> Labels:
        return self.true_sizes[self.rows] + self.predicted_sizes[self.columns] - self.both

    def scores(self, criterion: Criterion) -> Scores:
        over = {"iou": self.unions, "iot": self.true_sizes[self.rows], "iop": self.predicted_sizes[self.columns]}
        return self.both / over[criterion]


def _overlaps(true: Any, predicted: Any, background: int | None, ignore: int | Iterable[int]) -> _Overlaps:
    """Count overlaps; voxels of background stay in the sizes of what overlaps them."""
    table: Contingency = contingency(true, predicted, ignore=ignore)
    a, b = (np.ones(len(names), bool) for names in (table.true, table.predicted))
    if background is not None:
        label = whole_label(background, "background")
        a, b = table.true != label, table.predicted != label
    kept = a[table.rows] & b[table.columns]
    rows, columns = (np.cumsum(a) - 1)[table.rows[kept]], (np.cumsum(b) - 1)[table.columns[kept]]
    sizes = table.true_sizes[a], table.predicted_sizes[b]
    return _Overlaps(rows, columns, table.counts[kept], *sizes, table.true[a], table.predicted[b])


def _assigned(rows: Labels, columns: Labels, scores: Scores) -> Labels:
    """Return which pairs are chosen: as many as can be with each object in one, of these choices the largest sum of scores."""
    alone = (np.bincount(rows, minlength=1)[rows] == 1) & (np.bincount(columns, minlength=1)[columns] == 1)
    chosen, rest = [np.flatnonzero(alone)], np.flatnonzero(~alone)
    if len(rest):
        chosen += [group[_solved(rows[group], columns[group], scores[group])] for group in _apart(rows, columns, rest)]
    return np.sort(np.concatenate(chosen))


def _apart(rows: Labels, columns: Labels, rest: Labels) -> list[Labels]:
    """Return pairs in groups that share no object: connected components, many small ones together, for solving takes n^2."""
    sparse, graphs = scipy_part("sparse", "match_objects"), scipy_part("sparse.csgraph", "match_objects")
    nodes = int(rows.max()) + 1 + int(columns.max()) + 1
    ends = rows[rest], int(rows.max()) + 1 + columns[rest]
    graph = sparse.coo_array((np.ones(len(rest), np.int8), ends), shape=(nodes, nodes))
    part = graphs.connected_components(graph, directed=False)[1][ends[0]]
    order = np.argsort(part, kind="stable")
    starts = np.flatnonzero(np.diff(part[order], prepend=-1))
    return np.split(rest[order], starts[np.flatnonzero(np.diff(starts // _GROUP, prepend=0))])


def _solved(rows: Labels, columns: Labels, scores: Scores) -> Any:
    """Return which pairs are chosen, by a sparse assignment: each row may also take a column of its own that stands for none."""
    names, a = np.unique(rows, return_inverse=True)
    other, b = np.unique(columns, return_inverse=True)
    none = np.arange(len(names))
    gain = 1 + scores / (2 * len(rows))  # the scores are less than 1 in all: a further match is worth more
    costs = np.concatenate([2 - gain, np.full(len(names), 2.0)])  # above 0, for a zero is no entry
    ends = np.concatenate([a, none]), np.concatenate([b, len(other) + none])
    table = scipy_part("sparse", "match_objects").coo_array((costs, ends), shape=(len(names), len(other) + len(names))).tocsr()
    taken = np.empty(len(names), np.int64)
    matched, by = scipy_part("sparse.csgraph", "match_objects").min_weight_full_bipartite_matching(table)
    taken[matched] = by
    return taken[a] == b


def match_objects(
    true: Any,
    predicted: Any,
    threshold: float = 0.5,
    criterion: Criterion = "iou",
    *,
    background: int | None = 0,
    ignore: int | Iterable[int] = (),
) -> ObjectMatches:
    """Match true and predicted objects one to one: as many as can be, and of these choices the largest sum of overlaps.

    Pairs may match whose overlap is at least the threshold, as in stardist. Above an IoU of 0.5 an object has at most one partner
    and there is nothing to choose; elsewhere the assignment is optimal
    (`scipy.sparse.csgraph.min_weight_full_bipartite_matching`).

    Parameters
    ----------
    true, predicted : array or tensor of int, of one shape
        Labels of objects.
    threshold : float
        Above 0, up to 1.
    criterion : {"iou", "iot", "iop"}
        Intersection over union, over the true object, or over the predicted one.
    background : int or None
        The label that is no object, in truth and prediction; None if every label is one. Its voxels count in the union with what
        overlaps them.
    ignore : int or iterable of int
        True labels whose voxels do not count: they are cut out of both, and a predicted object that lies within is none.

    Raises
    ------
    DTypeError, ShapeError, ArgumentError, ArgumentTypeError
        If they are not labels of one shape, a parameter is out of its range, or no voxel is left.
    MissingExtraError
        If there is something to choose and SciPy is not installed.

    Examples
    --------
    >>> matches = match_objects([[1, 1, 1, 2, 2, 0]], [[5, 5, 0, 0, 7, 7]], threshold=0.3)
    >>> matches.true, matches.predicted, matches.scores
    (array([1, 2]), array([5, 7]), array([0.66666667, 0.33333333]))
    """
    one_of(criterion, ("iou", "iot", "iop"), "criterion")
    least = _threshold(threshold)
    found = _overlaps(true, predicted, background, ignore)
    return _matches(found, found.scores(criterion), least)


def _matches(found: _Overlaps, scores: Scores, least: float) -> ObjectMatches:
    enough = np.flatnonzero(scores >= least)
    chosen = enough[_assigned(found.rows[enough], found.columns[enough], scores[enough])]
    chosen = chosen[np.argsort(found.rows[chosen], kind="stable")]
    rows, columns = found.rows[chosen], found.columns[chosen]
    left = np.delete(found.true, rows), np.delete(found.predicted, columns)
    return ObjectMatches(found.true[rows], found.predicted[columns], scores[chosen], *left)


def _threshold(threshold: Any) -> float:
    if isinstance(threshold, bool) or not isinstance(threshold, (int, float, np.number)):
        raise ArgumentTypeError(f"threshold={threshold!r}; it is a number above 0, up to 1")
    if not 0 < threshold <= 1:
        raise ArgumentError(f"threshold={threshold}; it is above 0, up to 1")
    return float(threshold)


def average_precision(
    true: Any,
    predicted: Any,
    thresholds: float | Sequence[float] = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95),
    *,
    background: int | None = 0,
    ignore: int | Iterable[int] = (),
) -> Scores:
    """Return TP / (TP + FP + FN) at each threshold of IoU: stardist's and cellpose's average precision of one image.

    Of a whole set of images it is their summed TP over their summed TP + FP + FN (`match_objects`), not the mean. COCO's
    number of this name is another one: see this module. 1 where neither has an object.

    Parameters
    ----------
    true, predicted, background, ignore
        As in `match_objects`.
    thresholds : float or sequence of float
        Of IoU, above 0 and up to 1.

    Returns
    -------
    array of float64, shape (thresholds,)
        () for a single number.

    Raises
    ------
    DTypeError, ShapeError, ArgumentError, ArgumentTypeError, MissingExtraError
        As `match_objects`.

    Examples
    --------
    >>> average_precision([[1, 1, 1, 2, 2, 0]], [[5, 5, 0, 0, 7, 7]], (0.3, 0.5, 0.9))
    array([1.        , 0.33333333, 0.        ])
    """
    single = isinstance(thresholds, (int, float, np.number))
    levels = [_threshold(t) for t in ([thresholds] if single else thresholds)]  # type: ignore[union-attr]
    if not levels:
        raise ArgumentError("there are 0 thresholds; give at least one, e.g. 0.5")
    found = _overlaps(true, predicted, background, ignore)
    scores = found.scores("iou")
    values = [_matches(found, scores, t).average_precision for t in levels]
    return np.array(values[0] if single else values)


@dataclass(frozen=True)
class PanopticQuality:
    """Panoptic quality of one class and its two factors.

    Attributes
    ----------
    quality : float
        PQ, the sum of the IoU of matches over TP + FP / 2 + FN / 2; segmentation times recognition.
    segmentation : float
        SQ, the mean IoU of matches; 0 without any.
    recognition : float
        RQ, TP / (TP + FP / 2 + FN / 2).
    true_positives, false_positives, false_negatives : int
        What they are made of.
    """

    quality: float
    segmentation: float
    recognition: float
    true_positives: int
    false_positives: int
    false_negatives: int


def panoptic_quality(
    true: Any, predicted: Any, *, background: int | None = 0, ignore: int | Iterable[int] = ()
) -> PanopticQuality:
    """Return the panoptic quality of the objects of one class (Kirillov et al. 2019); objects match whose IoU is above 0.5.

    With several classes it is the mean over classes, each given its own objects. Voxels of ignored labels are cut out of both
    before, where the paper forgives a predicted object only if more than half of it lies in them. Without any object all three
    are 1.

    Parameters
    ----------
    true, predicted, background, ignore
        As in `match_objects`.

    Raises
    ------
    DTypeError, ShapeError, ArgumentError, ArgumentTypeError
        As `match_objects`.

    Examples
    --------
    >>> one = panoptic_quality([[1, 1, 1, 1, 2, 2]], [[5, 5, 5, 0, 0, 7]])
    >>> one.quality, one.segmentation, one.recognition
    (0.375, 0.75, 0.5)
    """
    found = _overlaps(true, predicted, background, ignore)
    more = 2 * found.both > found.unions  # whole numbers: at exactly 0.5 two objects could claim the same one
    matches, iou = int(more.sum()), float(found.scores("iou")[more].sum())
    missed, invented = len(found.true) - matches, len(found.predicted) - matches
    if not matches + missed + invented:
        return PanopticQuality(1.0, 1.0, 1.0, 0, 0, 0)
    over = matches + (invented + missed) / 2
    return PanopticQuality(iou / over, iou / matches if matches else 0.0, matches / over, matches, invented, missed)
