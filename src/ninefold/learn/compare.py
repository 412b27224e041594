"""Every patch of an image compared with every atom: one convolution, whatever the patches go through before."""

from typing import Any

import torch
from torch import Tensor

from ninefold import functional as F
from ninefold.engines import native
from ninefold.errors import ShapeError
from ninefold.learn.base import FilterSource, tensor_of

__all__ = ["Compared", "Comparison"]


class Compared:
    """What the patches of a batch of images have in common with the atoms.

    Parameters
    ----------
    dots : Tensor
        ``(B, K, h, w)``, channels-last: the product of each prepared patch with each atom. Encoders may write over it.
    comparison : Comparison
    images : Tensor
        ``(B, C, H, W)``, each less its mean if brightness is taken out.
    scale : Tensor or None
        ``(B, 1, h, w)``: one over the deviation of each patch.
    """

    def __init__(self, dots: Tensor, comparison: "Comparison", images: Tensor, scale: Tensor | None) -> None:
        self.dots, self.comparison = dots, comparison
        self._images, self._scale = images, scale

    def energy(self) -> Tensor:
        """Return the squared norm of each prepared patch, ``(B, 1, h, w)``."""
        return self.comparison.energy(self._images, self._scale)


class _OfRows(Compared):
    """The same of patches that were cut out and prepared."""

    def __init__(self, dots: Tensor, comparison: "Comparison", rows: Tensor) -> None:
        self.dots, self.comparison, self._rows = dots, comparison, rows

    def energy(self) -> Tensor:
        n, _, h, w = self.dots.shape
        return self._rows.square().sum(1).view(n, 1, h, w)


class Comparison:
    """The atoms of a fitted source, folded so that images need not be cut into patches.

    ``D w(x)`` for every patch x is a convolution with the folded kernels, divided by the deviation of the patch, less offsets;
    the squared norm of ``w(x)``, which distances need, takes one more kernel for every value of a patch.

    Parameters
    ----------
    source : FilterSource
        Fitted.
    stride : int

    Examples
    --------
    >>> from ninefold.learn import SampledPatches
    >>> images = torch.randn(4, 2, 9, 8, generator=torch.Generator().manual_seed(0))
    >>> source = SampledPatches(5, (3, 2), random_state=0).fit(images)
    >>> patch = source.preparation_(images[:1, :, 4:7, 5:7])
    >>> compared = Comparison(source)(images)
    >>> torch.allclose(compared.dots[0, :, 4, 5], torch.from_numpy(source.atoms_).flatten(1) @ patch[0], atol=1e-4)
    True
    >>> torch.allclose(compared.energy()[0, 0, 4, 5], patch.square().sum(), rtol=1e-4)
    True
    """

    def __init__(self, source: FilterSource, stride: int = 1) -> None:
        atoms, self._preparation = tensor_of(source.atoms_), source.preparation_
        self.size: tuple[int, int] = (atoms.shape[2], atoms.shape[3])
        self.channels, self.stride, self.count = atoms.shape[1], stride, len(atoms)
        kernels, offsets = self._preparation.folded(atoms.flatten(1))
        self._kernels, self._offsets = _as_kernels(kernels, atoms), offsets
        self._atoms = atoms.flatten(1)
        self.values = self._atoms.shape[1]
        self.norms = self._atoms.square().sum(1)
        self._parts: tuple[Tensor, Tensor] | None = None
        if bool(self._preparation.mean.any()) or not _is_identity(self._preparation.matrix):
            rows, shifts = self._preparation.folded(torch.eye(atoms[0].numel(), dtype=torch.float32, device="cpu"))
            self._parts = _as_kernels(rows, atoms), shifts

    @property
    def _contrast(self) -> float:
        return self._preparation.contrast

    def positions(self, height: int, width: int) -> tuple[int, int]:
        """Return how many patches there are along each axis."""
        return tuple((n - k) // self.stride + 1 for n, k in zip((height, width), self.size, strict=True))  # type: ignore[return-value]

    def fit(self, images: Tensor) -> tuple[int, int]:
        """Return how many patches images have along each axis.

        Raises
        ------
        ShapeError
            If they have another number of channels than the atoms, or are smaller.
        """
        if images.shape[1] != self.channels:
            raise ShapeError(f"the images have {images.shape[1]} channels, and the filters were learned from {self.channels}")
        height, width = self.positions(images.shape[2], images.shape[3])
        if min(height, width) < 1:
            raise ShapeError(f"images of {tuple(images.shape[2:])} are smaller than the filters, {self.size}")
        return height, width

    def patches(self, images: Tensor) -> Tensor:
        """Return a view of all patches, ``(B, h, w, C, kh, kw)``."""
        views = images.unfold(2, self.size[0], self.stride).unfold(3, self.size[1], self.stride)
        return views.permute(0, 2, 3, 1, 4, 5)

    def of_rows(self, rows: Tensor, dots: Tensor, shape: tuple[int, int, int]) -> Compared:
        """Compare patches that were cut out, ``(n * h * w, values)``; both they and `dots` are written over."""
        if self._parts is not None or self._contrast != float("inf"):
            self._preparation.into(rows, rows)
        torch.mm(rows, self._atoms.T, out=dots)
        return _OfRows(dots.view(*shape, self.count).permute(0, 3, 1, 2), self, rows)

    def __call__(self, images: Tensor) -> Compared:
        """Compare; images are ``(B, C, H, W)``, float32.

        Raises
        ------
        ShapeError
            If they have another number of channels than the atoms, or are smaller.
        """
        self.fit(images)
        scale = None
        if self._contrast != float("inf"):
            images = images - images.mean((1, 2, 3), keepdim=True)
            scale = self._deviations(images).add_(self._contrast).rsqrt_()
        images = images.contiguous(memory_format=torch.channels_last)
        return Compared(self._linear(images, self._kernels, self._offsets, scale), self, images, scale)

    def plan(self, code: tuple[int, float], height: int, width: int, regions: list[int], threads: int) -> Any:
        """Return the native plan that makes sums over regions of images of this size, prepared, compared and encoded."""
        size = [self.channels, height, width, *self.size, self.stride, self.values, self.count]
        mean, matrix, atoms = (x.float().contiguous() for x in (self._preparation.mean, self._preparation.matrix, self._atoms))
        addresses = [native.address(mean), 0 if _is_identity(matrix) else native.address(matrix), native.address(atoms)]
        contrast = -1.0 if self._contrast == float("inf") else self._contrast
        made = native.extension_module().EncodePlan
        return made(native.instruction_set(), code[0], threads, size, addresses, [contrast, code[1]], regions)

    def gram(self) -> Tensor:
        """Return the products of the atoms with one another, ``(K, K)``."""
        return self._atoms @ self._atoms.T

    def energy(self, images: Tensor, scale: Tensor | None) -> Tensor:
        """Return the squared norm of every prepared patch; the images are as `Compared` holds them."""
        if self._parts is not None:
            return self._linear(images, *self._parts, scale).square_().sum(1, keepdim=True)
        if scale is None:
            return self._sums(images.square())
        return self._deviations(images).mul_(scale.square()).mul_(self.channels * self.size[0] * self.size[1] - 1)

    def _linear(self, images: Tensor, kernels: Tensor, offsets: Tensor, scale: Tensor | None) -> Tensor:
        out = F.conv2d(images, kernels, stride=self.stride)
        if scale is not None:
            out.mul_(scale)
        return out.sub_(offsets.view(1, -1, 1, 1)) if bool(offsets.any()) else out

    def _sums(self, images: Tensor) -> Tensor:
        """Return the sum over each patch, ``(B, 1, h, w)``."""
        over = images.sum(1, keepdim=True)
        return F.avg_pool2d(over, self.size, self.stride).mul_(self.size[0] * self.size[1])

    def _deviations(self, images: Tensor) -> Tensor:
        """Return the unbiased variance of each patch."""
        d = self.channels * self.size[0] * self.size[1]
        sums, squares = self._sums(images), self._sums(images.square())
        return squares.sub_(sums.square_().div_(d)).div_(max(1, d - 1)).clamp_min_(0)


def _as_kernels(rows: Tensor, like: Tensor) -> Tensor:
    return rows.reshape(-1, *like.shape[1:]).contiguous(memory_format=torch.channels_last)


def _is_identity(matrix: Tensor) -> Any:
    return torch.equal(matrix, torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device))
