"""Section 9.3: what pooling buys, and the position that it costs, as the window grows."""

from functools import partial
from typing import Any

import torch

from ninefold import nn
from ninefold.chapter.data import SIDE, apart
from ninefold.chapter.entry import Finding, entry
from ninefold.chapter.figures import curves
from ninefold.chapter.priors import trained
from ninefold.chapter.training import Errors, fit, learn, tabled

__all__ = ["two_stages"]

MAPS = 8
WINDOWS = (1, 2, 3, 4, 6, 12)


@entry(
    "9.3 position",
    "Wider windows know what, not where",
    "池化的代价",
    claim="Invariance keeps the position to some extent: pooling is of use where it matters whether something is, not where.",
    correction="It discards position: pooled over the whole map, what is there is learnt best and where it is not at all, though "
    "windows of half a map still tell the halves apart.",
    source="section 9.3; notes, section 3",
    uses=("ninefold.nn.Conv2d",),
    picture=lambda: curves("9.3 position", "window of pooling", "test error"),
    long=True,
)
def what_or_where(*, trial: bool = False) -> Finding:
    tasks = {"what (shape)": ("anywhere", 300), "where (half)": ("half", 1000), "where (column)": ("column", 1000)}
    found = {
        name: {w: trained(task, "convolution", n, w, trial=trial) for w in (WINDOWS[::5] if trial else WINDOWS)}
        for name, (task, n) in tasks.items()
    }
    what, *where = found.values()
    holds = what[1].worse(what[12]) and all(runs[12].test.above(0.4) and runs[12].worse(runs[1]) for runs in where)
    told = "; ".join(f"{name} {runs[1].test.mean:.1%} to {runs[12].test.mean:.1%}" for name, runs in found.items())
    return Finding(f"test error from window 1 to 12: {told}", holds, tabled(found))


@entry(
    "9.4 exact distance",
    "Detectors remember the place until the window outgrows them",
    "位置敏感的任务",
    claim="When a task relies on preserving precise spatial information, pooling all features increases the training error.",
    correction="Only once the window is wider than the detectors' field: up to then the place is in which of them fire together.",
    source="section 9.4",
    uses=("ninefold.nn.Conv2d",),
    picture=lambda: curves("9.4 exact distance", "window of pooling", "training error", which="train"),
    long=True,
)
def exact_distance(*, trial: bool = False) -> Finding:
    found = {window: told_apart(window, trial=trial) for window in WINDOWS}
    stays = {window: errors.train for window, errors in found.items()}
    holds = all(stays[w].above(0.05) == (w > 3) for w in WINDOWS)
    told = ", ".join(f"{stays[w]} at {w}" for w in (1, 3, 4, 12))
    return Finding(f"training error for two pixels exactly 4 apart, by window: {told}", holds, tabled({"apart": found}))


def told_apart(window: int, *, trial: bool) -> Errors:
    """Return the errors of `two_stages` telling whether two pixels are four apart."""

    def train(model: torch.nn.Module, told: tuple[torch.Tensor, torch.Tensor]) -> None:
        fit(model, *told, steps=1 if trial else 1000, rate=1e-2)

    return learn(partial(two_stages, window), apart, 20 if trial else 1000, train, seeds=2 if trial else 5)


def two_stages(window: int) -> torch.nn.Module:
    """Return detectors of 3x3, maxima over windows, detectors as wide as two pixels are apart, maxima over all, a linear layer.

    Examples
    --------
    >>> two_stages(3)(torch.zeros(2, 1, 12, 12)).shape
    torch.Size([2, 2])
    """
    around: dict[str, Any] = {"padding": "same", "padding_mode": "circular"}
    seen = (1, min(6, SIDE // window))
    return torch.nn.Sequential(
        nn.Conv2d(1, MAPS, 3, **around),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(window),
        nn.Conv2d(MAPS, 2 * MAPS, seen, **around),
        torch.nn.ReLU(),
        torch.nn.AdaptiveMaxPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(2 * MAPS, 2),
    )
