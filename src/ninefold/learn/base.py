"""What a source of filters is: something that learns, draws or designs kernels, and how patches compare with them."""

from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from ninefold import nn
from ninefold.errors import ArgumentError, ArgumentTypeError
from ninefold.learn.images import Channels, Images
from ninefold.learn.patches import Preparation, draw_patches

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["FilterSource", "PatchSource", "as_source", "seed_of", "size_of", "tensor_of", "whole"]


class FilterSource(BaseEstimator):
    """The parent of all sources; what it has once it is fitted.

    Attributes
    ----------
    filters_ : ndarray
        ``(K, C, h, w)``, float32: the weight of a convolution. What a patch of deviation ``s`` has in common with an atom is
        ``filters_ x / s - offsets``.
    atoms_ : ndarray
        ``(K, C, h, w)``: what was learned, in the space of prepared patches; pictures show it.
    preparation_ : Preparation
        What patches go through before they meet the atoms.
    """

    filters_: "NDArray[np.float32]"
    atoms_: "NDArray[np.float32]"
    preparation_: Preparation

    def fit(self, X: Any, y: "ArrayLike | None" = None) -> Self:
        """Learn from images; see `Images` for what they may be. `y` is not looked at."""
        raise NotImplementedError

    def to_layer(self, **arguments: Any) -> "nn.Conv2d":
        """Return a convolution with these filters as its weight, without bias; `arguments` are the layer's, such as ``stride``.

        Examples
        --------
        >>> from ninefold.learn import RandomFilters
        >>> RandomFilters(8, (3, 5)).fit(np.zeros((2, 9, 8, 3))).to_layer(padding="same")
        Conv2d(3, 8, kernel_size=(3, 5), stride=(1, 1), padding=same, bias=False)
        """
        check_is_fitted(self, "filters_")
        count, channels, *size = self.filters_.shape
        with torch.random.fork_rng(devices=[]), torch.no_grad():  # the constructor draws a weight, which nobody sees
            layer = nn.Conv2d(channels, count, tuple(size), bias=False, **arguments)
            layer.weight.copy_(tensor_of(self.filters_))
        return layer

    def _learned(self, atoms: Tensor, preparation: Preparation) -> Self:
        """Keep what was learned: atoms ``(K, C, h, w)`` in the space of prepared patches."""
        kernels, _ = preparation.folded(atoms.flatten(1))
        self.atoms_, self.filters_ = atoms.numpy().copy(), kernels.reshape(atoms.shape).numpy().copy()
        self.preparation_ = preparation
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = False, True
        return tags


class PatchSource(FilterSource):
    """A source that learns from patches: it draws and prepares them, and its children do the rest in `_dictionary`.

    Parameters
    ----------
    n_filters : int
    patch_size : int or tuple of int
        Height and width.
    n_patches : int
        How many patches to learn from, at most.
    contrast : "auto", float or None
        Added to the variance of a patch before it is divided by its deviation, in squared units of the pixels; None
        leaves brightness and contrast alone. "auto" is 10 for pixels from 0 to 255 (Coates 2011), in proportion to the square of
        the range.
    whitening : float or None
        Added to the eigenvalues of the covariance; None does not whiten.
    channels : {"auto", "first", "last", "none"}
        As in `Images`.
    random_state : int, RandomState or None
    """

    def __init__(
        self,
        n_filters: int = 256,
        patch_size: int | tuple[int, int] = 6,
        *,
        n_patches: int = 100_000,
        contrast: Any = "auto",
        whitening: float | None = 0.1,
        channels: Channels = "auto",
        random_state: Any = None,
    ) -> None:
        self.n_filters = n_filters
        self.patch_size = patch_size
        self.n_patches = n_patches
        self.contrast = contrast
        self.whitening = whitening
        self.channels = channels
        self.random_state = random_state

    def fit(self, X: Any, y: "ArrayLike | None" = None) -> Self:  # noqa: ARG002  scikit-learn's signature
        """Draw patches from images and learn from them; see `Images` for what these may be.

        Raises
        ------
        ArgumentError, ShapeError
            If a parameter is out of its range, or the images do not fit.
        """
        count, size = whole(self.n_filters, "n_filters"), size_of(self.patch_size)
        most = whole(self.n_patches, "n_patches")
        seed = seed_of(self.random_state)
        patches = draw_patches(Images(X, self.channels), size, most, seed)
        preparation = Preparation.fitted(patches, self._contrast(patches), self.whitening)
        shape, rows = patches.shape[1:], patches.flatten(1)
        del patches  # only one copy of them is kept
        atoms = self._dictionary(preparation.into(rows, rows), count, seed)
        return self._learned(atoms.reshape(-1, *shape), preparation)

    def _contrast(self, patches: Tensor) -> float | None:
        if self.contrast != "auto":
            return None if self.contrast is None else float(self.contrast)
        scale = float(patches.max() - patches.min()) / 255
        return 10 * (scale or 1.0) ** 2

    def _dictionary(self, patches: Tensor, count: int, seed: int) -> Tensor:
        """Return atoms ``(K, d)`` from prepared patches ``(N, d)``."""
        raise NotImplementedError


def as_source(filters: Any) -> FilterSource:
    """Return a source of filters as it is.

    Raises
    ------
    ArgumentTypeError
        If it is none.
    """
    if isinstance(filters, FilterSource):
        return filters
    plain = isinstance(filters, (np.ndarray, Tensor))
    raise ArgumentTypeError(
        f"filters={type(filters).__name__ if plain else repr(filters)} is no source of filters, such as KMeansFilters(400); "
        "GivenFilters(array) makes one of kernels (K, C, h, w)"
    )


def tensor_of(array: "NDArray[Any]") -> Tensor:
    """Return an array as a tensor: the same memory, or a copy of what is read-only, as is what joblib maps for workers."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def whole(value: Any, name: str) -> int:
    """Return a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise ArgumentTypeError(f"{name}={value!r} must be a whole number, not {type(value).__name__}")
    if value < 1:
        raise ArgumentError(f"{name}={value} must be at least 1")
    return int(value)


def size_of(value: Any) -> tuple[int, int]:
    """Return height and width of a patch."""
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2:
        raise ArgumentError(f"patch_size={value!r} must be one whole number or two")
    return whole(pair[0], "patch_size"), whole(pair[1], "patch_size")


def seed_of(random_state: Any) -> int:
    """Return a seed drawn from what scikit-learn takes as ``random_state``."""
    if isinstance(random_state, (int, np.integer)):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))
