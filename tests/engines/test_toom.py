"""Short convolutions in exact rationals: the identity holds with equality, for every size that has points."""

from fractions import Fraction
from random import Random

import pytest

from ninefold.engines.toom import MOST_POINTS, points, toom

SIZES = [
    (m, r) for m in range(1, MOST_POINTS + 1) for r in range(1, MOST_POINTS + 1) if m + r - 1 in (1, *range(3, MOST_POINTS + 1))
]
SIZES = [(m, r) for m, r in SIZES if min(m, r) > 1 or m == r]


def _times(matrix, x):
    return [sum((a * b for a, b in zip(row, x, strict=True)), Fraction(0)) for row in matrix]


@pytest.mark.parametrize(("m", "r"), SIZES)
def test_identity(m, r):
    random, t = Random(10 * m + r), toom(m, r)
    x = [Fraction(random.randint(-99, 99), random.randint(1, 9)) for _ in range(m + r - 1)]
    g = [Fraction(random.randint(-99, 99), random.randint(1, 9)) for _ in range(r)]
    products = [a * b for a, b in zip(_times(t.spread, g), _times(t.data, x), strict=True)]
    assert _times(t.collect, products) == [sum(g[j] * x[i + j] for j in range(r)) for i in range(m)]


@pytest.mark.parametrize(("m", "r"), SIZES)
def test_what_the_kernels_count_on(m, r):
    """0 first where n is even, then pairs whose rows are the sum and the difference of two halves, infinity last."""
    t, n = toom(m, r), m + r - 1
    even = n % 2 == 0
    assert len(set(points(n))) == n - 1
    for p in range(even, n - 1, 2):
        for matrix in (t.data, t.spread, tuple(zip(*t.collect, strict=True))):
            plus, minus = matrix[p : p + 2]
            for j, (a, b) in enumerate(zip(plus, minus, strict=True)):
                assert a == (-b if j % 2 else b), (p, j)
        assert not even or t.data[p][0] == 0
        assert t.data[p][n - 1] == 0
    assert not any(x for j, x in enumerate(t.data[n - 1]) if j % 2 != even)
    if even:
        assert not any(x for j, x in enumerate(t.data[0]) if j % 2)
        assert not any(t.spread[0][1:])
        assert [row[0] for row in t.collect[1:]] == [0] * (m - 1)
    assert [row[n - 1] for row in t.collect[:-1]] == [0] * (m - 1)
    assert not any(t.spread[n - 1][:-1])


def test_growth_is_that_of_the_points():
    assert toom(1, 1).growth == toom(1, 1).spreading == 1
    assert toom(4, 3).growth == pytest.approx(121 / 9)  # of F(4, 3) at 0, +-1, +-2 and infinity it would be 15
    assert toom(2, 3).growth == pytest.approx(4)
