"""Scores of partitions: Rand index, adapted Rand error, variation of information.

With contingency p, true sizes a and predicted b: RI = 1 - [(sum a^2 + sum b^2) / 2 - sum p^2] / C(N, 2). Pairs of voxels that are
together in both partitions, over those together in the prediction, are the precision; over those together in truth, the recall.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ninefold.structured.partition.contingency import BackgroundAs, Contingency, contingency

__all__ = [
    "AdaptedRand",
    "PartitionScores",
    "VariationOfInformation",
    "adapted_rand_error",
    "rand_index",
    "score",
    "variation_of_information",
]


@dataclass(frozen=True)
class AdaptedRand:
    """Adapted Rand error with its precision and recall.

    Attributes
    ----------
    error : float
        1 minus the harmonic mean of both; 0 is perfect.
    precision : float
        Of pairs together in the prediction, the share together in truth: false merges lower it.
    recall : float
        Of pairs together in truth, the share together in the prediction: false splits lower it.
    """

    error: float
    precision: float
    recall: float


@dataclass(frozen=True)
class VariationOfInformation:
    """Variation of information in bits; 0 is perfect.

    Attributes
    ----------
    split : float
        H(predicted | true): what false splits add.
    merge : float
        H(true | predicted): what false merges add.
    """

    split: float
    merge: float

    @property
    def total(self) -> float:
        """Their sum."""
        return self.split + self.merge


def _together(sizes: Any) -> int:
    """Return the number of unordered pairs within sets, as a Python integer, which no size overflows."""
    return sum(n * (n - 1) // 2 for n in sizes.tolist()) if len(sizes) < 1000 else int((sizes * (sizes - 1) // 2).sum())


def _pairs(table: Contingency) -> tuple[int, int, int, int]:
    n = table.voxels
    return _together(table.counts), _together(table.true_sizes), _together(table.predicted_sizes), n * (n - 1) // 2


def rand_index(
    true: Any,
    predicted: Any,
    *,
    background: int | None = None,
    background_as: BackgroundAs = "excluded",
    ignore: int | Iterable[int] = (),
) -> float:
    """Return the share of pairs of voxels on which two partitions agree; 1 if and only if they are the same.

    Parameters are those of `contingency`. One voxel has no pair, and the score 1.

    Raises
    ------
    DTypeError, ShapeError, ArgumentError
        As `contingency`.

    Examples
    --------
    >>> rand_index([1, 1, 2, 2], [1, 1, 1, 2])
    0.5
    """
    both, a, b, n = _pairs(contingency(true, predicted, background=background, background_as=background_as, ignore=ignore))
    return 1 - (a + b - 2 * both) / n if n else 1.0


def adapted_rand_error(
    true: Any,
    predicted: Any,
    *,
    background: int | None = None,
    background_as: BackgroundAs = "excluded",
    ignore: int | Iterable[int] = (),
) -> AdaptedRand:
    """Return the adapted Rand error (Arganda-Carreras et al. 2015) over pairs of different voxels.

    scikit-image's function of this name returns the same error; its precision is this recall, and the other way round.
    Parameters are those of `contingency`. A share of no pairs is 1.

    Raises
    ------
    DTypeError, ShapeError, ArgumentError
        As `contingency`.

    Examples
    --------
    All voxels in one object: every true pair is found, few of the found ones are true.

    >>> adapted_rand_error([1, 1, 2, 2], [1, 1, 1, 1])
    AdaptedRand(error=0.5, precision=0.3333333333333333, recall=1.0)
    """
    return _adapted(contingency(true, predicted, background=background, background_as=background_as, ignore=ignore))


def _adapted(table: Contingency) -> AdaptedRand:
    both, a, b, _ = _pairs(table)
    error = 1 - 2 * both / (a + b) if a + b else 0.0
    return AdaptedRand(error, both / b if b else 1.0, both / a if a else 1.0)


def variation_of_information(
    true: Any,
    predicted: Any,
    *,
    background: int | None = None,
    background_as: BackgroundAs = "excluded",
    ignore: int | Iterable[int] = (),
) -> VariationOfInformation:
    """Return the two conditional entropies between partitions, in bits (Meila 2007).

    Parameters are those of `contingency`.

    Raises
    ------
    DTypeError, ShapeError, ArgumentError
        As `contingency`.

    Examples
    --------
    >>> variation_of_information([1, 1, 2, 2], [1, 1, 1, 1])
    VariationOfInformation(split=0.0, merge=1.0)
    """
    return _information(contingency(true, predicted, background=background, background_as=background_as, ignore=ignore))


def _information(table: Contingency) -> VariationOfInformation:
    share = table.counts / table.voxels
    split = float((share * np.log2(table.true_sizes[table.rows] / table.counts)).sum())
    merge = float((share * np.log2(table.predicted_sizes[table.columns] / table.counts)).sum())
    return VariationOfInformation(split, merge)


@dataclass(frozen=True)
class PartitionScores:
    """Scores of a partition; printed as a table."""

    rand_index: float
    adapted_rand_error: float
    adapted_rand_precision: float
    adapted_rand_recall: float
    voi_split: float
    voi_merge: float
    true_objects: int
    predicted_objects: int

    def __str__(self) -> str:
        rows = [(name.replace("_", " "), value) for name, value in vars(self).items()]
        return "\n".join(
            f"{name:<24}{value:>10.4f}" if isinstance(value, float) else f"{name:<24}{value:>10}" for name, value in rows
        )


def score(
    true: Any,
    predicted: Any,
    *,
    background: int | None = None,
    background_as: BackgroundAs = "excluded",
    ignore: int | Iterable[int] = (),
) -> PartitionScores:
    """Return all scores of a partition from one table of counts.

    Parameters are those of `contingency`.

    Raises
    ------
    DTypeError, ShapeError, ArgumentError
        As `contingency`.

    Examples
    --------
    >>> print(score([1, 1, 2, 2], [1, 1, 1, 1]))
    rand index                  0.3333
    adapted rand error          0.5000
    adapted rand precision      0.3333
    adapted rand recall         1.0000
    voi split                   0.0000
    voi merge                   1.0000
    true objects                     2
    predicted objects                1
    """
    table = contingency(true, predicted, background=background, background_as=background_as, ignore=ignore)
    both, a, b, n = _pairs(table)
    rand, voi = _adapted(table), _information(table)
    index = 1 - (a + b - 2 * both) / n if n else 1.0
    objects = len(table.true), len(table.predicted)
    return PartitionScores(index, rand.error, rand.precision, rand.recall, voi.split, voi.merge, *objects)
