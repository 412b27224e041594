"""A small, honest training loop: fixed seeds, minibatches, errors on what was and was not seen, intervals over the seeds."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ninefold.chapter.data import Labelled
from ninefold.errors import ArgumentError

__all__ = ["Errors", "Interval", "error", "fit", "interval", "learn", "parameters", "seeded", "tabled"]


@dataclass(frozen=True)
class Interval:
    """A mean and where it lies, with 95% confidence.

    Examples
    --------
    >>> print(Interval(0.5, 0.25, 0.75))
    50.0% [25.0, 75.0]
    """

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return self.text(100, 1, "%")

    def text(self, times: float = 1.0, digits: int = 2, unit: str = "") -> str:
        """Return the mean and the interval in a few characters; printed, in percent."""
        mean, low, high = (f"{v * times:.{digits}f}" for v in (self.mean, self.low, self.high))
        return f"{mean}{unit} [{low}, {high}]"

    def above(self, other: "Interval | float") -> bool:
        """Whether the whole interval lies above the other one, or above a number."""
        return self.low > (other.high if isinstance(other, Interval) else other)

    def json(self) -> list[float]:
        """Return mean, low and high, to six digits."""
        return [float(f"{v:.6g}") for v in (self.mean, self.low, self.high)]


def interval(values: Sequence[float]) -> Interval:
    """Return the mean of independent runs and its 95% interval by Student's t.

    Parameters
    ----------
    values : sequence of float
        At least two: a difference of two things measured on the same seeds is best taken before.

    Raises
    ------
    ArgumentError
        If there are fewer than two.

    Examples
    --------
    >>> interval([1.0, 2.0, 3.0]).text()
    '2.00 [-0.48, 4.48]'
    """
    if len(values) < 2:
        raise ArgumentError(f"{len(values)} run shows no spread; give at least 2 seeds")
    from scipy.stats import t  # noqa: PLC0415  loaded by those who ask for intervals

    mean, half = fmean(values), float(t.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    return Interval(mean, mean - half, mean + half)


class Errors(NamedTuple):
    """Fractions of wrong answers on what was learnt from and on what was not, a number per seed.

    Examples
    --------
    >>> Errors([0.0, 0.0], [0.25, 0.75]).test.mean
    0.5
    """

    train_runs: list[float]
    test_runs: list[float]

    @property
    def train(self) -> Interval:
        """Over the seeds."""
        return interval(self.train_runs)

    @property
    def test(self) -> Interval:
        """Over the seeds."""
        return interval(self.test_runs)

    def json(self) -> dict[str, list[float]]:
        """Return both, each as mean, low and high."""
        return {"train": self.train.json(), "test": self.test.json()}

    def worse(self, other: "Errors") -> bool:
        """Whether the test error is higher than another's, seed for seed, by an interval without zero."""
        return interval([a - b for a, b in zip(self.test_runs, other.test_runs, strict=True)]).above(0.0)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from this seed within, on one thread, and leave the caller's random state and threads as they were.

    Examples
    --------
    >>> with seeded(0):
    ...     first = torch.rand(())
    >>> with seeded(0):
    ...     bool(torch.rand(()) == first)
    True
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the networks are small, and sums in one order are the same sums
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)


def fit(
    model: nn.Module,
    pictures: Tensor,
    targets: Tensor,
    *,
    steps: int,
    batch: int = 50,
    rate: float = 3e-3,
    loss: Callable[[Tensor, Tensor], Tensor] = nn.functional.cross_entropy,
    prior: Callable[[], Tensor | float] = lambda: 0.0,
    then: Callable[[], None] = lambda: None,
) -> None:
    """Train a model in place by Adam on minibatches drawn without repetition, the rate falling to zero along a cosine.

    Parameters
    ----------
    model : Module
    pictures, targets : Tensor
        Of as many examples.
    steps, batch : int
    rate : float
        Of the first step.
    loss : callable
        Of the model's output and the targets.
    prior : callable, optional
        Added to the loss.
    then : callable, optional
        Called after each step, to bring the parameters back to where they are allowed.

    Examples
    --------
    >>> model, x = nn.Linear(1, 1), torch.linspace(-1, 1, 20)[:, None]
    >>> fit(model, x, 3 * x, steps=300, rate=0.1, loss=nn.functional.mse_loss)
    >>> round(model.weight.item(), 2)
    3.0
    """
    model.train()
    adam = torch.optim.Adam(model.parameters(), rate)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    order = torch.empty(0, dtype=torch.long, device="cpu")
    for _ in range(steps):
        if len(order) < min(batch, len(pictures)):
            order = torch.randperm(len(pictures), device="cpu")
        chosen, order = order[:batch], order[batch:]
        cost = loss(model(pictures[chosen]), targets[chosen]) + prior()
        adam.zero_grad()
        cost.backward()
        adam.step()
        falling.step()
        then()


def error(model: nn.Module, told: Labelled) -> float:
    """Return the fraction of wrong answers.

    Examples
    --------
    >>> error(nn.Identity(), Labelled(torch.eye(2), torch.tensor([0, 0])))
    0.5
    """
    model.eval()
    with torch.no_grad():
        return float((model(told.pictures).argmax(1) != told.labels).double().mean())


def learn(
    build: Callable[[], nn.Module],
    task: Callable[[int, int], Labelled],
    labels: int,
    train: Callable[[Any, Labelled], None],
    *,
    seeds: int,
    unseen: int = 1000,
) -> Errors:
    """Train a model anew for each seed, on other pictures each time.

    Parameters
    ----------
    build : callable
        Makes the model; drawn from the seed.
    task : callable
        Makes so many labelled pictures from a seed: of even seeds those to learn from, of odd ones those to test on.
    labels : int
        How many to learn from.
    train : callable
        Trains the model in place.
    seeds, unseen : int
        How many models, and how many pictures to test on.

    Examples
    --------
    >>> from ninefold.chapter.data import half
    >>> def build():
    ...     return nn.Sequential(nn.Flatten(), nn.Linear(144, 2))
    >>> found = learn(build, half, 100, lambda model, told: fit(model, *told, steps=100, rate=0.03), seeds=2)
    >>> found.train.mean < found.test.mean
    True
    """
    seen, fresh = [], []
    for seed in range(seeds):
        with seeded(seed):
            model, told = build(), task(labels, 2 * seed)
            train(model, told)
            seen.append(error(model, told))
            fresh.append(error(model, task(unseen, 2 * seed + 1)))
    return Errors(seen, fresh)


def tabled(found: Mapping[Any, Mapping[Any, Errors | Interval]]) -> dict[str, Any]:
    """Return a table of results as JSON holds it.

    Examples
    --------
    >>> tabled({"a": {1: Interval(0.5, 0.25, 0.75)}})
    {'a': {'1': [0.5, 0.25, 0.75]}}
    """
    return {str(name): {str(at): each.json() for at, each in runs.items()} for name, runs in found.items()}


def parameters(model: nn.Module) -> int:
    """Return how many numbers a model learns.

    Examples
    --------
    >>> parameters(nn.Linear(3, 2))
    8
    """
    return sum(p.numel() for p in model.parameters())
