"""Patches of images: drawn evenly from a stream, their brightness and contrast taken out, whitened."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from ninefold.errors import ArgumentError, ShapeError
from ninefold.learn.images import Images

__all__ = ["Preparation", "check_values", "draw_patches"]

_ROWS = 1 << 14
"""Patches that are prepared at a time."""

_FEW = 4  # images so narrow are likely lines of one image, and their pixels its channels


_MOST = 32_766
"""Values in a patch: LAPACK counts the workspace for eigenvectors, 2 d^2 numbers, in 32 bits."""


def check_values(shape: Sequence[int]) -> None:
    """Refuse patches ``(C, h, w)`` of more values than a covariance can be had of.

    Raises
    ------
    ArgumentError
        If there are more.

    Examples
    --------
    >>> check_values((3, 6, 6))
    """
    d = math.prod(shape)
    if d > _MOST:
        raise ArgumentError(
            f"patches of {' x '.join(map(str, shape))} have {d} values, and a covariance of {8e-9 * d * d:.0f} GB; at most "
            f"{_MOST} are possible, and patch_size=6 is usual: a filter sees a part of an image"
        )


def draw_patches(images: Images, size: tuple[int, int], count: int, seed: int) -> Tensor:
    """Draw patches evenly among all that there are, each at most once, in one pass and the memory of as many.

    Every patch gets a random number, and those with the least are kept.

    Parameters
    ----------
    images : Images
    size : tuple of int
        Height and width.
    count : int
        How many; fewer where there are fewer.
    seed : int

    Returns
    -------
    Tensor
        ``(count, C, height, width)``.

    Raises
    ------
    ShapeError
        If the images differ in channels, or no image is as large as a patch.

    Examples
    --------
    >>> draw_patches(Images(np.arange(40.0).reshape(2, 4, 5)), (3, 2), 5, seed=0).shape
    torch.Size([5, 1, 3, 2])
    """
    generator = np.random.default_rng(seed)
    kept, keys = torch.empty(0, dtype=torch.float32, device="cpu"), np.empty(0)
    seen: tuple[int, ...] = ()
    for batch in images:
        if kept.numel() and batch.shape[1] != kept.shape[1]:
            raise ShapeError(f"images of {kept.shape[1]} and of {batch.shape[1]} channels are mixed; convert them to one number")
        seen = tuple(batch.shape)
        check_values((seen[1], *size))
        rows, columns = batch.shape[2] - size[0] + 1, batch.shape[3] - size[1] + 1
        if rows < 1 or columns < 1:
            continue
        found = generator.random(len(batch) * rows * columns)
        limit = np.inf if len(keys) < count else keys.max()
        chosen = np.flatnonzero(found < limit)
        if len(chosen) > count:
            chosen = chosen[np.argpartition(found[chosen], count - 1)[:count]]
        if not len(chosen):
            continue
        image, row, column = np.unravel_index(chosen, (len(batch), rows, columns))
        views = batch.unfold(2, size[0], 1).unfold(3, size[1], 1)
        new = views[torch.from_numpy(image), :, torch.from_numpy(row), torch.from_numpy(column)]
        keys, kept = np.concatenate([keys, found[chosen]]), torch.cat([kept, new]) if kept.numel() else new
        if len(keys) > count:
            least = np.argpartition(keys, count - 1)[:count]
            keys, kept = keys[least], kept[torch.from_numpy(least)]
    if not kept.numel():
        such = f", such as one of {seen}, (N, C, H, W)" if seen else ""
        alone = "; an image by itself, with its channels last, is X[None]" if seen and seen[3] <= _FEW else ""
        raise ShapeError(f"no image is as large as a patch of {size[0]}x{size[1]}{such}{alone}")
    return kept[torch.from_numpy(np.argsort(keys))]


@dataclass
class Preparation:
    """What patches go through before they are learned from, or compared with filters (Coates, Lee and Ng 2011).

    ``w = P (n(x) - M)`` with ``n(x) = (x - mean(x)) / sqrt(var(x) + contrast)``, the variance unbiased, over all channels; and
    the ZCA matrix ``P = V diag(1 / sqrt(lambda + whitening)) V^T`` of the covariance of n.

    Parameters
    ----------
    mean : Tensor
        ``M``, ``(d,)``.
    matrix : Tensor
        ``P``, ``(d, d)``, symmetric.
    contrast : float
        In squared units of the pixels; infinity leaves brightness and contrast as they are.

    Examples
    --------
    >>> patches = torch.randn(500, 2, 3, 2, generator=torch.Generator().manual_seed(0))
    >>> preparation = Preparation.fitted(patches, contrast=0.1, whitening=1e-6)
    >>> white = preparation(patches)
    >>> bool((white.T.cov().diag()[:5] > 0.5).all()), white.shape
    (True, torch.Size([500, 12]))
    """

    mean: Tensor
    matrix: Tensor
    contrast: float

    @classmethod
    def fitted(cls, patches: Tensor, contrast: float | None, whitening: float | None) -> Self:
        """Learn it from patches ``(N, C, h, w)``; None leaves out either step."""
        if any(value is not None and not value > 0 for value in (contrast, whitening)):
            raise ArgumentError(f"contrast={contrast} and whitening={whitening} must be above 0, or None to leave that step out")
        flat = patches.flatten(1)
        plain = cls.none(flat.shape[1])
        plain.contrast = float("inf") if contrast is None else contrast
        if whitening is None:
            return plain
        d = flat.shape[1]
        mean = torch.zeros(d, dtype=torch.float64, device="cpu")
        covariance = torch.zeros(d, d, dtype=torch.float64, device="cpu")
        for part in flat.split(_ROWS):
            mean += plain.normalised(part).double().sum(0)
        mean /= len(flat)
        for part in flat.split(_ROWS):
            centred = plain.normalised(part).double() - mean
            covariance += centred.T @ centred
        values, vectors = torch.linalg.eigh(covariance / max(1, len(flat) - 1))
        matrix = (vectors * (values.clamp_min(0) + whitening).rsqrt()) @ vectors.T
        return cls(mean.float(), matrix.float(), plain.contrast)

    @classmethod
    def none(cls, d: int) -> Self:
        """Return one that leaves patches of `d` values as they are."""
        check_values((d,))
        return cls(
            torch.zeros(d, dtype=torch.float32, device="cpu"), torch.eye(d, dtype=torch.float32, device="cpu"), float("inf")
        )

    def __getstate__(self) -> dict[str, Any]:
        """Keep arrays: joblib tells them apart by what they hold, and tensors by where they lie."""
        return {"mean": self.mean.numpy(), "matrix": self.matrix.numpy(), "contrast": self.contrast}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.contrast = state["contrast"]
        for name in ("mean", "matrix"):  # copies, for a memory map may be read-only; tensors, in files of before
            setattr(self, name, torch.from_numpy(np.array(state[name])))

    def normalised(self, flat: Tensor) -> Tensor:
        """Return ``n`` of patches ``(N, d)``."""
        if self.contrast == float("inf"):
            return flat
        centred = flat - flat.mean(1, keepdim=True)
        variance = centred.square().sum(1, keepdim=True) / max(1, flat.shape[1] - 1)
        return centred * (variance + self.contrast).rsqrt()

    def __call__(self, patches: Tensor) -> Tensor:
        """Return ``w`` of patches ``(N, C, h, w)`` as rows ``(N, d)``."""
        rows = patches.flatten(1)
        return self.into(rows, torch.empty_like(rows, dtype=self.matrix.dtype))

    def into(self, rows: Tensor, out: Tensor) -> Tensor:
        """Write ``w`` of patches ``(N, d)`` to memory, which may be theirs, some at a time; return it."""
        for part, place in zip(rows.split(_ROWS), out.split(_ROWS), strict=True):
            torch.mm(self.normalised(part) - self.mean, self.matrix, out=place)
        return out

    def folded(self, dictionary: Tensor) -> tuple[Tensor, Tensor]:
        """Return kernels and offsets with which ``D w(x) = kernels x / s(x) - offsets``, s the deviation of a patch.

        Parameters
        ----------
        dictionary : Tensor
            ``(K, d)``, in the space of ``w``.
        """
        kernels = dictionary @ self.matrix
        offsets = kernels @ self.mean
        if self.contrast != float("inf"):
            kernels = kernels - kernels.mean(1, keepdim=True)
        return kernels, offsets
