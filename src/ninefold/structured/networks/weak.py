"""From labels of whole images to labels of pixels: log-sum-exp over the positions (Pinheiro and Collobert 2015)."""

from math import inf

import torch
from torch import Tensor, nn

from ninefold.errors import ArgumentError, DTypeError, ShapeError
from ninefold.spec.parse import number
from ninefold.structured.networks.parts import check_maps, function

__all__ = ["WeakLabels", "aggregate"]


def aggregate(scores: Tensor, r: float = 5.0, mask: Tensor | None = None) -> Tensor:
    """Return one score per image and class, ``log(mean exp(r s)) / r`` over the positions.

    It is the mean for ``r=0``, grows with r, and is the maximum for ``r=inf``: the larger, the fewer positions answer for the
    image's label.

    Parameters
    ----------
    scores : Tensor of shape ``(batch, classes, *space)``
    r : float
        At least 0.
    mask : Tensor of bool, of shape ``(batch, *space)``, optional
        True where there is something: positions outside count neither in the sum nor in the mean.

    Returns
    -------
    Tensor of shape ``(batch, classes)``

    Raises
    ------
    ArgumentError, ArgumentTypeError, DTypeError, ShapeError
        With the actual numbers; also for an image of which the mask leaves nothing.

    Notes
    -----
    Pinheiro and Collobert, *From image-level to pixel-level labeling with convolutional networks* (CVPR 2015), there with r = 5.

    Examples
    --------
    >>> scores = torch.tensor([[[0.0, 2.0, 9.0]]])
    >>> [aggregate(scores, r, torch.tensor([[True, True, False]])).item() for r in (0, 1, float("inf"))]
    [1.0, 1.4337..., 2.0]
    """
    ndim = (scores.dim() if isinstance(scores, Tensor) else 4) - 2
    check_maps(scores, min(max(ndim, 1), 3), None, "the scores")
    steep = number(r, "r")
    if steep < 0:
        raise ArgumentError(f"r={r} must be at least 0, which is the mean; inf is the maximum")
    if mask is not None:
        _check_mask(mask, scores)
        if steep == 0:
            seen = mask.unsqueeze(1)
            return (scores.masked_fill(~seen, 0).flatten(2).sum(2) / seen.flatten(2).sum(2)).to(scores.dtype)
        scores = scores.masked_fill(~mask.unsqueeze(1), -inf)
    pooled: Tensor = function("log_sum_exp_pool", ndim)(scores, tuple(scores.shape[2:]), r=steep).flatten(1)
    if mask is None or steep == inf:
        return pooled
    share = mask.flatten(1).double().mean(1, keepdim=True)  # the mean was over all positions, and should be over these
    return pooled - (share.log() / steep).to(pooled.dtype)


def _check_mask(mask: Tensor, scores: Tensor) -> None:
    if mask.dtype != torch.bool:
        raise DTypeError(f"the mask has dtype {mask.dtype}; it must be torch.bool, True where there is something: mask > 0")
    if tuple(mask.shape) != (scores.shape[0], *scores.shape[2:]):
        raise ShapeError(f"the mask has shape {tuple(mask.shape)}; it must be {(scores.shape[0], *scores.shape[2:])}")
    empty = ~mask.flatten(1).any(1)
    if bool(empty.any()):
        raise ArgumentError(
            f"the mask leaves nothing of image {int(empty.nonzero()[0])} of the batch; leave that image out, or its mask"
        )


class WeakLabels(nn.Module):
    """A head that learns labels of pixels from labels of images: aggregation, loss, and the prior of the image in between.

    It has no parameters: pixel scores are those of any network in front.

    Parameters
    ----------
    r : float
        How steep the aggregation is, see `aggregate`.

    Raises
    ------
    ArgumentError
        If `r` is below 0.

    Notes
    -----
    Reported for Pinheiro and Collobert's network with further smoothing priors, not reproduced here: 40.6% mean intersection over
    union on the test images of PASCAL VOC 2012. It learns nothing of where a class is but that the score is high somewhere.

    Examples
    --------
    >>> scores = torch.zeros(1, 2, 3, 4).index_fill(1, torch.tensor([1]), 2.0)
    >>> head = WeakLabels(r=5)
    >>> head(scores), head.labels(scores).unique()
    (tensor([[0., 2.]]), tensor([1]))
    """

    def __init__(self, r: float = 5.0) -> None:
        super().__init__()
        self.r = number(r, "r")
        if self.r < 0:
            raise ArgumentError(f"r={r} must be at least 0, which is the mean; inf is the maximum")

    def forward(self, scores: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return one score per image and class, see `aggregate`."""
        return aggregate(scores, self.r, mask)

    def loss(self, scores: Tensor, present: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return minus the mean log-likelihood of the classes that images hold, by softmax over the aggregated scores.

        Parameters
        ----------
        scores : Tensor of shape ``(batch, classes, *space)``
        present : Tensor of whole numbers of shape ``(batch,)``, or of bool of shape ``(batch, classes)``
            The class of each image, or which classes it holds, of which all count alike.
        mask : Tensor of bool, of shape ``(batch, *space)``, optional

        Raises
        ------
        ArgumentError, DTypeError, ShapeError
            If labels do not fit the scores, or an image holds no class.
        """
        likely: Tensor = self(scores, mask).log_softmax(1)
        batch, classes = likely.shape
        if present.dtype == torch.bool:
            if tuple(present.shape) != (batch, classes):
                raise ShapeError(f"present has shape {tuple(present.shape)}; flags must be (batch, classes) = {(batch, classes)}")
            held = present.sum(1, keepdim=True)
            if bool((held == 0).any()):
                raise ArgumentError(f"image {int((held == 0).nonzero()[0, 0])} of the batch holds no class; each must hold one")
            return -(likely.masked_fill(~present, 0) / held).sum(1).mean()
        if present.is_floating_point() or tuple(present.shape) != (batch,):
            raise ShapeError(
                f"present has shape {tuple(present.shape)} and dtype {present.dtype}; it must be {batch} whole numbers, or flags "
                f"of dtype torch.bool and shape {(batch, classes)}"
            )
        if bool(((present < 0) | (present >= classes)).any()):
            raise ArgumentError(f"present holds {present.tolist()}; labels must be 0 to {classes - 1}")
        return nn.functional.nll_loss(likely, present.long())

    def with_prior(self, scores: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return pixel logits with the image-level prior: ``log p(class | pixel) + log p(class | image)``."""
        prior: Tensor = self(scores, mask).log_softmax(1)
        return scores.log_softmax(1) + prior.reshape(*prior.shape, *[1] * (scores.dim() - 2))

    def labels(self, scores: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the likeliest class of every pixel under the image-level prior, of shape ``(batch, *space)``."""
        return self.with_prior(scores, mask).argmax(1)

    def extra_repr(self) -> str:
        """Return how steep it is."""
        return f"r={self.r}"
