"""``pydensecrf.utils``: energies of labels and probabilities, and features of kernels."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ninefold.errors import ArgumentError, ShapeError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "compute_unary",
    "create_pairwise_bilateral",
    "create_pairwise_gaussian",
    "softmax_to_unary",
    "unary_from_labels",
    "unary_from_softmax",
]


def unary_from_softmax(sm: "ArrayLike", scale: float | None = None, clip: float | None = 1e-5) -> "NDArray[np.float32]":
    """Return energies ``(L, N)`` of probabilities ``(L, *space)``: minus logarithms.

    Parameters
    ----------
    sm : array
        Probabilities.
    scale : float, optional
        How sure they are: mixed with the uniform distribution, ``scale * sm + (1 - scale) / L``; in (0, 1].
    clip : float, optional
        The least probability.

    Examples
    --------
    >>> np.exp(-unary_from_softmax(np.array([[0.5, 0.75], [0.5, 0.25]]))).round(4).tolist()
    [[0.5, 0.75], [0.5, 0.25]]
    """
    sm = np.asarray(sm)
    if sm.ndim < 2:
        raise ShapeError(f"probabilities of shape {sm.shape}; they must be (labels, *space)")
    sm = sm.astype(np.float64).reshape(len(sm), -1)
    if scale is not None:
        if not 0 < scale <= 1:
            raise ArgumentError(f"scale={scale}; it must be above 0, up to 1")
        sm = scale * sm + (1 - scale) / len(sm)
    if clip is not None:
        sm = np.clip(sm, clip, 1.0)
    if not (sm > 0).all():
        raise ArgumentError(f"{int((~(sm > 0)).sum())} probabilities are 0, less or NaN; give a clip above 0")
    return (-np.log(sm)).astype(np.float32)


def unary_from_labels(labels: "ArrayLike", n_labels: int, gt_prob: float, zero_unsure: bool = True) -> "NDArray[np.float32]":
    """Return energies ``(L, N)`` of label maps that are right with probability `gt_prob`.

    Parameters
    ----------
    labels : array of int
        Any shape. With `zero_unsure` 0 stands for unknown and labels are 1 to `n_labels`; else they are 0 to ``n_labels - 1``.
    n_labels : int
        Without the unknown.
    gt_prob : float
        In (0, 1).
    zero_unsure : bool
        Whether there are unknown pixels.

    Examples
    --------
    >>> np.exp(-unary_from_labels([[0, 2]], 2, 0.7)).round(2).tolist()
    [[0.5, 0.30000001192092896], [0.5, 0.699999988079071]]
    """
    flat = np.asarray(labels).ravel()
    if flat.dtype.kind not in "iub":
        raise ArgumentError(f"labels are {flat.dtype}; they must be whole numbers")
    if n_labels < 2 or not 0 < gt_prob < 1:
        raise ArgumentError(
            f"n_labels={n_labels}, gt_prob={gt_prob}; there must be 2 labels or more, and a probability within (0, 1)"
        )
    flat = flat.astype(np.int64)
    least, most = (0, n_labels) if zero_unsure else (0, n_labels - 1)
    if flat.size and (flat.min() < least or flat.max() > most):
        raise ArgumentError(f"labels are {flat.min()} to {flat.max()}; they must be {least} to {most}")
    energies = np.full((n_labels, flat.size), -np.log((1.0 - gt_prob) / (n_labels - 1)), np.float32)
    at, sure = np.arange(flat.size), flat - int(zero_unsure)
    known = sure >= 0
    energies[sure[known], at[known]] = -np.log(gt_prob)
    energies[:, ~known] = -np.log(1.0 / n_labels)
    return energies


def create_pairwise_gaussian(sdims: Sequence[float], shape: Sequence[int]) -> "NDArray[np.float32]":
    """Return features ``(axes, N)`` of places, divided by a width for each axis of `shape`.

    Examples
    --------
    >>> create_pairwise_gaussian((2.0, 1.0), (2, 3))[:, 5].tolist()
    [0.5, 2.0]
    """
    places = np.indices(tuple(shape), dtype=np.float32).reshape(len(shape), -1)
    return places / _widths(sdims, len(shape), "sdims")


def create_pairwise_bilateral(
    sdims: Sequence[float], schan: "float | Sequence[float]", img: "ArrayLike", chdim: int = -1
) -> "NDArray[np.float32]":
    """Return features ``(axes + channels, N)`` of places and values, divided by their widths.

    Parameters
    ----------
    sdims : sequence of float
        A width for each axis of space.
    schan : float or sequence of float
        A width of channels, or one for each.
    img : array
        Of any number of axes.
    chdim : int
        The axis of channels; -1 for an image without one.

    Examples
    --------
    >>> create_pairwise_bilateral((2, 2), 10, np.full((4, 3, 5), 20.0), chdim=2).shape
    (7, 12)
    """
    image = np.asarray(img)
    image = image[None] if chdim == -1 else np.moveaxis(image, chdim, 0)
    widths = _widths(schan, len(image), "schan")
    places = create_pairwise_gaussian(sdims, image.shape[1:])
    return np.concatenate([places, image.reshape(len(image), -1).astype(np.float32) / widths])


def compute_unary(labels: "ArrayLike", M: int, GT_PROB: float = 0.5) -> "NDArray[np.float32]":
    """Return `unary_from_labels` with 0 for unknown: its older name."""
    return unary_from_labels(labels, M, GT_PROB)


def softmax_to_unary(sm: "ArrayLike", GT_PROB: float = 1) -> "NDArray[np.float32]":
    """Return `unary_from_softmax` without a clip: its older name."""
    return unary_from_softmax(sm, None if GT_PROB == 1 else GT_PROB, clip=None)


def _widths(x: Any, count: int, name: str) -> "NDArray[np.float32]":
    widths = np.asarray(x, np.float32).ravel()
    if len(widths) not in ((1, count) if name == "schan" else (count,)) or not (np.isfinite(widths) & (widths > 0)).all():
        raise ArgumentError(f"{name}={x!r}; it must be {count} positive numbers")
    return np.broadcast_to(widths, count)[:, None]
