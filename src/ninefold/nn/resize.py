"""Resize, then convolve: the place of a transposed convolution, without checkerboards (Odena, Dumoulin and Olah 2016)."""

from typing import Any

import torch
from torch import Tensor

from ninefold.errors import ArgumentError, DTypeError, ShapeError
from ninefold.nn.conv import Conv1d, Conv2d, Conv3d
from ninefold.ops.checks import check_data, check_strided
from ninefold.ops.traced import node, overridable, stand_ins
from ninefold.spec.parse import number, per_axis

__all__ = ["ResizeConv1d", "ResizeConv2d", "ResizeConv3d"]

_MODES = {"nearest": ("nearest",) * 3, "linear": ("linear", "bilinear", "trilinear")}
_CONVS: tuple[Any, ...] = (Conv1d, Conv2d, Conv3d)


class _ResizeConv(torch.nn.Module):
    """All of them; the docstring is shared by the three."""

    _ndim: int

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        scale_factor: Any = None,
        padding: Any = "same",
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "replicate",
        device: Any = None,
        dtype: Any = None,
        *,
        size: Any = None,
        mode: str = "nearest",
        flip_kernel: bool = False,
    ) -> None:
        names = {torchs[self._ndim - 1]: name for name, torchs in _MODES.items()} | {name: name for name in _MODES}
        if mode not in list(names):
            raise ArgumentError(f"mode={mode!r} is not one of {list(names)}")
        if scale_factor is not None and size is not None:
            raise ArgumentError(f"scale_factor={scale_factor!r} and size={size!r} say the same twice; give one")
        super().__init__()
        self.mode = names[mode]
        self.size = None if size is None else per_axis(size, self._ndim, "size", 1)
        self.scale_factor = None if self.size else _factors(2 if scale_factor is None else scale_factor, self._ndim)
        ends = (in_channels, out_channels, kernel_size)
        how = (1, padding, dilation, groups, bias, padding_mode, device, dtype)
        self.conv = _CONVS[self._ndim - 1](*ends, *how, flip_kernel=flip_kernel)

    def resize(self, input: Tensor) -> Tensor:  # noqa: A002  torch's name
        """Return the resized input, before the convolution."""
        if not stand_ins((input,)):
            check_data(self.conv.spec, input)
        out: Tensor = resized(input, self._ndim, self.size, self.scale_factor, self.mode)
        return out

    @node
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch's name
        """Resize, then convolve; batched or not."""
        out: Tensor = self.conv(self.resize(input))
        return out

    def extra_repr(self) -> str:
        """Return how is resized; the convolution shows itself."""
        return f"{f'size={self.size}' if self.size else f'scale_factor={self.scale_factor}'}, mode={self.mode}"


@overridable
def resized(x: Tensor, ndim: int, size: tuple[int, ...] | None, scale_factor: tuple[float, ...] | None, mode: str) -> Tensor:
    """Resize an image, batched or not, to a size or by factors."""
    check_strided(x)
    if not x.is_floating_point():
        raise DTypeError(f"the input has dtype {x.dtype}; resizing takes floating-point numbers: call .float() first")
    if 0 in x.shape[-ndim:]:
        raise ShapeError(f"the input has shape {tuple(x.shape)}; resizing needs at least 1 position per axis")
    batched = x.ndim == ndim + 2
    out = torch.nn.functional.interpolate(x if batched else x.unsqueeze(0), size, scale_factor, _MODES[mode][ndim - 1])
    return out if batched else out.squeeze(0)


def _factors(value: Any, ndim: int) -> tuple[float, ...]:
    """Return a positive factor per axis."""
    factors = tuple(value) if isinstance(value, (list, tuple)) else (value,) * ndim
    if len(factors) != ndim:
        raise ArgumentError(f"scale_factor must be one number or {ndim} (one per spatial axis), got {factors}")
    for factor in factors:
        if not 0 < number(factor, "scale_factor") < float("inf"):
            raise ArgumentError(f"scale_factor={factor} must be a positive number")
    return tuple(float(factor) for factor in factors)


_RESIZE = """Resize a {n}-D image, then convolve it: the upsampling without uneven overlap (Odena, Dumoulin and Olah 2016).

    Where a transposed convolution writes positions unequally often (`ninefold.checkerboard`), this treats all alike: a constant
    image stays constant up to the border, whatever the kernel.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, padding, dilation, groups, bias, padding_mode, device, dtype, flip_kernel
        As in `Conv{n}d`, for a convolution of stride 1 at the new size. The border is continued (``"replicate"``, ``"same"``) by
        default, for zeros would make it darker.
    scale_factor : float or tuple of float, optional
        New sizes against old; 2 by default, if there is no `size`.
    size : int or tuple of int, optional
        The new spatial size itself.
    mode : {{"nearest", "linear"}}
        How is resized; linear (torch's names, such as ``"bilinear"``, are taken, too) along each axis, with the corners of
        pixels, not their centres, aligned, as torch does by default.

    Attributes
    ----------
    conv : Conv{n}d

    Raises
    ------
    ArgumentError, ArgumentTypeError
        With the actual numbers, for what cannot be such a layer.

    Examples
    --------
    >>> import torch, ninefold.nn as nn
    >>> layer = nn.ResizeConv{n}d(3, 4, 3, scale_factor=2, dtype=torch.double)
    >>> out = layer(torch.ones(1, 3, {five}, dtype=torch.double))
    >>> out.shape, bool(torch.allclose(out, out.flatten(2)[..., :1].view(1, 4, {ones}).expand_as(out)))
    (torch.Size([1, 4, {ten}]), True)
    """


def _text(n: int) -> str:
    return _RESIZE.format(n=n, five=", ".join(["5"] * n), ten=", ".join(["10"] * n), ones=", ".join(["1"] * n))


class ResizeConv1d(_ResizeConv):
    __doc__ = _text(1)
    _ndim = 1


class ResizeConv2d(_ResizeConv):
    __doc__ = _text(2)
    _ndim = 2


class ResizeConv3d(_ResizeConv):
    __doc__ = _text(3)
    _ndim = 3
