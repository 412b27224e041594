"""ResNet-50 and ResNeXt-50: residual bottlenecks, with one 3x3 convolution or with one in many groups."""

from collections import OrderedDict

from torch import Tensor, nn

from ninefold.errors import ArgumentError
from ninefold.models.initial import he_init
from ninefold.models.parts import conv_bn, conv_bn_relu

__all__ = ["Bottleneck", "ResNet", "resnet", "resnet50", "resnext50"]


class Bottleneck(nn.Module):
    """1x1 convolution, 3x3 convolution, 1x1 convolution, each with batch normalisation, and the input added.

    With `groups` it is the ResNeXt block (Xie et al. 2017, arXiv 1611.05431) in the last of its three equal forms: as many
    bottlenecks side by side, summed; the same with their middles joined before one last 1x1 convolution; and one bottleneck whose
    3x3 convolution is in groups. Cardinality 32 and width 4 a path at 256 channels take 70,144 weights, where the plain
    bottleneck of width 64 takes 69,632.

    Parameters
    ----------
    inputs : int
    width : int
        Channels of the 3x3 convolution, all paths together.
    outputs : int
    stride : int
        Of the 3x3 convolution. He et al. give it to the first 1x1; here, as in ResNeXt, nothing is skipped unread.
    groups : int
        Paths (cardinality).

    Examples
    --------
    >>> blocks = Bottleneck(256, 64, 256), Bottleneck(256, 128, 256, groups=32)
    >>> [sum(p.numel() for p in block.parameters() if p.ndim == 4) for block in blocks]
    [69632, 70144]
    """

    def __init__(self, inputs: int, width: int, outputs: int, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.reduce = conv_bn_relu(inputs, width, 1)
        self.conv = conv_bn_relu(width, width, 3, stride=stride, groups=groups)
        self.expand = conv_bn(width, outputs, 1)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else conv_bn(inputs, outputs, 1, stride=stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of both ways, cut off at zero."""
        out: Tensor = self.relu(self.expand(self.conv(self.reduce(x))) + self.shortcut(x))
        return out


class ResNet(nn.Sequential):
    """A network that `resnet` makes: its layers in order, by name.

    Attributes
    ----------
    input_size : tuple of int
        Channels, height and width of one example; any size from 32 on runs.

    Examples
    --------
    >>> resnet(depths=(1, 2), num_classes=7).stages[1][0].conv.conv.stride
    (2, 2)
    """

    input_size = (3, 224, 224)


def resnet(depths: tuple[int, ...] = (3, 4, 6, 3), width: int = 64, groups: int = 1, num_classes: int = 1000) -> ResNet:
    """Return an untrained residual network of stages of `Bottleneck`, each with half the size and twice the channels.

    Parameters
    ----------
    depths : tuple of int
        Blocks of each stage.
    width : int
        Of the 3x3 convolutions of the first stage, all groups together.
    groups : int
        Of the 3x3 convolutions.
    num_classes : int

    Raises
    ------
    ArgumentError
        If there are no stages.

    Examples
    --------
    >>> import torch
    >>> resnet(depths=(1, 1), width=8, groups=4, num_classes=5)(torch.zeros(1, 3, 32, 40)).shape
    torch.Size([1, 5])
    """
    if not depths:
        raise ArgumentError("depths=() must name the blocks of at least one stage, such as (3, 4, 6, 3)")
    stages = nn.Sequential()
    inputs = 64
    for k, depth in enumerate(depths):
        stage = nn.Sequential()
        for block in range(depth):
            stride = 2 if k > 0 and block == 0 else 1
            stage.append(Bottleneck(inputs, width << k, 256 << k, stride=stride, groups=groups))
            inputs = 256 << k
        stages.append(stage)
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        stem=conv_bn_relu(3, 64, 7, stride=2),
        pool=nn.MaxPool2d(3, stride=2, padding=1),
        stages=stages,
        average=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        dense=nn.Linear(inputs, num_classes),
    )
    model = ResNet(layers)
    he_init(model)
    return model


def resnet50(num_classes: int = 1000) -> ResNet:
    """Return an untrained ResNet-50 (He et al. 2015, arXiv 1512.03385): 25,557,032 parameters.

    Parameters
    ----------
    num_classes : int

    Notes
    -----
    Reported by the authors of ResNeXt, not reproduced here: a top-1 error of 23.9% on ImageNet.

    Examples
    --------
    >>> sum(p.numel() for p in resnet50().parameters())
    25557032
    """
    return resnet(num_classes=num_classes)


def resnext50(num_classes: int = 1000) -> ResNet:
    """Return an untrained ResNeXt-50 of 32 paths of width 4 (Xie et al. 2017, arXiv 1611.05431): 25,028,904 parameters.

    Parameters
    ----------
    num_classes : int

    Notes
    -----
    Reported, not reproduced here: a top-1 error of 22.2% on ImageNet.

    Examples
    --------
    >>> sum(p.numel() for p in resnext50().parameters())
    25028904
    """
    return resnet(width=128, groups=32, num_classes=num_classes)
