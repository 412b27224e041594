"""``pydensecrf.densecrf``: a dense CRF over arrays, with that package's names, order of arguments and conventions.

What is the same: kernels ``exp(-|f_i - f_j|^2 / 2)``, self term included, symmetric normalisation unless asked, a number for
`compat`
is Potts, a vector the diagonal and a matrix (its symmetric part) the whole of the energies of pairs, pixels are flattened
row by row.
What differs: arrays may be read-only, of any order in memory and any real dtype; results are NumPy arrays; a kernel that is not
normalised has the integral of the definition, which that package's lattice misses by a factor (1.13 for two features, 1.42
for five).
"""

from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError
from ninefold.structured.crf.field import Term, mean_field, normalization_named
from ninefold.structured.crf.lattice import LatticeFilter
from ninefold.structured.crf.room import FEWER, lattice_bytes, vertices_within
from ninefold.structured.room import available_memory, refuse_beyond

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "CONST_KERNEL",
    "DIAG_KERNEL",
    "FULL_KERNEL",
    "NORMALIZE_AFTER",
    "NORMALIZE_BEFORE",
    "NORMALIZE_SYMMETRIC",
    "NO_NORMALIZATION",
    "ConstUnary",
    "DenseCRF",
    "DenseCRF2D",
    "KernelType",
    "LogisticUnary",
    "NormalizationType",
    "Unary",
]


class KernelType(IntEnum):
    """How a kernel's features would be learned; inference is the same for all."""

    CONST_KERNEL = 0
    DIAG_KERNEL = 1
    FULL_KERNEL = 2


class NormalizationType(IntEnum):
    """On which sides a kernel is divided by its sums."""

    NO_NORMALIZATION = 0
    NORMALIZE_BEFORE = 1
    NORMALIZE_AFTER = 2
    NORMALIZE_SYMMETRIC = 3


CONST_KERNEL, DIAG_KERNEL, FULL_KERNEL = KernelType
NO_NORMALIZATION, NORMALIZE_BEFORE, NORMALIZE_AFTER, NORMALIZE_SYMMETRIC = NormalizationType


class Unary:
    """Energies ``(L, N)``."""

    def __init__(self, energies: "NDArray[np.float32]") -> None:
        self.energies = energies


class ConstUnary(Unary):
    """Energies that are given, ``(L, N)``."""

    def __init__(self, u: "ArrayLike") -> None:
        super().__init__(_numbers(u, "unary energies", 2))


class LogisticUnary(Unary):
    """Energies ``L f`` of features ``(D, N)`` by a matrix ``(labels, D)``."""

    def __init__(self, L: "ArrayLike", f: "ArrayLike") -> None:
        matrix, features = _numbers(L, "the matrix", 2), _numbers(f, "features", 2)
        if matrix.shape[1] != len(features):
            raise ShapeError(
                f"a matrix {matrix.shape} by features {features.shape}: {matrix.shape[1]} columns, {len(features)} rows"
            )
        super().__init__(matrix @ features)


class DenseCRF:
    """A dense CRF of `nvar` points and `nlabels` labels.

    Raises
    ------
    ArgumentError
        If a number is less than 1.
    RoomError
        If its energies and marginals alone take more memory than there is; kernels say so when they are added.

    Examples
    --------
    >>> d = DenseCRF(4, 2)
    >>> d.setUnaryEnergy(np.array([[0, 0, 1, 0], [1, 1, 0, 1]]))
    >>> d.addPairwiseEnergy(np.arange(4.0)[None] / 3, compat=3)
    >>> np.argmax(d.inference(5), axis=0).tolist()
    [0, 0, 0, 0]
    """

    def __init__(self, nvar: int, nlabels: int) -> None:
        self._points, self._labels = _count(nvar, "nvar"), _count(nlabels, "nlabels")
        self._unary: torch.Tensor | None = None
        self._terms: list[Term] = []
        self._dims: list[int] = []
        fields = lattice_bytes(self._points, [], self._labels)
        refuse_beyond(fields, available_memory(), f"a dense CRF of {self._points} points and {self._labels} labels", FEWER)

    def setUnaryEnergy(self, u: "ArrayLike", f: "ArrayLike | None" = None) -> None:
        """Set energies ``(L, N)``, or those of features ``f`` by a matrix ``u``."""
        self.setUnary(ConstUnary(u) if f is None else LogisticUnary(u, f))

    def setUnary(self, u: Unary) -> None:
        """Set the unary term."""
        if not isinstance(u, Unary):
            raise ArgumentTypeError(f"a unary term of type {type(u).__name__}; it must be a ConstUnary or a LogisticUnary")
        wanted = (self._labels, self._points)
        if u.energies.shape != wanted:
            raise ShapeError(f"unary energies of shape {u.energies.shape}; they must be (labels, points), {wanted}")
        self._unary = torch.from_numpy(u.energies)

    def addPairwiseEnergy(
        self,
        features: "ArrayLike",
        compat: Any,
        kernel: int = DIAG_KERNEL,
        normalization: int = NORMALIZE_SYMMETRIC,
    ) -> None:
        """Add a kernel of features ``(D, N)``, divided by their widths."""
        rows = _numbers(features, "features", 2)
        if rows.shape[1] != self._points:
            raise ShapeError(f"features of shape {rows.shape}; they must be (features, points), with {self._points} points")
        held = [rows.T]
        del rows
        self._add(len(held[0].T), held.pop, compat, kernel, normalization)

    def inference(self, niter: int) -> "NDArray[np.float32]":
        """Return marginals ``(L, N)`` after `niter` steps."""
        return self._ran(_steps(niter), None).numpy()

    def startInference(self) -> "tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]":
        """Return the first marginals, and two arrays to be passed on."""
        q = self._ran(0, None).numpy()
        return q, np.zeros_like(q), np.zeros_like(q)

    def stepInference(self, Q: Any, tmp1: Any, tmp2: Any) -> None:  # noqa: ARG002
        """Replace marginals by those one step on, in place."""
        if not isinstance(Q, np.ndarray) or Q.shape != (self._labels, self._points):
            raise ShapeError(f"Q must be the array {(self._labels, self._points)} of startInference, not {np.shape(Q)}")
        Q[...] = self._ran(1, torch.from_numpy(np.array(Q, np.float32, order="C"))).numpy()

    def klDivergence(self, Q: "ArrayLike") -> float:
        """Return the divergence of marginals from the CRF, up to its constant: what inference makes small."""
        q = torch.from_numpy(_numbers(Q, "Q", 2))
        if q.shape != (self._labels, self._points):
            raise ShapeError(f"Q of shape {tuple(q.shape)}; it must be {(self._labels, self._points)}")
        wide = q.double()
        total = (wide * wide.clamp_min(1e-20).log()).sum() + (wide * self._energies().double()).sum()
        for term in self._terms:
            total = total + (q.T * term.energies(q.T.contiguous())).double().sum()
        return float(total)

    def _energies(self) -> torch.Tensor:
        if self._unary is None:
            raise ArgumentError("0 unary energies are set; call setUnaryEnergy first")
        return self._unary

    def _ran(self, steps: int, start: torch.Tensor | None) -> torch.Tensor:
        q = mean_field(self._energies(), self._terms if steps else [], steps, start)
        return q.contiguous()

    def _add(self, count: int, make: "Callable[[], NDArray[np.float32]]", compat: Any, kernel: int, normalization: int) -> None:
        """Add a kernel of features ``(points, count)``, which are made once it is known that they fit, and freed in time."""
        KernelType(kernel)
        name = normalization_named(NormalizationType(normalization).name)
        matrix = _compat(compat, self._labels)
        dims = [*self._dims, count]
        needed, limit = lattice_bytes(self._points, dims, self._labels), available_memory()
        held = lattice_bytes(self._points, self._dims, self._labels) if self._dims else 0
        refuse_beyond(needed - held, limit, f"kernel {len(dims)} of {self._points} points and {self._labels} labels", FEWER)
        most = vertices_within(limit + held - needed, count, self._labels, torch.get_num_threads())
        self._terms.append(Term.made(LatticeFilter(torch.from_numpy(make()), most), matrix, name, self_term=True))
        self._dims = dims


class DenseCRF2D(DenseCRF):
    """A dense CRF of an image `w` wide and `h` high, flattened row by row.

    Examples
    --------
    >>> d = DenseCRF2D(9, 12, 2)
    >>> d.setUnaryEnergy(np.zeros((2, 108), np.float32))
    >>> d.addPairwiseGaussian(sxy=3, compat=3)
    >>> d.addPairwiseBilateral(sxy=80, srgb=13, rgbim=np.zeros((12, 9, 3), np.uint8), compat=10)
    >>> np.array(d.inference(5)).reshape(2, 12, 9)[0, 0, 0].item()
    0.5
    """

    def __init__(self, w: int, h: int, nlabels: int) -> None:
        self._w, self._h = _count(w, "w"), _count(h, "h")
        super().__init__(self._w * self._h, nlabels)

    def addPairwiseGaussian(
        self, sxy: Any, compat: Any, kernel: int = DIAG_KERNEL, normalization: int = NORMALIZE_SYMMETRIC
    ) -> None:
        """Add a kernel of places, `sxy` pixels wide: a number, or one along x and one along y."""
        self._add(2, lambda: self._places(sxy), compat, kernel, normalization)

    def addPairwiseBilateral(
        self,
        sxy: Any,
        srgb: Any,
        rgbim: "ArrayLike",
        compat: Any,
        kernel: int = DIAG_KERNEL,
        normalization: int = NORMALIZE_SYMMETRIC,
    ) -> None:
        """Add a kernel of places and colours, `sxy` pixels and `srgb` units of the image ``(h, w, 3)`` wide."""
        self._add(5, lambda: self._places_and_colors(sxy, srgb, rgbim), compat, kernel, normalization)

    def _places_and_colors(self, sxy: Any, srgb: Any, rgbim: "ArrayLike") -> "NDArray[np.float32]":
        image = np.asarray(rgbim)
        if image.shape != (self._h, self._w, 3):
            turned = image.shape == (self._w, self._h, 3)
            hint = f"DenseCRF2D takes the width first, ({self._h}, {self._w}, labels)"
            other = "of other channels make features by create_pairwise_bilateral, for addPairwiseEnergy"
            raise ShapeError(
                f"an image of shape {image.shape}; it must be (h, w, 3), {(self._h, self._w, 3)}: {hint if turned else other}"
            )
        widths = _widths(srgb, 3, "srgb")
        if image.dtype.kind == "f" and widths.min() >= 1 and _in_unit(image):
            raise ArgumentError(
                f"an image of values from {image.min():.3g} to {image.max():.3g}, and srgb={srgb!r}: all its colours would be "
                "one; multiply it by 255, or divide srgb by 255"
            )
        rows = self._places(sxy, 3)
        np.divide(_numbers(image, "the image", 3), widths, out=rows.reshape(*image.shape[:2], 5)[..., 2:])
        return rows

    def _places(self, sxy: Any, more: int = 0) -> "NDArray[np.float32]":
        """Return places ``(points, 2)`` in widths, with room for so many features more."""
        widths = _widths(sxy, 2, "sxy")
        rows = np.empty((self._h, self._w, 2 + more), np.float32)
        rows[..., 0] = np.arange(self._w, dtype=np.float32) / widths[0]
        rows[..., 1] = (np.arange(self._h, dtype=np.float32) / widths[1])[:, None]
        return rows.reshape(self._points, -1)


def _in_unit(image: "NDArray[Any]") -> bool:
    """Return whether values are fractions from 0 to 1, as those of an image that was divided by 255."""
    return bool(image.min() >= 0 and image.max() <= 1 and (image != np.rint(image)).any())


def _numbers(x: "ArrayLike", what: str, axes: int) -> "NDArray[np.float32]":
    """Return an array of finite float32, our own where the caller's is of another kind."""
    array = np.asarray(x)
    if array.dtype.kind not in "fiub":
        raise ArgumentTypeError(f"{what} are of dtype {array.dtype}; they must be real numbers")
    if array.ndim != axes:
        raise ShapeError(f"{what} have shape {array.shape}; they must have {axes} axes")
    copied = np.array(array, np.float32, order="C")
    if not np.isfinite(copied).all():
        raise ArgumentError(f"{what}: {int((~np.isfinite(copied)).sum())} of {copied.size} numbers are NaN or infinite")
    return copied


def _widths(x: Any, count: int, name: str) -> "NDArray[np.float32]":
    widths = np.asarray(x, np.float64).ravel()
    if len(widths) not in (1, count) or not (np.isfinite(widths).all() and (widths > 0).all()):
        raise ArgumentError(f"{name}={x!r}; it must be a positive number, or {count} of them")
    return np.broadcast_to(widths, count).astype(np.float32)


def _compat(compat: Any, labels: int) -> torch.Tensor:
    matrix = np.array(compat, np.float32)
    if matrix.ndim == 0:
        matrix = np.full(labels, -matrix, np.float32)
    elif matrix.shape not in ((labels,), (labels, labels)):
        raise ShapeError(f"compat of shape {matrix.shape}; it must be a number, ({labels},) or ({labels}, {labels})")
    if not np.isfinite(matrix).all():
        raise ArgumentError(f"compat has {int((~np.isfinite(matrix)).sum())} numbers that are NaN or infinite")
    return torch.from_numpy((matrix + matrix.T) / 2 if matrix.ndim == 2 else matrix)


def _count(n: Any, name: str) -> int:
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise ArgumentError(f"{name}={n!r}; it must be a whole number, 1 or more")
    return int(n)


def _steps(n: Any) -> int:
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 0:
        raise ArgumentError(f"niter={n!r}; it must be a whole number, 0 or more")
    return int(n)
