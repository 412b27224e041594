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
    """Nothing stands outside."""
    return i if 0 <= i < n else None


def reflect(i: int, n: int) -> int:
    """Mirror about the border element itself, which is not repeated."""
    if n == 1 and i != 0:
        raise ArgumentError("padding_mode='reflect' needs at least 2 elements along a padded axis, got 1; use 'symmetric'")
    if n == 1:
        return 0
    i %= 2 * (n - 1)
    return min(i, 2 * (n - 1) - i)


def symmetric(i: int, n: int) -> int:
    """Mirror about the edge of the border element, which is repeated."""
    i %= 2 * n
    return min(i, 2 * n - 1 - i)


def replicate(i: int, n: int) -> int:
    """Repeat the border element."""
    return min(max(i, 0), n - 1)


def circular(i: int, n: int) -> int:
    """Continue with the other end."""
    return i % n


MODES: dict[str, Mode] = {
    "zeros": zeros,
    "reflect": reflect,
    "symmetric": symmetric,
    "replicate": replicate,
    "circular": circular,
}


def valid(_n: int, _extent: int, _stride: int) -> tuple[int, int]:
    """No border: the kernel stays inside."""
    return 0, 0


def same_upper(n: int, extent: int, stride: int) -> tuple[int, int]:
    """As many outputs as ``ceil(n / stride)``; an odd zero goes to the end, as in TensorFlow and torch."""
    total = max((-(-n // stride) - 1) * stride + extent - n, 0)
    return total // 2, total - total // 2


def same_lower(n: int, extent: int, stride: int) -> tuple[int, int]:
    """As many outputs as ``ceil(n / stride)``; an odd zero goes to the beginning."""
    return same_upper(n, extent, stride)[::-1]


def full(_n: int, extent: int, _stride: int) -> tuple[int, int]:
    """Every position at which kernel and input touch."""
    return extent - 1, extent - 1


def causal(_n: int, extent: int, _stride: int) -> tuple[int, int]:
    """Output ``j`` reads nothing behind input ``j * stride``."""
    return extent - 1, 0


POLICIES: dict[str, Policy] = {
    "valid": valid,
    "same_upper": same_upper,
    "same_lower": same_lower,
    "full": full,
    "causal": causal,
}
