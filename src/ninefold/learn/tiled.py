"""``TiledICA``: kernels in turn under a pooling, learned by topographic independent component analysis (Le et al. 2010)."""

from itertools import chain
from math import prod
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from sklearn.base import TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from ninefold import nn
from ninefold.errors import ArgumentError, ShapeError
from ninefold.learn.base import FilterSource, seed_of, size_of, tensor_of, whole
from ninefold.learn.images import Channels, Images
from ninefold.learn.patches import Preparation, draw_patches
from ninefold.learn.tica import TICA, whitened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

__all__ = ["TiledICA"]

_MAPS = 1 << 23
"""Bytes of feature maps at a time, about."""
_PATCHES = 50_000
"""That whitening is learned from, at most."""


class TiledICA(TransformerMixin, FilterSource):
    r"""Filters that take turns over the positions of a map, such that pooling over neighbours finds few pooling units active.

    A map has ``period x period`` filters; position ``(i, j)`` is that of filter ``(i mod period, j mod period)``. With simple
    responses ``r = W w(x)`` to whitened patches, learning minimises the mean over crops of images and over pooling units of

        sqrt(epsilon + sum over the pooling window of r^2),    the filters at one position orthonormal over the maps,

    which is topographic independent component analysis under local orthogonality (Le et al. 2010). Neighbours that are pooled
    learn to be active together: a pooled response is to stay while an image changes from one to another. ``period=1`` is a
    convolution, a period of the map's size leaves no two positions alike. Steps go down the gradient along the manifold of
    orthonormal filters, each as long as lets the objective of its crops decrease, and back onto the manifold.

    It is a source of filters like any other: `filters_` are those of all positions, and `ConvFeatures` gives every one a map of
    its own. Its own features, the pooled responses, come from `transform`, `to_layer` is the tiled layer.

    Parameters
    ----------
    n_filters : int
        Maps, so filters at a position; no more than `components`, or they could not be orthonormal.
    patch_size : int or tuple of int
        Height and width of a filter.
    period : int or tuple of int
        Filters of a map along each axis, before they repeat.
    pool : int or tuple of int
        Height and width of a pooling window, in positions.
    stride : int
        Between pooling windows of `transform`; learning takes all windows.
    components : float or int
        Principal components of patches that whitening keeps, those of the largest variance: a share of a patch's values, or how
        many. Each is brought to variance 1 over all positions together, and the rest is taken away, with the noise.
    epsilon : float
        Of the objective; a whitened response has a variance of about 1.
    n_epochs : int
        Passes over the images; each draws crops anew.
    n_crops : int
        Of an epoch, at most.
    crop : "auto", int or tuple of int
        Height and width, in pixels. "auto" has each kind of pooling window once, or as many as the first image has. Images
        whose content hangs on the position, with a period as large as their map, want crops as large as themselves.
    batch_size : int
        Crops of a step. As many as there are is the algorithm of the paper, whose objective never increases.
    channels : {"auto", "first", "last", "none"}
        As in `Images`.
    random_state : int, RandomState or None
    progress : callable, optional
        Called with (epochs done in this fit, epochs in all) after each.

    Attributes
    ----------
    filters_, atoms_ : ndarray
        ``(K * period * period, C, h, w)``: for images as they are, and for whitened patches. Filter ``(k * period + a) * period
        + b`` is that of map k at positions ``(a, b)``. Of `atoms_`, those of one position are orthonormal.
    mean_, scale_ : float
        What is taken off pixels, and what they are divided by.
    objective_ : list of float
        Of every step, before it, on its crops.
    n_epochs_ : int
        Epochs done.
    image_size_ : tuple of int
        Height and width of the first image, which `get_feature_names_out` is for.

    Examples
    --------
    >>> images = np.random.default_rng(0).normal(size=(30, 13, 12))
    >>> source = TiledICA(5, (3, 4), period=2, pool=(2, 3), n_epochs=2, random_state=0).fit(images)
    >>> source.filters_.shape, source.pooled(images).shape, source.transform(images).shape
    ((20, 1, 3, 4), (30, 5, 10, 7), (30, 350))
    >>> at_one = source.atoms_.reshape(5, 2, 2, 12)[:, 1, 0]
    >>> np.allclose(at_one @ at_one.T, np.eye(5), atol=1e-5)
    True
    """

    _model: TICA
    _begun: bool

    def __init__(
        self,
        n_filters: int = 16,
        patch_size: int | tuple[int, int] = 8,
        *,
        period: int | tuple[int, int] = 2,
        pool: int | tuple[int, int] = 3,
        stride: int = 1,
        components: Any = 0.5,
        epsilon: float = 0.01,
        n_epochs: int = 20,
        n_crops: int = 10_000,
        crop: Any = "auto",
        batch_size: int = 500,
        channels: Channels = "auto",
        random_state: Any = None,
        progress: "Callable[[int, int], None] | None" = None,
    ) -> None:
        self.n_filters = n_filters
        self.patch_size = patch_size
        self.period = period
        self.pool = pool
        self.stride = stride
        self.components = components
        self.epsilon = epsilon
        self.n_epochs = n_epochs
        self.n_crops = n_crops
        self.crop = crop
        self.batch_size = batch_size
        self.channels = channels
        self.random_state = random_state
        self.progress = progress

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002  scikit-learn's signature
        """Learn from images, from the start; see `Images` for what these may be.

        An interrupt leaves what the last step reached, and `partial_fit` goes on from there.

        Raises
        ------
        ArgumentError, ArgumentTypeError, ShapeError
            If a parameter is out of its range, or the images do not fit, or are constant.
        """
        epochs, images = whole(self.n_epochs, "n_epochs"), Images(X, self.channels)
        if images.once and epochs > 1:
            raise ArgumentError(
                f"an iterator cannot be read n_epochs={epochs} times; give a list, or call partial_fit for each pass"
            )
        self._begun = False
        for k in range(epochs):
            self._epoch(images)
            if self.progress is not None:
                self.progress(k + 1, epochs)
        return self

    def partial_fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002  scikit-learn's signature
        """Go on for one epoch, with more images or after an interrupt; the first call fixes the scale and the whitening.

        Raises
        ------
        ArgumentError, ArgumentTypeError, ShapeError
            As `fit`; and if the images have other channels than those before.

        Examples
        --------
        >>> images = np.random.default_rng(0).normal(size=(30, 13, 12))
        >>> source = TiledICA(5, (3, 4), random_state=0)
        >>> source.partial_fit(images[:15]).partial_fit(images[15:]).n_epochs_
        2
        """
        self._epoch(Images(X, self.channels, getattr(self, "channels_", None)))
        return self

    def _epoch(self, images: Images) -> None:
        batch = self._check()
        begun = getattr(self, "_begun", False)
        if not begun:
            self._seed, self._done = seed_of(self.random_state), 0
        generator = np.random.default_rng([self._seed, self._done])
        stream, first = _opened(images)
        crops = draw_patches(stream, self._crop(first), whole(self.n_crops, "n_crops"), int(generator.integers(2**31)))
        if not begun:
            self._begin(crops, first, generator)
        self._check_begun(crops.shape[1])
        self.channels_ = images.where or self.channels
        try:
            for part in crops.split(batch):
                self.objective_.append(self._model.step(self._standardised(part)))
            self._done += 1
        finally:
            self._keep()

    def _check(self) -> int:
        for name in ("n_filters", "n_crops", "stride"):
            whole(getattr(self, name), name)
        size_of(self.patch_size), _pair(self.period, "period"), _pair(self.pool, "pool")
        if not 0 < self.epsilon < float("inf"):
            raise ArgumentError(f"epsilon={self.epsilon} must be above 0 and finite: the gradient is infinite at 0 without it")
        return whole(self.batch_size, "batch_size")

    def _components(self, d: int) -> int:
        """Return how many components are wanted of patches of `d` values."""
        if isinstance(self.components, (float, np.floating)):
            if not 0 < self.components <= 1:
                raise ArgumentError(f"components={self.components} must be a share above 0 and up to 1, or a whole number")
            return max(1, round(self.components * d))
        return min(whole(self.components, "components"), d)

    def _check_begun(self, channels: int) -> None:
        """Refuse to go on with other images, or other parameters, than those that it was begun with."""
        count, *period, held, h, w = self._model.atoms.shape
        if channels != held:
            raise ShapeError(f"images of {channels} channels, but the filters have {held}")
        begun = {"n_filters": count, "period": tuple(period), "patch_size": (h, w), "pool": self._model.pool}
        for name, value in begun.items():
            now = getattr(self, name)
            if (now if name == "n_filters" else _pair(now, name)) != value:
                raise ArgumentError(f"{name}={now}, but it was {value} when learning began; fit from the start")

    def _crop(self, first: Tensor) -> tuple[int, int]:
        """Return the size of crops, after a look at whether all filters and a pooling window fit into it."""
        size, period, pool = size_of(self.patch_size), _pair(self.period, "period"), _pair(self.pool, "pool")
        there = first.shape[2], first.shape[3]
        if isinstance(self.crop, str):
            if self.crop != "auto":
                raise ArgumentError(f"crop={self.crop!r} must be 'auto', or one whole number or two")
            wanted = [k - 1 + t + p - 1 for k, t, p in zip(size, period, pool, strict=True)]
            crop, inside, what = (min(wanted[0], there[0]), min(wanted[1], there[1])), there, "the first image"
        else:
            crop = inside = _pair(self.crop, "crop")
            what = "a crop"
        least = tuple(k - 1 + max(t, p) for k, t, p in zip(size, period, pool, strict=True))
        if inside[0] < least[0] or inside[1] < least[1]:
            (h, w), (a, b), (p, q) = size, period, pool
            places = max(0, inside[0] - h + 1), max(0, inside[1] - w + 1)
            raise ShapeError(
                f"{what} of {inside[0]}x{inside[1]} has {places[0]}x{places[1]} positions of a filter of {h}x{w}, fewer than "
                f"period={a}x{b} or pool={p}x{q}: filters would go unused, or no window be filled; it must be "
                f"{least[0]}x{least[1]} at least"
            )
        return crop

    def _begin(self, crops: Tensor, first: Tensor, generator: np.random.Generator) -> None:
        """Learn scale and whitening from the first crops, and draw filters."""
        size, count = size_of(self.patch_size), self.n_filters
        wanted = self._components(crops.shape[1] * prod(size))
        deviation = float(crops.double().std(correction=0))
        if not deviation > 1e-6 * float(crops.abs().max()):
            raise ArgumentError(f"all {len(crops)} crops are constant, {float(crops.mean()):g}: nothing can be learned from them")
        self.mean_, self.scale_ = float(crops.double().mean()), deviation
        seeds = generator.integers(2**31, size=2)
        patches = draw_patches(Images(self._standardised(crops), "first"), size, _PATCHES, int(seeds[0]))
        whitening, kept = whitened(patches, wanted)
        if count > kept:
            raise ArgumentError(
                f"n_filters={count} filters cannot be orthonormal among the {kept} components that components={self.components} "
                f"keeps of patches of {crops.shape[1]}x{size[0]}x{size[1]}; take no more filters than components"
            )
        random = torch.Generator("cpu").manual_seed(int(seeds[1]))
        shape = (count, *_pair(self.period, "period"), *patches.shape[1:])
        atoms = torch.randn(shape, generator=random, dtype=torch.float32, device="cpu")
        self._model = TICA(atoms, whitening, _pair(self.pool, "pool"), self.epsilon)
        self.image_size_ = int(first.shape[2]), int(first.shape[3])
        self.objective_: list[float] = []
        self._begun = True

    def _standardised(self, batch: Tensor) -> Tensor:
        return (batch - self.mean_) / self.scale_

    def _keep(self) -> None:
        """Publish what was learned so far, for images as they are."""
        model = self._model
        preparation = Preparation(
            model.whitening.mean * self.scale_ + self.mean_, model.whitening.matrix / self.scale_, float("inf")
        )
        self._learned(model.atoms.flatten(0, 2), preparation)
        self.n_epochs_ = self._done

    def pooled(self, X: Any) -> "NDArray[np.float32]":
        """Return the pooled responses ``(N, K, h', w')`` of images of one size.

        Raises
        ------
        ArgumentError, ShapeError
            If there are no images, or they differ in size or channels, or no pooling window fits.
        """
        found = list(self._stream(X))
        if not found:
            raise ArgumentError("there are no images")
        return torch.cat(found).numpy()

    def _stream(self, X: Any) -> "Iterator[Tensor]":
        check_is_fitted(self, "filters_")
        model, seen, stride = self._model, None, whole(self.stride, "stride")
        (count, _, _, channels, *size), pool = model.atoms.shape, model.pool
        for batch in Images(X, self.channels, self.channels_):
            if batch.shape[1] != channels:
                raise ShapeError(f"images of {batch.shape[1]} channels, but the filters have {channels}")
            if seen not in (None, batch.shape[2:]):
                raise ShapeError(
                    f"images of {tuple(seen or ())} and of {tuple(batch.shape[2:])} are mixed; give those of one size at a time"
                )
            seen = batch.shape[2:]
            least = tuple(k + p - 1 for k, p in zip(size, pool, strict=True))
            if seen[0] < least[0] or seen[1] < least[1]:
                raise ShapeError(
                    f"an image of {seen[0]}x{seen[1]} fills no pooling window; it must be {least[0]}x{least[1]} at least"
                )
            for part in batch.split(max(1, _MAPS // (4 * count * seen[0] * seen[1]))):
                with torch.no_grad():
                    pooled = model.pooled(self._standardised(part), stride)
                yield pooled

    def transform(self, X: Any) -> "NDArray[np.float32]":
        """Return the pooled responses as rows ``(N, K * h' * w')``; see `pooled`."""
        found = self.pooled(X)
        return found.reshape(len(found), -1)

    def to_layer(self, **arguments: Any) -> "nn.TiledConv2d":  # type: ignore[override]  # no convolution, unless the period is 1
        """Return the tiled layer of the simple responses, to images as they are; `arguments` are the layer's, such as ``stride``.

        Its bias, one for every filter, is what the whitening takes off; ``bias=False`` leaves it out.

        Examples
        --------
        >>> images = np.random.default_rng(0).normal(size=(30, 13, 12))
        >>> TiledICA(5, (3, 4), n_epochs=1, random_state=0).fit(images).to_layer()
        TiledConv2d(1, 5, kernel_size=(3, 4), stride=(1, 1), period=(2, 2))
        """
        check_is_fitted(self, "filters_")
        count, rows, columns, channels, *size = self._model.atoms.shape
        offsets = tensor_of(self.filters_).flatten(1) @ self.preparation_.mean
        with torch.random.fork_rng(devices=[]), torch.no_grad():  # the constructor draws a weight, which nobody sees
            layer = nn.TiledConv2d(channels, count, tuple(size), period=(rows, columns), **arguments)
            layer.weight.copy_(tensor_of(self.filters_).view(layer.weight.shape))
            if layer.bias is not None:
                if layer.bias.numel() != offsets.numel():
                    raise ArgumentError(f"bias={arguments['bias']!r}, but there is one for every filter: True or False")
                layer.bias.copy_(-offsets.view(layer.bias.shape))
        return layer

    def get_feature_names_out(self, input_features: Any = None) -> "NDArray[np.object_]":  # noqa: ARG002  scikit-learn's signature
        """Return names such as ``filter3_r0c1``, of images as large as the first that was learned from."""
        check_is_fitted(self, "filters_")
        sides = zip(self.image_size_, self._model.atoms.shape[4:], self._model.pool, strict=True)
        rows, columns = ((n - k + 1 - p) // self.stride + 1 for n, k, p in sides)
        names = [f"filter{k}_r{i}c{j}" for k in range(len(self._model.atoms)) for i in range(rows) for j in range(columns)]
        return np.array(names, dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags


def _opened(images: Images) -> tuple[Images, Tensor]:
    """Return images that can still be read from the start, and the first few of them."""
    stream = iter(images)
    first = next(stream, None)
    if first is None:
        raise ArgumentError("there are no images to learn from")
    if images.once:
        rest = Images((image for batch in chain([first], stream) for image in batch), "first")
        rest.skipped = images.skipped
        return rest, first
    return images, first


def _pair(value: Any, name: str) -> tuple[int, int]:
    """Return one whole number, or two, as two."""
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2:
        raise ArgumentError(f"{name}={value!r} must be one whole number or two")
    return whole(pair[0], name), whole(pair[1], name)
