"""The model behind `TiledICA`: tiled filters, pooling, the objective, and steps among orthonormal filters."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ninefold import functional as F
from ninefold.learn.patches import Preparation
from ninefold.nn.tiled import plus_cycled

__all__ = ["TICA", "orthonormal", "tangent", "whitened"]

_LONGEST = 1e3
"""Of a step, in norms of all filters together: longer ones end at the same filters."""
_SHARE = 0.3
"""Of the descent that the gradient promises: what falls by less overshot, which fits few crops and no others."""
_HALVINGS = 30
_NOTHING = 1e-5
"""Of the largest eigenvalue of a whitening matrix: what is below comes of rounding."""
_SINGULAR = 1e-7
"""Of the largest variance: a component of less is none."""


@dataclass
class TICA:
    """Tiled filters in the space of whitened patches, and what they make of images; tensors only, float32 or float64.

    Parameters
    ----------
    atoms : Tensor
        ``(K, *period, C, h, w)``: put into the span of what whitening keeps, and made orthonormal over the K maps, at each place
        of the period. Outside that span there would be filters that see nothing, for which the objective is least.
    whitening : Preparation
        Linear: its `contrast` is infinity. As in `whitened`, or an identity.
    pool : tuple of int
        Height and width of a pooling window.
    epsilon : float
    length : float
        Of the next step, relative to the gradient.

    Examples
    --------
    >>> model = TICA(torch.eye(2, 6).view(2, 1, 1, 1, 2, 3), Preparation.none(6), (2, 2), 1e-4)
    >>> model.pooled(torch.ones(1, 1, 4, 5)).shape  # 3x3 positions, 2x2 windows, each of four ones
    torch.Size([1, 2, 2, 2])
    >>> round(float(model.objective(torch.ones(1, 1, 4, 5), model.atoms)), 4)
    2.0
    """

    atoms: Tensor
    whitening: Preparation
    pool: tuple[int, int]
    epsilon: float
    length: float = 1.0
    span: Tensor = field(init=False)

    def __post_init__(self) -> None:
        values, vectors = torch.linalg.eigh(self.whitening.matrix.double())
        kept = vectors[:, values > _NOTHING * values.amax()]
        self.span = (kept @ kept.T).to(self.atoms.dtype)
        self.atoms = orthonormal(self._within(self.atoms))

    def _within(self, atoms: Tensor) -> Tensor:
        return (atoms.flatten(3) @ self.span).view(atoms.shape)

    def simple(self, images: Tensor, atoms: Tensor) -> Tensor:
        """Return ``r = W w(x)`` at all positions, ``(B, K, H - h + 1, W - w + 1)``."""
        kernels, offsets = self.whitening.folded(atoms.flatten(3).flatten(0, 2))
        out = F.tiled_conv2d(images, kernels.view(atoms.shape))
        return plus_cycled(out, -offsets.view(atoms.shape[:3]))

    def pooled(self, images: Tensor, stride: int = 1, atoms: Tensor | None = None) -> Tensor:
        """Return ``sqrt(epsilon + sum over a window of r^2)``."""
        r = self.simple(images, self.atoms if atoms is None else atoms)
        return (F.avg_pool2d(r.square(), self.pool, stride) * (self.pool[0] * self.pool[1]) + self.epsilon).sqrt()

    def objective(self, images: Tensor, atoms: Tensor) -> Tensor:
        """Return the mean of the pooled responses, in double precision."""
        return self.pooled(images, 1, atoms).double().mean()

    def step(self, images: Tensor) -> float:
        """Take one step down, and return the objective before it.

        Along the manifold of orthonormal filters: ``D = G - (G W^T + W G^T) W / 2`` is the part of the gradient G that keeps
        ``W W^T = I`` to first order, and ``W - a D`` has the products ``I + a^2 D D^T``, so it can always be made orthonormal.
        The length a is halved until the objective falls by enough (Armijo's condition), and starts higher the next time. Where no
        length is short enough, filters stay as they are.
        """
        atoms = self.atoms.clone().requires_grad_()
        with torch.enable_grad():
            value = self.objective(images, atoms)
            (gradient,) = torch.autograd.grad(value, atoms)
        with torch.no_grad():
            before, down = float(value.detach()), self._within(tangent(self.atoms, gradient))
            slope, length = float(down.double().square().sum()), self.length
            for _ in range(_HALVINGS if slope > 0 else 0):
                tried = orthonormal(self.atoms - length * down)
                if float(self.objective(images, tried)) <= before - _SHARE * length * slope:
                    self.atoms, self.length = tried, min(2 * length, _LONGEST / slope**0.5)
                    break
                length /= 2
        return before


def whitened(patches: Tensor, count: int) -> tuple[Preparation, int]:
    """Return what brings patches ``(N, C, h, w)`` to variance 1 along their leading principal components, and how many these are.

    ``V diag(lambda)^(-1/2) V^T``, exactly: were some directions left with less variance, filters along those would lower the
    objective, whatever they see. The other components are taken away.

    Examples
    --------
    >>> patches = torch.randn(500, 2, 3, 2, generator=torch.Generator().manual_seed(0))
    >>> preparation, count = whitened(patches, 7)
    >>> count, round(float(preparation(patches).T.cov().trace()), 3)
    (7, 7.0)
    """
    rows = patches.flatten(1).double()
    mean = rows.mean(0)
    values, vectors = torch.linalg.eigh((rows - mean).T @ (rows - mean) / max(1, len(rows) - 1))
    values, vectors = values[-count:], vectors[:, -count:]
    kept = values > _SINGULAR * values.amax()
    scaled = vectors[:, kept] * values[kept].rsqrt()
    return Preparation(mean.float(), (scaled @ vectors[:, kept].T).float(), float("inf")), int(kept.sum())


def _rows(atoms: Tensor) -> Tensor:
    """Return the filters of each place of the period, ``(places, K, d)``, in double precision."""
    return atoms.flatten(3).flatten(1, 2).movedim(1, 0).double()


def _atoms(rows: Tensor, like: Tensor) -> Tensor:
    return rows.movedim(0, 1).reshape(like.shape).to(like.dtype)


def orthonormal(atoms: Tensor) -> Tensor:
    """Return the orthonormal filters nearest to given ones, ``(W W^T)^(-1/2) W`` at each place of the period.

    Parameters
    ----------
    atoms : Tensor
        ``(K, *period, C, h, w)``, K no more than ``C h w`` and independent at each place.

    Examples
    --------
    >>> orthonormal(torch.tensor([[3.0, 0.0, 4.0]]).view(1, 1, 1, 1, 1, 3)).flatten()
    tensor([0.6000, 0.0000, 0.8000])
    """
    rows = _rows(atoms)
    values, vectors = torch.linalg.eigh(rows @ rows.mT)
    return _atoms((vectors * values.rsqrt().unsqueeze(-2)) @ vectors.mT @ rows, atoms)


def tangent(atoms: Tensor, gradient: Tensor) -> Tensor:
    """Return the part of a gradient that keeps filters orthonormal to first order."""
    w, g = _rows(atoms), _rows(gradient)
    products = g @ w.mT
    return _atoms(g - (products + products.mT) @ w / 2, atoms)
