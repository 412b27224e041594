"""Several scales with shared weights on a Laplacian pyramid (Burt and Adelson 1983; Farabet et al. 2013)."""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError
from ninefold.spec.parse import integer
from ninefold.structured.networks.parts import check_maps, function, layer, resized, widths_of

__all__ = ["MultiscaleNet", "laplacian_pyramid", "reconstruct"]

_BINOMIAL = (1, 4, 6, 4, 1)  # over 16: sums of it are exact in binary numbers


def laplacian_pyramid(image: Tensor, levels: int) -> list[Tensor]:
    """Return the Laplacian pyramid of images: what each scale adds to the next coarser one, and the coarsest image last.

    An image is blurred with the binomial kernel (1, 4, 6, 4, 1) / 16 along each axis, its border continued, and every second
    position kept, the first one among them: n positions become ``ceil(n / 2)``. What the coarser image, interpolated by the same
    kernel, lacks is a level.

    Parameters
    ----------
    image : Tensor of shape ``(batch, channels, *space)`` with 1 to 3 spatial axes
    levels : int
        The image itself is the only one of 1.

    Returns
    -------
    list of Tensor
        Finest first.

    Raises
    ------
    ArgumentError, ArgumentTypeError, DTypeError, ShapeError
        With the actual numbers; also if an axis has no 2 positions left before the last level.

    Notes
    -----
    Burt and Adelson, *The Laplacian pyramid as a compact image code* (IEEE Transactions on Communications 31:532, 1983).

    Examples
    --------
    >>> image = torch.arange(35.0).reshape(1, 1, 5, 7)
    >>> pyramid = laplacian_pyramid(image, 3)
    >>> [tuple(level.shape[2:]) for level in pyramid], torch.equal(reconstruct(pyramid), image)
    ([(5, 7), (3, 4), (2, 2)], True)
    """
    ndim = (image.dim() if isinstance(image, Tensor) else 4) - 2
    check_maps(image, min(max(ndim, 1), 3), None, "the image")
    if min(image.shape[2:]) <= 2 ** (integer(levels, "levels", 1) - 1) // 2:
        raise ShapeError(
            f"the image has {tuple(image.shape[2:])} positions; {levels} levels take more than {2 ** (levels - 1) // 2} along "
            "each axis: take fewer levels"
        )
    found, fine = [], image
    for _ in range(levels - 1):
        coarse = _reduced(fine)
        found.append(fine - _expanded(coarse, tuple(fine.shape[2:])))
        fine = coarse
    return [*found, fine]


def reconstruct(pyramid: Sequence[Tensor]) -> Tensor:
    """Return the image of a Laplacian pyramid, exact to rounding whatever the size.

    Parameters
    ----------
    pyramid : sequence of Tensor
        As `laplacian_pyramid` gives it.

    Raises
    ------
    ArgumentError, ShapeError
        If there is no level, or one is not half the size of the one before.

    Examples
    --------
    >>> reconstruct([torch.zeros(1, 1, 3), torch.ones(1, 1, 2)])
    tensor([[[1., 1., 1.]]])
    """
    if not pyramid:
        raise ArgumentError("there is no level; a pyramid has at least 1, the coarsest image")
    image = pyramid[-1]
    for level in reversed(pyramid[:-1]):
        half = (*level.shape[:2], *(-(-n // 2) for n in level.shape[2:]))
        if tuple(image.shape) != half:
            raise ShapeError(f"a level of shape {tuple(level.shape)} lies above one of {tuple(image.shape)}; it must be {half}")
        image = level + _expanded(image, tuple(level.shape[2:]))
    return image


def _kernel(like: Tensor, over: int) -> Tensor:
    """Return the binomial kernel, once per channel, of sum ``(16 / over) ** ndim``."""
    line = torch.tensor(_BINOMIAL, dtype=like.dtype, device=like.device) / over
    kernel = line
    for _ in range(like.dim() - 3):
        kernel = kernel.unsqueeze(-1) * line
    return kernel.expand(like.shape[1], 1, *kernel.shape)


def _reduced(fine: Tensor) -> Tensor:
    conv = function("conv", fine.dim() - 2)
    out: Tensor = conv(fine, _kernel(fine, 16), None, 2, 2, 1, fine.shape[1], padding_mode="replicate")
    return out


def _expanded(coarse: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return an image of twice the size, and no more than `size`: zeros put between, then blurred."""
    ndim = len(size)
    around = nn.functional.pad(coarse, (1, 1) * ndim, mode="replicate")
    # A transposed convolution of stride 2 is that. Position j reads those of the coarse image at (j - 1) / 2 to (j + 1) / 2,
    # so that one position of border is enough; it lies 2 + 2 positions into what comes out, 2 of them for the border.
    out = function("conv_transpose", ndim)(around, _kernel(coarse, 8), None, 2, groups=coarse.shape[1])
    return out[(..., *(slice(4, 4 + n) for n in size))]  # type: ignore[no-any-return]


class MultiscaleNet(nn.Module):
    """One trunk over all levels of a Laplacian pyramid, its maps put together at the finest scale (Farabet et al. 2013).

    *Learning hierarchical features for scene labeling* (IEEE PAMI 35:1915). The trunk's weights are those of all scales, so that
    an object looks alike near and far; more scales see more, and cost a quarter each of the one before.

    Parameters
    ----------
    in_channels, classes : int
    widths : sequence of int
        Maps of the trunk's convolutions: each is followed by tanh, and by pooling 2x2 but the last.
    kernel_size : int or tuple of int
        Of the trunk's convolutions, which keep the size with zeros outside.
    levels : int
        Scales.
    ndim : {1, 2, 3}
    trunk : torch.nn.Module, optional
        Another trunk, which then gives ``widths[-1]`` maps of any stride.
    contrast : int, optional
        Window of the local contrast normalisation of each level before the trunk, 15 in the paper; none by default.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        With the actual numbers, for what cannot be such a network.

    Notes
    -----
    ``sum k c(i-1) c(i) + c(i)`` parameters in the trunk, whatever the number of levels, and ``levels c L + L`` in the classifier,
    a 1x1 convolution. The maps of a level are interpolated linearly to the size of the finest level's.

    Reported, not reproduced here: 72.3% of pixels and 50.8% of classes of SIFT Flow with balanced sampling, 78.5% and 29.6% with
    natural frequencies.

    Examples
    --------
    >>> net = MultiscaleNet(3, 5, widths=(4, 6), kernel_size=3)
    >>> net(torch.zeros(2, 3, 21, 14)).shape, sum(p.numel() for p in net.trunk.parameters())
    (torch.Size([2, 5, 21, 14]), 334)
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        widths: Sequence[int] = (16, 64, 256),
        kernel_size: Any = 7,
        levels: int = 3,
        ndim: int = 2,
        trunk: nn.Module | None = None,
        contrast: int | None = None,
    ) -> None:
        super().__init__()
        if trunk is not None and not isinstance(trunk, nn.Module):
            raise ArgumentTypeError(f"trunk must be a module, got {trunk!r}")
        conv = layer("Conv", ndim)
        self.in_channels, self.ndim, self.levels = in_channels, ndim, integer(levels, "levels", 1)
        maps = widths_of(widths)
        self.trunk = _trunk(ndim, (in_channels, *maps), kernel_size) if trunk is None else trunk
        self.contrast = None if contrast is None else layer("LocalContrastNorm", ndim)(contrast)
        self.classifier = conv(self.levels * maps[-1], classes, 1)

    def features(self, image: Tensor) -> Tensor:
        """Return the maps of all levels, finest first, at the size of the finest level's.

        Raises
        ------
        ArgumentError, ArgumentTypeError, DTypeError, ShapeError
            With the actual numbers; also if the image is too small for so many levels.
        """
        check_maps(image, self.ndim, self.in_channels, "the image")
        pyramid = laplacian_pyramid(image, self.levels)
        maps = [self.trunk(x if self.contrast is None else self.contrast(x)) for x in pyramid]
        size = tuple(maps[0].shape[2:])
        if not prod(size):
            raise ShapeError(f"the trunk leaves {size} positions of the image's {tuple(image.shape[2:])}; give a larger image")
        return torch.cat([resized(m, size) for m in maps], 1)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits ``(batch, classes, *space)`` of every position, linear between those of the trunk's stride."""
        return resized(self.classifier(self.features(image)), tuple(image.shape[2:]))


def _trunk(ndim: int, channels: tuple[int, ...], kernel_size: Any) -> nn.Sequential:
    conv, pool, parts = layer("Conv", ndim), layer("MaxPool", ndim), []
    for k in range(1, len(channels)):
        parts += [conv(channels[k - 1], channels[k], kernel_size, padding="same"), nn.Tanh()]
        if k < len(channels) - 1:
            parts.append(pool(2, ceil_mode=True))  # so that a coarse level of odd size keeps its last position
    return nn.Sequential(*parts)
