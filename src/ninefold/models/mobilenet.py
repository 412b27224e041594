"""MobileNetV1: a network in which nearly all the work is 1x1 products."""

from collections import OrderedDict

from torch import Tensor, nn

from ninefold.errors import ArgumentError
from ninefold.models.initial import he_init
from ninefold.models.parts import conv_bn_relu
from ninefold.nn import DepthwiseSeparableConv2d

__all__ = ["MobileNetV1", "mobilenet_v1"]

# (output channels, stride) of the thirteen blocks. The paper's table prints stride 2 for the last one too; the counts
# that its authors publish need 1 there, for the map is 7x7 already.
_BLOCKS = (
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *((512, 1),) * 5,
    *((1024, 2), (1024, 1)),
)


class MobileNetV1(nn.Module):
    """The network that `mobilenet_v1` makes.

    Parameters
    ----------
    width : float
        Multiplies every channel count.
    resolution : int
        Height and width of the images it is meant for; sets `input_size` only, any size from 32 on runs.
    num_classes : int
    separable : bool
        Depthwise and pointwise convolution per block, or the full 3x3 convolution they replace.

    Attributes
    ----------
    input_size : tuple of int
        Channels, height and width of one example.

    Examples
    --------
    >>> MobileNetV1(width=0.25, num_classes=10).classifier
    Linear(in_features=256, out_features=10, bias=True)
    """

    def __init__(self, width: float = 1.0, resolution: int = 224, num_classes: int = 1000, *, separable: bool = True) -> None:
        super().__init__()
        self.input_size = (3, resolution, resolution)
        channels = _scaled(32, width)
        self.stem = conv_bn_relu(3, channels, 3, stride=2)
        self.blocks = nn.Sequential()
        for out, stride in _BLOCKS:
            self.blocks.append(_block(channels, _scaled(out, width), stride, separable=separable))
            channels = _scaled(out, width)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)
        he_init(self)

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits of a batch of images."""
        features = self.pool(self.blocks(self.stem(image)))
        logits: Tensor = self.classifier(features.flatten(1))
        return logits


def mobilenet_v1(width: float = 1.0, resolution: int = 224, num_classes: int = 1000, *, separable: bool = True) -> MobileNetV1:
    """Return an untrained MobileNetV1 (Howard et al. 2017, arXiv 1704.04861).

    568,740,352 multiply-adds per 224x224 image, of which the 1x1 convolutions take 94.86%, the depthwise ones 3.06%,
    the first convolution 1.91% and the classifier 0.18%; 4,231,976 parameters.

    Parameters
    ----------
    width : float
        Multiplies every channel count. 0.75, 0.5 and 0.25 take 325.4, 149.5 and 41.0 million multiply-adds.
    resolution : int
        Height and width of the images it is meant for; sets `input_size` only, any size from 32 on runs. 192, 160 and
        128 take 418.1, 290.7 and 186.4 million multiply-adds.
    num_classes : int
    separable : bool
        False makes the fully convolutional twin, whose blocks are one 3x3 convolution each: 4,867 million
        multiply-adds and 29.3 million parameters.

    Raises
    ------
    ArgumentError
        If a size is not positive.

    Notes
    -----
    Reported, not reproduced here: 70.9% top-1 accuracy on ImageNet in the authors' model zoo, 70.6% as listed by the
    authors of ShuffleNet.

    Examples
    --------
    >>> sum(p.numel() for p in mobilenet_v1().parameters())
    4231976
    """
    if not width > 0:
        raise ArgumentError(f"width={width} must be positive, such as 1.0 or 0.25")
    if resolution < 32 or num_classes < 1:
        raise ArgumentError(f"resolution={resolution} must be at least 32 and num_classes={num_classes} at least 1")
    return MobileNetV1(width, resolution, num_classes, separable=separable)


def _scaled(channels: int, width: float) -> int:
    return max(1, int(channels * width))


def _block(inputs: int, outputs: int, stride: int, *, separable: bool) -> nn.Sequential:
    if not separable:
        return conv_bn_relu(inputs, outputs, 3, stride=stride)
    between = nn.Sequential(OrderedDict(bn=nn.BatchNorm2d(inputs), relu=nn.ReLU(inplace=True)))
    conv = DepthwiseSeparableConv2d(inputs, outputs, 3, stride, padding=1, bias=False, between=between)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(outputs), relu=nn.ReLU(inplace=True)))
