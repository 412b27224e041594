"""DeepLab v1: VGG-16 turned into a labeller of pixels by holes in its kernels instead of strides in its pools."""

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn.functional import interpolate

from ninefold.errors import ArgumentError
from ninefold.models.initial import he_init
from ninefold.nn import Conv2d

__all__ = ["DeepLabV1", "deeplab_v1"]

_VGG = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_HEADS = {"7x7": (7, 4096, 4), "4x4": (4, 4096, 8), "large_fov": (3, 1024, 12)}  # kernel and channels of fc6, its rate


class DeepLabV1(nn.Module):
    """The network that `deeplab_v1` makes.

    Parameters
    ----------
    kernel, width, rate : int
        Kernel, channels and dilation of fc6, the first layer of the head.
    num_classes : int

    Attributes
    ----------
    input_size : tuple of int
        Channels, height and width of one example. Sizes of 8 n + 1 keep the corners of scores and image aligned.

    Examples
    --------
    >>> DeepLabV1(3, 1024, 12, num_classes=5).head.fc6
    Conv2d(512, 1024, kernel_size=(3, 3), stride=(1, 1), padding=(12, 12), dilation=(12, 12))
    """

    def __init__(self, kernel: int, width: int, rate: int, num_classes: int = 21) -> None:
        super().__init__()
        self.input_size = (3, 321, 321)
        trunk: OrderedDict[str, nn.Module] = OrderedDict()
        inputs = 3
        for block, widths in enumerate(_VGG, start=1):
            hole = 2 if block == 5 else 1
            for k, outputs in enumerate(widths, start=1):
                trunk[f"conv{block}_{k}"] = Conv2d(inputs, outputs, 3, padding=hole, dilation=hole)
                trunk[f"relu{block}_{k}"] = nn.ReLU(inplace=True)
                inputs = outputs
            trunk[f"pool{block}"] = nn.MaxPool2d(3, stride=2 if block < 4 else 1, padding=1)
        self.trunk = nn.Sequential(trunk)
        self.head = nn.Sequential(
            OrderedDict(
                fc6=Conv2d(inputs, width, kernel, padding=(kernel - 1) * rate // 2, dilation=rate),
                relu6=nn.ReLU(inplace=True),
                dropout6=nn.Dropout(0.5),
                fc7=Conv2d(width, width, 1),
                relu7=nn.ReLU(inplace=True),
                dropout7=nn.Dropout(0.5),
                fc8=Conv2d(width, num_classes, 1),
            )
        )
        he_init(self)

    def scores(self, image: Tensor) -> Tensor:
        """Return the scores at every eighth pixel, which training compares with labels taken at the same ones."""
        out: Tensor = self.head(self.trunk(image))
        return out

    def forward(self, image: Tensor) -> Tensor:
        """Return the scores at every pixel of a batch of images, bilinear between those of `scores`."""
        return interpolate(self.scores(image), image.shape[2:], mode="bilinear", align_corners=True)


def deeplab_v1(head: str = "large_fov", num_classes: int = 21, rate: int | None = None) -> DeepLabV1:
    """Return an untrained DeepLab (Chen et al. 2014, arXiv 1412.7062): its network, without the random field behind it.

    VGG-16 whose last two pools have stride 1, and whose layers behind them have holes in their kernels instead: rate 2 in conv5,
    and in fc6 the rate of the head. Scores come at every eighth pixel.

    Parameters
    ----------
    head : {"7x7", "4x4", "large_fov"}
        Kernel 7, 4 or 3 of fc6, with 4096, 4096 or 1024 channels and rate 4, 8 or 12: each spans 25 positions. With 21 classes
        134,346,581, 65,140,565 and 20,505,429 parameters.
    num_classes : int
    rate : int, optional
        Another rate for fc6: 4 in the first of the paper's networks with head ``"4x4"``.

    Raises
    ------
    ArgumentError
        If there is no such head, or the layer would not keep the size.

    Notes
    -----
    Pools are 3x3 with one position of padding, as in the authors' published definitions, so that positions of all maps align.

    Reported, not reproduced here: mean intersection over union on the validation images of PASCAL VOC 2012 of 59.80%, 62.25%
    with ``"large_fov"``; with a fully connected random field 63.74% and 67.64%.

    Examples
    --------
    >>> sum(p.numel() for p in deeplab_v1().parameters())
    20505429
    """
    if head not in _HEADS:
        raise ArgumentError(f"head={head!r} must be one of {list(_HEADS)}")
    kernel, width, own = _HEADS[head]
    chosen = own if rate is None else rate
    if chosen < 1 or (kernel - 1) * chosen % 2:
        raise ArgumentError(
            f"rate={rate} must be positive, and even for an even kernel, so that the {kernel}x{kernel} layer keeps the map's size"
        )
    return DeepLabV1(kernel, width, chosen, num_classes)
