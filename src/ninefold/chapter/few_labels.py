"""What the entries on features without labels share: how well digits are told apart by a linear classifier with few labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ninefold.chapter.data import digits
from ninefold.chapter.training import Interval, interval

__all__ = ["gained", "parted", "pixels", "scores", "seeded"]


def parted(labels: Any, seed: int, each: int) -> tuple[Any, Any, Any]:
    """Return which pictures are there to learn from, which few of them have labels, and which are tested on.

    Examples
    --------
    >>> pool, labelled, unseen = parted(np.arange(40) % 4, seed=0, each=3)
    >>> len(pool), len(labelled), len(unseen), set(labelled) <= set(pool), bool(set(pool) & set(unseen))
    (20, 12, 20, True, False)
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    pool, unseen = order[: len(order) // 2], order[len(order) // 2 :]
    labelled = np.concatenate([pool[labels[pool] == label][:each] for label in np.unique(labels)])
    return pool, labelled, unseen


def scores(features: Any, *, each: int = 10, seeds: int = 6, with_labels: bool = False) -> list[float]:
    """Return the accuracy on digits that were never seen, by seed: other pictures, other labels, other filters each time.

    Parameters
    ----------
    features : transformer
        Fitted without labels to one half of the digits, of which `each` of a class get labels; the other half is tested on.
        A logistic classifier is trained on what it makes of those, standardised.
    each, seeds : int
    with_labels : bool
        Fit it to those that have labels, with these.

    Examples
    --------
    >>> len(scores(pixels(), seeds=2))
    2
    """
    told = digits()
    pictures, labels = told.pictures[:, 0].numpy(), told.labels.numpy()
    found = []
    with threadpool_limits(1):  # all of this is small: threads would wait for one another
        for seed in range(seeds):
            pool, labelled, unseen = parted(labels, seed, each)
            seen = (pictures[labelled], labels[labelled]) if with_labels else (pictures[pool],)
            made = seeded(features, seed).fit(*seen)
            classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
            classifier.fit(made.transform(pictures[labelled]), labels[labelled])
            found.append(float(classifier.score(made.transform(pictures[unseen]), labels[unseen])))
    return found


def seeded(features: Any, seed: int) -> Any:
    """Return a copy of a transformer, whose filters and pooling are drawn from this seed.

    Examples
    --------
    >>> from ninefold.learn import ConvFeatures, RandomFilters
    >>> seeded(ConvFeatures(RandomFilters(8, 3)), 5).filters.random_state
    5
    """
    made = clone(features)
    drawn = {name: seed for name in made.get_params() if name.endswith("random_state")}
    return made.set_params(**drawn)


def pixels() -> Any:
    """Return the transformer that leaves images as they are, a row each.

    Examples
    --------
    >>> pixels().fit_transform(np.zeros((3, 8, 8))).shape
    (3, 64)
    """
    return FunctionTransformer(_rows)


def _rows(pictures: Any) -> Any:
    return pictures.reshape(len(pictures), -1)


def gained(more: Sequence[float], less: Sequence[float]) -> Interval:
    """Return by how much one is better than the other, seed for seed.

    Examples
    --------
    >>> print(gained([0.9, 0.95, 1.0], [0.8, 0.85, 0.9]))
    10.0% [10.0, 10.0]
    """
    return interval([a - b for a, b in zip(more, less, strict=True)])
