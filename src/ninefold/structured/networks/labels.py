"""Label maps on coarser grids: what a network is compared with that gives a label for every few pixels."""

from typing import Any

import torch
from torch import Tensor

from ninefold.errors import ArgumentError, ShapeError
from ninefold.spec.parse import integer, per_axis
from ninefold.structured.networks.parts import check_labels

__all__ = ["label_grid"]


def label_grid(labels: Tensor, stride: Any, *, how: str = "nearest", ignore: int | None = None, offset: Any = 0) -> Tensor:
    """Return a label map at every `stride`-th position: the target of a network whose scores have that stride.

    Parameters
    ----------
    labels : Tensor of whole numbers, of shape ``(batch, *space)``
    stride : int or tuple of int
        One for all spatial axes, or one for each.
    how : {"nearest", "majority"}
        ``"nearest"`` takes the label at ``offset + k stride``, as DeepLab's training does (Chen et al. 2014, arXiv 1412.7062).
        ``"majority"`` takes the most frequent label of the cell that begins there, the smallest of equally frequent ones. The
        last cell may be smaller.
    ignore : int, optional
        A label that is no vote; a cell of nothing else gets it.
    offset : int or tuple of int
        The first position: ``(R - 1) / 2`` for a network without padding that sees R positions, 0 for one with.

    Returns
    -------
    Tensor of shape ``(batch, *ceil((space - offset) / stride))``, of the dtype of `labels`

    Raises
    ------
    ArgumentError, ArgumentTypeError, DTypeError, ShapeError
        With the actual numbers, also if an offset lies outside the map.

    Examples
    --------
    >>> labels = torch.tensor([[0, 1, 1, 2, 2]])
    >>> label_grid(labels, 3).tolist(), label_grid(labels, 3, how="majority").tolist()
    ([[0, 2]], [[1, 2]])
    """
    check_labels(labels, tuple(labels.shape) if isinstance(labels, Tensor) else ())
    ndim = labels.dim() - 1
    if ndim < 1 or 0 in labels.shape[1:]:
        raise ShapeError(f"the labels have shape {tuple(labels.shape)}; it must be (batch, *space), with at least 1 position")
    steps, first = per_axis(stride, ndim, "stride", 1), per_axis(offset, ndim, "offset", 0)
    if any(o >= n for o, n in zip(first, labels.shape[1:], strict=True)):
        raise ArgumentError(f"offset={first} lies outside a label map of {tuple(labels.shape[1:])}; it must be smaller")
    if ignore is not None:
        integer(ignore, "ignore")
    if how == "nearest":
        return labels[(slice(None), *(slice(o, None, s) for o, s in zip(first, steps, strict=True)))]
    if how != "majority":
        raise ArgumentError(f"how={how!r} must be 'nearest' or 'majority'")
    return _majority(labels[(slice(None), *(slice(o, None) for o in first))], steps, ignore)


def _majority(labels: Tensor, steps: tuple[int, ...], ignore: int | None) -> Tensor:
    """Return the most frequent label of each cell."""
    missing = [-n % s for n, s in zip(labels.shape[1:], steps, strict=True)]
    around = [pad for m in reversed(missing) for pad in (0, m)]
    votes = torch.ones_like(labels, dtype=torch.bool) if ignore is None else labels != ignore
    padded, votes = torch.nn.functional.pad(labels, around), torch.nn.functional.pad(votes, around)
    cells, votes = (_cells(x, steps) for x in (padded, votes))
    best = cells.new_full(cells.shape[:-1], 0 if ignore is None else ignore)
    most = torch.zeros(best.shape, dtype=torch.long, device=labels.device)
    for label in labels.unique(sorted=True).tolist():  # one pass a label, not one map a label: memory stays that of the cells
        count = ((cells == label) & votes).sum(-1)
        best = torch.where(count > most, label, best)
        most = torch.maximum(most, count)
    return best.to(labels.dtype)


def _cells(x: Tensor, steps: tuple[int, ...]) -> Tensor:
    """Return a map of whole cells as ``(batch, *grid, positions in a cell)``."""
    ndim = len(steps)
    split = x.reshape(len(x), *(v for n, s in zip(x.shape[1:], steps, strict=True) for v in (n // s, s)))
    return split.permute(0, *range(1, 2 * ndim, 2), *range(2, 2 * ndim + 1, 2)).flatten(ndim + 1)
