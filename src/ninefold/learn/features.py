"""``ConvFeatures``: images in, rows of features out, as scikit-learn expects of a transformer."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin, clone
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from ninefold.errors import ArgumentError, ArgumentTypeError
from ninefold.learn.bands import Bands
from ninefold.learn.base import FilterSource, as_source, whole
from ninefold.learn.compare import Comparison
from ninefold.learn.encoders import encoder_named
from ninefold.learn.images import Channels, Images
from ninefold.learn.pooling import pooling_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

__all__ = ["ConvFeatures"]

_IMAGES = 256
"""Images whose features are made at a time: as often can progress be told."""

_MAPS = 1 << 23
"""Bytes of feature maps at a time, about: they stay in the cache from the convolution to the pooling."""


class ConvFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Filters, an encoder and a pooling: features of images for any classifier.

    Patches are never cut out, and feature maps exist for a few images at a time: memory does not grow with the number of images.

    Parameters
    ----------
    filters : FilterSource
        Learned in `fit`; the one that is given is left as it is, unless `prefit`.
    encoder : Encoder or str
        "triangle", "hard", "soft", "rectified" or "sparse".
    pooling : object or str
        "quadrants", "pyramid", or a pooling of this package.
    stride : int
        Between patches.
    prefit : bool
        Whether `filters` has been fitted and is used as it is, by clones as well (`cross_val_score`, ``Pipeline(memory=...)``).
    channels : {"auto", "first", "last", "none"}
        As in `Images`.
    progress : callable, optional
        Called with (images done, images in all or None).

    Attributes
    ----------
    source_ : FilterSource
        Fitted.
    pooling_ : object
    channels_ : {"auto", "first", "last", "none"}
        Where the channels were in the images that it was fitted to: images of which that is not clear are read so.

    Examples
    --------
    >>> from ninefold.learn import KMeansFilters
    >>> images = np.random.default_rng(0).normal(size=(30, 9, 8))
    >>> features = ConvFeatures(KMeansFilters(7, 3, random_state=0)).fit_transform(images)
    >>> features.shape, features.dtype
    ((30, 28), dtype('float32'))
    """

    def __init__(
        self,
        filters: FilterSource,
        encoder: Any = "triangle",
        pooling: Any = "quadrants",
        *,
        stride: int = 1,
        prefit: bool = False,
        channels: Channels = "auto",
        progress: "Callable[[int, int | None], None] | None" = None,
    ) -> None:
        self.filters = filters
        self.encoder = encoder
        self.pooling = pooling
        self.stride = stride
        self.prefit = prefit
        self.channels = channels
        self.progress = progress

    def fit(self, X: Any, y: "ArrayLike | None" = None) -> Self:
        """Learn the filters from images; see `Images` for what these may be."""
        return self._fit(X, y, "fit")

    def partial_fit(self, X: Any, y: "ArrayLike | None" = None) -> Self:
        """Go on learning the filters from more images, if their source can."""
        return self._fit(X, y, "partial_fit")

    def _fit(self, X: Any, y: Any, how: str) -> Self:
        self._check()
        images = Images(X, self.channels, getattr(self, "channels_", None))
        if self.prefit:
            check_is_fitted(self.filters, "filters_")
            self.source_ = self.filters
        else:
            source = self.source_ if how == "partial_fit" and hasattr(self, "source_") else clone(self.filters)
            if not hasattr(source, how):
                raise ArgumentTypeError(f"{type(source).__name__} cannot go on learning: it has no {how}")
            if hasattr(source, "channels"):
                source.set_params(channels=self.channels)
            self.source_ = getattr(source, how)(X, y)
        self.width_ = encoder_named(self.encoder).width(len(self.source_.filters_))
        pooled = pooling_of(self.pooling)
        if hasattr(pooled, "fit"):
            self.pooling_ = clone(pooled).fit(self._maps(images), y)
        else:
            self.pooling_ = pooled
        self.channels_ = images.where or self.channels
        self._n_features_out = len(self.pooling_.feature_names(self.width_))
        return self

    def _check(self) -> None:
        as_source(self.filters)
        whole(self.stride, "stride")

    def transform(self, X: Any) -> "NDArray[np.float32]":
        """Return features ``(N, F)`` of images.

        Raises
        ------
        ArgumentError
            If there is none.
        ShapeError
            If one is smaller than a filter, or has other channels.
        """
        check_is_fitted(self, "source_")
        rows = list(self.stream(X))
        if not rows:
            raise ArgumentError("there are no images to transform")
        return np.concatenate(rows)

    def stream(self, X: Any) -> "Iterator[NDArray[np.float32]]":
        """Yield features of a few images at a time, for what does not fit into memory."""
        check_is_fitted(self, "source_")
        images = Images(X, self.channels, self.channels_)
        total, done = images.count(), 0
        for pooled in self._pooled(images):
            rows = pooled.numpy().astype(np.float32, copy=False)
            done += len(rows)
            if self.progress is not None:
                self.progress(done, total)
            yield rows

    def _pooled(self, images: Images) -> Iterator[Tensor]:
        """Yield pooled features ``(B, F)`` of a few images at a time."""
        comparison, encoder = Comparison(self.source_, self.stride), encoder_named(self.encoder)
        if not Bands.fitting(comparison, encoder, self.pooling_):
            for maps in self._maps(images):
                with torch.no_grad():  # and not where it yields: whoever takes the rows may want gradients of something else
                    rows = self.pooling_(maps)
                yield rows
            return
        bands = Bands(comparison, encoder, self.pooling_)
        for batch in images:
            for part in batch.split(_IMAGES):
                with torch.no_grad():
                    rows = bands(part)
                yield rows

    def _maps(self, images: Images) -> Iterator[Tensor]:
        """Yield encoded maps ``(B, F, h, w)`` of a few images at a time."""
        comparison, encoder = Comparison(self.source_, self.stride), encoder_named(self.encoder)
        for batch in images:
            height, width = comparison.positions(batch.shape[2], batch.shape[3])
            each = 4 * self.width_ * max(1, height) * max(1, width)
            for part in batch.split(max(1, _MAPS // each)):
                with torch.no_grad():
                    maps = encoder(comparison(part))
                yield maps

    def get_feature_names_out(self, input_features: Any = None) -> "NDArray[np.object_]":  # noqa: ARG002  scikit-learn's signature
        """Return names such as ``r0c1_filter7``: the region, then the value."""
        check_is_fitted(self, "source_")
        return np.array(self.pooling_.feature_names(self.width_), dtype=object)

    def __sklearn_clone__(self) -> Self:
        """Return one with the same parameters, not fitted; but what was fitted before stays so (`prefit`), and is shared."""
        made: Self = super().__sklearn_clone__()
        if self.prefit:
            made.filters = self.filters
        return made

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = False, True
        tags.transformer_tags.preserves_dtype = []
        return tags
