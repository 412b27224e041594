"""MALIS: a loss on the maximin affinities of all pairs of voxels, so that errors of the partition are learned from.

Turaga, Briggman, Helmstaedter, Denk, Seung (NIPS 2009): the sum over pairs of voxels of a loss between their maximin affinity
and whether they are in the same object. One edge, the least on the path in a maximum spanning tree, decides for a pair, and it
alone gets the gradient. There are as many such edges as voxels; merging histograms of labels, the smaller into the larger,
counts the pairs of each: n log n in all.

Constrained, in two passes (Funke et al. 2018): pairs of the same object are joined by paths within it only (affinities no higher
than targets), pairs of different objects by paths on which steps within objects cost nothing (no lower than targets).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ninefold.engines.native import extension_module
from ninefold.errors import ArgumentError, ArgumentTypeError
from ninefold.structured.partition.affinities import Affinities
from ninefold.structured.partition.arrays import Labels, label_array, same_shape
from ninefold.structured.partition.contingency import ignored
from ninefold.structured.partition.graph import AffinityGraph, Prepared, prepared, require_graph
from ninefold.structured.partition.offsets import one_of

__all__ = ["MaximinPairs", "malis_loss", "maximin_pairs"]

Background = Literal["excluded", "singletons", "object"]


@dataclass(frozen=True, eq=False)
class MaximinPairs:
    """Edges that decide for pairs of voxels, and for how many.

    Attributes
    ----------
    together, together_pairs : array of int64
        Edges by their place in the flattened affinities of an image, and how many pairs of one object each decides for.
    apart, apart_pairs : array of int64
        The same of pairs of different objects.
    all_together, all_apart : int
        All pairs; those between which no path is are in these numbers only, and their maximin affinity is 0.
    """

    together: Labels
    together_pairs: Labels
    apart: Labels
    apart_pairs: Labels
    all_together: int
    all_apart: int


def maximin_pairs(
    affinities: Affinities | AffinityGraph,
    labels: Any,
    *,
    background: Background = "excluded",
    ignore: int | Iterable[int] = (),
) -> list[MaximinPairs]:
    """Return the edges on which the constrained MALIS loss depends, for each image of the batch.

    Parameters
    ----------
    affinities : Affinities or AffinityGraph
        Predicted.
    labels : array or tensor of int, shape (*space), (batch, *space) or (nodes,)
        Objects; 0 is background.
    background : {"excluded", "singletons", "object"}
        Whether voxels of label 0 are in no pair (paths go through them all the same), objects of their own, or one object.
    ignore : int or iterable of int
        Labels of voxels that nobody labelled: they are in no pair, and no path goes through them.

    Raises
    ------
    DTypeError, ShapeError, ArgumentError
        If labels do not fit.
    ImportError, MemoryError
        As `connected_components`.

    Examples
    --------
    >>> a = Affinities(np.array([[0.8, 0.3, 0.9, 0.0]]), ((1,),))
    >>> found, = maximin_pairs(a, np.array([1, 1, 2, 2]))
    >>> found.together, found.together_pairs, found.apart, found.apart_pairs
    (array([2, 0]), array([1, 1]), array([1]), array([4]))
    """
    one_of(background, ("excluded", "singletons", "object"), "background")
    plain = label_array(labels, "labels")
    require_graph(affinities, Affinities, AffinityGraph)
    out = ignored(ignore)
    counted = ~np.isin(plain, out) if out else None
    batched = isinstance(affinities, Affinities) and affinities.batched
    if batched:
        same_shape(plain, np.empty((len(affinities.values), *_shape(affinities)), bool), "labels", "the images of the affinities")
    else:
        same_shape(plain, np.empty(_shape(affinities), bool), "labels", "the image of the affinities")
    if counted is not None and isinstance(affinities, AffinityGraph):
        raise ArgumentError(f"ignore={out} is for grids; leave edges out of a list instead")
    graphs = prepared(affinities, counted, per_edge=20)
    if not batched:
        plain = plain[None]
    return [_pairs(one, labels, background) for one, labels in zip(graphs, plain, strict=True)]


def _shape(graph: Affinities | AffinityGraph) -> tuple[int, ...]:
    return (graph.nodes,) if isinstance(graph, AffinityGraph) else graph.shape


def _pairs(graph: Prepared, labels: Labels, background: Background) -> MaximinPairs:
    if background == "object":
        labels = labels + 1
    elif background == "singletons":
        labels = labels.copy()
        alone = labels == 0
        labels[alone] = labels.max() + 1 + np.arange(alone.sum())
    if labels.max() >= 2**32:
        labels = np.unique(np.append(labels, 0), return_inverse=True)[1][:-1].reshape(labels.shape)  # 0 stays 0
    found = extension_module().graph_malis(graph.handle, graph.values, np.ascontiguousarray(labels, np.uint32))
    together, together_pairs, apart, apart_pairs = (np.asarray(x, np.int64) for x in found[:4])
    return MaximinPairs(together, together_pairs, apart, apart_pairs, found[4], found[5])


def malis_loss(
    affinities: Affinities | AffinityGraph,
    labels: Any,
    *,
    loss: Literal["square", "hinge"] = "square",
    margin: float = 0.0,
    background: Background = "excluded",
    ignore: int | Iterable[int] = (),
    normalize: Literal["each", "all", "none"] = "each",
    reduction: Literal["mean", "sum", "none"] = "mean",
) -> Tensor:
    """Return the constrained MALIS loss of predicted affinities, differentiable in them.

    Parameters
    ----------
    affinities : Affinities or AffinityGraph
        Predicted; of tensors, which the gradient goes to. The edges are found on the CPU, wherever the tensor is.
    labels : array or tensor of int, shape (*space), (batch, *space) or (nodes,)
        Objects; 0 is background.
    loss : {"square", "hinge"}
        Of a pair with the maximin affinity B: with r = max(0, 1 - margin - B) of one object and r = max(0, B - margin) of two,
        r squared or r.
    margin : float
        From 0 to below 0.5: affinities so near to their targets cost nothing. Turaga et al. used 0.3 with squares.
    background, ignore
        As of `maximin_pairs`.
    normalize : {"each", "all", "none"}
        ``"each"``: the mean over pairs of one object plus the mean over pairs of two; ``"all"``: the sum over the number of all
        pairs, of which one minus the Rand index is the limit for affinities of 0 and 1; ``"none"``: the sum.
    reduction : {"mean", "sum", "none"}
        Over the images of a batch.

    Returns
    -------
    Tensor
        One number, or one for each image with ``reduction="none"``. An image without pairs has the loss 0.

    Raises
    ------
    ArgumentTypeError
        If the affinities are not a tensor.
    DTypeError, ShapeError, ArgumentError
        If labels do not fit or a parameter is out of its range.
    ImportError, MemoryError
        As `connected_components`.

    Examples
    --------
    >>> values = torch.tensor([[0.75, 0.5, 1.0, 0.0]], dtype=torch.float32, device="cpu", requires_grad=True)
    >>> loss = malis_loss(Affinities(values, ((1,),)), np.array([1, 1, 2, 2]))
    >>> loss.backward()
    >>> loss.item(), values.grad
    (0.28125, tensor([[-0.2500,  1.0000,  0.0000,  0.0000]]))
    """
    one_of(loss, ("square", "hinge"), "loss")
    one_of(normalize, ("each", "all", "none"), "normalize")
    one_of(reduction, ("mean", "sum", "none"), "reduction")
    if not 0 <= margin < 0.5:
        raise ArgumentError(f"margin={margin}; it is from 0 to below 0.5")
    values = _tensor(affinities)
    images = values if isinstance(affinities, Affinities) and affinities.batched else values[None]
    pairs = maximin_pairs(affinities, labels, background=background, ignore=ignore)
    each = torch.stack([_of_image(v.flatten(), p, loss, margin, normalize) for v, p in zip(images, pairs, strict=True)])
    return each if reduction == "none" else each.mean() if reduction == "mean" else each.sum()


def _tensor(affinities: Any) -> Tensor:
    require_graph(affinities, Affinities, AffinityGraph)
    if not isinstance(affinities.values, Tensor):
        raise ArgumentTypeError(f"the loss is of affinities with a tensor in them, not of {type(affinities.values).__name__}")
    return affinities.values


def _of_image(values: Tensor, pairs: MaximinPairs, loss: str, margin: float, normalize: str) -> Tensor:
    def part(edges: Labels, counts: Labels, total: int, same: bool) -> Tensor:
        at = values[torch.from_numpy(edges).to(values.device)]
        rest = (1 - margin - at if same else at - margin).clamp_min(0)
        costs = rest.square() if loss == "square" else rest
        # what no path joins has the maximin affinity 0
        missing = (total - int(counts.sum())) * ((1 - margin) ** (2 if loss == "square" else 1) if same else 0.0)
        share = 1 / max(1, {"each": total, "all": pairs.all_together + pairs.all_apart, "none": 1}[normalize])
        weights = torch.from_numpy(counts * share).to(values)
        return (weights * costs).sum() + missing * share

    together = part(pairs.together, pairs.together_pairs, pairs.all_together, same=True)
    return together + part(pairs.apart, pairs.apart_pairs, pairs.all_apart, same=False)
