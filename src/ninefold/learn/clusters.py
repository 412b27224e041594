"""Pooling over bins of feature space: only what is near in the image and alike is pooled together (Boureau et al. 2011)."""

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from ninefold import functional as F
from ninefold.errors import ArgumentError, ShapeError
from ninefold.learn.base import seed_of, tensor_of, whole
from ninefold.learn.pooling import GridPool

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["ClusterPool", "check_finite", "check_operation", "check_width"]

_OPERATIONS = ("sum", "mean", "max")


class ClusterPool(GridPool):
    """Pooling over what is near in the image and in feature space: "ask the locals" (Boureau et al. 2011).

    k-means puts every position of a map into one of P bins by its descriptor; ``h[m, p]`` pools the codes of the positions of
    cell m whose bin is p. An empty bin gives 0. The sums over p of "sum" and of "mean" are those of ordinary pooling, as is the
    maximum over p of "max" where codes are not negative.

    Parameters
    ----------
    clusters : int
        P. One is ordinary pooling.
    grid : int or tuple of int
        As in `GridPool`.
    operation : {"max", "mean", "sum"}
    divisor : {"cell", "bin"}
        What "mean" divides a sum by: the positions of the cell, or those of the bin.
    n_samples : int
        Descriptors to learn the bins from, at most.
    max_iter : int
        Of Lloyd's iterations.
    random_state : int, RandomState or None

    Attributes
    ----------
    centres_ : ndarray
        ``(P, D)``, float32; while `fit` runs, those of the last iteration.

    Examples
    --------
    >>> maps = torch.tensor([[[[0.0, 0.1, 5.0, 7.0]]]])
    >>> pool = ClusterPool(2, grid=1, random_state=0).fit([maps])
    >>> sorted(pool(maps)[0].tolist()), pool.names()
    ([0.10000000149011612, 7.0], ['r0c0b0', 'r0c0b1'])
    """

    def __init__(
        self,
        clusters: int = 8,
        grid: int | tuple[int, int] = 1,
        operation: str = "max",
        *,
        divisor: str = "cell",
        n_samples: int = 20_000,
        max_iter: int = 50,
        random_state: Any = None,
    ) -> None:
        super().__init__(grid, operation)
        self.clusters = clusters
        self.divisor = divisor
        self.n_samples = n_samples
        self.max_iter = max_iter
        self.random_state = random_state

    def fit(self, maps: Iterable[Tensor], y: "ArrayLike | None" = None) -> Self:  # noqa: ARG002  scikit-learn's signature
        """Learn the bins.

        Parameters
        ----------
        maps : iterable of Tensor
            ``(B, D, h, w)``: encoded maps, or other descriptors, which `pool` must be given then; of any sizes.
        y : ignored

        Raises
        ------
        ArgumentError, ShapeError
            If there are no maps, they hold NaN or infinity, or differ in their number of channels.
        """
        count, iterations, seed = whole(self.clusters, "clusters"), whole(self.max_iter, "max_iter"), seed_of(self.random_state)
        self._check()
        self.__dict__.pop("minibatch_", None)
        rows = _drawn(maps, max(count, whole(self.n_samples, "n_samples")), seed)
        distinct = np.unique(rows, axis=0)
        if len(distinct) < count:
            warnings.warn(
                f"clusters={count} bins cannot be made of {len(distinct)} different descriptors: there will be {len(distinct)}",
                UserWarning,
                stacklevel=2,
            )
            count = len(distinct)
        centres = distinct[np.random.default_rng(seed).choice(len(distinct), count, replace=False)]
        for _ in range(iterations):
            before, centres = centres, _iterated(centres, rows, seed)
            self.centres_ = np.ascontiguousarray(centres, np.float32)
            if np.abs(before - centres).max() <= 1e-6 * np.abs(centres).max():
                break
        return self

    def partial_fit(self, maps: Iterable[Tensor], y: "ArrayLike | None" = None) -> Self:
        """Go on learning the bins by mini-batches, one for each tensor of `maps`; starts with `fit` if that has not begun."""
        if not hasattr(self, "centres_"):
            return self.fit(maps, y)
        if not hasattr(self, "minibatch_"):
            self.minibatch_ = MiniBatchKMeans(
                len(self.centres_), init=self.centres_, n_init=1, random_state=seed_of(self.random_state)
            )
        for batch in maps:
            rows = _rows(batch)
            check_width(rows.shape[1], self.centres_.shape[1])
            self.minibatch_.partial_fit(rows.numpy())
            self.centres_ = np.ascontiguousarray(self.minibatch_.cluster_centers_, np.float32)
        return self

    def bins(self, descriptors: Tensor) -> Tensor:
        """Return the bin of every position, ``(B, h, w)``, of ``(B, D, h, w)``: the nearest centre's, the first of equals."""
        check_is_fitted(self, "centres_")
        check_width(descriptors.shape[1], self.centres_.shape[1])
        centres = tensor_of(self.centres_).to(descriptors)
        near = F.conv2d(descriptors, centres[:, :, None, None], -centres.square().sum(1) / 2)
        return near.argmax(1)

    def names(self) -> list[str]:
        """Return ``r0c1b2`` and so on: row, column, bin."""
        count = len(self.centres_) if hasattr(self, "centres_") else whole(self.clusters, "clusters")
        return [f"{region}b{p}" for region in super().names() for p in range(count)]

    def __call__(self, maps: Tensor) -> Tensor:
        """Pool ``(B, F, h, w)`` to ``(B, cells * P * F)``: cell by cell, bin by bin."""
        return self.pool(maps, maps)

    def pool(self, maps: Tensor, descriptors: Tensor) -> Tensor:
        """Pool codes ``(B, F, h, w)`` by the bins of descriptors ``(B, D, h, w)``.

        Raises
        ------
        ShapeError
            If the positions of both differ, or the descriptors have another width than those that were learned from.
        """
        self._check()
        if maps.shape[0] != descriptors.shape[0] or maps.shape[2:] != descriptors.shape[2:]:
            raise ShapeError(
                f"maps of {tuple(maps.shape)} and descriptors of {tuple(descriptors.shape)} have different positions"
            )
        where, pooled = self.bins(descriptors), []
        for top, bottom, left, right in self.regions(maps.shape[2], maps.shape[3]):
            codes = maps[:, :, top:bottom, left:right].flatten(2)
            members = where[:, None, top:bottom, left:right].flatten(2)
            pooled += [self._pooled(codes, members == p) for p in range(len(self.centres_))]
        return torch.cat(pooled, 1)

    def _pooled(self, codes: Tensor, members: Tensor) -> Tensor:
        """Pool codes ``(B, F, n)`` of the members ``(B, 1, n)``."""
        counts = members.sum(2)
        if self.operation == "max":
            return torch.where(counts > 0, codes.masked_fill(~members, float("-inf")).amax(2), 0)
        sums = torch.where(members, codes, 0).sum(2)
        if self.operation == "sum":
            return sums
        return sums / (codes.shape[2] if self.divisor == "cell" else counts.clamp_min(1))

    def _check(self) -> None:
        check_operation(self.operation)
        if self.divisor not in ("cell", "bin"):
            raise ArgumentError(f"divisor={self.divisor!r} is not one of 'cell', 'bin'")


def _drawn(maps: Iterable[Tensor], count: int, seed: int) -> "NDArray[np.float32]":
    """Return descriptors ``(count, D)`` drawn evenly in one pass: those that get the least random numbers."""
    generator = np.random.default_rng(seed)
    kept, keys = np.empty((0, 0), np.float32), np.empty(0)
    for batch in maps:
        rows = _rows(batch).numpy()
        if not kept.size:
            kept = np.empty((0, rows.shape[1]), np.float32)
        check_width(rows.shape[1], kept.shape[1])
        keys = np.concatenate([keys, generator.random(len(rows))])
        least = np.argsort(keys, kind="stable")[:count]
        old = len(kept)
        kept = np.concatenate([kept[least[least < old]], rows[least[least >= old] - old]])
        keys = np.concatenate([keys[least[least < old]], keys[least[least >= old]]])
    if not kept.size:
        raise ArgumentError("there are no maps to learn bins from; an iterator that has been read gives no more")
    return kept


def _rows(batch: Tensor) -> Tensor:
    """Return the descriptors of all positions, ``(n, D)``, float32."""
    check_finite(batch)
    return batch.detach().movedim(1, -1).flatten(0, 2).float()


def _iterated(centres: "NDArray[np.float32]", rows: "NDArray[np.float32]", seed: int) -> "NDArray[np.float32]":
    """Return centres after one iteration of Lloyd's, those without members put elsewhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return KMeans(len(centres), init=centres, n_init=1, max_iter=1, random_state=seed).fit(rows).cluster_centers_


def check_operation(operation: Any) -> None:
    """Refuse what is none of the three."""
    if operation not in _OPERATIONS:
        raise ArgumentError(f"operation={operation!r} is not one of {list(_OPERATIONS)}")


def check_finite(batch: Tensor) -> None:
    """Refuse what is no batch of maps, and NaN."""
    if batch.ndim != 4:
        raise ShapeError(f"maps must have shape (B, F, h, w), got {tuple(batch.shape)}")
    if not bool(batch.isfinite().all()):
        raise ArgumentError(f"the maps hold {int((~batch.isfinite()).sum())} values of NaN or infinity")


def check_width(found: int, wanted: int) -> None:
    """Refuse maps of another number of channels."""
    if found != wanted:
        raise ShapeError(f"these maps have {found} channels, and those before had {wanted}")
