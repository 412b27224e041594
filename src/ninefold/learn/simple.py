"""Sources that learn nothing: random numbers, kernels from elsewhere, and patches as they were drawn."""

import warnings
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError
from ninefold.learn.base import FilterSource, PatchSource, seed_of, size_of, whole
from ninefold.learn.images import Channels, Images
from ninefold.learn.patches import Preparation

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["GivenFilters", "RandomFilters", "SampledPatches", "at_most"]


class RandomFilters(FilterSource):
    """Random kernels, the first of the chapter's three sources without training (Jarrett 2009, Saxe 2011).

    Parameters
    ----------
    n_filters : int
    patch_size : int or tuple of int
        Height and width of a kernel.
    kind : {"gaussian", "uniform", "orthogonal"}
        Gaussian and uniform kernels have unit norm on average; orthogonal ones exactly, and as many as a kernel has values are
        orthogonal to one another.
    zero_mean : bool
        Whether each kernel's values sum to zero, so that it does not see brightness.
    channels : {"auto", "first", "last", "none"}
        As in `Images`; how many channels there are is looked up in the images given to `fit`.
    random_state : int, RandomState or None

    Examples
    --------
    >>> import numpy as np
    >>> source = RandomFilters(4, (3, 2), kind="orthogonal", zero_mean=False, random_state=0).fit(np.zeros((1, 5, 6)))
    >>> rows = source.filters_.reshape(4, -1)
    >>> np.allclose(rows @ rows.T, np.eye(4), atol=1e-6)
    True
    """

    def __init__(
        self,
        n_filters: int = 256,
        patch_size: int | tuple[int, int] = 6,
        *,
        kind: Literal["gaussian", "uniform", "orthogonal"] = "gaussian",
        zero_mean: bool = True,
        channels: Channels = "auto",
        random_state: Any = None,
    ) -> None:
        self.n_filters = n_filters
        self.patch_size = patch_size
        self.kind = kind
        self.zero_mean = zero_mean
        self.channels = channels
        self.random_state = random_state

    def fit(self, X: Any, y: "ArrayLike | None" = None) -> Self:  # noqa: ARG002  scikit-learn's signature
        """Draw the kernels; of the images only the number of channels is looked at."""
        count, size = whole(self.n_filters, "n_filters"), size_of(self.patch_size)
        first = next(iter(Images(X, self.channels)), None)
        if first is None:
            raise ArgumentError("there are no images, so that it is unknown how many channels a filter has")
        shape = (first.shape[1], *size)
        generator = torch.Generator("cpu").manual_seed(seed_of(self.random_state))
        kernels = _drawn(self.kind, count, shape, generator)
        if self.zero_mean:
            kernels = kernels - kernels.mean(1, keepdim=True)
        return self._learned(kernels.reshape(count, *shape), Preparation.none(kernels.shape[1]))


def _drawn(kind: str, count: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    d = shape[0] * shape[1] * shape[2]
    normal = torch.randn(count, d, generator=generator, dtype=torch.float32, device="cpu")
    if kind == "gaussian":
        return normal / d**0.5
    if kind == "uniform":
        return (torch.rand(count, d, generator=generator, dtype=torch.float32, device="cpu") - 0.5) * (12 / d) ** 0.5
    if kind == "orthogonal":
        return torch.cat([torch.linalg.qr(part.T)[0].T for part in normal.split(d)])
    raise ArgumentError(f"kind={kind!r} is not one of 'gaussian', 'uniform', 'orthogonal'")


class GivenFilters(FilterSource):
    """Kernels from elsewhere: principal components, centroids, a bank of one's own, the first layer of a trained network.

    They meet the pixels as they are: nothing is whitened, and neither brightness nor contrast is taken out.

    Parameters
    ----------
    filters : array or tensor
        ``(K, C, h, w)``, as a convolution of PyTorch has them: not flipped.
    channels : {"auto", "first", "last", "none"}
        As in `Images`; how many there are must be `C`.

    Raises
    ------
    ArgumentTypeError, ArgumentError, ShapeError
        In `fit`, if they are no real and finite numbers, or have other axes, or the images have other channels.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.decomposition import PCA
    >>> from ninefold.learn import ConvFeatures
    >>> images = np.random.default_rng(0).normal(size=(20, 9, 8))
    >>> patches = np.lib.stride_tricks.sliding_window_view(images, (3, 2), (1, 2)).reshape(-1, 6)
    >>> components = PCA(4).fit(patches).components_.reshape(4, 1, 3, 2)
    >>> ConvFeatures(GivenFilters(components), "soft").fit_transform(images).shape
    (20, 32)
    """

    def __init__(self, filters: Any, *, channels: Channels = "auto") -> None:
        self.filters = filters
        self.channels = channels

    def fit(self, X: Any, y: "ArrayLike | None" = None) -> Self:  # noqa: ARG002  scikit-learn's signature
        """Check the kernels; of the images only the number of channels is looked at."""
        given = self.filters.detach().cpu() if isinstance(self.filters, Tensor) else np.asarray(self.filters)
        if given.ndim != 4 or 0 in given.shape:
            raise ShapeError(f"filters have shape {tuple(given.shape)}; they must be (K, C, h, w), none of these 0")
        if isinstance(given, np.ndarray):
            if given.dtype.kind not in "fiub":
                raise ArgumentTypeError(f"filters must hold real numbers, got dtype {given.dtype}")
            given = torch.from_numpy(np.array(given, np.float32))
        if given.is_complex():
            raise ArgumentTypeError(f"filters must hold real numbers, got dtype {given.dtype}")
        kernels = given.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        if not bool(kernels.isfinite().all()):
            raise ArgumentError(f"filters hold {int((~kernels.isfinite()).sum())} values of NaN or infinity")
        first = next(iter(Images(X, self.channels)), None)
        if first is not None and first.shape[1] != kernels.shape[1]:
            raise ShapeError(
                f"filters of shape {tuple(kernels.shape)}, (K, C, h, w), see {kernels.shape[1]} channels, and the images have "
                f"{first.shape[1]}"
            )
        return self._learned(kernels, Preparation.none(kernels[0].numel()))


class SampledPatches(PatchSource):
    """Patches of the images themselves as filters, nearly as good as learned ones where the encoder is good (Coates and Ng 2011).

    `n_patches` are drawn, from which brightness, contrast and covariance are learned; the first `n_filters` of them are kept.
    Other parameters are those of `PatchSource`.

    Parameters
    ----------
    normalise : bool
        Give every atom unit norm, which a soft threshold asks for.

    Examples
    --------
    >>> import numpy as np
    >>> images = np.random.default_rng(0).normal(size=(20, 9, 8))
    >>> SampledPatches(7, 3, random_state=0).fit(images).filters_.shape
    (7, 1, 3, 3)
    """

    def __init__(
        self,
        n_filters: int = 256,
        patch_size: int | tuple[int, int] = 6,
        *,
        n_patches: int = 100_000,
        contrast: Any = "auto",
        whitening: float | None = 0.1,
        normalise: bool = False,
        channels: Channels = "auto",
        random_state: Any = None,
    ) -> None:
        super().__init__(
            n_filters,
            patch_size,
            n_patches=n_patches,
            contrast=contrast,
            whitening=whitening,
            channels=channels,
            random_state=random_state,
        )
        self.normalise = normalise

    def _dictionary(self, patches: Tensor, count: int, seed: int) -> Tensor:  # noqa: ARG002  the patches come in random order
        atoms = patches[: at_most(count, len(patches))].clone()
        return atoms / atoms.norm(dim=1, keepdim=True).clamp_min(1e-12) if self.normalise else atoms


def at_most(count: int, there: int) -> int:
    """Return how many filters can be learned from so many patches, and warn where these are fewer than were asked for."""
    if there < count:
        warnings.warn(
            f"n_filters={count} filters cannot be learned from {there} patches: there will be {there}; give more images, a "
            "smaller patch_size, or a larger n_patches",
            UserWarning,
            stacklevel=4,
        )
    return min(count, there)
