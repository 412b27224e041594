"""How often each true label meets each predicted one: what all scores of partitions and objects are made of."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ninefold.errors import ArgumentError
from ninefold.structured.partition.arrays import Labels, label_array, same_shape, whole_label
from ninefold.structured.partition.offsets import one_of

__all__ = ["BackgroundAs", "Contingency", "contingency", "counted_voxels", "ignored"]

BackgroundAs = Literal["excluded", "singletons"]


@dataclass(frozen=True, eq=False)
class Contingency:
    """Counts of voxels with a true and a predicted label: entries that are not zero.

    Attributes
    ----------
    rows, columns : array of int64
        Of each entry: the place of its true label in `true`, of its predicted label in `predicted`.
    counts : array of int64
        Voxels of each entry.
    true, predicted : array of int64
        Labels that occur.
    """

    rows: Labels
    columns: Labels
    counts: Labels
    true: Labels
    predicted: Labels

    @property
    def voxels(self) -> int:
        """How many count."""
        return int(self.counts.sum())

    @property
    def true_sizes(self) -> Labels:
        """Voxels of each true label."""
        return _sums(self.rows, self.counts, len(self.true))

    @property
    def predicted_sizes(self) -> Labels:
        """Voxels of each predicted label."""
        return _sums(self.columns, self.counts, len(self.predicted))


def _sums(index: Labels, counts: Labels, length: int) -> Labels:
    out = np.zeros(length, np.int64)
    np.add.at(out, index, counts)
    return out


def ignored(ignore: int | Iterable[int]) -> list[int]:
    """Return labels that are not counted as a list.

    Examples
    --------
    >>> ignored(255)
    [255]
    """
    return [whole_label(x, "ignore") for x in ([ignore] if isinstance(ignore, (int, np.integer)) else ignore)]


def counted_voxels(true: Labels, ignore: list[int]) -> Any:
    """Return which voxels count; None for all.

    Raises
    ------
    ArgumentError
        If none does.

    Examples
    --------
    >>> counted_voxels(np.array([1, 9]), [9])
    array([ True, False])
    """
    if not ignore:
        return None
    kept = ~np.isin(true, ignore)
    if not kept.any():
        raise ArgumentError(f"all {true.size} voxels are of labels that do not count, {ignore}; nothing is left to score")
    return kept


def contingency(
    true: Any,
    predicted: Any,
    *,
    background: int | None = None,
    background_as: BackgroundAs = "excluded",
    ignore: int | Iterable[int] = (),
) -> Contingency:
    """Count voxels by their true and predicted label.

    Parameters
    ----------
    true, predicted : array or tensor of int, of one shape
        Labels of 0 and more.
    background : int or None
        The label that is no object; None if every label is one.
    background_as : {"excluded", "singletons"}
        ``"excluded"``: voxels whose *true* label is background do not count; predicted background among the others is a label
        like any (CREMI, scikit-image's ``ignore_labels``).
        ``"singletons"``: each voxel of background, true or predicted, is
        an object of its own (SNEMI3D treats predictions so).
    ignore : int or iterable of int
        True labels whose voxels do not count.

    Raises
    ------
    DTypeError, ShapeError, ArgumentError
        If they are not labels of one shape, or nothing is left to count.

    Examples
    --------
    >>> table = contingency([1, 1, 2, 0], [5, 5, 5, 5], background=0)
    >>> table.counts, table.true, table.predicted
    (array([2, 1]), array([1, 2]), array([5]))
    """
    one_of(background_as, ("excluded", "singletons"), "background_as")
    a, b = label_array(true, "true"), label_array(predicted, "predicted")
    same_shape(a, b, "true", "predicted")
    out = ignored(ignore)
    if background is not None and background_as == "excluded":
        out.append(whole_label(background, "background"))
    kept = counted_voxels(a, out)
    a, b = (a.ravel(), b.ravel()) if kept is None else (a[kept], b[kept])
    if background is not None and background_as == "singletons":
        a, b = (_alone(x, whole_label(background, "background")) for x in (a, b))
    names, rows = _named(a)
    other, columns = _named(b)
    pairs = rows * len(other) + columns
    if len(names) * len(other) <= 4 * a.size:
        dense = np.bincount(pairs, minlength=len(names) * len(other))
        entries = np.flatnonzero(dense)
        counts = dense[entries]
    else:
        entries, counts = np.unique(pairs, return_counts=True)
    return Contingency(entries // len(other), entries % len(other), counts, names, other)


def _named(labels: Labels) -> tuple[Labels, Labels]:
    """Return the labels that occur and the place of each voxel's: by a table where labels are small, by sorting elsewhere."""
    most = int(labels.max())
    if most > 4 * labels.size:
        names, index = np.unique(labels, return_inverse=True)
        return names, index
    there = np.zeros(most + 1, bool)
    there[labels] = True
    return np.flatnonzero(there), (np.cumsum(there) - 1)[labels]


def _alone(labels: Labels, background: int) -> Labels:
    out, alone = labels.copy(), labels == background
    out[alone] = labels.max() + 1 + np.arange(int(alone.sum()))
    return out
