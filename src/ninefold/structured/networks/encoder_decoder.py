"""Down to a coarse grid and up again: encoder and decoder, with or without the connections of a U-Net, at any size."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ninefold.errors import ArgumentError
from ninefold.spec.parse import integer
from ninefold.structured.networks.parts import check_maps, layer, widths_of

__all__ = ["EncoderDecoder", "UNet", "UnitStrideNet"]

_UPS = ("transposed", "resize")
_NORMS = ("batch", "instance", "none")


class EncoderDecoder(nn.Module):
    """Convolutions and pooling down to a coarse grid, upsampling and convolutions back to every position.

    Each level is two 3x3 convolutions with normalisation and ReLU; between levels maps are halved by maximum pooling, and doubled
    again by a transposed convolution of kernel 2 and stride 2, or by nearest neighbours and a 3x3 convolution (which makes no
    checkerboards, Odena et al. 2016). With `skips` it is a U-Net (Ronneberger, Fischer and Brox 2015, arXiv 1505.04597; in
    volumes Cicek et al. 2016, arXiv 1606.06650): the maps of the way down are put beside those of the way up.

    Parameters
    ----------
    in_channels, classes : int
    widths : sequence of int
        Maps of each level, finest first; the number of levels, and of halvings plus 1.
    ndim : {1, 2, 3}
    skips : bool
        Whether the way up reads the way down.
    up : {"transposed", "resize"}
    norm : {"batch", "instance", "none"}

    Raises
    ------
    ArgumentError, ArgumentTypeError
        With the actual numbers, for what cannot be such a network.

    Notes
    -----
    An image of any size: its border is continued at the end of each axis up to a multiple of ``2 ** (levels - 1)``, and the
    logits are cropped. All convolutions keep the size, where the original U-Net's take off the border; their padding is zero.

    Without normalisation weights are drawn with variance 2 over the values that an output reads, and biases are zero (He et al.
    2015, arXiv 1502.01852): PyTorch's own make maps smaller from layer to layer, and outputs that hardly depend on the image.

    Parameters of a level on the way down from a to b maps, kernel positions k = 3^ndim, with batch normalisation: ``k (a b + b b)
    + 4 b``; up with skips from a to b, transposed: ``2^ndim a b + b + k (2 b b + b b) + 4 b``.

    Examples
    --------
    >>> EncoderDecoder(1, 2, widths=(4, 6, 8))(torch.zeros(1, 1, 13, 9)).shape
    torch.Size([1, 2, 13, 9])
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        widths: Sequence[int] = (16, 32, 64),
        ndim: int = 2,
        skips: bool = False,
        up: str = "transposed",
        norm: str = "batch",
    ) -> None:
        super().__init__()
        if up not in _UPS:
            raise ArgumentError(f"up={up!r} must be one of {list(_UPS)}")
        if norm not in _NORMS:
            raise ArgumentError(f"norm={norm!r} must be one of {list(_NORMS)}")
        maps = widths_of(widths)
        self.in_channels, self.ndim, self.skips = in_channels, ndim, skips
        self.down = nn.ModuleList(_level(ndim, a, b, norm) for a, b in pairwise((in_channels, *maps)))
        self.pool = layer("MaxPool", ndim)(2)
        steps = list(pairwise(reversed(maps)))
        self.up = nn.ModuleList(_doubling(ndim, a, b, up) for a, b in steps)
        self.merge = nn.ModuleList(_level(ndim, 2 * b if skips else b, b, norm) for _, b in steps)
        self.classifier = layer("Conv", ndim)(maps[0], classes, 1)
        if norm == "none":
            _draw(self)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits ``(batch, classes, *space)`` of every position.

        Raises
        ------
        ArgumentTypeError, DTypeError, ShapeError
            With the actual numbers.
        """
        check_maps(image, self.ndim, self.in_channels, "the image")
        unit = 2 ** (len(self.down) - 1)
        around = [side for n in reversed(image.shape[2:]) for side in (0, -n % unit)]
        x = nn.functional.pad(image, around, mode="replicate") if any(around) else image
        kept = []
        for k, level in enumerate(self.down):
            x = level(self.pool(x) if k else x)
            kept.append(x)
        for doubling, merge, beside in zip(self.up, self.merge, reversed(kept[:-1]), strict=True):
            x = doubling(x)
            x = merge(torch.cat((beside, x), 1) if self.skips else x)
        logits: Tensor = self.classifier(x)
        crop: tuple[Any, ...] = (..., *(slice(n) for n in image.shape[2:]))
        return logits[crop]


class UNet(EncoderDecoder):
    """A U-Net in 1 to 3 dimensions for images of any size: an `EncoderDecoder` with ``skips=True``.

    Parameters
    ----------
    in_channels, classes, widths, ndim, up, norm
        As in `EncoderDecoder`.

    Examples
    --------
    >>> UNet(1, 2, widths=(4, 6), ndim=3, up="resize")(torch.zeros(1, 1, 5, 7, 6)).shape
    torch.Size([1, 2, 5, 7, 6])
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        widths: Sequence[int] = (16, 32, 64),
        ndim: int = 2,
        up: str = "transposed",
        norm: str = "batch",
    ) -> None:
        super().__init__(in_channels, classes, widths=widths, ndim=ndim, skips=True, up=up, norm=norm)


def _level(ndim: int, inputs: int, outputs: int, norm: str) -> nn.Sequential:
    conv, parts = layer("Conv", ndim), []
    for a in (inputs, outputs):
        parts.append(conv(a, outputs, 3, padding=1, bias=norm == "none"))
        if norm != "none":
            parts.append(getattr(nn, f"{norm.capitalize()}Norm{ndim}d")(outputs, affine=True))
        parts.append(nn.ReLU())
    return nn.Sequential(*parts)


def _draw(network: nn.Module) -> None:
    """Draw the weights of all convolutions so that ReLUs pass on as much as they get."""
    for module in network.modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        elif isinstance(module, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
            # kernels do not overlap: an output reads one position of every map
            nn.init.normal_(module.weight, std=(2 / module.in_channels) ** 0.5)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _doubling(ndim: int, inputs: int, outputs: int, up: str) -> nn.Module:
    made: nn.Module
    if up == "transposed":
        made = layer("ConvTranspose", ndim)(inputs, outputs, 2, 2)
    else:
        made = layer("ResizeConv", ndim)(inputs, outputs, 3, scale_factor=2)
    return made


class UnitStrideNet(nn.Module):
    """A stack of convolution, ReLU and pooling with stride 1: pooled, and yet a label for every position at full resolution.

    Parameters
    ----------
    in_channels, classes : int
    widths : sequence of int
        Maps of each stage.
    kernel_size, pool_size : int or tuple of int
        Of each stage's convolution and pooling.
    pool : {"max", "average"}
    ndim : {1, 2, 3}

    Raises
    ------
    ArgumentError, ArgumentTypeError
        With the actual numbers, for what cannot be such a network.

    Notes
    -----
    Section 9.6 of *Deep Learning* (2016) names it among the ways to keep the resolution. All maps keep the size: zeros outside of
    convolutions, nothing outside of poolings. The field of view grows by ``kernel + pool - 2`` a stage only.

    Examples
    --------
    >>> UnitStrideNet(3, 4, widths=(8, 8))(torch.zeros(1, 3, 9, 7)).shape
    torch.Size([1, 4, 9, 7])
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        widths: Sequence[int] = (16, 16, 16),
        kernel_size: Any = 3,
        pool_size: Any = 3,
        pool: str = "max",
        ndim: int = 2,
    ) -> None:
        super().__init__()
        kinds = {"max": ("MaxPool", {}), "average": ("AvgPool", {"count_include_pad": False})}
        if pool not in kinds:
            raise ArgumentError(f"pool={pool!r} must be one of {list(kinds)}")
        name, how = kinds[pool]
        conv, pooling, parts = layer("Conv", ndim), layer(name, ndim), []
        for a, b in pairwise((integer(in_channels, "in_channels", 1), *widths_of(widths))):
            parts += [conv(a, b, kernel_size, padding="same"), nn.ReLU(), pooling(pool_size, 1, "same", **how)]
        self.in_channels, self.ndim = in_channels, ndim
        self.layers = nn.Sequential(*parts)
        self.classifier = conv(widths[-1], classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits ``(batch, classes, *space)`` of every position."""
        check_maps(image, self.ndim, self.in_channels, "the image")
        logits: Tensor = self.classifier(self.layers(image))
        return logits
