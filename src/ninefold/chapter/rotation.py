"""Figure 9.9: what filters become whose maximum over channels is what the network sees, on digits turned by up to 60 degrees.

Each class has a unit of three filters as large as the picture. They are pooled by their maximum (maxout, Goodfellow et al. 2013,
arXiv 1302.4389), by their mean, which makes one linear filter of them, or not at all (ReLU and a linear layer).
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ninefold import nn
from ninefold.chapter.data import Labelled, digits, halves_of, rotated
from ninefold.chapter.entry import Finding, entry
from ninefold.chapter.training import error, fit, interval, seeded

__all__ = ["ENTRIES", "Unit", "picture"]

CLASSES, FILTERS, SIDE, SPAN = 10, 3, 10, 60
ANGLES = tuple(range(-SPAN, SPAN + 1, 10))


class Unit(torch.nn.Module):
    """A unit per class: what the responses of its filters are pooled to, in any way.

    Parameters
    ----------
    filters : int
        Of each unit.
    pool : str
        ``"max"``, ``"mean"``, or ``"none"``: then a linear layer reads them all.

    Examples
    --------
    >>> Unit(3, "max")(torch.zeros(2, 1, 10, 10)).shape
    torch.Size([2, 10])
    """

    def __init__(self, filters: int, pool: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, CLASSES * filters, SIDE)
        self.last = torch.nn.Linear(CLASSES * filters, CLASSES) if pool == "none" else None
        self.pool = pool

    def responses(self, pictures: Tensor) -> Tensor:
        """Return what each filter gives, of shape ``(N, classes, filters)``."""
        found: Tensor = self.conv(pictures).flatten(1).unflatten(1, (CLASSES, -1))
        return found

    def forward(self, pictures: Tensor) -> Tensor:
        """Return a number per class."""
        found = self.responses(pictures)
        if self.last is not None:
            out: Tensor = self.last(found.flatten(1).relu())
            return out
        return found.amax(2) if self.pool == "max" else found.mean(2)


class Seen(NamedTuple):
    """What came of one network; the last three are of its units, medians over the classes."""

    error: float
    alike: float
    strangers: float
    preferred: float
    pooled: float
    single: float


NETWORKS = {"max of 3": (3, "max"), "mean of 3": (3, "mean"), "1 filter": (1, "max"), "no pooling": (3, "none")}


def picture() -> Any:
    """Draw the filters of a trained unit, and what they and the unit give for a five that is turned."""
    from matplotlib.figure import Figure  # noqa: PLC0415  loaded by those who look

    with seeded(0):
        model = Unit(FILTERS, "max")
        fit(model, *turned_digits(5000, 0), steps=1500, batch=100, rate=1e-2)
    told = bordered()
    fives = told.pictures[told.labels == 5][:50]
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots(1, FILTERS + 1, width_ratios=[1] * FILTERS + [2])
    for axis, kernel in zip(axes, model.conv.weight.detach()[5 * FILTERS : 6 * FILTERS, 0], strict=False):
        axis.imshow(kernel, cmap="gray")
        axis.set_axis_off()
    with torch.no_grad():
        given = torch.stack([model.responses(rotated(fives, torch.full((len(fives),), float(a))))[:, 5].mean(0) for a in ANGLES])
    axes[-1].plot(ANGLES, given)
    axes[-1].plot(ANGLES, given.amax(1), "k--", label="maximum")
    axes[-1].set_xlabel("a five turned by")
    axes[-1].legend()
    return figure


@entry(
    "9.9 trained",
    "Filters pooled over channels learn the orientations",
    "跨通道池化学习旋转不变性",
    claim="A maximum over filters with weights of their own learns to be invariant to a transformation: each filter comes to "
    "match another orientation, so that the unit responds whichever it is.",
    source="figure 9.9; Goodfellow et al. 2013, arXiv 1302.4389",
    uses=("ninefold.nn.Conv2d",),
    picture=picture,
    long=True,
)
def orientations(*, trial: bool = False) -> Finding:
    found = {name: [train(seed, *how, trial=trial) for seed in range(2 if trial else 8)] for name, how in NETWORKS.items()}
    at = {name: {what: [getattr(seen, what) for seen in runs] for what in Seen._fields} for name, runs in found.items()}
    pooled, mean = at["max of 3"], at["mean of 3"]
    steadier = minus(pooled["pooled"], pooled["single"])
    turned = minus(pooled["alike"], pooled["strangers"])
    apart = minus(pooled["preferred"], mean["preferred"])
    better = minus(at["1 filter"]["error"], pooled["error"])
    wrong = ", ".join(f"{name} {interval(runs['error'])}" for name, runs in at.items())
    steady = f"steadiness {interval(pooled['pooled']).text()}, of its best filter {interval(pooled['single']).text()}"
    table = {name: {what: interval(runs).json() for what, runs in by.items()} for name, by in at.items()}
    holds = all(gain.above(0.0) for gain in (steadier, turned, apart, better))
    return Finding(f"{steady}; test error {wrong}", holds, table)


def minus(ones: list[float], others: list[float]) -> Any:
    """Return the interval of the differences, seed for seed."""
    return interval([a - b for a, b in zip(ones, others, strict=True)])


def turned_digits(count: int, seed: int) -> Labelled:
    """Return digits each turned by an angle of its own."""
    told = halves_of(bordered(), 0.7)(1257 if seed % 2 == 0 else 540, seed)
    draw = torch.Generator().manual_seed(seed)
    which = torch.randint(len(told.labels), (count,), generator=draw)
    angles = (2 * torch.rand(count, generator=draw) - 1) * SPAN
    return Labelled(rotated(told.pictures[which], angles), told.labels[which])


def bordered() -> Labelled:
    """Return the digits with a border, so that a corner is not turned out of the picture."""
    told = digits()
    return Labelled(torch.nn.functional.pad(told.pictures, (1, 1, 1, 1)), told.labels)


def train(seed: int, filters: int, pool: str, *, trial: bool = False) -> Seen:
    """Train a network, and look at its error, its filters and its units."""
    with seeded(seed):
        model = Unit(filters, pool)
        fit(model, *turned_digits(50 if trial else 5000, 2 * seed), steps=1 if trial else 1500, batch=100, rate=1e-2)
        wrong = error(model, turned_digits(50 if trial else 3000, 2 * seed + 1))
        return Seen(wrong, *likeness(model), *steadiness(model, halves_of(bordered(), 0.7)(540, 2 * seed + 1)))


def likeness(model: Unit) -> tuple[float, float]:
    """Return the correlation of two filters at the best turn of one, mean over pairs in a unit and over pairs of two units."""
    filters = model.conv.weight.detach()
    groups = torch.arange(len(filters)) // (len(filters) // CLASSES)
    best = torch.stack([unit(rotated(filters, torch.full((len(filters),), float(a)))) @ unit(filters).T for a in ANGLES]).amax(0)
    same, itself = groups[:, None] == groups, torch.eye(len(filters), dtype=torch.bool)
    inside = best[same & ~itself]
    return float(inside.mean()) if len(inside) else 1.0, float(best[~same].mean())


def unit(filters: Tensor) -> Tensor:
    """Return each filter as a vector of mean 0 and length 1."""
    rows = filters.flatten(1)
    return torch.nn.functional.normalize(rows - rows.mean(1, keepdim=True), dim=1)


def steadiness(model: Unit, told: Labelled) -> tuple[float, float, float]:
    """Return the spread of the angles that the filters of a unit like best, and how steady the unit and its steadiest filter are.

    Steady: the distance between the mean responses to digits of its class and to others, in standard deviations of the response to
    a digit of its class over the angles.
    """
    with torch.no_grad():
        found = torch.stack([model.responses(rotated(told.pictures, torch.full_like(told.labels, a))) for a in ANGLES])
    spread, pooled, single = [], [], []
    for label in range(CLASSES):
        own, other = found[:, told.labels == label, label], found[:, told.labels != label, label]
        liked = torch.tensor(ANGLES)[own.mean(1).argmax(0)].double()
        spread.append(float(liked.std(correction=0)))
        pool = torch.amax if model.pool == "max" else torch.mean
        pooled.append(float(above(pool(own, 2, keepdim=True), pool(other, 2, keepdim=True))))
        single.append(float(above(own, other).amax()))
    return tuple(float(torch.tensor(v).median()) for v in (spread, pooled, single))  # type: ignore[return-value]


def above(own: Tensor, other: Tensor) -> Tensor:
    """Return the steadiness of each filter from its responses ``(angles, digits, filters)``."""
    return (own.mean((0, 1)) - other.mean((0, 1))) / own.std(0).mean(0)


ENTRIES = (orientations,)
