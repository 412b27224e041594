"""Pooling regions that are learned: the rectangles of codes that a classifier needs (Jia, Huang and Darrell 2012)."""

from collections.abc import Iterable, Iterator
from itertools import product
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from ninefold.errors import ArgumentError, ShapeError
from ninefold.learn.base import tensor_of, whole
from ninefold.learn.clusters import ClusterPool, check_finite, check_operation, check_width
from ninefold.learn.pooling import GridPool

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["ClusterPool", "LearnedRegions", "rectangles"]

_BLOCK = 1 << 24
"""Bytes of cells at a time, about, while rectangles are tried."""


def rectangles(rows: int, columns: int) -> list[tuple[int, int, int, int]]:
    """Return top, bottom, left and right of all rectangles of cells: ``rows (rows + 1) / 2 * columns (columns + 1) / 2``.

    Examples
    --------
    >>> len(rectangles(4, 4)), len(rectangles(2, 2)), rectangles(1, 2)
    (100, 9, [(0, 1, 0, 1), (0, 1, 0, 2), (0, 1, 1, 2)])
    """
    lines = [(a, b) for a in range(rows) for b in range(a + 1, rows + 1)]
    uprights = [(a, b) for a in range(columns) for b in range(a + 1, columns + 1)]
    return [(*line, *upright) for line, upright in product(lines, uprights)]


class LearnedRegions(BaseEstimator):
    """Few pooled features out of all codes times all rectangles of a grid, those that a classifier needs (Jia et al. 2012).

    The classifier minimises the mean multinomial logistic loss ``+ l2 |W|_F^2 + group sum_i |W_i|``, `i` over pooled features,
    each divided by its deviation. Grafting: the features whose loss gradient has the largest Frobenius norm are added, and all
    that have been added are fitted again, until there are `n_features` or no norm is above `group`: then adding would not help.
    (The paper's own penalty is reported to be the largest weight of a row; with the norm the score is the exact condition.)

    Kept are the cells of all images, ``images * cells * codes`` float32, not their maps; rectangles are tried in blocks.
    Every round compares all candidates: ``images * codes * rectangles * classes`` multiplications.

    Parameters
    ----------
    n_features : int
        How many pooled features to select, at most.
    grid : int or tuple of int
        Cells; 4 has 100 rectangles.
    operation : {"max", "mean", "sum"}
    group, l2 : float
        Penalties.
    per_round : int
        Features added before a new fit; 1 is grafting proper, more are sooner done.
    max_iter : int
        Steps of a fit, at most.

    Attributes
    ----------
    selected_ : list of tuple
        ``(code, top, bottom, left, right)`` in cells, in the order in which they were added.
    classes_ : ndarray
    coef_, intercept_ : ndarray
        ``(features, classes)`` and ``(classes,)``, of pooled values less `mean_`, divided by `scale_`.
    score_ : float
        The largest norm of a gradient among those that were left out, when it was looked at last.

    Examples
    --------
    >>> maps = torch.rand(60, 2, 4, 6, generator=torch.Generator().manual_seed(0))
    >>> label = (maps[:, 1, :2, 3:].sum((1, 2)) > 3).numpy()
    >>> LearnedRegions(1, grid=2, operation="sum").fit([maps], label).names()
    ['filter1_r0-0c1-1']
    """

    selected_: list[tuple[int, ...]]
    classes_: "NDArray[Any]"
    coef_: "NDArray[np.float64]"
    intercept_: "NDArray[np.float64]"
    mean_: "NDArray[np.float64]"
    scale_: "NDArray[np.float64]"

    def __init__(
        self,
        n_features: int = 64,
        grid: int | tuple[int, int] = 4,
        operation: str = "max",
        *,
        group: float = 1e-3,
        l2: float = 1e-4,
        per_round: int = 1,
        max_iter: int = 500,
    ) -> None:
        self.n_features = n_features
        self.grid = grid
        self.operation = operation
        self.group = group
        self.l2 = l2
        self.per_round = per_round
        self.max_iter = max_iter

    def fit(self, maps: Iterable[Tensor], y: "ArrayLike | None") -> Self:
        """Select features and fit them.

        Parameters
        ----------
        maps : iterable of Tensor
            ``(B, F, h, w)``, of any sizes not below the grid.
        y : array-like
            A label for each map.

        Raises
        ------
        ArgumentError, ShapeError
            If labels are missing, fewer or more than maps, or all the same; or maps hold NaN, or differ in their codes.
        """
        for name in ("selected_", "coef_", "intercept_", "classes_", "n_codes_"):
            self.__dict__.pop(name, None)
        return self._graft(maps, y)

    def partial_fit(self, maps: Iterable[Tensor], y: "ArrayLike | None") -> Self:
        """Go on from the features that are selected, as after an interrupt; the maps may be the same or others."""
        return self._graft(maps, y)

    def _graft(self, maps: Iterable[Tensor], y: Any) -> Self:
        wanted, each = whole(self.n_features, "n_features"), whole(self.per_round, "per_round")
        self._check()
        labels, targets = self._labels(y)
        candidates = _Candidates(*self._cells(maps, len(labels)), self.operation)
        selected = list(getattr(self, "selected_", []))
        check_width(candidates.codes, getattr(self, "n_codes_", candidates.codes))
        weights = tensor_of(self.coef_) if selected else targets.new_zeros(0, targets.shape[1])
        bias = tensor_of(self.intercept_) if hasattr(self, "intercept_") else targets.new_zeros(targets.shape[1])
        while True:
            active = candidates.chosen(selected)
            mean = active.mean(0)
            scale = (active - mean).square().mean(0).clamp_min(1e-24).sqrt()
            standard = (active - mean) / scale
            weights, bias = self._fitted(standard, targets, weights, bias)
            self.mean_, self.scale_, self.n_codes_ = mean.numpy(), scale.numpy(), candidates.codes
            self.selected_, self.coef_, self.intercept_ = list(selected), weights.numpy(), bias.numpy()
            scores = candidates.scores(torch.softmax(standard @ weights + bias, 1) - targets)
            for code, *region in selected:
                scores[candidates.regions.index(tuple(region)), code] = 0  # type: ignore[arg-type]
            flat = scores.flatten()
            self.score_ = float(flat.max())
            best = flat.argsort(descending=True, stable=True)[: min(each, wanted - len(selected))].tolist()
            new = [divmod(k, candidates.codes) for k in best if float(flat[k]) > max(self.group, 1e-9)]
            if not new:
                return self._pruned()
            selected += [(code, *candidates.regions[region]) for region, code in new]
            weights = torch.cat([weights, weights.new_zeros(len(new), weights.shape[1])])

    def _fitted(self, rows: Tensor, targets: Tensor, weights: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Minimise the objective by FISTA with restarts; a row of the weights is one group."""
        extended = torch.cat([rows, torch.ones_like(targets[:, :1])], 1)
        largest = float(torch.linalg.eigvalsh(extended.T @ extended)[-1]) / len(rows)
        step = 1 / (largest / 2 + 2 * self.l2)  # the Hessian of the logistic loss is at most half that of squares
        point = torch.cat([weights, bias[None]])
        ahead, t = point, 1.0
        for _ in range(whole(self.max_iter, "max_iter")):
            gradient = extended.T @ (torch.softmax(extended @ ahead, 1) - targets) / len(rows)
            gradient[:-1] += 2 * self.l2 * ahead[:-1]
            new = ahead - step * gradient
            norms = new[:-1].norm(dim=1, keepdim=True)
            new[:-1] *= (1 - step * self.group / norms.clamp_min(1e-300)).clamp_min(0)
            if float((ahead - new).abs().max()) <= 1e-8 * step:
                return new[:-1], new[-1]
            following = (1 + (1 + 4 * t * t) ** 0.5) / 2
            if float(((ahead - new) * (new - point)).sum()) > 0:  # it overshot: start again
                t, following = 1.0, 1.0
            ahead, point, t = new + (t - 1) / following * (new - point), new, following
        return point[:-1], point[-1]

    def _pruned(self) -> Self:
        """Leave out what has no weight."""
        kept = np.flatnonzero(np.abs(self.coef_).max(1, initial=0) > 0)
        self.selected_ = [self.selected_[k] for k in kept]
        self.coef_, self.mean_, self.scale_ = self.coef_[kept], self.mean_[kept], self.scale_[kept]
        return self

    def __call__(self, maps: Tensor) -> Tensor:
        """Pool ``(B, F, h, w)`` to ``(B, selected)``, in the order of `selected_`."""
        check_is_fitted(self, "selected_")
        check_width(maps.shape[1], self.n_codes_)
        cells, areas = _pooled_cells(maps, self.grid, self.operation)
        found = _Candidates(cells, areas.expand(cells.shape[:3]), self.operation)
        return found.chosen(self.selected_).to(maps.dtype)

    def decision_function(self, maps: Tensor) -> Tensor:
        """Return the classifier's score of each class, ``(B, classes)``, float64."""
        standard = (self(maps).double() - tensor_of(self.mean_)) / tensor_of(self.scale_)
        return standard @ tensor_of(self.coef_) + tensor_of(self.intercept_)

    def names(self) -> list[str]:
        """Return ``filter7_r0-1c2-3`` and so on: the code, its first and last row and column of cells."""
        check_is_fitted(self, "selected_")
        return [f"filter{code}_r{t}-{b - 1}c{left}-{right - 1}" for code, t, b, left, right in self.selected_]

    def feature_names(self, width: int) -> list[str]:  # noqa: ARG002  as the other poolings have it
        """Return `names`: each is one value."""
        return self.names()

    def _check(self) -> None:
        check_operation(self.operation)
        if not (0 <= self.group < float("inf") and 0 <= self.l2 < float("inf")):
            raise ArgumentError(f"group={self.group} and l2={self.l2} must not be below 0")

    def _labels(self, y: Any) -> tuple["NDArray[Any]", Tensor]:
        if y is None:
            raise ArgumentError("LearnedRegions needs labels: give y to fit")
        labels = np.asarray(y)
        if labels.ndim != 1 or (labels.dtype.kind == "f" and not np.isfinite(labels).all()):
            raise ArgumentError(f"labels must be one for each image, without NaN, got {labels.dtype} of shape {labels.shape}")
        classes = np.unique(labels)
        if hasattr(self, "classes_") and np.setdiff1d(classes, self.classes_).size:
            new = np.setdiff1d(classes, self.classes_).tolist()
            raise ArgumentError(f"labels {new} were not among those of fit, {self.classes_.tolist()}")
        self.classes_ = getattr(self, "classes_", classes)
        if len(self.classes_) < 2:
            raise ArgumentError(f"all labels are {classes.tolist()}; a classifier needs two classes or more")
        return labels, torch.from_numpy(labels[:, None] == self.classes_).double()

    def _cells(self, maps: Iterable[Tensor], count: int) -> tuple[Tensor, Tensor]:
        """Return the pooled cells of all images, ``(N, rows, columns, F)``, and how many positions each has."""
        shape = GridPool(self.grid)._cells()  # noqa: SLF001  the same rule
        kept, areas, done = torch.empty(0, dtype=torch.float32, device="cpu"), [], 0
        for batch in maps:
            check_finite(batch)
            if kept.numel() and batch.shape[1] != kept.shape[3]:
                raise ShapeError(f"maps of {kept.shape[3]} and of {batch.shape[1]} codes are mixed")
            if not kept.numel():
                kept = torch.empty(count, *shape, batch.shape[1], dtype=torch.float32, device="cpu")
            if done + len(batch) > count:
                raise ShapeError(f"there are more maps than the {count} labels")
            cells, area = _pooled_cells(batch, self.grid, self.operation)
            kept[done : done + len(batch)] = cells
            areas.append(area.expand(len(batch), *shape))
            done += len(batch)
        if done < count or not done:
            raise ShapeError(f"there are {done} maps and {count} labels; an iterator that has been read gives no more")
        return kept, torch.cat(areas)


class _Candidates:
    """All codes times all rectangles, from cells ``(N, rows, columns, F)`` and their positions ``(N, rows, columns)``."""

    def __init__(self, cells: Tensor, areas: Tensor, operation: str) -> None:
        self.cells, self.areas, self.operation = cells, areas, operation
        self.codes, self.regions = cells.shape[3], rectangles(cells.shape[1], cells.shape[2])
        self._moments: tuple[Tensor, Tensor] | None = None

    def _blocks(self) -> Iterator[tuple[slice, "_Sums"]]:
        each = max(1, _BLOCK // (8 * max(1, self.cells[0].numel())))
        for start in range(0, len(self.cells), each):
            part = slice(start, start + each)
            yield part, _Sums(self.cells[part], self.areas[part], self.operation)

    def chosen(self, selected: list[tuple[int, ...]]) -> Tensor:
        """Return the pooled values of those, ``(N, len(selected))``, float64."""
        made = torch.empty(len(self.cells), len(selected), dtype=torch.float64, device=self.cells.device)
        for part, values in self._blocks():
            for k, (code, *region) in enumerate(selected):
                made[part, k] = values.over(*region)[:, code]
        return made

    def _statistics(self) -> tuple[Tensor, Tensor]:
        """Return mean and deviation of every candidate, each ``(rectangles, F)``."""
        if self._moments is None:
            sums = torch.zeros(2, len(self.regions), self.codes, dtype=torch.float64, device=self.cells.device)
            for _, values in self._blocks():
                for k, region in enumerate(self.regions):
                    found = values.over(*region)
                    sums[0, k] += found.sum(0)
                    sums[1, k] += found.square().sum(0)
            mean, square = sums / len(self.cells)
            variance = square - mean.square()
            self._moments = mean, torch.where(variance > 1e-12 * square, variance, float("inf")).sqrt()
        return self._moments

    def scores(self, residual: Tensor) -> Tensor:
        """Return the Frobenius norm of the loss gradient of every candidate, ``(rectangles, F)``; 0 of constant ones."""
        mean, deviation = self._statistics()
        gradients = -mean[:, :, None] * residual.sum(0)
        for part, values in self._blocks():
            for k, region in enumerate(self.regions):
                gradients[k] += values.over(*region).T @ residual[part]
        return gradients.norm(dim=2) / deviation / len(self.cells)


class _Sums:
    """What a block of cells pools to over any rectangle: sums by an integral image, of four values each."""

    def __init__(self, cells: Tensor, areas: Tensor, operation: str) -> None:
        self.cells, self.operation, self.areas = cells, operation, areas
        if operation != "max":
            self.table = torch.nn.functional.pad(cells.double(), (0, 0, 1, 0, 1, 0)).cumsum(1).cumsum(2)

    def over(self, top: int, bottom: int, left: int, right: int) -> Tensor:
        """Return ``(B, F)``, float64."""
        if self.operation == "max":
            return self.cells[:, top:bottom, left:right].amax((1, 2)).double()
        table = self.table
        sums = table[:, bottom, right] - table[:, top, right] - table[:, bottom, left] + table[:, top, left]
        return sums if self.operation == "sum" else sums / self.areas[:, top:bottom, left:right].sum((1, 2))[:, None]


def _pooled_cells(maps: Tensor, grid: Any, operation: str) -> tuple[Tensor, Tensor]:
    """Return cells ``(B, rows, columns, F)``, maxima or sums, and how many positions each has, ``(1, rows, columns)``."""
    pool = GridPool(grid, "max" if operation == "max" else "sum")
    rows, columns = pool._cells()  # noqa: SLF001  the same rule
    regions = pool.regions(maps.shape[2], maps.shape[3])
    areas = torch.tensor([(b - t) * (r - left) for t, b, left, r in regions], dtype=torch.float64, device=maps.device)
    return pool(maps).reshape(len(maps), rows, columns, maps.shape[1]), areas.reshape(1, rows, columns)
