"""Section 7 of the notes: architectures chosen with random filters, of which only the last layer is trained (Saxe et al. 2011)."""

from time import perf_counter
from typing import Any

from ninefold.chapter.data import digits
from ninefold.chapter.entry import Finding, entry
from ninefold.chapter.training import seeded
from ninefold.learn import random_against_trained, search

__all__ = ["ENTRIES", "SPACE"]

SPACE: dict[str, list[Any]] = {
    "n_filters": [16],
    "patch_size": [2, 4],
    "encoder": ["rectified", "split", "square"],
    "grid": [1, 2],
    "operation": ["mean", "max"],
}
"""Twenty-four architectures for digits."""


@entry(
    "9.9 architectures",
    "Good with random filters, good once trained",
    "随机滤波提供了一种低开销的方式来选择卷积网络",
    claim="How well an architecture does with random filters, its last layer trained alone, tells how well it does once it is trained whole.",
    source="section 9.9; Saxe et al. 2011",
    uses=("ninefold.learn.random_against_trained",),
    long=True,
)
def architectures(*, trial: bool = False) -> Finding:
    told = digits()
    count, space = (80, {**SPACE, "patch_size": [4]}) if trial else (500, SPACE)
    with seeded(0):
        found = random_against_trained(
            space, told.pictures[:count, 0], told.labels[:count], n_splits=2, epochs=1 if trial else 25, random_state=0
        )
    best = found.trained[found.random.argmax()]
    return Finding(
        f"Spearman's rho {found.rho} over {len(found.random)} architectures; the best with random filters, trained {best:.1%}, the best of all {found.trained.max():.1%}",
        found.rho.low > 0,
        {
            "rho": [found.rho.mean, found.rho.low, found.rho.high],
            "random": found.random.tolist(),
            "trained": found.trained.tolist(),
            "chosen": float(best),
        },
    )


@entry(
    "9.9 search",
    "Screen many, train one",
    "只训练最后一层, 把表现最好的网络单拎出来再整体训练",
    claim="Architectures are compared with only the last layer trained, and the best one alone is trained whole, by a dearer method.",
    source="section 9.9; Saxe et al. 2011; Pinto et al. 2011; Cox and Pinto 2011",
    uses=("ninefold.learn.search",),
    long=True,
)
def screened(*, trial: bool = False) -> Finding:
    told = digits()
    count, space = (120, {**SPACE, "patch_size": [4], "grid": [2]}) if trial else (1000, SPACE)
    with seeded(0):
        start = perf_counter()
        found = search(space, told.pictures[:count, 0], told.labels[:count], n_splits=2, epochs=0, confirm=1, random_state=0)
        screening = perf_counter() - start
        search(
            space,
            told.pictures[:count, 0],
            told.labels[:count],
            n_splits=2,
            epochs=1 if trial else 25,
            confirm=1,
            random_state=0,
            into=found,
        )
        training = perf_counter() - start - screening
    best, worst = found.ranking_[0], found.ranking_[-1]
    return Finding(
        f"{len(found.ranking_)} screened, {worst.score.mean:.1%} to {best.score.mean:.1%}; unseen {best.held_out.mean:.1%}, trained whole {found.trained_.mean:.1%}: {best.architecture}",
        found.trained_.mean > best.held_out.mean > worst.score.mean,
        {
            "screened": [c.score.mean for c in found.ranking_],
            "names": [str(c.architecture) for c in found.ranking_],
            "held_out": best.held_out.mean,
            "trained": [found.trained_.mean, found.trained_.low, found.trained_.high],
            "seconds": {"screening": screening, "training": training},
        },
    )


ENTRIES = (architectures, screened)
