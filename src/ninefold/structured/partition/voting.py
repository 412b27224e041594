"""Votes of superpixels: one class, or one row of scores, for all voxels of each (Farabet et al. 2013)."""

from typing import Any

import numpy as np

from ninefold.errors import ArgumentError, DTypeError, ShapeError
from ninefold.structured.partition.arrays import in_kind, label_array, plain_array, same_shape, whole_label

__all__ = ["superpixel_mean", "superpixel_vote"]


def superpixel_vote(classes: Any, superpixels: Any, *, ignore: int | None = None) -> Any:
    """Give every voxel the class of most voxels of its superpixel; the smaller number among equally many.

    Parameters
    ----------
    classes : array or tensor of int, shape (*space)
        A class for each voxel.
    superpixels : array or tensor of int, shape (*space)
        Labels of 0 and more, each of which is one superpixel.
    ignore : int, optional
        A class that has no vote; superpixels of nothing else keep it.

    Returns
    -------
    array or tensor of int64
        Voting again changes nothing.

    Raises
    ------
    DTypeError, ShapeError, ArgumentError
        If they are not labels of one shape.

    Examples
    --------
    >>> superpixel_vote([[1, 1, 2, 0]], [[5, 5, 5, 8]])
    array([[1, 1, 1, 0]])
    """
    plain, regions = label_array(classes, "classes"), label_array(superpixels, "superpixels")
    same_shape(plain, regions, "classes", "superpixels")
    names, regions = np.unique(regions, return_inverse=True)
    known, voices = np.unique(plain, return_inverse=True)
    votes = np.ones(plain.size, bool) if ignore is None else plain.ravel() != whole_label(ignore, "ignore")
    pairs, counts = np.unique(regions.ravel()[votes] * len(known) + voices.ravel()[votes], return_counts=True)
    of, voice = np.divmod(pairs, len(known))
    order = np.lexsort((-voice, counts, of))  # the last one of each superpixel has most votes and the smallest number
    winner = np.full(len(names), -1 if ignore is None else ignore, np.int64)
    winner[of[order]] = known[voice[order]]
    return in_kind(winner[regions].reshape(plain.shape), classes)


def superpixel_mean(scores: Any, superpixels: Any) -> Any:
    """Give every voxel the mean scores of its superpixel: a vote by probabilities, before the argmax.

    Parameters
    ----------
    scores : array or tensor of float, shape (channels, *space)
        Scores or probabilities of classes.
    superpixels : array or tensor of int, shape (*space)
        Labels of 0 and more, each of which is one superpixel.

    Returns
    -------
    array or tensor
        As `scores`; sums are in float64.

    Raises
    ------
    DTypeError, ShapeError, ArgumentError
        If scores are no numbers or NaN, or of another shape.

    Examples
    --------
    >>> superpixel_mean(np.array([[0.25, 0.75, 1.0]]), [0, 0, 1])
    array([[0.5, 0.5, 1. ]])
    """
    plain, regions = plain_array(scores, "scores"), label_array(superpixels, "superpixels")
    if plain.dtype.kind != "f":
        raise DTypeError(f"scores are of {plain.dtype}; they must be floating-point numbers: convert them with a cast")
    if plain.shape[1:] != regions.shape:
        raise ShapeError(
            f"scores have the shape {plain.shape}; superpixels {regions.shape} need (channels, {str(regions.shape)[1:-1]})"
        )
    if np.isnan(plain).any():
        raise ArgumentError(f"{int(np.isnan(plain).sum())} of {plain.size} scores are NaN; mend what made them")
    _, index, sizes = np.unique(regions, return_inverse=True, return_counts=True)
    flat = index.ravel()
    rows = [(np.bincount(flat, row.ravel(), len(sizes)) / sizes)[flat].reshape(regions.shape) for row in plain]
    return in_kind(np.stack(rows).astype(plain.dtype), scores)
