"""Section 9.5, padding, where it meets section 9.4: what a border of zeros tells a convolution, and how wide it had best be."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from ninefold import nn
from ninefold.chapter.data import Labelled, digits, half, halves_of
from ninefold.chapter.entry import Finding, entry
from ninefold.chapter.figures import curves
from ninefold.chapter.training import Errors, fit, learn, tabled

__all__ = ["stack"]

MAPS, DEPTH, FIELD = 8, 4, 5
BORDERS: dict[str, dict[str, Any]] = {
    "valid": {"padding": "valid"},
    "same": {"padding": "same"},
    "full": {"padding": "full"},
    "circular": {"padding": "same", "padding_mode": "circular"},
}


def stack(**border: Any) -> torch.nn.Sequential:
    """Return four convolutions of 3x3 with one kind of border, the maxima over the whole map, and a linear layer.

    Examples
    --------
    >>> stack(padding="full")(torch.zeros(2, 1, 12, 12)).shape
    torch.Size([2, 2])
    """
    layers: list[torch.nn.Module] = []
    for channels in (1, *[MAPS] * (DEPTH - 1)):
        layers += [nn.Conv2d(channels, MAPS, 3, **border), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.AdaptiveMaxPool2d(1), torch.nn.Flatten(), torch.nn.Linear(MAPS, 2))


@entry(
    "9.4 padding",
    "Any border tells the place",
    "填充与位置",
    claim="A convolution pooled over the whole map cannot tell places: shared weights and pooling are invariant to translation.",
    correction="Only with a circular border. Zeros beyond a border tell how near it is (Islam et al. 2020, arXiv 2001.08248); "
    "so does the lack of outputs there with none; after four layers that reaches across the picture.",
    source="sections 9.3 to 9.5",
    uses=("ninefold.nn.Conv2d",),
    long=True,
)
def place_from_borders(*, trial: bool = False) -> Finding:
    task = partial(half, alone=True)
    found = {name: trained(partial(stack, **border), task, 1000, rate=5e-3, trial=trial) for name, border in BORDERS.items()}
    told = ", ".join(f"{name} {errors.test}" for name, errors in found.items())
    chance = found["circular"].test
    holds = chance.above(0.4) and all(chance.above(found[name].test) for name in ("valid", "same", "full"))
    return Finding(f"test error for which half the only shape is in: {told}", holds, {n: e.json() for n, e in found.items()})


def trained(
    build: Callable[[], torch.nn.Module],
    task: Callable[[int, int], Labelled],
    labels: int,
    *,
    trial: bool,
    rate: float = 1e-2,
    seeds: int = 5,
    unseen: int = 1000,
) -> Errors:
    """Return the errors of a network learning a task in 600 steps."""

    def train(model: torch.nn.Module, told: Labelled) -> None:
        fit(model, *told, steps=1 if trial else 600, rate=rate)

    return learn(build, task, 20 if trial else labels, train, seeds=2 if trial else seeds, unseen=20 if trial else unseen)


@entry(
    "9.5 padding",
    "How many zeros are best",
    "最佳填充量",
    claim="The amount of zero padding that classifies best usually lies between valid and same.",
    correction="No padding is clearly worst; but the optimum is flat, and more zeros than same do no harm to a single layer.",
    source="section 9.5, equation 9.8 and what follows; notes, section 5, where it says that most padding used lies there",
    uses=("ninefold.nn.Conv2d", "ninefold.ConvSpec"),
    picture=lambda: curves("9.5 padding", "zeros per axis (0 valid, 4 same, 8 full)", "test error"),
    long=True,
)
def best_padding(*, trial: bool = False) -> Finding:
    zeros = range(2 * FIELD - 1)
    found = {n: trained(partial(reader, n), halves_of(digits()), 300, trial=trial, seeds=20, unseen=700) for n in zeros}
    best = min(zeros, key=lambda n: found[n].test.mean)
    level = [n for n in zeros if not found[n].worse(found[best])]
    told = ", ".join(f"{name} {found[n].test.text(100, 2, '%')}" for name, n in (("valid", 0), ("same", 4), ("full", 8)))
    holds = min(level) in range(1, FIELD)
    return Finding(
        f"{told}; as good as the best: {level} zeros", holds, tabled({"digits": found}) | {"best": best, "as good": level}
    )


def reader(zeros: int) -> torch.nn.Module:
    """Return a convolution of 5x5 with so many zeros per axis, the odd one at the end, and a linear layer onto ten digits."""
    ends = (zeros // 2, zeros - zeros // 2)
    conv = nn.Conv2d(1, MAPS, FIELD, padding=(ends, ends))
    units = MAPS * (8 + zeros - FIELD + 1) ** 2
    return torch.nn.Sequential(conv, torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(units, 10))
