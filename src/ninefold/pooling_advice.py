"""Maximum or average, and over how many: what the theory says about the activations of a real layer."""

from dataclasses import dataclass
from math import inf, prod
from typing import Any

import torch
from torch import Tensor

from ninefold import pooling_theory as theory
from ninefold.errors import ArgumentError, ArgumentTypeError, DTypeError, ShapeError
from ninefold.functional import avg_pool1d, avg_pool2d, avg_pool3d
from ninefold.spec.parse import number, per_axis

__all__ = ["ChannelAdvice", "PoolingAdvice", "advise_pooling"]

_CRITERIA = ("separation", "signal_to_noise")
_AVERAGE: dict[int, Any] = {1: avg_pool1d, 2: avg_pool2d, 3: avg_pool3d}


@dataclass(frozen=True, slots=True)
class ChannelAdvice:
    """What the theory says about one channel.

    Parameters
    ----------
    alpha : tuple of float
        How often it is active: in each of two classes, or twice overall.
    effective : float
        As how many independent activations a window counts.
    best_cardinality : float
        Independent activations among which the maxima separate best.
    separation_max, separation_average : float
        Distance of the class means after pooling; without classes, per unit of difference in activity.
    signal_to_noise_max, signal_to_noise_average : float
        The same over the sum of the deviations.
    preferred : str
        ``"max"``, ``"average"``, or ``"either"`` where the channel tells nothing.
    """

    alpha: tuple[float, float]
    effective: float
    best_cardinality: float
    separation_max: float
    separation_average: float
    signal_to_noise_max: float
    signal_to_noise_average: float
    preferred: str


@dataclass(frozen=True, slots=True)
class PoolingAdvice:
    """What `advise_pooling` found; print it.

    Parameters
    ----------
    preferred : str
        ``"max"``, ``"average"`` or ``"either"``: what most channels prefer.
    reason : str
        Why, with the numbers.
    kernel_size : tuple of int
        The windows that were thought of.
    criterion : str
    channels : tuple of ChannelAdvice
    """

    preferred: str
    reason: str
    kernel_size: tuple[int, ...]
    criterion: str
    channels: tuple[ChannelAdvice, ...]

    @property
    def alpha(self) -> float:
        """How often the median channel is active."""
        return _median([sum(c.alpha) / 2 for c in self.channels])

    def __str__(self) -> str:
        votes = {name: sum(c.preferred == name for c in self.channels) for name in ("max", "average", "either")}
        said = ", ".join(f"{n} {name}" for name, n in votes.items() if n)
        return f"pool by {self.preferred}: {self.reason}\nchannels: {said}; windows of {self.kernel_size}"


def advise_pooling(
    activations: Tensor,
    labels: Tensor | None = None,
    *,
    kernel_size: Any = None,
    threshold: float = 0.0,
    criterion: str = "separation",
) -> PoolingAdvice:
    """Say which pooling the theory of Boureau, Ponce and LeCun (2010) prefers for activations, and why.

    Sparsity is estimated channel by channel, and so is as how many independent ones the correlated activations of a window count:
    from the variance that their average really has. Without labels two classes are imagined whose activity differs a little.

    Parameters
    ----------
    activations : Tensor of shape ``(batch, channels, *space)``
        What would be pooled, such as feature maps after ReLU.
    labels : Tensor of shape ``(batch,)``, optional
        Of two classes.
    kernel_size : int or tuple, optional
        The windows thought of; the whole map by default.
    threshold : float
        What is above it is active.
    criterion : {"separation", "signal_to_noise"}
        Compare the distances of the class means, as the paper does first, or those over the deviations.

    Returns
    -------
    PoolingAdvice

    Raises
    ------
    ShapeError, ArgumentError, ArgumentTypeError

    Examples
    --------
    >>> import torch, ninefold as nf
    >>> rare = torch.rand(64, 3, 16, 16, generator=torch.Generator().manual_seed(0)) < 0.02
    >>> advice = nf.advise_pooling(rare.float(), kernel_size=4)
    >>> advice.preferred, round(advice.channels[0].best_cardinality, -1)
    ('max', 50.0)
    >>> nf.advise_pooling(1.0 - rare.float(), kernel_size=4).preferred
    'average'
    """
    if not isinstance(activations, Tensor):
        raise ArgumentTypeError(f"activations must be a tensor, got type {type(activations).__name__}")
    ndim = activations.ndim - 2
    if ndim not in _AVERAGE or 0 in activations.shape:
        raise ShapeError(
            f"activations have shape {tuple(activations.shape)}; they must be (batch, channels, 1 to 3 sizes), none of them empty"
        )
    if criterion not in _CRITERIA:
        raise ArgumentError(f"criterion={criterion!r} is not one of {list(_CRITERIA)}")
    kernel = tuple(activations.shape[2:]) if kernel_size is None else per_axis(kernel_size, ndim, "kernel_size", 1)
    if activations.is_complex():
        raise DTypeError(f"activations are {activations.dtype}, and complex numbers are not above a threshold: give .abs()")
    on = (activations.detach() > number(threshold, "threshold")).double()
    parts = [on] if labels is None else _classes(on, labels)
    means = [_AVERAGE[ndim](part, kernel).flatten(2).transpose(0, 1).flatten(1) for part in parts]
    alphas = torch.stack([part.transpose(0, 1).flatten(1).mean(1) for part in parts])
    noise = torch.stack([m.var(1, correction=0) for m in means]).mean(0)
    single = (alphas * (1 - alphas)).mean(0)
    effective = torch.where(noise > 0, single / noise, torch.inf).clamp(1, prod(kernel))
    pairs = alphas if labels is not None else alphas.expand(2, -1)
    found = [_channel(a, b, p, criterion) for a, b, p in zip(*pairs.tolist(), effective.tolist(), strict=True)]
    preferred, reason = _verdict(found, prod(kernel), criterion)
    return PoolingAdvice(preferred, reason, kernel, criterion, tuple(found))


def _classes(on: Tensor, labels: Tensor) -> list[Tensor]:
    """Return the activations of each of two classes."""
    if not isinstance(labels, Tensor) or labels.shape != on.shape[:1]:
        shape = tuple(labels.shape) if isinstance(labels, Tensor) else type(labels).__name__
        raise ShapeError(f"labels are {shape}; they must be a tensor of shape ({len(on)},), one for each example")
    kinds = labels.unique().tolist()
    if len(kinds) != 2:
        raise ArgumentError(f"labels name {len(kinds)} classes; the theory is about 2: compare one with another, or the rest")
    return [on[labels == kind] for kind in kinds]


def _channel(a: float, b: float, effective: float, criterion: str) -> ChannelAdvice:
    if a == b and a in (0, 1):
        return ChannelAdvice((a, b), effective, inf if a == 0 else 1, 0.0, 0.0, 0.0, 0.0, "either")
    best = theory.best_cardinality(a, b).exact
    pools = (theory.bernoulli_max, theory.bernoulli_average)
    if a == b:  # per unit of a small difference: the derivative of the mean
        gaps = [effective * (1 - a) ** (effective - 1), 1.0]
        ratios = [gap / (2 * pool(a, effective).deviation) for gap, pool in zip(gaps, pools, strict=True)]
    else:
        moments = [(pool(a, effective), pool(b, effective)) for pool in pools]
        gaps = [abs(x.mean - y.mean) for x, y in moments]
        ratios = [theory.signal_to_noise(x, y) for x, y in moments]
    ahead, behind = gaps if criterion == "separation" else ratios
    preferred = "either" if abs(ahead - behind) <= 1e-9 * max(ahead, behind) else "max" if ahead > behind else "average"
    return ChannelAdvice((a, b), effective, best, gaps[0], gaps[1], ratios[0], ratios[1], preferred)


def _verdict(found: list[ChannelAdvice], cardinality: int, criterion: str) -> tuple[str, str]:
    """Return what most channels prefer, and the sentence that says why."""
    votes = {name: sum(c.preferred == name for c in found) for name in ("max", "average")}
    preferred = "either" if votes["max"] == votes["average"] else max(votes, key=lambda name: votes[name])
    telling = [c for c in found if c.preferred != "either"]
    if not telling:
        return preferred, "no channel tells one class from another"
    alpha = _median([sum(c.alpha) / 2 for c in telling])
    count = _median([c.effective for c in telling])
    gains = [(c.separation_max, c.separation_average) for c in telling]
    if criterion == "signal_to_noise":
        gains = [(c.signal_to_noise_max, c.signal_to_noise_average) for c in telling]
    gain = _median([top / bottom if bottom else inf for top, bottom in gains])
    what = "class means" if criterion == "separation" else "class means, over their deviations,"
    return preferred, (
        f"{alpha:.3g} of the activations are on; the {cardinality} of a window count as {count:.3g} independent ones, and their "
        f"maximum keeps the {what} {gain:.3g} times as far apart as their average. Maxima separate best among "
        f"{_median([c.best_cardinality for c in telling]):.3g}"
    )


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
