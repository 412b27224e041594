"""A network of large kernels: 31x31 depthwise blocks beside a long 1-D convolution."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from ninefold.errors import ArgumentError
from ninefold.models.initial import he_init
from ninefold.nn import Conv1d, Conv2d

__all__ = ["LargeKernelNet", "LongBranch", "large_kernel_net"]


class _Residual(nn.Module):
    """Pointwise, large depthwise, pointwise, and the input added: RepLKNet's block, its small kernels merged."""

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.expand = Conv2d(channels, channels, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.large = Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.project = Conv2d(channels, channels, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.norm1(self.expand(x)))
        y = self.relu(self.norm2(self.large(y)))
        mixed: Tensor = self.norm3(self.project(y))
        return x + mixed


class LongBranch(nn.Module):
    """A feature map read row by row as one sequence, through a long depthwise convolution with a gate, and added back.

    The shape of a Hyena operator (Poli et al. 2023), with a free kernel in place of its implicit one.

    Parameters
    ----------
    channels : int
    kernel_size : int
        Odd, so that the sequence keeps its length.

    Examples
    --------
    >>> LongBranch(4, 63)(torch.zeros(1, 4, 7, 9)).shape
    torch.Size([1, 4, 7, 9])
    """

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.gate = Conv2d(channels, channels, 1)
        self.long = Conv1d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the map with what the sequence adds to it."""
        sequence = self.long(x.flatten(2)).unflatten(2, x.shape[2:])
        gated: Tensor = self.gate(x).sigmoid() * sequence
        return x + gated


class LargeKernelNet(nn.Module):
    """The network that `large_kernel_net` makes; its parameters are described there.

    Attributes
    ----------
    input_size : tuple of int
        Channels, height and width of one example.

    Examples
    --------
    >>> LargeKernelNet(widths=(6, 8)).stages[1].block1.large
    Conv2d(8, 8, kernel_size=(31, 31), stride=(1, 1), padding=(15, 15), groups=8, bias=False)
    """

    def __init__(
        self,
        widths: tuple[int, ...] = (48, 80),
        depths: tuple[int, ...] = (2, 2),
        kernel_size: int = 31,
        long_kernel_size: int = 1023,
        num_classes: int = 10,
    ) -> None:
        super().__init__()
        self.input_size = (3, 128, 128)
        self.stem = nn.Sequential(
            OrderedDict(
                conv=Conv2d(3, widths[0], 3, stride=2, padding=1, bias=False),
                norm=nn.BatchNorm2d(widths[0]),
                relu=nn.ReLU(),
            )
        )
        self.branch = LongBranch(widths[0], long_kernel_size)
        self.stages = nn.Sequential()
        for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            stage: OrderedDict[str, nn.Module] = OrderedDict()
            if i > 0:
                stage["patchify"] = Conv2d(widths[i - 1], width, 2, stride=2)
            stage.update({f"block{b + 1}": _Residual(width, kernel_size) for b in range(depth)})
            self.stages.append(nn.Sequential(stage))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(widths[-1] + widths[0], num_classes)
        he_init(self)

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits of a batch of images."""
        x = self.stem(image)
        features = torch.cat([self.pool(self.stages(x)), self.pool(self.branch(x))], dim=1)
        logits: Tensor = self.classifier(features.flatten(1))
        return logits


def large_kernel_net(
    widths: tuple[int, ...] = (48, 80),
    depths: tuple[int, ...] = (2, 2),
    kernel_size: int = 31,
    long_kernel_size: int = 1023,
    num_classes: int = 10,
) -> LargeKernelNet:
    """Return an untrained image network of large kernels.

    A 3x3 stem with stride 2; then, side by side, stages of residual blocks (pointwise, large depthwise, pointwise) with
    a 2x2 patchify layer between stages, and a branch that reads the stem's map as one sequence through a long depthwise
    1-D convolution; the averages of both, joined; linear.

    Parameters
    ----------
    widths, depths : tuple of int
        Channels and blocks of each stage.
    kernel_size, long_kernel_size : int
        Of the depthwise 2-D and 1-D convolutions; odd.
    num_classes : int

    Raises
    ------
    ArgumentError
        If a kernel is even, or there are not as many depths as widths.

    Notes
    -----
    It is no published network. The blocks follow RepLKNet (Ding et al. 2022, arXiv 2203.06717), the branch Hyena (Poli
    et al. 2023, arXiv 2302.10866). Nothing is reported of this one.

    Examples
    --------
    >>> large_kernel_net(widths=(6, 8), depths=(1, 1))(torch.zeros(1, 3, 20, 28)).shape
    torch.Size([1, 10])
    """
    if len(widths) != len(depths) or not widths:
        raise ArgumentError(f"widths={widths} and depths={depths} must have one entry per stage each")
    for name, size in (("kernel_size", kernel_size), ("long_kernel_size", long_kernel_size)):
        if size % 2 == 0:
            raise ArgumentError(f"{name}={size} must be odd, so that the map keeps its size; take {size - 1} or {size + 1}")
    return LargeKernelNet(widths, depths, kernel_size, long_kernel_size, num_classes)
