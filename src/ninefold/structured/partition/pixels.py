"""Scores of label maps by pixels: a confusion matrix that grows image by image, and what is read from it.

With counts n[t, p] of true class t and predicted class p, t_c = sum_p n[c, p], p_c = sum_t n[t, c], N their total: pixel
accuracy is sum_c n[c, c] / N, accuracy of a class n[c, c] / t_c, IoU n[c, c] / (t_c + p_c - n[c, c]), Dice 2 n[c, c] / (t_c +
p_c). Frequency-weighted IoU is sum_c t_c IoU_c / N (Long, Shelhamer and Darrell 2015, section 5).
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ninefold.errors import ArgumentError, DTypeError
from ninefold.structured.partition.arrays import Labels, plain_array, same_shape, whole_label
from ninefold.structured.partition.contingency import ignored
from ninefold.structured.partition.offsets import one_of

__all__ = ["Absent", "Confusion"]

Absent = Literal["ignore", "zero", "one"]
Scores = NDArray[np.float64]
_ABSENT = {"ignore": np.nan, "zero": 0.0, "one": 1.0}


class Confusion:
    """Confusion matrix of label maps, gathered over any number of images, tiles or processes.

    Means are of the counts of all images together, not of each image's score. A class is *absent* if no counted pixel has it,
    in truth or in prediction; one that is only predicted is there, and its IoU and Dice are 0. Classes named in `ignore` are in
    no mean.

    Parameters
    ----------
    classes : int
        Labels are 0 to ``classes - 1``.
    ignore : int or iterable of int
        True labels, of any sign, whose pixels do not count, whatever is predicted there. If one of them is a class, predicting
        it elsewhere is still a mistake.
    names : sequence of str, optional
        Of the classes, for the table.

    Attributes
    ----------
    matrix : array of int64, shape (classes, classes)
        Pixels by true class (rows) and predicted class. It may be summed in place over processes, as by
        ``torch.distributed.all_reduce(torch.from_numpy(confusion.matrix))``.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If a number or label is none, or names are not one for each class.

    Examples
    --------
    >>> confusion = Confusion(3, ignore=255)
    >>> confusion.update([[0, 0, 1], [1, 1, 255]], [[0, 1, 1], [1, 1, 2]])
    >>> confusion.matrix
    array([[1, 1, 0],
           [0, 3, 0],
           [0, 0, 0]])
    >>> confusion.mean_iou(), confusion.mean_iou(absent="zero")
    (0.625, 0.4166666666666667)
    """

    def __init__(self, classes: int, *, ignore: int | Iterable[int] = (), names: Sequence[str] | None = None) -> None:
        self.classes = whole_label(classes, "classes")
        if self.classes < 1:
            raise ArgumentError(f"classes={classes}; there must be at least 1")
        self.ignore = tuple(ignored(ignore))
        if names is not None and (isinstance(names, str) or len(names) != self.classes):
            raise ArgumentError(f"names={names!r}; give {self.classes}, one for each class")
        self.names = tuple(str(k) for k in range(self.classes)) if names is None else tuple(names)
        self.matrix: Labels = np.zeros((self.classes, self.classes), np.int64)

    def update(self, true: Any, predicted: Any) -> None:
        """Count the pixels of one image or of a batch; on an error nothing is counted.

        Parameters
        ----------
        true, predicted : array or tensor of int, of one shape
            Classes; not scores of classes: take their argmax first.

        Raises
        ------
        ArgumentTypeError, DTypeError, ShapeError
            If they are not whole numbers in one shape.
        ArgumentError
            If a counted pixel has a label outside 0 to ``classes - 1``.

        Examples
        --------
        >>> import torch
        >>> confusion = Confusion(2)
        >>> confusion.update(torch.tensor([0, 1, 1], device="cpu"), torch.tensor([0, 1, 0], device="cpu"))
        >>> confusion.pixel_accuracy == 2 / 3
        True
        """
        a, b = _whole(true, "true"), _whole(predicted, "predicted")
        same_shape(a, b, "true", "predicted")
        a, b = a.ravel(), b.ravel()
        if self.ignore:
            kept = ~np.isin(a, self.ignore)
            a, b = a[kept], b[kept]
        if a.size:
            a, b = self._inside(a, "true"), self._inside(b, "predicted")
            counts = np.bincount(a * self.classes + b, minlength=self.classes**2)
            self.matrix += counts.reshape(self.classes, self.classes)

    def _inside(self, labels: NDArray[Any], name: str) -> Labels:
        """Return labels as int64, all of them classes."""
        least, most = int(labels.min()), int(labels.max())
        if least < 0 or most >= self.classes:
            outside = (labels < 0) | (labels >= self.classes)
            raise ArgumentError(
                f"{name} has {int(outside.sum())} of {labels.size} counted pixels outside the classes 0 to {self.classes - 1}: "
                f"they go from {least} to {most}; name true labels that do not count in ignore={list(self.ignore)}, "
                f"or give more classes"
            )
        return labels.astype(np.int64)

    def __add__(self, other: "Confusion") -> "Confusion":
        """Return both together; they must have the same classes and ignore the same labels."""
        if not isinstance(other, Confusion):
            return NotImplemented
        if (self.classes, set(self.ignore), self.names) != (other.classes, set(other.ignore), other.names):
            raise ArgumentError(
                f"{self.classes} classes {self.names} without {list(self.ignore)}, and {other.classes} {other.names} without "
                f"{list(other.ignore)}, do not add up; count both in the same way"
            )
        out = Confusion(self.classes, ignore=self.ignore, names=self.names)
        out.matrix = self.matrix + other.matrix
        return out

    @property
    def pixels(self) -> int:
        """How many were counted."""
        return int(self.matrix.sum())

    @property
    def true_sizes(self) -> Labels:
        """Counted pixels of each class in truth."""
        return np.asarray(self.matrix.sum(1), np.int64)

    @property
    def predicted_sizes(self) -> Labels:
        """Counted pixels of each class in the prediction."""
        return np.asarray(self.matrix.sum(0), np.int64)

    @property
    def pixel_accuracy(self) -> float:
        """Share of counted pixels whose class is right."""
        return float(np.trace(self._counted()) / self.pixels)

    @property
    def class_accuracy(self) -> Scores:
        """Of each class, the share of its true pixels that are right; nan where truth has none."""
        return self._share(np.diagonal(self._counted()), self.true_sizes)

    @property
    def iou(self) -> Scores:
        """Intersection over union of each class; nan where it is absent or ignored."""
        same = np.diagonal(self._counted())
        return self._share(same, self.true_sizes + self.predicted_sizes - same)

    @property
    def dice(self) -> Scores:
        """Dice coefficient of each class, 2 IoU / (1 + IoU); nan where it is absent or ignored."""
        return self._share(2 * np.diagonal(self._counted()), self.true_sizes + self.predicted_sizes)

    @property
    def frequency_weighted_iou(self) -> float:
        """IoU of the classes, weighted by their share of true pixels."""
        return float((np.nan_to_num(self.iou) * self.true_sizes).sum() / self.pixels)

    def mean_class_accuracy(self) -> float:
        """Return the mean accuracy of the classes that truth has."""
        return float(np.nanmean(self.class_accuracy))

    def mean_iou(self, absent: Absent = "ignore") -> float:
        """Return the mean IoU of classes.

        Parameters
        ----------
        absent : {"ignore", "zero", "one"}
            What a class counts that is in neither truth nor prediction: nothing, 0 or 1.

        Raises
        ------
        ArgumentError
            If `absent` is none of these, or nothing was counted.

        Examples
        --------
        >>> confusion = Confusion(4)
        >>> confusion.update([0, 0, 1, 1], [0, 0, 1, 2])
        >>> confusion.iou
        array([1. , 0.5, 0. , nan])
        >>> confusion.mean_iou(), confusion.mean_iou("zero"), confusion.mean_iou("one")
        (0.5, 0.375, 0.625)
        """
        return self._mean(self.iou, absent)

    def mean_dice(self, absent: Absent = "ignore") -> float:
        """Return the mean Dice coefficient of classes; `absent` is as in `mean_iou`."""
        return self._mean(self.dice, absent)

    def _mean(self, scores: Scores, absent: Absent) -> float:
        one_of(absent, tuple(_ABSENT), "absent")
        filled = np.where(np.isnan(scores), _ABSENT[absent], scores)[~self._left_out()]
        return float(np.nanmean(filled))

    def _left_out(self) -> NDArray[np.bool_]:
        return np.isin(np.arange(self.classes), self.ignore)

    def _share(self, part: Any, whole: Any) -> Scores:
        there = (whole > 0) & ~self._left_out()
        found: Scores = np.divide(part, whole, out=np.full(self.classes, np.nan), where=there)
        return found

    def _counted(self) -> Labels:
        if not self.matrix.any():
            raise ArgumentError(f"0 pixels were counted, without the labels {list(self.ignore)}; call update first")
        return self.matrix

    def __repr__(self) -> str:
        return f"Confusion({self.classes}, ignore={list(self.ignore)}): {self.pixels} pixels"

    def __str__(self) -> str:
        """Return a table, a line for each class; a dash where there is no score."""
        if not self.matrix.any():
            return repr(self)
        wide = max(24, *(len(name) + 2 for name in self.names))
        lines = [f"{'class':<{wide}}{'true pixels':>14}{'accuracy':>10}{'IoU':>10}{'Dice':>10}"]
        for name, size, *scores in zip(self.names, self.true_sizes, self.class_accuracy, self.iou, self.dice, strict=True):
            lines.append(f"{name:<{wide}}{size:>14}" + "".join(f"{'-' if np.isnan(s) else format(s, '.4f'):>10}" for s in scores))
        means = self.mean_class_accuracy(), self.mean_iou(), self.mean_dice()
        lines.append(f"{'mean, absent ignored':<{wide}}{self.pixels:>14}" + "".join(f"{s:>10.4f}" for s in means))
        lines.append(f"{'pixel accuracy':<{wide}}{'':>14}{self.pixel_accuracy:>10.4f}")
        lines.append(f"{'frequency-weighted IoU':<{wide}}{'':>24}{self.frequency_weighted_iou:>10.4f}")
        return "\n".join(lines)


def _whole(x: Any, name: str) -> NDArray[Any]:
    """Return labels of any sign as an array; `label_array` refuses those below 0, which here may be ignored ones."""
    found = plain_array(x, name)
    if found.dtype.kind not in "iub" and found.size:
        raise DTypeError(f"{name} is of {found.dtype}; classes are whole numbers: take the argmax of scores, or convert labels")
    return found
