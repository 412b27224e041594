"""k-means on whitened patches: the dictionary of Coates, Lee and Ng (2011)."""

import warnings
from typing import Any, Self

import numpy as np
import torch
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from ninefold.learn.base import PatchSource, seed_of, size_of, whole
from ninefold.learn.images import Channels, Images
from ninefold.learn.patches import Preparation, draw_patches
from ninefold.learn.simple import at_most

__all__ = ["KMeansFilters"]

_REVIVALS = 5  # times that centroids of nothing, or double ones, are replaced; there are patches enough after that, or never


class KMeansFilters(PatchSource):
    """Centroids of patches, prepared and whitened: the source to try first.

    scikit-learn's k-means does the work: Lloyd's iterations in blocks of patches, so that distances to all centroids are never in
    memory together. Centroids that come out double, or of which no patch is a member, are replaced by patches that are farthest
    from theirs, so that exactly `n_filters` different ones are left. Parameters are those of `PatchSource` and these.

    Parameters
    ----------
    max_iter : int
        Of Lloyd's iterations.

    Attributes
    ----------
    inertia_ : float
        Sum of squared distances to the nearest centroid.
    revived_ : int
        How many centroids were replaced.
    history_ : dict of str to list of float
        ``"error"``, the share of the patches' squares that centroids leave, and ``"sparsity"``, one over their number: after
        each `partial_fit`, of its patches; in `fit` after each run of k-means, of which there are several only where centroids
        were replaced, for scikit-learn tells nothing of the iterations of a run.

    Examples
    --------
    >>> images = np.random.default_rng(0).normal(size=(30, 9, 8))
    >>> KMeansFilters(7, 3, random_state=0).fit(images).filters_.shape
    (7, 1, 3, 3)
    """

    def __init__(
        self,
        n_filters: int = 256,
        patch_size: int | tuple[int, int] = 6,
        *,
        n_patches: int = 100_000,
        contrast: Any = "auto",
        whitening: float | None = 0.1,
        max_iter: int = 50,
        channels: Channels = "auto",
        random_state: Any = None,
    ) -> None:
        super().__init__(
            n_filters,
            patch_size,
            n_patches=n_patches,
            contrast=contrast,
            whitening=whitening,
            channels=channels,
            random_state=random_state,
        )
        self.max_iter = max_iter

    def _dictionary(self, patches: Tensor, count: int, seed: int) -> Tensor:
        rows, iterations = patches.numpy(), whole(self.max_iter, "max_iter")
        generator = np.random.default_rng(seed)
        start = rows[generator.choice(len(rows), min(count, len(rows)), replace=False)]
        if len(np.unique(start, axis=0)) < count:  # looked for among all of them only where a few are double already
            distinct = np.unique(rows, axis=0)
            start = distinct[generator.choice(len(distinct), at_most(count, len(distinct)), replace=False)]
        count, self.revived_ = len(start), 0
        self.history_: dict[str, list[float]] = {"error": [], "sparsity": []}
        for _ in range(_REVIVALS):
            means = KMeans(count, init=start, n_init=1, max_iter=iterations, random_state=seed, copy_x=False)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # of double points, which are looked for here
                means.fit(rows)
            self._record(means, rows)
            start, dead = _revived(means, rows)
            if not dead:
                break
            self.revived_ += dead
        self.inertia_ = float(means.inertia_)
        return torch.from_numpy(np.ascontiguousarray(start, np.float32))

    def partial_fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002  scikit-learn's signature
        """Go on learning from more images, by mini-batches; the first call fixes brightness, contrast and whitening.

        Examples
        --------
        >>> source, images = KMeansFilters(7, 3, random_state=0), np.random.default_rng(0).normal(size=(30, 9, 8))
        >>> source.partial_fit(images[:15]).partial_fit(images[15:]).filters_.shape
        (7, 1, 3, 3)
        """
        size, seed = size_of(self.patch_size), seed_of(self.random_state)
        patches = draw_patches(Images(X, self.channels), size, whole(self.n_patches, "n_patches"), seed)
        if not hasattr(self, "minibatch_"):
            self.preparation_ = Preparation.fitted(patches, self._contrast(patches), self.whitening)
            count = at_most(whole(self.n_filters, "n_filters"), len(patches))
            self.minibatch_ = MiniBatchKMeans(count, n_init=1, random_state=seed, init="random")
            self.history_ = {"error": [], "sparsity": []}
        rows = self.preparation_(patches).numpy()
        self._record(self.minibatch_.partial_fit(rows), rows)
        centres = np.asarray(self.minibatch_.cluster_centers_, np.float32)
        return self._learned(torch.from_numpy(centres).reshape(-1, *patches.shape[1:]), self.preparation_)

    def _record(self, means: Any, rows: np.ndarray) -> None:
        squares = float(np.vdot(rows, rows))
        self.history_["error"].append(float(means.inertia_) / squares if squares else 0.0)
        self.history_["sparsity"].append(1 / len(means.cluster_centers_))


def _revived(means: Any, rows: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the centres, those without members and double ones put on the patches that are farthest from theirs."""
    centres = np.array(means.cluster_centers_)
    members = np.bincount(means.labels_, minlength=len(centres))
    _, first = np.unique(centres, axis=0, return_index=True)
    dead = np.setdiff1d(np.arange(len(centres)), first)
    dead = np.union1d(dead, np.flatnonzero(members == 0))
    if len(dead):
        gaps = np.empty(len(rows))
        for k in range(0, len(rows), 1 << 14):
            part = slice(k, k + (1 << 14))
            gaps[part] = np.square(rows[part] - centres[means.labels_[part]]).sum(1)
        gaps[np.unique(rows, axis=0, return_index=True)[1]] += 1e-12  # one of equal patches before the others
        centres[dead] = rows[np.argsort(-gaps, kind="stable")[: len(dead)]]
    return centres, len(dead)
