"""ShuffleNet: 1x1 convolutions in groups, and a channel shuffle so that the groups meet."""

from collections import OrderedDict
from math import ceil

from torch import nn

from ninefold.errors import ArgumentError
from ninefold.models.initial import he_init
from ninefold.models.parts import conv_bn_relu
from ninefold.nn import ShuffleUnit

__all__ = ["SHUFFLENET_CHANNELS", "ShuffleNetV1", "shufflenet_v1"]

SHUFFLENET_CHANNELS = {1: (144, 288, 576), 2: (200, 400, 800), 3: (240, 480, 960), 4: (272, 544, 1088), 8: (384, 768, 1536)}
"""Channels of the three stages by number of groups: more groups afford more channels at about the same cost."""
_UNITS = (4, 8, 4)


class ShuffleNetV1(nn.Sequential):
    """The network that `shufflenet_v1` makes: its layers in order, by name.

    Attributes
    ----------
    input_size : tuple of int
        Channels, height and width of one example; any size from 32 on runs.

    Examples
    --------
    >>> shufflenet_v1(num_classes=7).stage2[0].reduce.groups
    1
    """

    input_size = (3, 224, 224)


def shufflenet_v1(groups: int = 3, num_classes: int = 1000, width: float = 1.0) -> ShuffleNetV1:
    """Return an untrained ShuffleNet (Zhang et al. 2017, arXiv 1707.01083).

    Multiply-adds per 224x224 image with 1, 2, 3, 4, 8 groups: 143,078,976; 140,836,512; 137,460,672; 134,339,776; 138,365,952,
    the classifier included. 1,864,728 parameters with 3 groups.

    Parameters
    ----------
    groups : {1, 2, 3, 4, 8}
        Of the 1x1 convolutions. The very first one, which reads 24 channels, has none.
    num_classes : int
    width : float
        Multiplies every channel count, the first one rounded up to a multiple of the groups.

    Raises
    ------
    ArgumentError
        If the paper has no network of so many groups, or they do not divide the scaled channels.

    Notes
    -----
    Published code of the authors applies the inverse of the paper's permutation, and after the depthwise convolution; here it
    is the paper's. Weights go from one to the other after permuting the channels in between.

    Reported, not reproduced here: top-1 errors on ImageNet of 32.2% with 3 and 32.0% with 8 groups, 25.9% with 3 groups at twice
    and 41.2% with 8 groups at half the width, as retrained in the authors' repository.

    Examples
    --------
    >>> sum(p.numel() for p in shufflenet_v1().parameters())
    1864728
    """
    if groups not in SHUFFLENET_CHANNELS:
        raise ArgumentError(f"groups={groups} must be one of {list(SHUFFLENET_CHANNELS)}, for which the paper names channels")
    inputs = ceil(24 * width / groups) * groups
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        stem=conv_bn_relu(3, inputs, 3, stride=2), pool=nn.MaxPool2d(3, stride=2, padding=1)
    )
    for k, (units, channels) in enumerate(zip(_UNITS, SHUFFLENET_CHANNELS[groups], strict=True), start=2):
        outputs = int(channels * width)
        stage = nn.Sequential(ShuffleUnit(inputs, outputs, groups, stride=2, first_groups=1 if k == 2 else groups))
        stage.extend([ShuffleUnit(outputs, outputs, groups) for _ in range(units - 1)])
        layers[f"stage{k}"], inputs = stage, outputs
    layers["average"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["dense"] = nn.Linear(inputs, num_classes, bias=False)
    model = ShuffleNetV1(layers)
    he_init(model)
    return model
