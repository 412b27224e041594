"""Encoders: what becomes of the comparison of a patch with every atom (Coates and Ng 2011; Jarrett et al. 2009)."""

from typing import Any

import torch
from sklearn.base import BaseEstimator
from torch import Tensor

from ninefold.errors import ArgumentError
from ninefold.learn.compare import Compared
from ninefold.nn import LocalContrastNorm2d

__all__ = ["ENCODERS", "Encoder", "Hard", "Rectified", "SoftThreshold", "SparseCode", "Triangle", "encoder_named"]


class Encoder(BaseEstimator):
    """The parent of all encoders.

    Attributes
    ----------
    pointwise : bool
        Whether what becomes of a position depends on nothing beside it. Maps are then encoded a few rows at a time.
    """

    pointwise = False

    def width(self, atoms: int) -> int:
        """Return how many values a patch has, for so many atoms."""
        return atoms

    def __call__(self, compared: Compared) -> Tensor:
        """Return ``(B, width, h, w)``; the comparison may be written over."""
        raise NotImplementedError


class Triangle(Encoder):
    """``max(0, mu - z_k)``: how much nearer than the mean distance (not squared) an atom is (Coates, Lee and Ng 2011).

    About half of the values are zero, and the farthest atom's always is.

    Examples
    --------
    >>> Triangle().width(10)
    10
    """

    pointwise = True

    def __call__(self, compared: Compared) -> Tensor:
        """Return it."""
        z = _distances(compared).sqrt_()
        return torch.relu_(torch.sub(z.mean(1, keepdim=True), z, out=z))


class Hard(Encoder):
    """1 for the nearest atom, 0 for all others: the bag of visual words."""

    pointwise = True

    def __call__(self, compared: Compared) -> Tensor:
        """Return it."""
        z = _distances(compared)
        nearest = z.argmin(1, keepdim=True)
        return z.zero_().scatter_(1, nearest, 1.0)


class SoftThreshold(Encoder):
    """``max(0, d_k w - a)``, and ``max(0, -d_k w - a)`` beside it (Coates and Ng 2011).

    Parameters
    ----------
    alpha : float
        ``a``, for atoms of unit norm.
    split : bool
        Whether both signs have values of their own, 2K in all: those of d_k, then those of -d_k.
    """

    pointwise = True

    def __init__(self, alpha: float = 0.25, *, split: bool = True) -> None:
        self.alpha = alpha
        self.split = split

    def width(self, atoms: int) -> int:
        """Return 2K if split."""
        return 2 * atoms if self.split else atoms

    def __call__(self, compared: Compared) -> Tensor:
        """Return it."""
        if not self.alpha >= 0:
            raise ArgumentError(f"alpha={self.alpha} must not be below 0")
        dots = compared.dots
        if not self.split:
            return dots.sub_(self.alpha).relu_()
        return torch.cat([torch.relu(dots - self.alpha), dots.neg_().sub_(self.alpha).relu_()], 1)


class Rectified(Encoder):
    """``|tanh(g d_k w)|``, then local contrast normalisation over all atoms: F-R-N of Jarrett et al. (2009); P is the pooling.

    Parameters
    ----------
    gain : float
        ``g``.
    window : int
        Of the normalisation, odd; cut to the map where that is smaller. 0 leaves it out.
    """

    def __init__(self, gain: float = 1.0, window: int = 9) -> None:
        self.gain = gain
        self.window = window

    def __call__(self, compared: Compared) -> Tensor:
        """Return it."""
        features = compared.dots.mul_(self.gain).tanh_().abs_()
        if not self.window:
            return features
        fitting = [min(self.window, n - 1 + n % 2) for n in features.shape[2:]]
        return LocalContrastNorm2d(tuple(fitting))(features)


class SparseCode(Encoder):
    """The code ``argmin |w - D^T z|^2 / 2 + lambda |z|_1`` of every patch, split into signs, by FISTA or ISTA.

    Parameters
    ----------
    penalty : float
        ``lambda``, for atoms of unit norm.
    n_iter : int
    method : {"fista", "ista"}
    split : bool
        As in `SoftThreshold`.
    """

    pointwise = True

    def __init__(self, penalty: float = 0.5, *, n_iter: int = 20, method: str = "fista", split: bool = True) -> None:
        self.penalty = penalty
        self.n_iter = n_iter
        self.method = method
        self.split = split

    def width(self, atoms: int) -> int:
        """Return 2K if split."""
        return 2 * atoms if self.split else atoms

    def __call__(self, compared: Compared) -> Tensor:
        """Return it."""
        if self.method not in ("fista", "ista"):
            raise ArgumentError(f"method={self.method!r} is not one of 'fista', 'ista'")
        dots = compared.dots.movedim(1, -1)
        code = sparse_code(
            dots.flatten(0, -2), compared.comparison.gram(), self.penalty, self.n_iter, fast=self.method == "fista"
        )
        code = code.reshape(dots.shape).movedim(-1, 1)
        return torch.cat([torch.relu(code), torch.relu(-code)], 1) if self.split else code


def sparse_code(dots: Tensor, gram: Tensor, penalty: float, n_iter: int, *, fast: bool = True) -> Tensor:
    """Minimise ``z gram z / 2 - dots z + penalty |z|_1`` for every row of `dots` by (F)ISTA with step ``1 / |gram|``.

    Examples
    --------
    >>> dots = torch.tensor([[3.0, -0.5, -2.0]])
    >>> sparse_code(dots, torch.eye(3), 1.0, 1)  # orthonormal atoms: a soft threshold
    tensor([[ 2., -0., -1.]])
    """
    step = 1 / float(torch.linalg.matrix_norm(gram, 2).clamp_min(1e-12))
    code, ahead, t = torch.zeros_like(dots), torch.zeros_like(dots), 1.0
    for _ in range(n_iter):
        new = torch.nn.functional.softshrink(torch.addmm(ahead + step * dots, ahead, gram, alpha=-step), penalty * step)
        following = (1 + (1 + 4 * t * t) ** 0.5) / 2 if fast else 1.0
        ahead = new + (t - 1) / following * (new - code)
        code, t = new, following
    return code


def _distances(compared: Compared) -> Tensor:
    """Return squared distances of patches from atoms, in the memory of the products."""
    z = compared.dots.mul_(-2).add_(compared.comparison.norms.view(1, -1, 1, 1)).add_(compared.energy())
    return z.clamp_min_(0)


ENCODERS: dict[str, Any] = {
    "triangle": Triangle,
    "hard": Hard,
    "soft": SoftThreshold,
    "rectified": Rectified,
    "sparse": SparseCode,
}


def encoder_named(encoder: Any) -> Encoder:
    """Return an encoder for its name, or itself.

    Raises
    ------
    ArgumentError
        If there is none of that name.
    """
    if isinstance(encoder, str) and encoder in ENCODERS:
        made: Encoder = ENCODERS[encoder]()
        return made
    if not callable(encoder) or isinstance(encoder, type):
        raise ArgumentError(f"encoder={encoder!r} is neither an Encoder nor one of {list(ENCODERS)}")
    return encoder  # type: ignore[no-any-return]
