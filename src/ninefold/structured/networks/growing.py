"""Networks that look at themselves with a growing context (Pinheiro and Collobert 2014, *ICML*, 82-90)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ninefold.errors import ArgumentError, ShapeError
from ninefold.nn import Conv2d, MaxPool2d
from ninefold.spec.parse import integer
from ninefold.structured.networks.labels import label_grid
from ninefold.structured.networks.parts import check_labels, check_maps
from ninefold.structured.networks.recurrent import step_loss

__all__ = ["GrowingContextNet", "plain_context_net"]

_POOLS = {"rcnn2": (2, 2), "rcnn3": (2, 1)}  # after the two 8x8 convolutions


def plain_context_net(in_channels: int = 3, classes: int = 8) -> nn.Sequential:
    """Return the plain network CNN1, the one that is not recurrent: it labels the centre of 133x133 pixels.

    Convolution 6x6 to 25 planes, pooling 8x8, tanh, 3x3 to 50 planes, pooling 2x2, tanh, and 7x7 to the classes: 133 pixels
    become 128, 16, 14, 7 and 1. ``densify`` makes a labeller of all pixels of it.

    Parameters
    ----------
    in_channels, classes : int

    Examples
    --------
    >>> plain_context_net(classes=8)(torch.zeros(1, 3, 133, 133)).shape
    torch.Size([1, 8, 1, 1])
    """
    return nn.Sequential(
        *(Conv2d(in_channels, 25, 6), MaxPool2d(8), nn.Tanh()),
        *(Conv2d(25, 50, 3), MaxPool2d(2), nn.Tanh()),
        Conv2d(50, classes, 7),
    )


class GrowingContextNet(nn.Module):
    """The recurrent networks rCNN2 and rCNN3: each instance reads the image and the labels that the one before it gave.

    One network f, whose weights all instances share, reads the image and one plane of probabilities per class: zeros in the first
    instance, then what the instance before found, with the image reduced to that size. Every instance sees a larger context.

    * ``"rcnn2"``: 8x8 to 25 planes, pooling 2x2, tanh, 8x8 to 50 planes, pooling 2x2, tanh, 1x1. It takes ``4 n + 21`` positions
      to give n; one instance sees 25x25 pixels, two 121x121.
    * ``"rcnn3"``: the same with one pooling. ``2 n + 21`` positions; one, two and three instances see 23, 67 and 155 pixels.

    Parameters
    ----------
    kind : {"rcnn2", "rcnn3"}
    in_channels, classes : int
    instances : int
        Of a call that does not say otherwise.
    rescale : {"aligned", "whole"}
        How the image is reduced. ``"aligned"`` takes the mean over the cell around the pixel that each label is of; image and
        labels lie upon one another, and labels do not depend on how large an image they were found in. ``"whole"`` resizes the
        whole image, border and all, to the size of the label planes.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        With the actual numbers, for what cannot be such a network.

    Notes
    -----
    Planes are probabilities, the softmax of the scores: a choice made here, which keeps their range that of the image's. Counts
    and sizes are remembered, and the arithmetic holds.

    Reported, not reproduced here: rCNN3 with three instances, 77.7% of pixels and 29.8% of classes of SIFT Flow; 80.2% of the
    pixels of the Stanford Background images.

    Examples
    --------
    >>> net = GrowingContextNet("rcnn2", classes=8)
    >>> net.context(1), net.context(2), [tuple(s.shape) for s in net(torch.zeros(1, 3, 121, 121))]
    (25, 121, [(1, 8, 25, 25), (1, 8, 1, 1)])
    """

    def __init__(
        self, kind: str = "rcnn2", in_channels: int = 3, classes: int = 8, *, instances: int = 2, rescale: str = "aligned"
    ) -> None:
        super().__init__()
        if kind not in _POOLS:
            raise ArgumentError(f"kind={kind!r} must be one of {list(_POOLS)}")
        if rescale not in ("aligned", "whole"):
            raise ArgumentError(f"rescale={rescale!r} must be 'aligned' or 'whole'")
        self.kind, self.in_channels, self.classes, self.rescale = kind, in_channels, classes, rescale
        self.instances = integer(instances, "instances", 1)
        self.stride = _POOLS[kind][0] * _POOLS[kind][1]
        second = [MaxPool2d(2), nn.Tanh()] if _POOLS[kind][1] == 2 else []
        self.f = nn.Sequential(
            *(Conv2d(in_channels + classes, 25, 8), MaxPool2d(2), nn.Tanh()),
            *(Conv2d(25, 50, 8), *second),
            Conv2d(50, classes, 1),
        )

    def context(self, instances: int | None = None, outputs: int = 1) -> int:
        """Return how many pixels per axis it takes for so many labels per axis after the last instance.

        Examples
        --------
        >>> [GrowingContextNet("rcnn3").context(p) for p in (1, 2, 3)]
        [23, 67, 155]
        """
        size = integer(outputs, "outputs", 1)
        for _ in range(self.instances if instances is None else integer(instances, "instances", 1)):
            size = self.stride * size + 21
        return size

    def centres(self, instance: int) -> tuple[int, int]:
        """Return the first pixel of which an instance (1, 2, ...) gives a label, and the step from one to the next."""
        return (self.context(instance) - 1) // 2, self.stride**instance

    def forward(self, image: Tensor, instances: int | None = None) -> tuple[Tensor, ...]:
        """Return the scores of every instance, each of shape ``(batch, classes, *labels)``, ever fewer labels.

        Raises
        ------
        ArgumentError, ArgumentTypeError, DTypeError, ShapeError
            With the actual numbers; also if the image is smaller than the context of the last instance.
        """
        count = self.instances if instances is None else integer(instances, "instances", 1)
        check_maps(image, 2, self.in_channels, "the image")
        if min(image.shape[2:]) < self.context(count):
            raise ShapeError(
                f"the image has {tuple(image.shape[2:])} pixels; {count} instances of {self.kind} see {self.context(count)} per "
                "axis: pad the image, or take fewer instances"
            )
        planes = image.new_zeros(len(image), self.classes, *image.shape[2:])
        small, found = image, []
        for instance in range(1, count + 1):
            scores = self.f(torch.cat((small, planes), 1))
            found.append(scores)
            if instance < count:
                small, planes = self._reduced(image, instance, tuple(scores.shape[2:])), scores.softmax(1)
        return tuple(found)

    def _reduced(self, image: Tensor, instance: int, size: tuple[int, ...]) -> Tensor:
        """Return the image at the size of the labels of an instance."""
        if self.rescale == "whole":
            return nn.functional.interpolate(image, size, mode="bilinear", align_corners=False, antialias=True)
        first, step = self.centres(instance)
        start = first - step // 2
        rows, columns = (slice(start, start + n * step) for n in size)
        return nn.functional.avg_pool2d(image[:, :, rows, columns], step)

    def loss(self, scores: Sequence[Tensor], labels: Tensor, *, ignore_index: int = -100) -> Tensor:
        """Return minus the sum of the mean log-likelihoods of all instances, each at the pixels that it labels.

        Parameters
        ----------
        scores : sequence of Tensor
            Of every instance, as a call gives them.
        labels : Tensor of whole numbers, of the shape ``(batch, height, width)`` of the image
        ignore_index : int
            Label of pixels that do not count.

        Examples
        --------
        >>> net = GrowingContextNet("rcnn3", classes=2, instances=1)
        >>> net.loss((torch.zeros(1, 2, 1, 1),), torch.ones(1, 23, 23, dtype=torch.long)).item()
        0.6931...
        """
        check_labels(labels, (len(labels), *labels.shape[-2:]) if isinstance(labels, Tensor) else ())
        losses = []
        for instance, found in enumerate(scores, start=1):
            first, step = self.centres(instance)
            seen = label_grid(labels, step, offset=first)[:, : found.shape[2], : found.shape[3]]
            losses.append(step_loss([found], seen, ignore_index=ignore_index))
        return torch.stack(losses).sum()
