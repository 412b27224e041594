"""Xception: depthwise separable convolutions throughout, nothing between their stages, and residual connections."""

from collections import OrderedDict
from itertools import pairwise

from torch import Tensor, nn

from ninefold.models.initial import he_init
from ninefold.models.parts import conv_bn, conv_bn_relu
from ninefold.nn import DepthwiseSeparableConv2d

__all__ = ["Xception", "xception"]


class _Residual(nn.Module):
    """Separable convolutions with batch normalisation, perhaps a pool, and the input added, projected where its shape changes."""

    def __init__(self, channels: tuple[int, ...], *, stride: int, relu_first: bool = True) -> None:
        super().__init__()
        self.body = nn.Sequential()
        for k, (inputs, outputs) in enumerate(pairwise(channels)):
            if k or relu_first:
                self.body.append(nn.ReLU())
            self.body.append(_separable_bn(inputs, outputs))
        if stride > 1:
            self.body.append(nn.MaxPool2d(3, stride, padding=1))
        same = stride == 1 and channels[0] == channels[-1]
        self.shortcut = nn.Identity() if same else conv_bn(channels[0], channels[-1], 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x) + self.shortcut(x)
        return out


class Xception(nn.Sequential):
    """The network that `xception` makes: its flows in order, by name.

    Attributes
    ----------
    input_size : tuple of int
        Channels, height and width of one example; any size from 39 on runs.

    Examples
    --------
    >>> len(xception(num_classes=7).middle)
    8
    """

    input_size = (3, 299, 299)


def xception(num_classes: int = 1000) -> Xception:
    """Return an untrained Xception (Chollet 2017, arXiv 1610.02357): 36 convolutional layers in 14 modules.

    22,855,952 parameters, as the Keras documentation reports.

    Parameters
    ----------
    num_classes : int

    Notes
    -----
    The 36 count a separable convolution once and leave the projections of the shortcuts out. Where Keras pads an even size by one
    at its end, here both ends are padded: the sizes are the same, trained weights would meet maps shifted by one.

    Reported, not reproduced here: 79.0% top-1 and 94.5% top-5 accuracy on ImageNet at 299x299.

    Examples
    --------
    >>> sum(p.numel() for p in xception().parameters())
    22855952
    """
    entry = nn.Sequential(
        conv_bn_relu(3, 32, 3, stride=2, padding=0),
        conv_bn_relu(32, 64, 3, padding=0),
        _Residual((64, 128, 128), stride=2, relu_first=False),
        _Residual((128, 256, 256), stride=2),
        _Residual((256, 728, 728), stride=2),
    )
    exit_flow = nn.Sequential(
        _Residual((728, 728, 1024), stride=2),
        _separable_bn(1024, 1536),
        nn.ReLU(),
        _separable_bn(1536, 2048),
        nn.ReLU(),
    )
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        entry=entry,
        middle=nn.Sequential(*(_Residual((728,) * 4, stride=1) for _ in range(8))),
        exit=exit_flow,
        average=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        dense=nn.Linear(2048, num_classes),
    )
    model = Xception(layers)
    he_init(model)
    return model


def _separable_bn(inputs: int, outputs: int) -> nn.Sequential:
    separable = DepthwiseSeparableConv2d(inputs, outputs, 3, padding=1, bias=False)
    return nn.Sequential(OrderedDict(separable=separable, bn=nn.BatchNorm2d(outputs)))
