"""Local contrast normalisation (Jarrett et al. 2009): subtract a local mean, divide by a local deviation."""

from collections.abc import Sequence
from contextlib import nullcontext
from math import exp
from typing import Any

import torch
from torch import Tensor

from ninefold.errors import ArgumentError, ArgumentTypeError, DTypeError, ShapeError
from ninefold.functional import conv1d, conv2d, conv3d
from ninefold.ops import state
from ninefold.ops.checks import check_tensor
from ninefold.ops.traced import node, overridable
from ninefold.spec.padding import MODES
from ninefold.spec.parse import per_axis

__all__ = ["LocalContrastNorm1d", "LocalContrastNorm2d", "LocalContrastNorm3d"]

_CONV = (conv1d, conv2d, conv3d)
_BORDERS = ("normalized", *MODES)


class _LocalContrastNorm(torch.nn.Module):
    """All of them; the docstring is shared by the three."""

    _ndim: int

    def __init__(self, kernel_size: Any = 9, std: Any = None, *, border: str = "normalized") -> None:
        super().__init__()
        if border not in _BORDERS:
            raise ArgumentError(f"border={border!r} is not one of {list(_BORDERS)}")
        self.kernel_size = per_axis(kernel_size, self._ndim, "kernel_size", 1)
        for k in self.kernel_size:
            if k % 2 == 0:
                raise ArgumentError(f"kernel_size={self.kernel_size} must be odd along every axis, so that a window has a centre")
        self.std, self.border = _deviations(std, self.kernel_size), border
        self._windows = [_gaussian(k, s) for k, s in zip(self.kernel_size, self.std, strict=True)]

    @node
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch's name
        """Normalise ``(batch, channels, ...)`` or one such image; the result has the input's shape and type."""
        normalised: Tensor = contrast_normalised(input, self._windows, self.border)
        return normalised

    def extra_repr(self) -> str:
        """Return the arguments."""
        border = "" if self.border == "normalized" else f", border={self.border}"
        return f"kernel_size={self.kernel_size}, std={self.std}{border}"


@overridable
def contrast_normalised(x: Tensor, windows: Sequence[Sequence[float]], border: str) -> Tensor:
    """Normalise ``(batch, channels, ...)`` or one such image by windows that are products of one per axis."""
    check_tensor(x)
    ndim = len(windows)
    if x.ndim not in (ndim + 1, ndim + 2):
        raise ShapeError(
            f"the input has shape {tuple(x.shape)}, {x.ndim} dimensions; {ndim}-D images have {ndim + 2}, or {ndim + 1} "
            "without the batch"
        )
    if not x.is_floating_point():
        raise DTypeError(f"the input is {x.dtype}; contrast is normalised in floating point: call .float() first")
    if x.ndim == ndim + 1:
        return contrast_normalised(x.unsqueeze(0), windows, border).squeeze(0)
    kind = x.device.type
    with torch.autocast(kind, enabled=False) if state.knows_autocast(kind) else nullcontext():
        return _normalised(x.float() if x.dtype in (torch.float16, torch.bfloat16) else x, windows, border).to(x.dtype)


def _normalised(x: Tensor, windows: Sequence[Sequence[float]], border: str) -> Tensor:
    if border != "zeros" and x.numel():
        # v is the same whatever is taken off all of an image; this makes it exactly 0 for a constant one
        x = x - x.detach().flatten(1)[:, :1].view(-1, *(1,) * (x.ndim - 1))
    v = x - _average(x.mean(1, keepdim=True), windows, border)
    variance = _average(v.square().mean(1, keepdim=True), windows, border)
    flat = variance <= 0  # where the root has no derivative; below 0 by rounding
    sigma = torch.where(flat, 0, torch.where(flat, 1, variance).sqrt())
    divisor = torch.maximum(sigma, sigma.flatten(1).mean(1).view(-1, *(1,) * (x.ndim - 1)))
    return v / torch.where(divisor == 0, 1, divisor)


def _average(x: Tensor, windows: Sequence[Sequence[float]], border: str) -> Tensor:
    """Return the weighted mean over each window of one map, along one axis after the other."""
    mode, convolve = "zeros" if border == "normalized" else border, _CONV[len(windows) - 1]
    for axis, values in enumerate(windows):
        shape = [1] * (len(windows) + 2)
        shape[2 + axis] = len(values)
        window = torch.tensor(values, dtype=x.dtype, device=x.device).view(shape)
        averaged = convolve(x, window, padding="same", padding_mode=mode)
        if border == "normalized":
            averaged = averaged / convolve(_ones(x, axis), window, padding="same")
        x = averaged
    return x


def _ones(x: Tensor, axis: int) -> Tensor:
    shape = [1] * x.ndim
    shape[2 + axis] = x.shape[2 + axis]
    return torch.ones(shape, dtype=x.dtype, device=x.device)


def _gaussian(size: int, std: float) -> list[float]:
    """Return a window that sums to 1."""
    values = [exp(-0.5 * ((k - size // 2) / std) ** 2) for k in range(size)]
    return [v / sum(values) for v in values]


def _deviations(std: Any, kernel: tuple[int, ...]) -> tuple[float, ...]:
    """Return a positive standard deviation per axis; a quarter of the window by default."""
    if std is None:
        return tuple(k / 4 for k in kernel)
    given = tuple(std) if isinstance(std, (list, tuple)) else (std,) * len(kernel)
    if len(given) != len(kernel):
        raise ArgumentError(f"std must be one number or {len(kernel)} (one per spatial axis), got {given}")
    for s in given:
        if isinstance(s, bool) or not isinstance(s, (int, float)):
            raise ArgumentTypeError(f"std must be a number, got {s!r} of type {type(s).__name__}")
        if not 0 < s < float("inf"):
            raise ArgumentError(f"std={s} must be a positive number")
    return tuple(float(s) for s in given)


_CONTRAST = """Local contrast normalisation of {n}-D images over windows of all maps (Jarrett et al. 2009).

    With a Gaussian window ``w`` that sums to 1 over positions and maps, per image::

        v = x - sum w x        sigma = sqrt(sum w v^2)        y = v / max(c, sigma)        c = mean of sigma over positions

    Adding a constant to an image, or multiplying it by a positive number, changes nothing; a constant image becomes exactly 0.
    The window is applied to the mean over maps, along one axis after the other, so that the cost is that of its axes' lengths.

    Parameters
    ----------
    kernel_size : int or tuple of int
        Positions of the window; odd.
    std : float or tuple of float, optional
        Of the Gaussian, in positions; a quarter of `kernel_size` by default.
    border : str
        What the window holds outside the image: ``"normalized"`` nothing, so that what is inside is weighted to sum to 1;
        ``"reflect"``, ``"symmetric"``, ``"replicate"``, ``"circular"`` the image continued; ``"zeros"`` zeros, with which
        constants are only removed away from the border.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        For arguments that cannot be; ShapeError or DTypeError at a call with no such image.

    Examples
    --------
    >>> import torch, ninefold.nn as nn
    >>> norm = nn.LocalContrastNorm{n}d(5)
    >>> x = torch.randn(2, 3, {sizes}, dtype=torch.double)
    >>> bool(torch.allclose(norm(4 * x + 7), norm(x))), norm(torch.full_like(x, 0.1)).abs().max().item()
    (True, 0.0)
    """


def _text(n: int) -> str:
    return _CONTRAST.format(n=n, sizes=", ".join(str(9 - k) for k in range(n)))


class LocalContrastNorm1d(_LocalContrastNorm):
    __doc__ = _text(1)
    _ndim = 1


class LocalContrastNorm2d(_LocalContrastNorm):
    __doc__ = _text(2)
    _ndim = 2


class LocalContrastNorm3d(_LocalContrastNorm):
    __doc__ = _text(3)
    _ndim = 3
