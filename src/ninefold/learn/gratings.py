"""What a filter with square pooling answers most to: a grating, at any phase (Saxe et al. 2011)."""

from dataclasses import dataclass
from math import pi, sin
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ninefold.errors import ArgumentError, ShapeError
from ninefold.learn.base import size_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Grating", "optimal_input"]


@dataclass(frozen=True)
class Grating:
    """The input that `optimal_input` returns.

    Attributes
    ----------
    image : ndarray
        ``(H, W)``, or ``(C, H, W)`` of a filter of several channels; float64, of unit norm.
    value : float
        What it is answered with: the sum over all positions of the squared products.
    frequency : tuple of int
        Periods down the image and across it.
    phase : float
        As given.
    free_phase : bool
        Whether every phase is optimal; one only, up to the sign, where the grating has no other: at frequency 0, and where every
        value is followed by itself or its negative along both axes.
    ties : tuple of tuple of int
        All frequencies of the same value, `frequency` first.
    """

    image: "NDArray[np.float64]"
    value: float
    frequency: tuple[int, int]
    phase: float
    free_phase: bool
    ties: tuple[tuple[int, int], ...]


def optimal_input(kernel: Any, size: int | tuple[int, int], *, phase: float = 0.0, tolerance: float = 1e-9) -> Grating:
    """Return the image of unit norm to which a filter with circular convolution and square pooling answers most.

    ``p(x) = |f * x|^2`` is ``sum |f^|^2 |x^|^2 / (H W)``, so all of x belongs to where ``|f^|`` is largest:
    ``x = sqrt(2 / (H W)) cos(2 pi (v r / H + h c / W) + phase)``, for every phase, and ``p(x) = |f^(v, h)|^2``. Selectivity for
    a frequency, and indifference to where it is, come with the architecture, whatever the filter (Saxe et al. 2011). If the
    frequency is 0 or Nyquist's along both axes the cosine has one phase, and the factor is ``sqrt(1 / (H W))``.
    Without a border that wraps, the optimum is a grating of about that frequency only.

    Parameters
    ----------
    kernel : array or Tensor
        ``(h, w)`` or ``(C, h, w)``, for cross-correlation; several channels have gratings of one frequency, each with its
        amplitude and phase.
    size : int or tuple of int
        Height and width of the image.
    phase : float
        In radians; a multiple of pi where it is not free.
    tolerance : float
        Frequencies tie if their values differ by less, relatively.

    Returns
    -------
    Grating

    Raises
    ------
    ShapeError
        If the kernel has another number of axes, or is larger than the image.
    ArgumentError
        If it is zero or holds NaN, or the phase is not one that the grating has.

    Examples
    --------
    >>> grating = optimal_input([[1.0, -1.0]], (2, 4))
    >>> grating.frequency, grating.value, grating.free_phase  # the difference of neighbours: stripes of one pixel
    ((0, 2), 4.0, False)
    >>> grating.image.round(3).tolist()
    [[0.354, -0.354, 0.354, -0.354], [0.354, -0.354, 0.354, -0.354]]
    """
    filters = np.asarray(kernel.detach().cpu() if isinstance(kernel, Tensor) else kernel, np.float64)
    height, width = size_of(size)
    if filters.ndim not in (2, 3):
        raise ShapeError(f"the filter has shape {filters.shape}; give one filter, (h, w) or (C, h, w)")
    if filters.shape[-2] > height or filters.shape[-1] > width:
        raise ShapeError(f"a filter of {filters.shape[-2]}x{filters.shape[-1]} is larger than an image of {height}x{width}")
    if not np.isfinite(filters).all() or not filters.any():
        raise ArgumentError("the filter is zero or holds NaN or infinity: no input is better than another")
    spectrum = np.fft.fft2(filters if filters.ndim == 3 else filters[None], (height, width))
    power = np.square(np.abs(spectrum)).sum(0)
    ties = _largest(power, tolerance)
    v, h = ties[0]
    single = (-v % height, -h % width) == (v, h)
    if single and abs(sin(phase)) > 1e-12:
        raise ArgumentError(f"phase={phase} must be a multiple of pi: the grating of frequency {(v, h)} has no other")
    at = spectrum[:, v, h]
    at = at * np.exp(-1j * np.angle(at[np.abs(at).argmax()])) / np.linalg.norm(at)
    rows, columns = np.arange(height)[:, None], np.arange(width)[None]
    wave = np.exp(1j * (2 * pi * ((v * rows % height) / height + (h * columns % width) / width) + phase))
    image = np.sqrt((1 if single else 2) / (height * width)) * (at[:, None, None] * wave).real
    return Grating(image if filters.ndim == 3 else image[0], float(power[v, h]), (v, h), phase, not single, ties)


def _largest(power: "NDArray[np.float64]", tolerance: float) -> tuple[tuple[int, int], ...]:
    """Return where it is largest, one frequency of each pair that differs in sign only, the first of both."""
    height, width = power.shape
    found = [(int(v), int(h)) for v, h in np.argwhere(power >= power.max() * (1 - tolerance))]
    return tuple((v, h) for v, h in found if (v, h) <= (-v % height, -h % width))
