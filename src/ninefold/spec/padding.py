"""Padding: modes as functions of an index, policies as functions of a size.

A *mode* says which input element stands outside the border: a function of the (possibly outside) index and of the axis'
size. It is linear in the input, so it belongs to the form, and its adjoint folds the border back. A *policy* says how
wide the border is, from the input's size, the kernel's extent and the stride. Adding a mode is adding one function.

======================  ====================  ======================  ===================  ==================
ninefold, torch         NumPy ``pad``         SciPy ``ndimage``       MATLAB               a b c, continued
======================  ====================  ======================  ===================  ==================
``zeros``               ``constant``          ``constant``            ``0``                0 0 | a b c | 0 0
``reflect``             ``reflect``           ``mirror``              (none)               c b | a b c | b a
``symmetric`` (ours)    ``symmetric``         ``reflect``             ``symmetric``        b a | a b c | c b
``replicate``           ``edge``              ``nearest``             ``replicate``        a a | a b c | c c
``circular``            ``wrap``              ``grid-wrap``           ``circular``         b c | a b c | a b
======================  ====================  ======================  ===================  ==================
"""

from collections.abc import Callable

from ninefold.errors import ArgumentError

__all__ = ["MODES", "POLICIES", "Mode", "Policy"]

Mode = Callable[[int, int], int | None]
Policy = Callable[[int, int, int], tuple[int, int]]


def zeros(i: int, n: int) -> int | None:
    """Nothing stands outside.

    Examples
    --------
    >>> [zeros(i, 3) for i in range(-2, 5)]
    [None, None, 0, 1, 2, None, None]
    """
    return i if 0 <= i < n else None


def reflect(i: int, n: int) -> int:
    """Mirror about the border element itself, which is not repeated.

    Examples
    --------
    >>> [reflect(i, 3) for i in range(-2, 5)]
    [2, 1, 0, 1, 2, 1, 0]
    """
    if n == 1 and i != 0:
        raise ArgumentError(
            f"padding_mode='reflect' needs at least 2 elements along a padded axis, got 1 (index {i}); use 'symmetric'"
        )
    if n == 1:
        return 0
    i %= 2 * (n - 1)
    return min(i, 2 * (n - 1) - i)


def symmetric(i: int, n: int) -> int:
    """Mirror about the edge of the border element, which is repeated.

    Examples
    --------
    >>> [symmetric(i, 3) for i in range(-2, 5)]
    [1, 0, 0, 1, 2, 2, 1]
    """
    i %= 2 * n
    return min(i, 2 * n - 1 - i)


def replicate(i: int, n: int) -> int:
    """Repeat the border element.

    Examples
    --------
    >>> [replicate(i, 3) for i in range(-2, 5)]
    [0, 0, 0, 1, 2, 2, 2]
    """
    return min(max(i, 0), n - 1)


def circular(i: int, n: int) -> int:
    """Continue with the other end.

    Examples
    --------
    >>> [circular(i, 3) for i in range(-2, 5)]
    [1, 2, 0, 1, 2, 0, 1]
    """
    return i % n


MODES: dict[str, Mode] = {
    "zeros": zeros,
    "reflect": reflect,
    "symmetric": symmetric,
    "replicate": replicate,
    "circular": circular,
}


def valid(_n: int, _extent: int, _stride: int) -> tuple[int, int]:
    """No border: the kernel stays inside.

    Examples
    --------
    >>> valid(9, 4, 2)
    (0, 0)
    """
    return 0, 0


def same_upper(n: int, extent: int, stride: int) -> tuple[int, int]:
    """As many outputs as ``ceil(n / stride)``; an odd zero goes to the end, as in TensorFlow and torch.

    Examples
    --------
    >>> same_upper(9, 4, 1), same_upper(9, 4, 2)
    ((1, 2), (1, 2))
    """
    total = max((-(-n // stride) - 1) * stride + extent - n, 0)
    return total // 2, total - total // 2


def same_lower(n: int, extent: int, stride: int) -> tuple[int, int]:
    """As many outputs as ``ceil(n / stride)``; an odd zero goes to the beginning.

    Examples
    --------
    >>> same_lower(9, 4, 1)
    (2, 1)
    """
    return same_upper(n, extent, stride)[::-1]


def full(_n: int, extent: int, _stride: int) -> tuple[int, int]:
    """Every position at which kernel and input touch.

    Examples
    --------
    >>> full(9, 4, 1)
    (3, 3)
    """
    return extent - 1, extent - 1


def causal(_n: int, extent: int, _stride: int) -> tuple[int, int]:
    """Output ``j`` reads nothing behind input ``j * stride``.

    Examples
    --------
    >>> causal(9, 4, 1)
    (3, 0)
    """
    return extent - 1, 0


POLICIES: dict[str, Policy] = {
    "valid": valid,
    "same_upper": same_upper,
    "same_lower": same_lower,
    "full": full,
    "causal": causal,
}
