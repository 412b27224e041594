"""Timing in turns: whoever is compared runs in the same rounds, in an order drawn anew each time; ratios are told."""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter, sleep

import numpy as np

from ninefold.memory import faults

HOPELESS = 20.0  # times the fastest: one run has to do
_SLOW = 3.0  # times the fastest: a few runs have to do, unless it is one of a pair that is compared
_FEW = 4
_MOMENT, _LONG = 0.2, 2.0  # seconds
_ROUNDS = 1000  # more make an interval narrower than what the machine does meanwhile


@dataclass
class Times:
    """The runs of one contender: seconds by round (None where it sat out) and page faults per call.

    `single` says that it was so slow that one run had to do.
    """

    seconds: list[float | None] = field(default_factory=list)
    faults: list[int] = field(default_factory=list)
    single: bool = False

    @property
    def median(self) -> float:
        """The median run."""
        return median(s for s in self.seconds if s is not None)

    @property
    def least(self) -> float:
        """The shortest run: what a busy machine disturbs least."""
        return min(s for s in self.seconds if s is not None)

    @property
    def median_faults(self) -> float:
        """The median of the faults per call."""
        return median(self.faults)


def interleave(
    runs: dict[str, Callable[[], object]],
    seconds: float,
    pairs: Iterable[str] = (),
    tried: dict[str, tuple[float, int]] | None = None,
    rest: float = 0.0,
) -> dict[str, Times]:
    """Time functions in turn for about `seconds` in all.

    Parameters
    ----------
    runs : dict of str to function
        Whatever they return is freed within the time, as it is for users.
    seconds : float
        Of timed runs; each contender runs at least three times unless it is hopeless.
    pairs : iterable of str
        Contenders that take part in every round, for they will be compared round by round.
    tried : dict of str to (float, int), optional
        Seconds and faults of runs that were made already; they are the trial of whoever takes long.
    rest : float
        Seconds to wait before each run: threads of some libraries go on spinning when they are done, at the next one's cost.
    """
    pairs = set(pairs)
    trial = {name: _trial(run, (tried or {}).get(name), name in pairs) for name, run in runs.items()}
    fastest = min(t for t, _ in trial.values())
    times = {name: Times([t], [f], single=t > HOPELESS * fastest) for name, (t, f) in trial.items()}
    alive = [name for name in runs if not times[name].single]
    paired = pairs | {name for name in alive if trial[name][0] <= _SLOW * fastest}
    spent = sum(trial[name][0] for name in alive if name in paired) or fastest
    rounds = max(3, min(_ROUNDS, int(seconds / spent)))
    for name in alive:
        times[name] = Times()
    order = random.Random(0)  # noqa: S311  an order, not a secret
    for k in range(rounds):
        order.shuffle(alive)
        for name in alive:
            if name in paired or k % max(1, rounds // _FEW) == 0:
                sleep(rest)
                spent_now, fresh = once(runs[name])
                times[name].seconds.append(spent_now)
                times[name].faults.append(fresh)
            else:
                times[name].seconds.append(None)
    return times


def _trial(run: Callable[[], object], first: tuple[float, int] | None, matters: bool) -> tuple[float, int]:
    """Warm up, then try; a warm-up that takes long is its own trial, sooner for those that nobody compares."""
    first = once(run) if first is None else first
    if first[0] > (_LONG if matters else _MOMENT):
        return first
    return min(once(run), once(run)) if matters and first[0] < _MOMENT else once(run)


def once(run: Callable[[], object]) -> tuple[float, int]:
    """Run a function; return the seconds and the page faults it took."""
    before = faults()
    start = perf_counter()
    run()
    end = perf_counter()
    return end - start, faults() - before


def ratio(slow: Times, fast: Times, draws: int = 400) -> tuple[float, float, float]:
    """Return how many times `slow` takes as long as `fast`: the median over rounds, and a 95% bootstrap interval.

    With a single run on either side there is no interval: both its ends are the ratio.

    Examples
    --------
    >>> ratio(Times([2.0, 4.0, 6.0]), Times([1.0, 2.0, 3.0]))
    (2.0, 2.0, 2.0)
    """
    if slow.single or fast.single:
        one = slow.median / fast.median
        return one, one, one
    each = np.array([s / f for s, f in zip(slow.seconds, fast.seconds, strict=True) if s is not None and f is not None])
    medians = np.median(np.random.default_rng(0).choice(each, (draws, len(each))), axis=1)
    low, high = np.quantile(medians, (0.025, 0.975))
    return float(np.median(each)), float(low), float(high)
