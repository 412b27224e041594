"""When to pool by maximum and when by average: the theory of Boureau, Ponce and LeCun (2010), as functions.

The cardinality P is how many activations are pooled. Model them as independent and equal in distribution:

* binary, active with probability ``alpha``. The average has mean ``alpha`` and variance ``alpha (1 - alpha) / P``; the maximum
  has mean ``1 - (1 - alpha)^P`` and variance ``(1 - (1 - alpha)^P) (1 - alpha)^P``;
* exponential with mean ``mu``. The maximum has mean ``mu (1 + 1/2 + ... + 1/P)`` and variance ``mu^2 (1 + 1/4 + ... + 1/P^2)``.

Between two classes the average keeps the distance of the means and only loses variance, so that it likes large P. The maximum's
distance ``(1 - alpha2)^P - (1 - alpha1)^P`` grows to one peak and falls to 0: maxima suit features that are rare, and have a best
cardinality. Neighbouring activations of real images are correlated, and count for fewer than there are.
"""

from dataclasses import dataclass
from math import ceil, exp, expm1, floor, inf, log, log1p, pi, sqrt

from ninefold.errors import ArgumentError, ArgumentTypeError
from ninefold.spec.parse import number

__all__ = [
    "BestCardinality",
    "Moments",
    "bernoulli_average",
    "bernoulli_max",
    "best_cardinality",
    "exponential_average",
    "exponential_max",
    "separation",
    "signal_to_noise",
]


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and variance of a pooled feature."""

    mean: float
    variance: float

    @property
    def deviation(self) -> float:
        """The square root of the variance."""
        return sqrt(self.variance)


@dataclass(frozen=True, slots=True)
class BestCardinality:
    """Where the maxima of two classes lie furthest apart.

    Parameters
    ----------
    exact : float
        Where the distance peaks between whole numbers; infinite if one class never has the feature.
    whole : int or float
        The whole cardinality of the largest distance; infinite likewise.
    separation : float
        The distance there.
    """

    exact: float
    whole: int | float
    separation: float


def bernoulli_average(alpha: float, cardinality: float) -> Moments:
    """Return the moments of the average of binary activations.

    Parameters
    ----------
    alpha : float
        Probability of being active, between 0 and 1.
    cardinality : float
        Activations in the pool, at least 1; an effective number need not be whole.

    Raises
    ------
    ArgumentError
        If either is outside its range.

    Examples
    --------
    >>> bernoulli_average(0.5, 4)
    Moments(mean=0.5, variance=0.0625)
    """
    _check(cardinality, alpha)
    return Moments(alpha, alpha * (1 - alpha) / cardinality)


def bernoulli_max(alpha: float, cardinality: float) -> Moments:
    """Return the moments of the maximum of binary activations.

    Parameters
    ----------
    alpha, cardinality : float
        As in `bernoulli_average`.

    Raises
    ------
    ArgumentError

    Examples
    --------
    >>> bernoulli_max(0.5, 2)
    Moments(mean=0.75, variance=0.1875)
    """
    _check(cardinality, alpha)
    off = _power(alpha, cardinality)
    mean = 1.0 if alpha == 1 else -expm1(cardinality * log1p(-alpha))
    return Moments(mean, mean * off)


def exponential_average(mean: float, cardinality: float) -> Moments:
    """Return the moments of the average of exponentially distributed activations.

    Raises
    ------
    ArgumentError

    Examples
    --------
    >>> exponential_average(2.0, 8)
    Moments(mean=2.0, variance=0.5)
    """
    _check(cardinality)
    number(mean, "mean")
    return Moments(mean, mean**2 / cardinality)


def exponential_max(mean: float, cardinality: int) -> Moments:
    """Return the moments of the maximum of exponentially distributed activations, by harmonic numbers.

    Raises
    ------
    ArgumentError
        If the cardinality is no whole number of at least 1.

    Examples
    --------
    >>> round(exponential_max(1.0, 10).mean, 4)
    2.929
    """
    _check(cardinality)
    if cardinality != int(cardinality):
        raise ArgumentError(f"cardinality={cardinality} must be a whole number here")
    number(mean, "mean")
    n = int(cardinality)
    if n > _MANY:  # Euler and Maclaurin's expansions, whose next terms are below the rounding
        first = log(n) + _EULER + 1 / (2 * n) - 1 / (12 * n**2)
        second = pi**2 / 6 - 1 / n + 1 / (2 * n**2) - 1 / (6 * n**3)
    else:
        first, second = (sum(1 / k**power for k in range(1, n + 1)) for power in (1, 2))
    return Moments(mean * first, mean**2 * second)


_EULER = 0.5772156649015329
_MANY = 10_000


def separation(alpha1: float, alpha2: float, cardinality: float) -> float:
    """Return how far apart the mean maxima of two classes are; for averages it is ``alpha1 - alpha2`` whatever the cardinality.

    Parameters
    ----------
    alpha1, alpha2 : float
        Probabilities of being active in the two classes; the distance is negative if the second is larger.
    cardinality : float

    Raises
    ------
    ArgumentError

    Examples
    --------
    >>> round(separation(0.05, 0.02, 30), 4), round(separation(0.05, 0.02, 1), 4)
    (0.3308, 0.03)
    """
    _check(cardinality, alpha1, alpha2)
    return _power(alpha2, cardinality) - _power(alpha1, cardinality)


def best_cardinality(alpha1: float, alpha2: float) -> BestCardinality:
    """Return the cardinality at which maxima separate two classes best.

    It is ``ln(ln(1 - a1) / ln(1 - a2)) / ln((1 - a2) / (1 - a1))``, and ``-1 / ln(1 - a)`` where both are a: about as many as
    one of which is active.

    Parameters
    ----------
    alpha1, alpha2 : float
        Probabilities of being active in the two classes, in any order.

    Raises
    ------
    ArgumentError
        If one is not between 0 and 1, or both are 0 or both 1, which nothing separates.

    Examples
    --------
    >>> best = best_cardinality(0.05, 0.02)
    >>> round(best.exact, 2), best.whole
    (29.97, 30)
    """
    _check(1, alpha1, alpha2)
    low, high = sorted((alpha1, alpha2))
    if low == high and high in (0, 1):
        raise ArgumentError(f"alpha1 and alpha2 are both {high}: no cardinality separates classes without any difference")
    if low == 0:
        return BestCardinality(inf, inf, 1.0)
    if high == 1:
        return BestCardinality(0.0, 1, separation(1, low, 1))
    a, b = log1p(-high), log1p(-low)
    # near equality numerator and denominator both vanish: with t = a / b it is (ln t / (t - 1)) / -b
    t = a / b
    exact = -(log(t) / (t - 1) if t != 1 else 1.0) / b
    whole = max((max(floor(exact), 1), max(ceil(exact), 1)), key=lambda p: separation(high, low, p) if t != 1 else p * exp(p * b))
    return BestCardinality(exact, whole, separation(high, low, whole))


def signal_to_noise(first: Moments, second: Moments) -> float:
    """Return the distance of two means over the sum of their deviations.

    Of binary activations the average is a sufficient statistic: where two classes differ a little its ratio is never below the
    maximum's. The maximum wins where one class hardly ever has the feature.

    Examples
    --------
    >>> signal_to_noise(Moments(3.0, 1.0), Moments(1.0, 9.0))
    0.5
    """
    for moments in (first, second):
        if not isinstance(moments, Moments):
            raise ArgumentTypeError(f"signal_to_noise compares two Moments, such as bernoulli_max(0.1, 9) gives, got {moments!r}")
    distance, noise = abs(first.mean - second.mean), first.deviation + second.deviation
    return distance / noise if noise else inf if distance else 0.0


def _power(alpha: float, cardinality: float) -> float:
    """Return the probability that none of the activations is on."""
    return 0.0 if alpha == 1 else exp(cardinality * log1p(-alpha))


def _check(cardinality: float, *alphas: float) -> None:
    for alpha in alphas:
        if not 0 <= number(alpha, "alpha") <= 1:
            raise ArgumentError(f"alpha={alpha} must be a probability, between 0 and 1")
    if not 1 <= number(cardinality, "cardinality") < inf:
        raise ArgumentError(f"cardinality={cardinality} must be at least 1, and finite")
