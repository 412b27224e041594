"""The three networks of figure 9.11: images of one size, of any size by pooling to a grid, or with no dense layer."""

from collections import OrderedDict
from collections.abc import Callable

from torch import nn

from ninefold.errors import ArgumentError
from ninefold.nn import Conv2d

__all__ = ["Figure911", "figure_9_11"]

_CHANNELS = 64
_POOL = 4
_GRID = 3


class Figure911(nn.Sequential):
    """A network that `figure_9_11` makes: its layers in order, by name.

    Attributes
    ----------
    input_size : tuple of int
        Channels, height and width of the images in the figure.

    Examples
    --------
    >>> net = figure_9_11("variable", num_classes=5)
    >>> net.input_size, net.dense
    ((3, 256, 256), Linear(in_features=576, out_features=5, bias=True))
    """

    input_size = (3, 256, 256)


def figure_9_11(kind: str, num_classes: int = 1000, kernel_size: int = 3) -> Figure911:
    """Return one of the three untrained networks of figure 9.11 of *Deep Learning* (Goodfellow et al. 2016).

    All begin with convolution and ReLU to 64 channels, pooling with stride 4, convolution and ReLU.

    * ``"fixed"``: pooling with stride 4, flattening to 16 x 16 x 64 = 16,384 values, a dense layer of 16,384,000
      weights. It takes 256x256 images only.
    * ``"variable"``: pooling to a 3x3 grid whatever the size, 576 values, a dense layer of 576,000 weights. Images of
      12x12 and more give the grid at least one pooled position per cell.
    * ``"convolutional"``: pooling with stride 4, convolution to one map per class, their average. No dense layer;
      images of 16x16 and more.

    Softmax ends all three.

    Parameters
    ----------
    kind : {"fixed", "variable", "convolutional"}
    num_classes : int
    kernel_size : int
        Of every convolution, zero-padded so that maps keep their size; odd. The figure prints no kernel sizes: 3 is a
        choice made here, and so is taking the maximum wherever the figure does not say that it averages.

    Raises
    ------
    ArgumentError
        If there is no such kind, or `kernel_size` is even.

    Notes
    -----
    Grid cell ``i`` of 3 over ``n`` positions is ``[floor(i n / 3), ceil((i + 1) n / 3))``, PyTorch's bins: they overlap
    where 3 does not divide ``n``, as ``[0, 22), [21, 43), [42, 64)`` for the figure's 64. The caption warns that its
    strides and depths are no recommendation.

    Examples
    --------
    >>> import torch
    >>> figure_9_11("convolutional", num_classes=5)(torch.zeros(2, 3, 20, 33)).shape
    torch.Size([2, 5])
    """
    if kind not in _ENDS:
        raise ArgumentError(f"kind={kind!r} is none of {', '.join(map(repr, _ENDS))}")
    if kernel_size % 2 == 0:
        raise ArgumentError(f"kernel_size={kernel_size} must be odd, so that maps keep their size; take {kernel_size + 1}")
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=_same(3, _CHANNELS, kernel_size),
        relu1=nn.ReLU(),
        pool1=nn.MaxPool2d(_POOL),
        conv2=_same(_CHANNELS, _CHANNELS, kernel_size),
        relu2=nn.ReLU(),
    )
    layers.update(_ENDS[kind](num_classes, kernel_size))
    layers["softmax"] = nn.Softmax(dim=1)
    return Figure911(layers)


def _same(inputs: int, outputs: int, kernel_size: int) -> Conv2d:
    return Conv2d(inputs, outputs, kernel_size, padding=kernel_size // 2)


def _fixed(num_classes: int, kernel_size: int) -> dict[str, nn.Module]:
    del kernel_size
    side = Figure911.input_size[1] // _POOL**2
    dense = nn.Linear(side * side * _CHANNELS, num_classes)
    return {"pool2": nn.MaxPool2d(_POOL), "flatten": nn.Flatten(), "dense": dense}


def _variable(num_classes: int, kernel_size: int) -> dict[str, nn.Module]:
    del kernel_size
    dense = nn.Linear(_GRID * _GRID * _CHANNELS, num_classes)
    return {"pool2": nn.AdaptiveMaxPool2d(_GRID), "flatten": nn.Flatten(), "dense": dense}


def _convolutional(num_classes: int, kernel_size: int) -> dict[str, nn.Module]:
    return {
        "pool2": nn.MaxPool2d(_POOL),
        "conv3": _same(_CHANNELS, num_classes, kernel_size),
        "average": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
    }


_ENDS: dict[str, Callable[[int, int], dict[str, nn.Module]]] = {
    "fixed": _fixed,
    "variable": _variable,
    "convolutional": _convolutional,
}
