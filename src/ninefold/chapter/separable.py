"""Section 7 of the notes: what a depthwise separable convolution costs in accuracy, by the width of the network."""

from collections.abc import Callable
from functools import partial

import torch

from ninefold import nn
from ninefold.chapter.data import Labelled, digits, halves_of, textures
from ninefold.chapter.entry import Finding, entry
from ninefold.chapter.figures import curves
from ninefold.chapter.training import Errors, Interval, fit, interval, learn, parameters, tabled

__all__ = ["ENTRIES", "network"]

WIDTHS = (4, 8, 16, 32, 64)


def full(channels: int) -> torch.nn.Module:
    """Return a 3x3 convolution that keeps the number of channels."""
    return nn.Conv2d(channels, channels, 3, padding=1, bias=False)


def separable(channels: int) -> torch.nn.Module:
    """Return a 3x3 convolution of each channel alone and a mixture of them, in place of `full`."""
    return torch.nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
    )


KINDS = {"full": full, "separable": separable}


def network(kind: str, width: int, classes: int) -> torch.nn.Sequential:
    """Return a full convolution, two of a kind, each with batch statistics and ReLU, the mean over the map and a linear layer.

    Examples
    --------
    >>> [parameters(network(kind, 64, 10)) for kind in KINDS]
    [75338, 10954]
    """
    layers: list[torch.nn.Module] = [nn.Conv2d(1, width, 3, padding=1, bias=False), torch.nn.MaxPool2d(2)]
    for _ in range(2):
        layers += [torch.nn.BatchNorm2d(width), torch.nn.ReLU(), KINDS[kind](width)]
    last = [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(width, classes)]
    return torch.nn.Sequential(*layers, torch.nn.BatchNorm2d(width), torch.nn.ReLU(), *last)


@entry(
    "N.9 accuracy",
    "Whom depthwise separable convolution hurts",
    "深度可分离卷积的精度",
    claim="Having fewer parameters, a depthwise separable convolution may hurt the accuracy, that of small networks above all.",
    correction="By the task: on digits it hurts small networks much and wide ones not at all; on textures no harm is found at any "
    "width. At equal parameters, a separable network twice as wide does about as well.",
    source="notes, section 7; Howard et al. 2017, arXiv 1704.04861",
    uses=("ninefold.nn.Conv2d",),
    picture=lambda: curves("N.9 accuracy", "width", "test error"),
    long=True,
)
def accuracy(*, trial: bool = False) -> Finding:
    widths = (4, 64) if trial else WIDTHS
    tasks = {"digits": (halves_of(digits()), 1000, 10), "textures": (textures, 600, 3)}
    found = {
        f"{name}, {kind}": {width: trained(kind, width, *task, trial=trial) for width in widths}
        for name, task in tasks.items()
        for kind in KINDS
    }
    harm = {name: {w: harmed(found[f"{name}, full"][w], found[f"{name}, separable"][w]) for w in widths} for name in tasks}
    hurts = [name for name, by in harm.items() if by[4].above(0.0) and by[4].above(by[64])]
    holds = bool(hurts) and not any(by[64].above(0.0) for by in harm.values())
    told = "; ".join(f"{name} {by[4]} at width 4, {by[64]} at 64" for name, by in harm.items())
    return Finding(f"test error added: {told}", holds, tabled(found) | {"error added": tabled(harm), "parameters": counts()})


def trained(kind: str, width: int, task: Callable[[int, int], Labelled], labels: int, classes: int, *, trial: bool) -> Errors:
    """Return the errors of a network of this kind and width."""

    def train(model: torch.nn.Module, told: Labelled) -> None:
        fit(model, *told, steps=1 if trial else 300, rate=1e-2)

    sizes = {"seeds": 2, "unseen": 20} if trial else {"seeds": 5, "unseen": 600}
    return learn(partial(network, kind, width, classes), task, 20 if trial else labels, train, **sizes)


def harmed(plain: Errors, other: Errors) -> Interval:
    """Return by how much the test error is higher than the plain one's, over the seeds."""
    return interval([b - a for a, b in zip(plain.test_runs, other.test_runs, strict=True)])


def counts() -> dict[str, dict[str, int]]:
    """Return the number of parameters of each kind and width, for ten classes."""
    return {kind: {str(width): parameters(network(kind, width, 10)) for width in WIDTHS} for kind in KINDS}


ENTRIES = (accuracy,)
