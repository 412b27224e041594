"""Adjointness in one line: ``<c(K, V), G> = <V, h(K, G)> = <K, g(V, G)>``."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["dot_test"]

Bilinear = Callable[[Tensor, Tensor], Tensor]


def dot_test(c: Bilinear, h: Bilinear, g: Bilinear, K: Tensor, V: Tensor, G: Tensor, *, tolerance: float = 0.0) -> None:
    """Raise AssertionError unless three maps are adjoint to one another.

    The pairing is bilinear: nothing is conjugated.

    Parameters
    ----------
    c, h, g : callable
        ``c(K, V)``, ``h(K, G)`` and ``g(V, G)``.
    K, V, G : Tensor
        Kernel, input and output; small integers in double precision make the test exact.
    tolerance : float
        Admitted difference against ``max|V| * ||K||_1 * ||G||_1``, which no pairing exceeds.

    Raises
    ------
    AssertionError
        With the three numbers.

    Examples
    --------
    >>> from ninefold.testing.tolerances import defined
    >>> from ninefold.spec import ConvSpec
    >>> form = ConvSpec(1, 1, (2,), stride=2).form(6)
    >>> K, V, G = torch.tensor([[[2.0, -3.0]]]), torch.arange(6.0).view(1, 1, 6), torch.tensor([[[1.0, 5.0, -2.0]]])
    >>> dot_test(*(lambda a, b, m=m: defined(m, form, a, b) for m in "chg"), K.double(), V.double(), G.double())
    >>> dot_test(*(lambda a, b, m=m: defined(m, form, a, b) + 1 for m in "chg"), K.double(), V.double(), G.double())
    Traceback (most recent call last):
    AssertionError: not adjoint: <c(K, V), G> = -10.0, <V, h(K, G)> = 1.0, <K, g(V, G)> = -15.0; allowed difference 0
    """
    z, r, d = c(K, V), h(K, G), g(V, G)
    for name, result, like in (("c(K, V)", z, G), ("h(K, G)", r, V), ("g(V, G)", d, K)):
        if result.shape != like.shape:
            raise AssertionError(f"{name} has shape {tuple(result.shape)}, but what it pairs with has {tuple(like.shape)}")
    sums = [_pair(z, G), _pair(V, r), _pair(K, d)]
    largest = float(V.abs().max()) if V.numel() else 0.0
    allowed = tolerance * largest * float(K.abs().sum()) * float(G.abs().sum())
    if not all(abs(s - sums[0]) <= allowed for s in sums):
        z_, r_, d_ = sums
        raise AssertionError(
            f"not adjoint: <c(K, V), G> = {z_}, <V, h(K, G)> = {r_}, <K, g(V, G)> = {d_}; allowed difference {allowed:.3g}"
        )


def _pair(x: Tensor, y: Tensor) -> float | complex:
    wide = torch.complex128 if x.is_complex() or y.is_complex() else torch.float64
    return (x.to(wide) * y.to(wide)).sum().item()
