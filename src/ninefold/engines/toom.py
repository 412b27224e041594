"""Short convolutions by evaluation and interpolation, in exact rationals (Toom 1963, Cook 1966, Winograd 1980).

``m`` outputs of a correlation with ``r`` taps, ``y[i] = sum_j g[j] x[i + j]``, take ``n = m + r - 1`` products, not ``m r``:

    y = C [(S g) * (D x)]

The transposed problem multiplies polynomials: ``a(t)`` of ``m`` coefficients and ``g(t)`` of ``r`` have a product of degree
``n - 1``, known from its values at ``n - 1`` points and its leading coefficient ("the value at infinity"). Rows of ``C^T`` and
``S`` evaluate, rows of ``D`` hold the coefficients of the interpolating polynomials ``M(t) / (t - p)``, with ``M(t)`` the product
of all ``t - p``, and the factor ``1 / M'(p)`` goes into ``S``. Rows are scaled by powers of two, which rounds nothing.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from math import log2

__all__ = ["MOST_POINTS", "Toom", "points", "toom"]

Matrix = tuple[tuple[Fraction, ...], ...]

MOST_POINTS = 8
"""More points lose too much in single precision, and do not fit the registers."""

_PAIRS: dict[int, tuple[Fraction, ...]] = {
    1: (),
    3: (Fraction(3, 4),),
    4: (Fraction(1),),
    5: (Fraction(2, 5), Fraction(5, 4)),
    6: (Fraction(2, 3), Fraction(3, 2)),
    7: (Fraction(1, 3), Fraction(5, 6), Fraction(5, 3)),
    8: (Fraction(1, 2), Fraction(1), Fraction(2)),
}
"""For each number of points, the ``a`` of the pairs ``+a, -a`` among them: of all sets of fractions with terms up to 6, the one
with the least growth of random errors, or within a few percent of it where that has rounder numbers. A kernel evaluates a pair
together; 0 is a point where the number is even, infinity always."""


def points(n: int) -> tuple[Fraction, ...]:
    """Return the finite points: 0 where n is even, then pairs of opposite sign.

    Examples
    --------
    >>> [str(p) for p in points(6)]
    ['0', '2/3', '-2/3', '3/2', '-3/2']
    """
    return (Fraction(0),) * (n % 2 == 0) + tuple(s * a for a in _PAIRS[n] for s in (1, -1))


@dataclass(frozen=True)
class Toom:
    """The three matrices of F(m, r).

    Parameters
    ----------
    collect : Matrix
        ``C``, m x n: from products to outputs.
    spread : Matrix
        ``S``, n x r: from taps to points.
    data : Matrix
        ``D``, n x n: from data to points.
    """

    collect: Matrix
    spread: Matrix
    data: Matrix

    @cached_property
    def growth(self) -> float:
        """Return the largest sum, over points, of what one output can gather: ``|C| (max|S| |D|_1)``; 1 without a transform."""
        ends = [float(max(map(abs, s)) * sum(map(abs, d))) for s, d in zip(self.spread, self.data, strict=True)]
        return max(sum(float(abs(c)) * e for c, e in zip(row, ends, strict=True)) for row in self.collect)

    @cached_property
    def spreading(self) -> float:
        """Return the growth of random errors: root of ``sum_p C[i, p]^2 |S[p]|^2 |D[p]|^2``, for the worst output."""
        ends = [float(sum(x * x for x in s) * sum(x * x for x in d)) for s, d in zip(self.spread, self.data, strict=True)]
        return float(max(sum(float(c * c) * e for c, e in zip(row, ends, strict=True)) for row in self.collect) ** 0.5)


@lru_cache(maxsize=64)
def toom(m: int, r: int) -> Toom:
    """Return the matrices of F(m, r), exact.

    Examples
    --------
    >>> t = toom(2, 3)
    >>> x, g = [3, 1, 4, 1], [2, -1, 5]
    >>> products = [sum(a * b for a, b in zip(s, g)) * sum(a * b for a, b in zip(d, x)) for s, d in zip(t.spread, t.data)]
    >>> [int(sum(a * b for a, b in zip(row, products))) for row in t.collect]
    [25, 3]
    """
    n = m + r - 1
    finite = points(n)
    collect, spread, data = [], [], []
    for k, p in enumerate(finite):
        rest = finite[:k] + finite[k + 1 :]
        row, factor = [*_product(rest), Fraction(0)], Fraction(1)
        for q in rest:
            factor *= p - q
        size, end = _scale(row), _scale([p**i for i in range(m)])
        size *= -1 if p < 0 and n % 2 else 1  # so that the rows at -a are those at a, odd columns negated
        data.append([x * size for x in row])
        collect.append([p**i * end for i in range(m)])
        spread.append([p**j / (factor * size * end) for j in range(r)])
    row = _product(finite)
    size = _scale(row)
    data.append([x * size for x in row])
    collect.append([Fraction(int(i == m - 1)) for i in range(m)])
    spread.append([Fraction(int(j == r - 1)) / size for j in range(r)])
    return Toom(_frozen(zip(*collect, strict=True)), _frozen(spread), _frozen(data))


def _product(roots: tuple[Fraction, ...]) -> list[Fraction]:
    """Return the coefficients of the polynomial with these roots, lowest first."""
    c = [Fraction(1)]
    for root in roots:
        c = [a - root * b for a, b in zip([Fraction(0), *c], [*c, Fraction(0)], strict=True)]
    return c


def _scale(row: list[Fraction]) -> Fraction:
    """Return the power of two that brings the row's length nearest to 1."""
    return Fraction(2) ** -round(log2(sum(x * x for x in row)) / 2)


def _frozen(rows: object) -> Matrix:
    return tuple(tuple(row) for row in rows)  # type: ignore[attr-defined]
