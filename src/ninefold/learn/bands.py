"""Features of images by bands: maps of a few rows are compared, encoded and pooled while they are in the L2 cache.

Whole maps of an image are 4.7 MB at 1600 filters and 27x27 positions. Written to memory and read again by every step of an
encoder they take longer than the products that make them. A band of rows stays in the cache, and memory is used again.

Sums and means of the three encoders that are simplest have a kernel of their own (``native/encode/``), in which a thread takes
an image from its patches to its sums: threads meet once for a batch, not after every step.
"""

from itertools import chain
from typing import Any

import torch
from torch import Tensor

from ninefold.engines import native
from ninefold.learn.compare import Compared, Comparison
from ninefold.learn.encoders import Encoder, Hard, SoftThreshold, Triangle
from ninefold.learn.pooling import Region, RegionPool

__all__ = ["Bands"]

_BAND = 1 << 20
"""Bytes of encoded maps in a band, for each thread: half of an L2 cache of 2 MB."""


class Bands:
    """A comparison, an encoder and a pooling in one pass.

    Only where `fitting`: the encoder looks at one position at a time, the regions of the pooling do not depend on what is in
    the maps, and there are at least as many atoms as values in a patch: cutting patches out costs little beside the products.

    Parameters
    ----------
    comparison : Comparison
    encoder : Encoder
    pooling : RegionPool

    Examples
    --------
    >>> from ninefold.learn import QuadrantSums, RandomFilters, Triangle
    >>> images = torch.randn(4, 2, 9, 8, generator=torch.Generator().manual_seed(0))
    >>> comparison = Comparison(RandomFilters(14, (3, 2), random_state=0).fit(images))
    >>> rows = Bands(comparison, Triangle(), QuadrantSums())(images)
    >>> torch.allclose(rows, QuadrantSums()(Triangle()(comparison(images))), atol=1e-4)
    True
    """

    def __init__(self, comparison: Comparison, encoder: Encoder, pooling: RegionPool) -> None:
        self._comparison, self._encoder, self._pooling = comparison, encoder, pooling
        self._memory = torch.empty(0, dtype=torch.float32, device="cpu")
        self._plans: dict[tuple[int, ...], Any] = {}

    @staticmethod
    def fitting(comparison: Comparison, encoder: Any, pooling: Any) -> bool:
        """Return whether features can be had so, and are had sooner."""
        if not (isinstance(encoder, Encoder) and encoder.pointwise and comparison.count >= comparison.values):
            return False
        return isinstance(pooling, RegionPool) and type(pooling).__call__ is RegionPool.__call__

    def __call__(self, images: Tensor) -> Tensor:
        """Return features ``(B, regions * F)`` of images ``(B, C, H, W)``."""
        height, width = self._comparison.fit(images)
        values = self._encoder.width(self._comparison.count)
        regions = self._pooling.regions(height, width)
        code = self._code()
        if code is not None:
            pooled = torch.empty(len(images), len(regions), values, dtype=torch.float32, device="cpu")
            images = native.plain(images)
            self._plan(code, images, regions).run(len(images), native.address(images), native.address(pooled))
            return self._pooling.finish(pooled, regions)
        at_once = _BAND * torch.get_num_threads() // (4 * values * width)
        together, rows = max(1, at_once // height), min(height, max(1, at_once))
        pooled = self._pooling.start(images.new_empty(0, values, 0, 0), len(images), regions)
        patches = self._comparison.patches(images)
        for k in range(0, len(images), together):
            for top in range(0, height, rows):
                band = patches[k : k + together, top : top + rows]
                maps = self._encoder(self._compared(band))
                self._pooling.add(pooled[k : k + together], maps, top, regions)
        return self._pooling.finish(pooled, regions)

    def _code(self) -> tuple[int, float] | None:
        """Return the number that the kernel knows the encoder by, and its threshold; None where it knows none."""
        alone = type(self._pooling).add is RegionPool.add and self._pooling.operation in ("sum", "mean")
        if native.instruction_set() is None or not alone:
            return None
        if type(self._encoder) is SoftThreshold and self._encoder.alpha >= 0:
            return (3 if self._encoder.split else 2), float(self._encoder.alpha)
        return {Triangle: (0, 0.0), Hard: (1, 0.0)}.get(type(self._encoder))

    def _plan(self, code: tuple[int, float], images: Tensor, regions: list[Region]) -> Any:
        """Return a plan of the kernel for images of this size."""
        threads = torch.get_num_threads()
        key = (*images.shape[1:], threads)
        if key not in self._plans:
            self._plans.clear()  # the atoms are packed in each, and images of one size follow one another
            self._plans[key] = self._comparison.plan(code, images.shape[2], images.shape[3], list(chain(*regions)), threads)
        return self._plans[key]

    def _compared(self, band: Tensor) -> Compared:
        """Compare patches ``(n, h, w, C, kh, kw)`` with all atoms, in memory that the band before had."""
        n, h, w = band.shape[:3]
        count, values = n * h * w, self._comparison.values
        if self._memory.numel() < count * (values + self._comparison.count):
            self._memory = self._memory.new_empty(count * (values + self._comparison.count))
        rows = self._memory[: count * values].view(count, values)
        dots = self._memory[rows.numel() : rows.numel() + count * self._comparison.count].view(count, -1)
        rows.view(band.shape).copy_(band)
        return self._comparison.of_rows(rows, dots, (n, h, w))
