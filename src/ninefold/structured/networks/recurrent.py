"""The recurrent convolutional network of figure 9.17: a label map that is refined by the same weights, step after step."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ninefold.errors import ArgumentError, ShapeError
from ninefold.spec.parse import integer
from ninefold.structured.networks.parts import check_labels, check_maps, layer

__all__ = ["RecurrentConvNet", "step_loss"]


class RecurrentConvNet(nn.Module):
    """Labels for every position, from the image and the labels of the step before: fig. 9.17 of *Deep Learning* (2016).

    ``H(t) = act(U * X + W * Y(t-1))`` and ``Y(t) = softmax(V * H(t))``, where ``W * Y(0)`` is zero unless labels are given to
    begin with. U, V and W are the same at every step, and ``U * X`` is computed once. The symbols for the activations are not in
    the caption: they are a choice made here.

    Parameters
    ----------
    in_channels, hidden_channels, classes : int
    kernel_size : int or tuple of int
        Of U.
    label_kernel_size, output_kernel_size : int or tuple of int
        Of W and V. Maps keep their size, with zeros outside.
    steps : int
        Of a call that does not say otherwise.
    ndim : {1, 2, 3}
        Spatial axes.
    activation : callable
        Makes the module ``act``.

    Attributes
    ----------
    U, W, V : torch.nn.Module
        U and V have a bias. W has none, so that no labels mean no contribution. Any module that keeps the size may stand for U.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        With the actual numbers, for what cannot be such a network.

    Notes
    -----
    ``k(U) C H + H + k(W) L H + k(V) H L + L`` parameters, where k counts the positions of a kernel, for C channels, H hidden ones
    and L labels, whatever the number of steps.

    Examples
    --------
    >>> net = RecurrentConvNet(3, 8, 4, kernel_size=5)
    >>> [tuple(scores.shape) for scores in net(torch.zeros(2, 3, 9, 7))]
    [(2, 4, 9, 7), (2, 4, 9, 7), (2, 4, 9, 7)]
    >>> len(net(torch.zeros(2, 3, 9, 7), steps=5))
    5
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        classes: int,
        *,
        kernel_size: Any = 7,
        label_kernel_size: Any = 7,
        output_kernel_size: Any = 1,
        steps: int = 3,
        ndim: int = 2,
        activation: Callable[[], nn.Module] = nn.Tanh,
    ) -> None:
        super().__init__()
        conv = layer("Conv", ndim)
        self.in_channels, self.classes, self.ndim, self.steps = in_channels, classes, ndim, integer(steps, "steps", 1)
        self.U = conv(in_channels, hidden_channels, kernel_size, padding="same")
        self.W = conv(classes, hidden_channels, label_kernel_size, padding="same", bias=False)
        self.V = conv(hidden_channels, classes, output_kernel_size, padding="same")
        self.act = activation()

    def forward(self, image: Tensor, steps: int | None = None, *, labels: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return the logits ``V * H(t)`` of all steps, first to last.

        Parameters
        ----------
        image : Tensor of shape ``(batch, in_channels, *space)``
        steps : int, optional
        labels : Tensor of shape ``(batch, classes, *space)``, optional
            Probabilities ``Y(0)`` to begin with, such as those of an earlier call: steps go on where it ended.

        Raises
        ------
        ArgumentError, ArgumentTypeError, DTypeError, ShapeError
            With the actual numbers.
        """
        count = self.steps if steps is None else integer(steps, "steps", 1)
        check_maps(image, self.ndim, self.in_channels, "the image")
        if labels is not None:
            check_maps(labels, self.ndim, self.classes, "the labels to begin with")
            if (labels.shape[0], *labels.shape[2:]) != (image.shape[0], *image.shape[2:]):
                raise ShapeError(
                    f"the labels to begin with have shape {tuple(labels.shape)}, the image {tuple(image.shape)}; batch and "
                    "spatial sizes must be equal"
                )
        of_image, found = self.U(image), []
        for _ in range(count):
            total = of_image if labels is None else of_image + self.W(labels)
            logits = self.V(self.act(total))
            found.append(logits)
            labels = logits.softmax(1)
        return tuple(found)

    def extra_repr(self) -> str:
        """Return the number of steps."""
        return f"steps={self.steps}"


def step_loss(
    logits: Sequence[Tensor],
    labels: Tensor,
    weights: Sequence[float] | None = None,
    *,
    class_weight: Tensor | None = None,
    ignore_index: int = -100,
) -> Tensor:
    """Return the loss at every step: the weighted sum of the cross-entropies of all steps, each a mean over labelled positions.

    Parameters
    ----------
    logits : sequence of Tensor of shape ``(batch, classes, *space)``
        Of each step, as `RecurrentConvNet` gives them.
    labels : Tensor of whole numbers, of shape ``(batch, *space)``
    weights : sequence of float, optional
        One for each step; all 1 by default. ``(0, 0, 1)`` trains the last of three steps only.
    class_weight : Tensor of shape ``(classes,)``, optional
    ignore_index : int
        Label of positions that do not count.

    Returns
    -------
    Tensor
        A number; exactly 0 where nothing is labelled.

    Raises
    ------
    ArgumentError, DTypeError, ShapeError
        If there is no step, another number of weights than of steps, or labels of another size or outside of the classes.

    Examples
    --------
    >>> step_loss([torch.zeros(1, 2, 3), torch.zeros(1, 2, 3)], torch.tensor([[0, 1, 1]]), (0.5, 1)).item()
    1.0397...
    """
    if not logits:
        raise ArgumentError("there is no step to take the loss of; give the logits of at least 1")
    share = [1.0] * len(logits) if weights is None else [float(w) for w in weights]
    if len(share) != len(logits):
        raise ArgumentError(f"there are {len(share)} weights and {len(logits)} steps; give one weight for each step")
    for scores in logits:
        check_maps(scores, logits[0].dim() - 2, logits[0].shape[1], "the logits of a step")
        check_labels(labels, (scores.shape[0], *scores.shape[2:]))
    _in_range(labels, logits[0].shape[1], ignore_index)
    if not bool((labels != ignore_index).any()):
        return torch.stack([scores.sum() * 0 for scores in logits]).sum()
    losses = [
        w * nn.functional.cross_entropy(scores, labels.long(), class_weight, ignore_index=ignore_index)
        for w, scores in zip(share, logits, strict=True)
    ]
    return torch.stack(losses).sum()


def _in_range(labels: Tensor, classes: int, ignore_index: int) -> None:
    outside = (labels != ignore_index) & ((labels < 0) | (labels >= classes))
    if bool(outside.any()):
        raise ArgumentError(
            f"label {int(labels[outside][0])} is none of 0 to {classes - 1}; map the labels to these, or pass ignore_index for "
            f"those that do not count (now {ignore_index})"
        )
