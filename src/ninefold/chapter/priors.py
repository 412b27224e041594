"""Section 9.4: convolution and pooling as infinitely strong priors, on tasks of which they are true and on tasks of which not.

All networks have one hidden layer of the same 8 maps of 12x12 units with 5x5 fields, ReLU, maxima over a window, and a linear
layer. They differ in the prior alone: `LAYERS` runs from none to the strongest. The border is circular, so that nothing but the
weights can tell a place; a convolution whose maxima are taken over the whole map is then invariant to every shift, exactly.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

import ninefold as nf
from ninefold import nn
from ninefold.chapter.data import SIDE, TASKS, Labelled
from ninefold.chapter.entry import Finding, entry
from ninefold.chapter.figures import curves
from ninefold.chapter.training import Errors, fit, learn, parameters, tabled

__all__ = ["ENTRIES", "LAYERS", "network"]

MAPS, FIELD = 8, 5
WHOLE = SIDE  # the window of pooling that leaves nothing of the place
SEEDS, STEPS, RATE = 5, 600, 1e-2
_SMALLEST = {"labels": 20, "seeds": 2, "unseen": 20}
_AROUND: dict[str, Any] = {"padding": "same", "padding_mode": "circular"}


def _dense(*, bias: bool = True) -> torch.nn.Module:
    linear = torch.nn.Linear(SIDE * SIDE, MAPS * SIDE * SIDE, bias=bias)
    return torch.nn.Sequential(torch.nn.Flatten(), linear, torch.nn.Unflatten(1, (MAPS, SIDE, SIDE)))


LAYERS: dict[str, Callable[..., torch.nn.Module]] = {
    "dense": _dense,
    "unshared": partial(nn.LocallyConnected2d, 1, MAPS, FIELD, input_size=SIDE, **_AROUND),
    "tiled": partial(nn.TiledConv2d, 1, MAPS, FIELD, period=2, **_AROUND),
    "convolution": partial(nn.Conv2d, 1, MAPS, FIELD, **_AROUND),
}


def network(layer: str | torch.nn.Module, window: int = WHOLE) -> torch.nn.Sequential:
    """Return a network with one of `LAYERS`, maxima over windows that do not overlap, and a linear layer onto two classes.

    Examples
    --------
    >>> [parameters(LAYERS[name]()) for name in LAYERS]
    [167040, 29952, 832, 208]
    """
    first = LAYERS[layer]() if isinstance(layer, str) else layer
    last = torch.nn.Linear(MAPS * (SIDE // window) ** 2, 2)
    return torch.nn.Sequential(first, torch.nn.ReLU(), torch.nn.MaxPool2d(window), torch.nn.Flatten(), last)


def trained(task: str, layer: str, labels: int, window: int = WHOLE, *, trial: bool = False, steps: int = STEPS) -> Errors:
    """Return the errors of a network learning one of the tasks."""

    def train(model: torch.nn.Module, told: Labelled) -> None:
        fit(model, *told, steps=1 if trial else steps, rate=RATE)

    size = _SMALLEST if trial else {"labels": labels, "seeds": SEEDS}
    return learn(lambda: network(layer, window), TASKS[task], train=train, **size)


@entry(
    "9.4 strong prior",
    "The prior that is true of the task wins",
    "强先验",
    claim="Of networks of one width, that generalises best whose prior is true of the task: shared weights where no place "
    "matters, unshared ones where the half of the picture matters, tiled ones of period 2 where every second column is alike.",
    source="section 9.4; eq. 9.9 and 9.10; notes, section 4",
    uses=("ninefold.nn.LocallyConnected2d", "ninefold.nn.TiledConv2d", "ninefold.nn.Conv2d"),
    picture=lambda: curves("9.4 strong prior", "prior", "test error"),
    long=True,
)
def right_prior(*, trial: bool = False) -> Finding:
    truth = {"anywhere": "convolution", "half": "unshared", "column": "tiled"}
    found = {task: {layer: trained(task, layer, 100, trial=trial) for layer in LAYERS} for task in truth}
    wins = {
        task: all(errors.worse(found[task][true]) for layer, errors in found[task].items() if layer != true)
        for task, true in truth.items()
    }
    told = ", ".join(f"{task}: {true} {found[task][true].test}" for task, true in truth.items())
    counts = {layer: parameters(LAYERS[layer]()) for layer in LAYERS}
    return Finding(
        f"test errors from 100 labels: {told}", all(wins.values()), tabled(found) | {"wins": wins, "parameters": counts}
    )


@entry(
    "9.4 underfitting",
    "Where the prior is wrong, the training error stays",
    "欠拟合",
    claim="Convolution and pooling cause underfitting where their assumption is false: pooled over the whole map a convolution "
    "cannot even fit the examples of a task of places, which it fits without pooling; where it is true they cost nothing.",
    source="section 9.4; notes, section 4",
    uses=("ninefold.nn.Conv2d",),
    picture=lambda: curves("9.4 underfitting", "labels", "training error", which="train"),
    long=True,
)
def underfitting(*, trial: bool = False) -> Finding:
    windows, labels = {"pooled": WHOLE, "not pooled": 1}, (100, 300, 1000, 3000)
    found = {
        f"{task}, {name}": {n: trained(task, "convolution", n, window, trial=trial, steps=1200) for n in labels}
        for task in ("anywhere", "half", "column")
        for name, window in windows.items()
    }
    stays = {name: runs[labels[-1]].train for name, runs in found.items()}
    false = ("half, pooled", "column, pooled")
    holds = all(stays[name].above(0.2) == (name in false) for name in stays)
    told = ", ".join(f"{name} {stays[name]}" for name in ("anywhere, pooled", *false, "half, not pooled"))
    return Finding(f"training errors on 3000 labels: {told}", holds, tabled(found))


@entry(
    "9.4 efficiency",
    "Where the prior is true, few labels do",
    "统计效率",
    claim="Where the assumption is true, the prior makes learning statistically efficient: a pooled convolution does better with "
    "100 labels than a dense or unshared network with 1000.",
    source="section 9.4; section 9.3; notes, sections 3 and 4",
    uses=("ninefold.nn.LocallyConnected2d", "ninefold.nn.TiledConv2d", "ninefold.nn.Conv2d"),
    picture=lambda: curves("9.4 efficiency", "labels", "test error"),
    long=True,
)
def efficiency(*, trial: bool = False) -> Finding:
    labels = (30, 100, 300, 1000)
    found = {
        f"{layer}{', pooled' if window > 1 else ''}": {n: trained("anywhere", layer, n, window, trial=trial) for n in labels}
        for layer in LAYERS
        for window in (WHOLE, 1)
    }
    few, many = found["convolution, pooled"][100].test, {name: runs[1000].test for name, runs in found.items()}
    holds = all(many[name].above(few) for name in many if name.startswith(("dense", "unshared")))
    told = ", ".join(f"{name} {many[name]}" for name in ("unshared, pooled", "dense, pooled"))
    return Finding(f"test error: {few} with 100 labels; with 1000: {told}", holds, tabled(found))


@entry(
    "9.4 strength",
    "A prior of every strength between dense and convolution",
    "先验的强弱",
    claim="A convolution is a dense layer with an infinitely strong prior. A Gaussian prior growing from strength 0 to infinity "
    "helps where it is true; where it is false it makes the layer underfit in the end, and a finite strength is best.",
    source="section 9.4; notes, section 4",
    uses=("ninefold.prior_penalty", "ninefold.project", "ninefold.to_linear"),
    picture=lambda: curves("9.4 strength", "strength of the prior", "test error"),
    long=True,
)
def strength(*, trial: bool = False) -> Finding:
    strengths = (0.0, 0.01, 0.1, 0.3, 1.0, 3.0, 10.0, math.inf)
    found = {task: {s: believed(task, s, trial=trial) for s in strengths} for task in ("anywhere", "half")}
    none, most = (found["anywhere"][s].test for s in (0.0, math.inf))
    best = min(strengths, key=lambda s: found["half"][s].test.mean)
    holds = none.above(most) and found["half"][math.inf].train.above(0.1) and found["half"][math.inf].worse(found["half"][best])
    told = f"true: {none} at 0, {most} at infinity; false: " + ", ".join(
        f"{found['half'][s].test} at {s:g}" for s in (0.0, best, math.inf)
    )
    numbers = tabled(found) | {"best where false": f"{best:g}"}
    return Finding(f"test error where it is {told}", holds and 0 < best < math.inf, numbers)


def believed(task: str, strength: float, *, trial: bool) -> Errors:
    """Return the errors of a dense network whose loss has ``strength / 2`` times the distance to the nearest convolution."""
    conv: Any = LAYERS["convolution"](bias=False)

    def train(model: Any, told: Labelled) -> None:
        dense: Tensor = model[0][1].weight

        def nearest() -> None:
            with torch.no_grad():
                conv.weight.copy_(nf.project(dense, conv.spec, SIDE))
                dense.copy_(nf.to_linear(conv, SIDE).weight)

        def energy() -> Tensor | float:
            return strength / 2 * nf.prior_penalty(dense, conv.spec, SIDE) if strength else 0.0

        run = partial(fit, model, *told, steps=1 if trial else 400, rate=RATE)
        if math.isinf(strength):
            nearest()
            run(then=nearest)
        else:
            run(prior=energy)

    size = _SMALLEST if trial else {"labels": 300, "seeds": SEEDS}
    return learn(lambda: network(_dense(bias=False)), TASKS[task], train=train, **size)


ENTRIES = (right_prior, underfitting, efficiency, strength)
