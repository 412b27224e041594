"""Filters that are designed by hand: edges, derivatives of Gaussians that can be steered, Gabor functions, wavelets."""

from collections.abc import Sequence
from math import ceil, comb, cos, pi, sin
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch

from ninefold.errors import ArgumentError, ShapeError
from ninefold.learn.base import FilterSource, size_of, whole
from ninefold.learn.images import Channels, Images
from ninefold.learn.patches import Preparation

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["DesignedFilters"]

_Kernels = list[tuple[str, "NDArray[np.float64]"]]
_SCALES: dict[str, tuple[float, ...]] = {"gaussian": (1.5,), "dog": (1.0, 2.0), "gabor": (3.0, 6.0), "morlet": (0, 1, 2)}
_LAPLACIANS = {"laplacian4": ((0, 1, 0), (1, -4, 1), (0, 1, 0)), "laplacian8": ((1, 1, 1), (1, -8, 1), (1, 1, 1))}
_ORDERS = 4


class DesignedFilters(FilterSource):
    """Kernels by formula, the second of the chapter's three sources without training.

    A kernel is meant for cross-correlation, as all of this library's convolutions are unless they are told to flip:
    ``out[i, j] = sum K[m, n] x[i + m, j + n]``, m along rows and n along columns. So the first Sobel kernel answers with more
    than 0 where the image becomes brighter downwards, the second where it does to the right. Angles are counted from the axis of
    the columns (to the right) towards that of the rows (downwards).

    Parameters
    ----------
    bank : str or sequence of str
        * "sobel": derivative along the rows, then along the columns, each smoothed by a binomial across; 3x3 unless `patch_size`
          says otherwise: ``[1, 1]`` convolved with itself and once with ``[-1, 1]``, as OpenCV extends it.
        * "prewitt": in proportion to the slopes of the plane that fits best, down and to the right; integers for odd sizes.
        * "laplacian": of four and of eight neighbours, 3x3.
        * "gaussian": all partial derivatives of a Gaussian of each order in `orders`, named ``d1r2c`` for one derivative along
          the rows and two along the columns; that of order 0 sums to one, all others to zero; see `steer`.
        * "dog": a Gaussian that sums to one less a wider one that does, too (Marr and Hildreth 1980).
        * "gabor": a cosine and a sine under a Gaussian of deviation 0.56 wavelengths, which is one octave; the cosine less so
          much of the Gaussian that it sums to zero.
        * "morlet": the wavelets of a scattering transform's first order: frequency ``3 pi / 4`` and deviation 0.8 at octave 0;
          real part, then imaginary part, zero mean (Mallat 2012, Bruna and Mallat 2013).

        Several names: their kernels together, which must be of one size.
    patch_size : int, tuple of int or None
        Height and width; None is 3 for integer kernels, else three deviations of the widest Gaussian to each side.
    scales : sequence of float, optional
        Deviations in pixels of "gaussian" and of the narrower Gaussian of "dog"; wavelengths in pixels of "gabor"; octaves of
        "morlet". Only for a single bank.
    orientations : int
        Of "gabor" and "morlet", evenly from 0 to below pi.
    orders : sequence of int
        Of "gaussian", each from 0 to 4.
    ratio : float
        Of the deviations of "dog".
    aspect : float
        Deviation along the waves over deviation across them, of "gabor" and "morlet".
    colour : {"mean", "each"}
        "mean": the same kernel on every channel, divided by their number. "each": every kernel on every channel alone; all
        kernels of the first channel come first.
    unit_norm : bool
        Whether every kernel gets unit norm, which thresholds ask for; otherwise it has the values of its formula.
    channels : {"auto", "first", "last", "none"}
        As in `Images`; how many there are is looked up in the images given to `fit`.

    Attributes
    ----------
    kernels_ : ndarray
        ``(n, h, w)``, float32, before they are put on channels.
    names_ : list of str

    Examples
    --------
    >>> source = DesignedFilters("sobel").fit(np.zeros((1, 9, 8)))
    >>> source.filters_[1, 0].astype(int).tolist()
    [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]
    >>> DesignedFilters("gabor", (9, 7), orientations=4).fit(np.zeros((1, 9, 8, 3))).filters_.shape
    (16, 3, 9, 7)
    """

    def __init__(
        self,
        bank: str | Sequence[str] = "gabor",
        patch_size: int | tuple[int, int] | None = None,
        *,
        scales: Sequence[float] | None = None,
        orientations: int = 8,
        orders: Sequence[int] = (0, 1, 2, 3, 4),
        ratio: float = 1.6,
        aspect: float = 1.0,
        colour: Literal["mean", "each"] = "mean",
        unit_norm: bool = False,
        channels: Channels = "auto",
    ) -> None:
        self.bank = bank
        self.patch_size = patch_size
        self.scales = scales
        self.orientations = orientations
        self.orders = orders
        self.ratio = ratio
        self.aspect = aspect
        self.colour = colour
        self.unit_norm = unit_norm
        self.channels = channels

    def fit(self, X: Any, y: "ArrayLike | None" = None) -> Self:  # noqa: ARG002  scikit-learn's signature
        """Put the kernels on channels; of the images only the number of channels is looked at.

        Raises
        ------
        ArgumentError, ShapeError
            If a parameter is out of its range, kernels differ in size, or there is no image.
        """
        if self.colour not in ("mean", "each"):
            raise ArgumentError(f"colour={self.colour!r} is not one of 'mean', 'each'")
        named = self._designed()
        first = next(iter(Images(X, self.channels)), None)
        if first is None:
            raise ArgumentError("there are no images, so that it is unknown how many channels a filter has")
        channels = first.shape[1]
        kernels = np.stack([kernel for _, kernel in named])
        self.names_, self.kernels_ = [name for name, _ in named], kernels.astype(np.float32)
        mixing = np.eye(channels) if self.colour == "each" else np.full((1, channels), 1 / channels)
        if self.unit_norm and self.colour == "mean":
            mixing = mixing * channels**0.5
        placed = np.einsum("gc,khw->gkchw", mixing, kernels).reshape(-1, channels, *kernels.shape[1:])
        atoms = torch.from_numpy(np.ascontiguousarray(placed, np.float32))
        return self._learned(atoms, Preparation.none(atoms[0].numel()))

    def steer(self, order: int, angle: float) -> "NDArray[np.float64]":
        """Return what the derivative of `order` towards `angle` is, as a combination of the kernels (Freeman and Adelson 1991).

        With ``u`` the unit vector of the angle, ``(u . grad)^n = sum_k C(n, k) sin^(n-k) cos^k d_r^(n-k) d_c^k``: the combination
        is exact, whatever the angle, for Gaussians of one deviation. `fit` need not have been called.

        Parameters
        ----------
        order : int
            One of `orders`.
        angle : float
            In radians, from the axis of the columns towards that of the rows.

        Returns
        -------
        ndarray
            ``(n,)``: for every kernel its coefficient, 0 for those of other orders.

        Raises
        ------
        ArgumentError
            If the bank is not "gaussian" of one scale, or has no derivatives of that order.

        Examples
        --------
        >>> source = DesignedFilters("gaussian", (9, 7), orders=(1, 2))
        >>> source.steer(1, np.pi / 6).round(3).tolist()
        [0.5, 0.866, 0.0, 0.0, 0.0]
        """
        if self.bank != "gaussian" or len(self._scales("gaussian")) != 1:
            raise ArgumentError(f"bank={self.bank!r} with scales={self.scales} cannot be steered; 'gaussian' of one scale can")
        if order not in self._orders():
            raise ArgumentError(f"order={order} is not among orders={tuple(self.orders)}")
        size, (scale,) = self._size("gaussian"), self._scales("gaussian")
        found: list[float] = []
        for n in self._orders():
            for k in range(n + 1):
                weight = comb(n, k) * sin(angle) ** (n - k) * cos(angle) ** k if n == order else 0.0
                norm = np.linalg.norm(_partial(size, scale, n - k, k)) if self.unit_norm else 1.0
                found.append(float(weight * norm))
        return np.array(found)

    def _designed(self) -> _Kernels:
        """Return all kernels by name, checked."""
        banks = [self.bank] if isinstance(self.bank, str) else list(self.bank)
        if not banks:
            raise ArgumentError(f"bank={self.bank!r} names no bank; there are {sorted(_BANKS)}")
        if len(banks) > 1 and self.scales is not None:
            raise ArgumentError(f"scales={self.scales} means something else for each of {banks}; give one bank, or no scales")
        made: _Kernels = []
        for bank in banks:
            if bank not in _BANKS:
                raise ArgumentError(f"bank={bank!r} is not one of {sorted(_BANKS)}")
            made += _BANKS[bank](self, bank)
        sizes = sorted({kernel.shape for _, kernel in made})
        if len(sizes) > 1:
            raise ShapeError(f"the kernels of {banks} have sizes {sizes}; give a patch_size that all of them can have")
        for name, kernel in made:
            if not np.abs(kernel).max() > 1e-9:
                raise ArgumentError(f"kernel {name} is zero at a patch_size of {sizes[0][0]}x{sizes[0][1]}; make it larger")
        return [(name, k / np.linalg.norm(k)) for name, k in made] if self.unit_norm else made

    def _size(self, bank: str) -> tuple[int, int]:
        if self.patch_size is not None:
            return size_of(self.patch_size)
        if bank not in _SCALES:
            return 3, 3
        widest = max(self._deviation(bank, scale) for scale in self._scales(bank))
        return (2 * ceil(3 * widest) + 1,) * 2

    def _deviation(self, bank: str, scale: float) -> float:
        """Return the widest deviation of a kernel of that scale."""
        if bank in ("gabor", "morlet"):
            return max(1.0, self._positive("aspect")) * (0.56 * scale if bank == "gabor" else 0.8 * 2**scale)
        return scale * self._positive("ratio") if bank == "dog" else scale

    def _scales(self, bank: str) -> tuple[float, ...]:
        scales = _SCALES[bank] if self.scales is None else tuple(self.scales)
        least = {"gabor": 2.0, "morlet": 0.0}.get(bank)
        if not scales or not all(np.isfinite(s) and (s > 0 if least is None else s >= least) for s in scales):
            rule = "above 0" if least is None else f"at least {least:g}" + (" pixels, two to a wave" if bank == "gabor" else "")
            raise ArgumentError(f"scales={self.scales} of bank {bank!r} must be {rule}, one or more")
        return scales

    def _orders(self) -> tuple[int, ...]:
        orders = tuple(self.orders)
        if not orders or not set(orders) <= set(range(_ORDERS + 1)) or len(set(orders)) < len(orders):
            raise ArgumentError(f"orders={self.orders} must be different whole numbers from 0 to {_ORDERS}, one or more")
        return orders

    def _positive(self, name: str) -> float:
        value = float(getattr(self, name))
        if not 0 < value < float("inf"):
            raise ArgumentError(f"{name}={value} must be above 0")
        return value


def _sobel(source: DesignedFilters, bank: str) -> _Kernels:
    height, width = _of_three(source, bank)
    return [
        ("sobel_r", np.outer(_difference(height), _binomial(width))),
        ("sobel_c", np.outer(_binomial(height), _difference(width))),
    ]


def _prewitt(source: DesignedFilters, bank: str) -> _Kernels:
    rows, columns = _grid(_of_three(source, bank))
    return [("prewitt_r", rows + 0 * columns), ("prewitt_c", columns + 0 * rows)]


def _laplacian(source: DesignedFilters, bank: str) -> _Kernels:
    if _of_three(source, bank) != (3, 3):
        raise ArgumentError(f"patch_size={source.patch_size} of bank 'laplacian' must be 3; larger ones are 'gaussian' or 'dog'")
    return [(name, np.array(values, float)) for name, values in _LAPLACIANS.items()]


def _gaussian(source: DesignedFilters, bank: str) -> _Kernels:
    size, scales = source._size(bank), source._scales(bank)  # noqa: SLF001  part of it
    return [
        (f"d{n - k}r{k}c" + ("" if len(scales) == 1 else f"_{scale:g}"), _partial(size, scale, n - k, k))
        for scale in scales
        for n in source._orders()  # noqa: SLF001  part of it
        for k in range(n + 1)
    ]


def _dog(source: DesignedFilters, bank: str) -> _Kernels:
    size, ratio = source._size(bank), source._positive("ratio")  # noqa: SLF001  part of it
    if ratio <= 1:
        raise ArgumentError(f"ratio={ratio} must be above 1, so that the second Gaussian is the wider one")
    scales = source._scales(bank)  # noqa: SLF001  part of it
    return [(f"dog_{s:g}", _summing_to_one(size, s) - _summing_to_one(size, s * ratio)) for s in scales]


def _waves(source: DesignedFilters, bank: str) -> _Kernels:
    """Return pairs: an even and an odd wave under a Gaussian, both of zero sum."""
    size, count, aspect = source._size(bank), whole(source.orientations, "orientations"), source._positive("aspect")  # noqa: SLF001
    parts = ("cos", "sin") if bank == "gabor" else ("re", "im")
    made: _Kernels = []
    for scale in source._scales(bank):  # noqa: SLF001  part of it
        frequency, deviation = (2 * pi / scale, 0.56 * scale) if bank == "gabor" else (0.75 * pi / 2**scale, 0.8 * 2**scale)
        for k in range(count):
            wave = _wave(size, frequency, deviation, aspect, pi * k / count)
            made += [(f"{bank}_{scale:g}_{k}{part}", kernel) for part, kernel in zip(parts, (wave.real, wave.imag), strict=True)]
    return made


_BANKS: dict[str, Any] = {
    "sobel": _sobel,
    "prewitt": _prewitt,
    "laplacian": _laplacian,
    "gaussian": _gaussian,
    "dog": _dog,
    "gabor": _waves,
    "morlet": _waves,
}


def _of_three(source: DesignedFilters, bank: str) -> tuple[int, int]:
    """Return the size of a bank that needs three rows and three columns."""
    size = source._size(bank)  # noqa: SLF001  part of it
    if min(size) < 3:
        raise ArgumentError(f"patch_size={source.patch_size} of bank {bank!r} must be at least 3 along both axes")
    return size


def _grid(size: tuple[int, int]) -> Any:
    """Return rows ``(h, 1)`` and columns ``(1, w)`` about the centre."""
    height, width = size
    return np.arange(height)[:, None] - (height - 1) / 2, np.arange(width)[None] - (width - 1) / 2


def _binomial(size: int) -> "NDArray[np.float64]":
    return np.array([comb(size - 1, k) for k in range(size)], float)


def _difference(size: int) -> "NDArray[np.float64]":
    return np.convolve(_binomial(size - 1), [-1.0, 1.0])


def _partial(size: tuple[int, int], scale: float, down: int, right: int) -> "NDArray[np.float64]":
    """Return the kernel of ``d_r^down d_c^right`` of the image smoothed by a Gaussian.

    Correlation puts ``G^(n)(-m)`` at ``m``, which is ``He_n(m / s) s^-n G(m)`` along each axis. What sampling leaves of a sum is
    taken off, from all directions alike: steering is linear and stays exact.
    """
    gauss = _summing_to_one(size, scale)
    if down + right == 0:
        return gauss
    rows, columns = _grid(size)
    kernel = _hermite(down, rows / scale) * _hermite(right, columns / scale) * gauss / scale ** (down + right)
    return kernel - kernel.mean()


def _hermite(n: int, t: Any) -> Any:
    """Return the probabilists' Hermite polynomial."""
    return np.polynomial.hermite_e.hermeval(t, [0] * n + [1])


def _summing_to_one(size: tuple[int, int], scale: float) -> "NDArray[np.float64]":
    rows, columns = _grid(size)
    gauss = np.exp(-(np.square(rows) + np.square(columns)) / (2 * scale**2))
    return gauss / gauss.sum()


def _wave(size: tuple[int, int], frequency: float, deviation: float, aspect: float, angle: float) -> "NDArray[np.complex128]":
    rows, columns = _grid(size)
    across = columns * cos(angle) + rows * sin(angle)
    along = rows * cos(angle) - columns * sin(angle)
    gauss = np.exp(-(np.square(across) + np.square(along / aspect)) / (2 * deviation**2))
    gauss /= gauss.sum()
    wave = np.exp(1j * frequency * across)
    return gauss * (wave - (gauss * wave).sum())
