"""k-means on whitened patches: the dictionary of Coates, Lee and Ng (2011)."""

import warnings
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from ninefold.errors import ArgumentError, ShapeError
from ninefold.learn.base import PatchSource, seed_of, size_of, whole
from ninefold.learn.images import Channels, Images
from ninefold.learn.patches import Preparation, draw_patches
from ninefold.learn.simple import at_most

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["KMeansFilters"]

_REVIVALS = 5  # times that centroids of nothing, or double ones, are replaced; there are patches enough after that, or never
_CHUNK = 10  # iterations in one call of scikit-learn, which compares all patches once more at the end of each


class KMeansFilters(PatchSource):
    """Centroids of patches, prepared and whitened: the source to try first.

    scikit-learn's k-means does the work: Lloyd's iterations in blocks of patches, so that distances to all centroids are never in
    memory together, ten iterations a call. Centroids that come out double, or of which no patch is a member, are replaced by
    patches that are farthest from theirs, and iterations begin again, so that exactly `n_filters` different ones are left.
    Parameters are those of `PatchSource` and these.

    Parameters
    ----------
    max_iter : int
        Of Lloyd's iterations.
    warm_start : bool
        Whether `fit` goes on with a `fit` that was interrupted, or else begins at the centroids that are there, with the
        brightness, contrast and whitening that were fixed then. An interrupted one needs the same images again, and ends as if
        nothing had been.
    progress : callable, optional
        Called with (iterations done, `max_iter`) after every ten, when what was learned so far is in place. It begins again
        where centroids were replaced.

    Attributes
    ----------
    inertia_ : float
        Sum of squared distances to the nearest centroid.
    n_iter_ : int
        Iterations done in all.
    revived_ : int
        How many centroids were replaced.
    history_ : dict of str to list of float
        ``"error"``, the share of the patches' squares that centroids leave, and ``"sparsity"``, one over their number: after
        each `partial_fit`, of its patches; in `fit` after every ten iterations, and after the last.

    Examples
    --------
    >>> images = np.random.default_rng(0).normal(size=(30, 9, 8))
    >>> KMeansFilters(7, 3, random_state=0).fit(images).filters_.shape
    (7, 1, 3, 3)
    """

    _asked: int
    _run: dict[str, Any]
    history_: dict[str, list[float]]

    def __init__(
        self,
        n_filters: int = 256,
        patch_size: int | tuple[int, int] = 6,
        *,
        n_patches: int = 100_000,
        contrast: Any = "auto",
        whitening: float | None = 0.1,
        max_iter: int = 50,
        warm_start: bool = False,
        channels: Channels = "auto",
        random_state: Any = None,
        progress: "Callable[[int, int], None] | None" = None,
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
        self.warm_start = warm_start
        self.progress = progress

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002  scikit-learn's signature
        """Draw patches from images and learn from them.

        An interrupt leaves the centroids that were reached when `progress` was last due; `fit` with ``warm_start=True`` goes on
        from there, as does `partial_fit`.

        Raises
        ------
        ArgumentError, ShapeError
            If a parameter is out of its range, or the images do not fit, or another number or size of filters is to start warm.

        Examples
        --------
        >>> images = np.random.default_rng(0).normal(size=(30, 9, 8))
        >>> def stop(done, total):
        ...     raise KeyboardInterrupt
        >>> source = KMeansFilters(7, 3, warm_start=True, random_state=0, progress=stop)
        >>> try:
        ...     source.fit(images)
        ... except KeyboardInterrupt:
        ...     print(source.n_iter_, "iterations")
        10 iterations
        >>> whole = KMeansFilters(7, 3, random_state=0).fit(images)
        >>> np.array_equal(source.set_params(progress=None).fit(images).filters_, whole.filters_)
        True
        """
        run = getattr(self, "_run", None) if self.warm_start else None
        return self._learn(X, None if run is None or run["over"] else run)

    def _resume(self, X: Any) -> Self:
        """Go on with a `fit` that ended early, with the same images, as if it had not."""
        return self._learn(X, self._run)

    def _learn(self, X: Any, run: dict[str, Any] | None) -> Self:
        """Learn from images; `run` is what an interrupted fit left."""
        count, size, iterations = whole(self.n_filters, "n_filters"), size_of(self.patch_size), whole(self.max_iter, "max_iter")
        warm = run is not None or (self.warm_start and hasattr(self, "atoms_"))
        seed = seed_of(self.random_state) if run is None else run["seed"]
        patches = draw_patches(Images(X, self.channels), size, whole(self.n_patches, "n_patches"), seed)
        if warm:
            self._check_shape(patches)
            if count != self._asked:
                raise ArgumentError(f"n_filters={count}, but {self._asked} are to start warm; fit with warm_start=False")
            preparation = self.preparation_
        else:
            preparation = Preparation.fitted(patches, self._contrast(patches), self.whitening)
        shape, flat = patches.shape[1:], patches.flatten(1)
        del patches  # only one copy of them is kept
        rows = preparation.into(flat, flat).numpy()
        history = {key: list(values) for key, values in self.history_.items()} if warm else {"error": [], "sparsity": []}
        if run is None:
            start = self.atoms_.reshape(len(self.atoms_), -1) if warm else _start(rows, count, seed)
            if not warm:
                at_most(count, len(start))
            run = {"seed": seed, "centres": start, "round": 0, "done": 0, "all": 0, "calls": 0, "revived": 0, "over": False}
        for _ in range(run["calls"]):
            _rounded(rows)
        while not run["over"]:
            run, means = _chunk(rows, run, iterations)
            _record(history, means, rows)
            self._learned(torch.from_numpy(run["centres"]).reshape(-1, *shape), preparation)
            self.inertia_, self.n_iter_, self.revived_ = float(means.inertia_), run["all"], run["revived"]
            self._run, self._asked, self.history_ = run, count, {key: list(values) for key, values in history.items()}
            self.__dict__.pop("minibatch_", None)
            if self.progress is not None:
                self.progress(run["done"], iterations)
        return self

    def partial_fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002  scikit-learn's signature
        """Go on learning from more images, by mini-batches, from the centroids that are there.

        The first call fixes brightness, contrast and whitening, unless `fit` did.

        Raises
        ------
        ArgumentError, ShapeError
            As `fit`; and if the images have other channels than those before.

        Examples
        --------
        >>> source, images = KMeansFilters(7, 3, random_state=0), np.random.default_rng(0).normal(size=(30, 9, 8))
        >>> source.partial_fit(images[:15]).partial_fit(images[15:]).filters_.shape
        (7, 1, 3, 3)
        """
        size, seed = size_of(self.patch_size), seed_of(self.random_state)
        patches = draw_patches(Images(X, self.channels), size, whole(self.n_patches, "n_patches"), seed)
        if hasattr(self, "atoms_"):
            self._check_shape(patches)
        else:
            self.preparation_ = Preparation.fitted(patches, self._contrast(patches), self.whitening)
            self.history_ = {"error": [], "sparsity": []}
        if not hasattr(self, "minibatch_"):
            learned = hasattr(self, "atoms_")
            self._asked = self._asked if learned else whole(self.n_filters, "n_filters")
            count = len(self.atoms_) if learned else at_most(self._asked, len(patches))
            start = self.atoms_.reshape(count, -1) if learned else "random"
            self.minibatch_ = MiniBatchKMeans(count, n_init=1, random_state=seed, init=start)
        rows = self.preparation_(patches).numpy()
        _record(self.history_, self.minibatch_.partial_fit(rows), rows)
        self.__dict__.pop("_run", None)
        centres = np.asarray(self.minibatch_.cluster_centers_, np.float32)
        return self._learned(torch.from_numpy(centres).reshape(-1, *patches.shape[1:]), self.preparation_)

    def _check_shape(self, patches: Tensor) -> None:
        if self.atoms_.shape[1:] != patches.shape[1:]:
            raise ShapeError(
                f"patches of shape {tuple(patches.shape[1:])}, but the centroids so far have {self.atoms_.shape[1:]}; for "
                "others, fit with warm_start=False"
            )

    def _dictionary(self, patches: Tensor, count: int, seed: int) -> Tensor:  # pragma: no cover
        raise NotImplementedError  # `fit` keeps its state between chunks


def _start(rows: "NDArray[np.float32]", count: int, seed: int) -> "NDArray[np.float32]":
    """Return different rows, drawn evenly: as many, or all that there are."""
    generator = np.random.default_rng(seed)
    start = rows[generator.choice(len(rows), min(count, len(rows)), replace=False)]
    if len(np.unique(start, axis=0)) == count:
        return start
    distinct = np.unique(rows, axis=0)  # looked for among all of them only where a few are double already
    return distinct[generator.choice(len(distinct), min(count, len(distinct)), replace=False)]


def _chunk(rows: "NDArray[np.float32]", run: dict[str, Any], iterations: int) -> tuple[dict[str, Any], KMeans]:
    """Return where a run is after a few more iterations, and scikit-learn's k-means that did them."""
    most = max(1, min(_CHUNK, iterations - run["done"]))
    centres = run["centres"]
    means = KMeans(len(centres), init=centres, n_init=1, max_iter=most, random_state=run["seed"], copy_x=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of double points, which are looked for here
        means.fit(rows)
    done = run["done"] + means.n_iter_
    new = run | {"centres": means.cluster_centers_, "done": done, "all": run["all"] + means.n_iter_, "calls": run["calls"] + 1}
    if means.n_iter_ == most and done < iterations:
        return new, means
    new["centres"], dead = _revived(means, rows)
    new["revived"] += dead
    new["over"] = not dead or run["round"] == _REVIVALS - 1
    if not new["over"]:
        new |= {"round": run["round"] + 1, "done": 0}
    return new, means


def _rounded(rows: "NDArray[np.float32]") -> None:
    """Leave rows as a call of `KMeans.fit` does, which takes their mean out and puts it back."""
    mean = rows.mean(axis=0)
    rows -= mean
    rows += mean


def _record(history: dict[str, list[float]], means: Any, rows: "NDArray[np.float32]") -> None:
    squares = float(np.vdot(rows, rows))
    history["error"].append(float(means.inertia_) / squares if squares else 0.0)
    history["sparsity"].append(1 / len(means.cluster_centers_))


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
