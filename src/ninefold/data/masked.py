"""Losses and poolings that do not see padding: a padded batch gives what its samples give one by one."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as torch_functional

import ninefold.functional as F
from ninefold.data.batches import IGNORED, Padded
from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError

__all__ = ["FixedGrid", "masked_cross_entropy", "masked_mean", "masked_pool"]

_MEAN: dict[int, Any] = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}
_MAX: dict[int, Any] = {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}


def masked_mean(values: Tensor, mask: Tensor, reduction: Literal["mean", "sample", "sum", "none"] = "mean") -> Tensor:
    """Take the mean of a loss at every position over those that count.

    Parameters
    ----------
    values : Tensor of shape ``(B, *space)`` or ``(B, C, *space)``
    mask : Tensor of the same shape, or of one channel
        True where it counts.
    reduction : {"mean", "sample", "sum", "none"}
        Over all positions that count; the mean over samples of each one's mean, as one by one; the sum; or the values, 0 where
        they do not count.

    Raises
    ------
    ShapeError
        If the shapes do not fit, or nothing counts.

    Examples
    --------
    >>> values = torch.tensor([[1.0, 3.0, 9.0], [5.0, 9.0, 9.0]], device="cpu", dtype=torch.float32)
    >>> mask = torch.tensor([[True, True, False], [True, False, False]], device="cpu", dtype=torch.bool)
    >>> masked_mean(values, mask), masked_mean(values, mask, "sample")
    (tensor(3.), tensor(3.5000))
    """
    mask = _fitting(values, mask)
    kept = torch.where(mask, values, 0)
    if reduction == "none":
        return kept
    if reduction == "sum":
        return kept.sum()
    if reduction == "mean":
        return kept.sum() / mask.sum()
    if reduction != "sample":
        raise ArgumentError(f"reduction={reduction!r} is not one of ['mean', 'sample', 'sum', 'none']")
    return (kept.flatten(1).sum(1) / mask.flatten(1).sum(1)).mean()


def masked_cross_entropy(
    logits: Tensor | Padded,
    labels: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    ignore: int = IGNORED,
    reduction: Literal["mean", "sample", "sum", "none"] = "mean",
) -> Tensor:
    """Cross-entropy of labels at every position that counts.

    Parameters
    ----------
    logits : Tensor of shape ``(B, classes, *space)``, or `Padded`
    labels : Tensor of shape ``(B, *space)``
        int64; `ignore` where none is known.
    mask : Tensor of shape ``(B, *space)`` or ``(B, 1, *space)``, optional
        True where it counts; of a `Padded` it is the batch's own.
    weight : Tensor of shape ``(classes,)``, optional
        Of classes; a mean is divided by the sum of weights then, as PyTorch's.
    ignore : int
    reduction : {"mean", "sample", "sum", "none"}
        As in `masked_mean`.

    Raises
    ------
    ShapeError, ArgumentError
        If shapes do not fit, labels are beyond the classes (with which), or no position of a sample counts.

    Examples
    --------
    >>> logits = torch.zeros(1, 4, 3, device="cpu", dtype=torch.float32)
    >>> masked_cross_entropy(logits, torch.tensor([[0, 3, -100]], device="cpu", dtype=torch.int64)).exp()
    tensor(4.)
    """
    if isinstance(logits, Padded):
        mask = logits.mask if mask is None else mask
        logits = logits.data
    shape = (len(logits), *logits.shape[2:])
    if tuple(labels.shape) != shape:
        raise ShapeError(f"labels have shape {tuple(labels.shape)}; logits {tuple(logits.shape)} need {shape}")
    counts = labels != ignore
    if mask is not None:
        counts = counts & _fitting(labels, mask[:, 0] if mask.ndim == logits.ndim else mask)
    seen = labels[counts]
    if seen.numel() and (int(seen.min()) < 0 or int(seen.max()) >= logits.shape[1]):
        raise ArgumentError(
            f"labels from {int(seen.min())} to {int(seen.max())}, but the logits are of {logits.shape[1]} classes"
        )
    safe = torch.where(counts, labels, 0)
    loss = torch_functional.cross_entropy(logits, safe, weight, reduction="none")
    if weight is None or reduction in ("sum", "none"):
        return masked_mean(loss, counts, reduction)
    _fitting(loss, counts)
    mass = torch.where(counts, weight[safe], 0).flatten(1).sum(1)
    total = torch.where(counts, loss, 0).flatten(1).sum(1)
    return total.sum() / mass.sum() if reduction == "mean" else (total / mass).mean()


def masked_pool(
    x: Tensor | Padded, kind: Literal["mean", "max", "lse"] = "mean", mask: Tensor | None = None, *, r: float = 1.0
) -> Tensor:
    """Pool every channel over all of space that counts.

    Parameters
    ----------
    x : Tensor of shape ``(B, C, *space)``, or `Padded`
    kind : {"mean", "max", "lse"}
        ``lse`` is ``log(mean exp(r x)) / r``, between the two (Pinheiro and Collobert 2015, eq. 4).
    mask : Tensor of shape ``(B, 1, *space)``, optional
    r : float
        Positive.

    Returns
    -------
    Tensor of shape ``(B, C)``

    Raises
    ------
    ArgumentError, ShapeError

    Examples
    --------
    >>> x = torch.tensor([[[1.0, 5.0, 9.0]]], device="cpu", dtype=torch.float32)
    >>> masked_pool(Padded(x, ((2,),)), "mean"), masked_pool(Padded(x, ((2,),)), "max")
    (tensor([[3.]]), tensor([[5.]]))
    """
    if isinstance(x, Padded):
        mask, x = x.mask if mask is None else mask, x.data
    counts = _fitting(x, torch.ones_like(x[:, :1], dtype=torch.bool) if mask is None else mask)
    values, counts = x.flatten(2), counts.flatten(2)
    if kind == "mean":
        return torch.where(counts, values, 0).sum(-1) / counts.sum(-1)
    outside = values.masked_fill(~counts, -torch.inf)
    if kind == "max":
        return outside.amax(-1)
    if kind != "lse":
        raise ArgumentError(f"kind={kind!r} is not one of ['mean', 'max', 'lse']")
    if not r > 0:
        raise ArgumentError(f"r={r} must be positive; kind='mean' is r=0")
    return ((r * outside).logsumexp(-1) - counts.sum(-1).log()) / r


class FixedGrid(nn.Module):
    """Pool maps of any size to a grid of fixed size, so that a dense layer can follow (figure 9.11 of the book).

    Cell i of o over n positions is ``[floor(i n / o), ceil((i + 1) n / o))``, as in PyTorch's adaptive pooling. Of a `Padded`
    the grid lies over each sample, not over its padding: the result is that of the samples one by one.

    Parameters
    ----------
    size : int or tuple of int
        Cells along each axis; an int for maps of one to three axes.
    reduction : {"max", "mean"}

    Raises
    ------
    ArgumentError, ShapeError

    Examples
    --------
    >>> grid = FixedGrid((2, 3))
    >>> grid(torch.rand(5, 4, 17, 30, dtype=torch.float32, device="cpu")).shape
    torch.Size([5, 4, 2, 3])
    """

    def __init__(self, size: int | Sequence[int], reduction: Literal["max", "mean"] = "max") -> None:
        super().__init__()
        if reduction not in ("max", "mean"):
            raise ArgumentError(f"reduction={reduction!r} is not one of ['max', 'mean']")
        self.size = size if isinstance(size, int) else tuple(size)
        self.reduction = reduction
        numbers = (self.size,) if isinstance(self.size, int) else self.size
        if not 1 <= len(numbers) <= 3 or min(numbers) < 1:
            raise ArgumentError(f"size={size} must be a positive number of cells along each of one to three axes")

    def extra_repr(self) -> str:
        """Return what makes this one."""
        return f"{self.size}, reduction={self.reduction!r}"

    def forward(self, x: Tensor | Padded, mask: Tensor | None = None) -> Tensor:
        """Return ``(B, C, *size)``.

        Parameters
        ----------
        x : Tensor of shape ``(B, C, *space)``, or `Padded`
        mask : Tensor of shape ``(B, 1, *space)``, optional
            Positions that count, in a grid over all of space; a cell of none of them is 0.

        Raises
        ------
        ShapeError, ArgumentTypeError
        """
        if isinstance(x, Padded):
            if mask is not None:
                raise ArgumentTypeError("a Padded has a mask of its own: give the tensor, or no mask")
            return torch.cat([self._pooled(sample[None]) for sample in x])
        if mask is None:
            return self._pooled(x)
        counts = _fitting(x, mask, alone=False)
        if self.reduction == "max":
            found = self._pooled(x.masked_fill(~counts, -torch.inf))
            return torch.where(found == -torch.inf, 0, found)
        share = self._pooled(counts[:, :1].to(x.dtype))
        return torch.where(share > 0, self._pooled(torch.where(counts, x, 0)) / share.clamp_min(1e-30), 0)

    def _pooled(self, x: Tensor) -> Tensor:
        axes = x.ndim - 2
        size = (self.size,) * axes if isinstance(self.size, int) else self.size
        if len(size) != axes or not 1 <= axes <= 3:
            raise ShapeError(f"maps of shape {tuple(x.shape)}; a grid of {size} is over (B, C, {len(size)} sizes)")
        return (_MAX if self.reduction == "max" else _MEAN)[axes](x, size)  # type: ignore[no-any-return]


def _fitting(values: Tensor, mask: Tensor, *, alone: bool = True) -> Tensor:
    """Return a mask of the shape of the values, checked; of every sample something counts, unless it need not."""
    if mask.dtype != torch.bool:
        raise ArgumentTypeError(f"a mask is of torch.bool, True where it counts, got {mask.dtype}")
    if mask.ndim != values.ndim or any(
        m not in (1 if k == 1 else n, n) for k, (m, n) in enumerate(zip(mask.shape, values.shape, strict=True))
    ):
        raise ShapeError(f"a mask of {tuple(mask.shape)} does not fit values of {tuple(values.shape)}")
    empty = (~mask.flatten(1).any(1)).nonzero().flatten().tolist() if alone else []
    if empty:
        raise ShapeError(f"no position counts in sample{'s'[: len(empty) > 1]} {empty} of {len(mask)}")
    return mask.expand(values.shape)
