"""Losses of a training as sums and what they are to be divided by, so that any share of a batch adds up to the whole."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as tf

__all__ = ["affinity_sums", "class_weights", "label_sums"]


def label_sums(logits: Sequence[Tensor], labels: Tensor, ignore: int, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the sum of the cross-entropies at every labelled position, over all steps, and the sum of the weights.

    Parameters
    ----------
    logits : sequence of Tensor of shape (batch, classes, *space)
        One for each step of a recurrent network.
    labels : Tensor of int64, shape (batch, *space)
    ignore : int
        The label of positions that do not count.
    weight : Tensor of shape (classes,), optional

    Examples
    --------
    >>> total, count = label_sums([torch.zeros(1, 2, 3, device="cpu")], torch.tensor([[0, 1, 255]], device="cpu"), 255)
    >>> float(total / count), float(count)
    (0.693..., 2.0)
    """
    counted = labels != ignore
    count = (counted if weight is None else weight[torch.where(counted, labels, 0)] * counted).sum().to(logits[0].dtype)
    losses = [tf.cross_entropy(scores, labels, weight, ignore_index=ignore, reduction="sum") for scores in logits]
    return torch.stack(losses).sum(), count * len(logits)


def affinity_sums(logits: Tensor, target: Tensor, mask: Tensor, *, balanced: bool = False) -> tuple[Tensor, Tensor]:
    """Return the sum of the binary cross-entropies of edges, and the sum of their weights.

    Parameters
    ----------
    logits, target, mask : Tensor of shape (batch, edges, *space)
        `mask` is True where an edge exists and counts.
    balanced : bool
        Give edges within and between objects half of the weight each, in every map of edges of every image. It finds thin borders
        sooner, and shrinks objects, for the probabilities are then those of balanced edges.

    Examples
    --------
    >>> z, one = torch.zeros(1, 1, 4, device="cpu"), torch.tensor([[[1.0, 1, 1, 0]]], device="cpu")
    >>> total, count = affinity_sums(z, one, one == one)
    >>> float(total / count), float(count)
    (0.693..., 4.0)
    """
    weight = mask.to(logits.dtype)
    if balanced:
        axes = tuple(range(2, logits.dim()))
        for kind in (mask & (target > 0.5), mask & (target <= 0.5)):
            share = mask.sum(axes, keepdim=True) / (2 * kind.sum(axes, keepdim=True).clamp(min=1))
            weight = torch.where(kind, share.to(logits.dtype), weight)
    losses = tf.binary_cross_entropy_with_logits(logits, target, weight, reduction="sum")
    return losses, weight.sum()


def class_weights(counts: Tensor, balance: str) -> Tensor | None:
    """Return a weight for each class from how often it occurs; classes that never occur weigh nothing.

    Parameters
    ----------
    counts : Tensor of shape (classes,)
        Pixels of each class.
    balance : {"none", "median", "inverse"}
        ``"median"`` is the median frequency over the frequency; the weights of ``"inverse"`` have the mean 1 over pixels.

    Examples
    --------
    >>> class_weights(torch.tensor([90, 10, 0], device="cpu"), "inverse")
    tensor([0.5556, 5.0000, 0.0000])
    """
    if balance == "none":
        return None
    some = counts > 0
    frequency = counts.to(torch.float64) / counts.sum()
    weight = torch.where(some, 1 / frequency.clamp(min=1e-12), 0.0)
    scale = frequency[some].median() if balance == "median" else 1 / some.sum()
    return (weight * scale).to(torch.float32)
