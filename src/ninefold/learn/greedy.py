"""``GreedyLayers``: filters upon filters, each layer learned when those below are done (Deep Learning, 9.9 and 8.7.4)."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin, clone
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from ninefold.errors import ArgumentError, ArgumentTypeError
from ninefold.learn.features import ConvFeatures
from ninefold.learn.images import Channels, Images
from ninefold.learn.layers import FilterLayer, MapStream, PooledRows, named, through
from ninefold.learn.pooling import pooling_of
from ninefold.learn.supervised import labels_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

__all__ = ["GreedyLayers"]

_LAYER = re.compile(r"layer(\d+)")


class GreedyLayers(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Layers of filters upon one another, each learned from the maps of those below, which no longer change; then a pooling.

    Without labels, any sources will do. For greedy supervised training give `SupervisedFilters`, each learned under a head
    that is thrown away; layers of both kinds mix. Sources above the first layer see maps of as many channels as the layer below
    has values at a position.

    Maps exist for a few images at a time, and beside them those of the layers below that fit into `keep` bytes, while a layer
    learns. A layer that learns in several passes has larger maps computed anew in each.

    Parameters
    ----------
    layers : list of FilterLayer
        From the images upwards. They are left as they are. ``set_params(layer0__filters__n_filters=32)`` reaches into them, and
        so do searches.
    pooling : object or str
        Of the top layer's maps: "quadrants", "pyramid", or a pooling of this package.
    warm_start : bool
        Whether `fit` keeps the layers that have been learned, from the bottom up to the first whose parameters have changed.
    keep : int
        Bytes.
    channels : {"auto", "first", "last", "none"}
        As in `Images`.
    progress : callable, optional
        Called with (layers done, layers in all) after each.

    Attributes
    ----------
    layers_ : list of FilterLayer
        Those that have been learned.
    pooling_ : object
    channels_ : {"auto", "first", "last", "none"}
        As in `ConvFeatures`.

    Examples
    --------
    >>> from ninefold.learn import KMeansFilters, RandomFilters
    >>> images = np.random.default_rng(0).normal(size=(30, 13, 12))
    >>> below = FilterLayer(RandomFilters(3, (3, 2), random_state=0), "soft", pool=2)
    >>> layers = GreedyLayers([below, FilterLayer(KMeansFilters(7, 2, random_state=0))]).fit(images)
    >>> layers.transform(images).shape, layers.layers_[1].source_.filters_.shape
    ((30, 28), (7, 6, 2, 2))
    """

    layers_: list[FilterLayer]
    channels_: Channels
    _given: list[FilterLayer]

    def __init__(
        self,
        layers: list[FilterLayer],
        pooling: Any = "quadrants",
        *,
        warm_start: bool = False,
        keep: int = 1 << 28,
        channels: Channels = "auto",
        progress: "Callable[[int, int], None] | None" = None,
    ) -> None:
        self.layers = layers
        self.pooling = pooling
        self.warm_start = warm_start
        self.keep = keep
        self.channels = channels
        self.progress = progress

    # --- learning ---

    def fit(self, X: Any, y: "ArrayLike | None" = None) -> Self:
        """Learn all layers, from the bottom to the top; see `Images` for what images may be.

        An interrupt leaves the layers that are done; `partial_fit`, or `fit` with ``warm_start=True``, goes on with the next.

        Parameters
        ----------
        X : images
        y : array-like, optional
            A label for each, if a layer or the pooling learns from labels.

        Raises
        ------
        ArgumentTypeError, ArgumentError, ShapeError
            If layers are none, labels are missing or do not match, or the images, or maps at some layer, do not fit.
        """
        self._check()
        return self._learn(X, y, self._done() if self.warm_start else 0)

    def partial_fit(self, X: Any, y: "ArrayLike | None" = None) -> Self:
        """Learn the layers that have not been learned yet; where all have, the top one goes on learning, if its source can."""
        self._check()
        done = self._done()
        if done < len(self.layers) or not hasattr(self, "pooling_"):
            return self._learn(X, y, done)
        images = self._images(X, y, self.channels_)
        with named(f"layer {done - 1}"):
            self.layers_[-1].partial_fit(self._below(images, done - 1), y)
        return self._finish(images, y)

    def _learn(self, X: Any, y: Any, done: int) -> Self:
        images = self._images(X, y, self.channels_ if done else None)
        self.layers_, self._given = (self.layers_[:done], self._given[:done]) if done else ([], [])
        self.__dict__.pop("pooling_", None)
        self.channels_ = images.where or self.channels
        for k in range(done, len(self.layers)):
            layer, given = clone(self.layers[k]), clone(self.layers[k])
            with named(f"layer {k}"):
                layer.fit(self._below(images, k), y, channels="first" if k else self.channels_)
            self.layers_.append(layer)
            self._given.append(given)
            if self.progress is not None:
                self.progress(k + 1, len(self.layers))
        return self._finish(images, y)

    def _finish(self, images: Images, y: Any) -> Self:
        """Let the pooling learn, if it does, and see whether an image passes."""
        pooled = pooling_of(self.pooling)
        with named(f"layer {len(self.layers) - 1}"):
            if hasattr(pooled, "fit"):
                pooled = clone(pooled).fit(through(self.layers_, images), y)
            elif not images.once:
                for maps in through(self.layers_, (batch[:1] for batch in images)):
                    pooled(maps)
                    break
        self.pooling_ = pooled
        self.channels_ = images.where or self.channels
        self._n_features_out = len(pooled.feature_names(self.layers_[-1].width()))
        return self

    def _below(self, images: Images, k: int, keep: int | None = None) -> Any:
        """Return what layer k sees."""
        return MapStream(self.layers_[:k], images, self.keep if keep is None else keep) if k else images

    def _images(self, X: Any, y: Any, hint: Channels | None) -> Images:
        images = Images(X, self.channels, hint)
        if images.once and len(self.layers) > 1:
            raise ArgumentError(f"an iterator cannot be read for every one of {len(self.layers)} layers; give a list")
        if any(get_tags(layer.filters).target_tags.required for layer in self.layers):
            labels_of(y, images.count())
        return images

    def _done(self) -> int:
        """Return how many layers, from the bottom, have been learned as they are asked for."""
        given = getattr(self, "_given", [])
        pairs = [_same(a, b) for a, b in zip(self.layers, given, strict=False)]
        return pairs.index(False) if False in pairs else len(pairs)

    def _check(self) -> None:
        if not isinstance(self.layers, (list, tuple)) or not self.layers:
            raise ArgumentTypeError(f"layers={self.layers!r} must be a list of at least one FilterLayer")
        if isinstance(self.keep, bool) or not isinstance(self.keep, (int, np.integer)) or self.keep < 0:
            raise ArgumentError(f"keep={self.keep!r} must be a whole number of bytes, 0 or more")
        for k, layer in enumerate(self.layers):
            if not isinstance(layer, FilterLayer):
                raise ArgumentTypeError(f"layer {k} is {layer!r}, not a FilterLayer; put a source into one: FilterLayer(source)")
            with named(f"layer {k}"):
                layer.check()
        pooling_of(self.pooling)

    # --- features ---

    def transform(self, X: Any) -> "NDArray[np.float32]":
        """Return features ``(N, F)`` of images, of any sizes.

        Raises
        ------
        ArgumentError
            If there is none, or not all layers have been learned.
        ShapeError
            If an image, or its maps at some layer, are too small, or have other channels.
        """
        rows = list(self.stream(X))
        if not rows:
            raise ArgumentError("there are no images to transform")
        return np.concatenate(rows)

    def stream(self, X: Any) -> "Iterator[NDArray[np.float32]]":
        """Yield features of a few images at a time, for what does not fit into memory."""
        self._ready()
        images, top = Images(X, self.channels, self.channels_), self.layers_[-1]
        with named(f"layer {len(self.layers_) - 1}"):
            if top.window() == (1, 1) and not hasattr(self.pooling_, "fit"):
                yield from self._features(top, images).stream(self._below(images, len(self.layers_) - 1, keep=0))
                return
            for maps in through(self.layers_, images):
                yield self.pooling_(maps).numpy().astype(np.float32, copy=False)

    def _features(self, top: FilterLayer, images: Images) -> ConvFeatures:
        """Return the top layer and the pooling as one, which may make features without whole maps."""
        alone = len(self.layers_) == 1
        made = ConvFeatures(
            top.source_, top.encoder, self.pooling_, stride=top.stride, prefit=True, channels=self.channels if alone else "first"
        )
        if alone:
            made.channels_ = self.channels_
        return made.fit(images if alone else [])

    def maps(self, X: Any, layer: int = -1) -> Iterator[Tensor]:
        """Yield the maps ``(B, F, h, w)`` of a layer for a few images at a time.

        Parameters
        ----------
        X : images
        layer : int
            From 0 upwards; negative ones count from the top.
        """
        self._ready()
        if not -len(self.layers_) <= layer < len(self.layers_):
            raise ArgumentError(f"layer={layer} is not one of {len(self.layers_)} layers, counted from 0")
        wanted = self.layers_[: layer % len(self.layers_) + 1]
        return through(wanted, Images(X, self.channels, self.channels_))

    def get_feature_names_out(self, input_features: Any = None) -> "NDArray[np.object_]":  # noqa: ARG002  scikit-learn's signature
        """Return names such as ``r0c1_filter7``: the region, then the value of the top layer."""
        self._ready()
        return np.array(self.pooling_.feature_names(self.layers_[-1].width()), dtype=object)

    def to_module(self, *, rows: bool = True) -> torch.nn.Sequential:
        """Return a network of ``ninefold.nn`` that computes the same, to be fine-tuned or frozen.

        Every layer becomes a convolution with a bias, a ReLU, and a pooling if it has one.

        Parameters
        ----------
        rows : bool
            Whether the pooling of the top layer's maps is part of it; without it the network gives maps.

        Raises
        ------
        UnsupportedError
            If a layer is no such thing: with an encoder other than `SoftThreshold`, such as the triangle, or filters that compare
            patches divided by their deviation (``contrast``); or the pooling is no `RegionPool`.

        Examples
        --------
        >>> from ninefold.learn import RandomFilters
        >>> layer = FilterLayer(RandomFilters(4, 3, random_state=0), "soft", pool=2)
        >>> GreedyLayers([layer], "quadrants").fit(np.zeros((1, 9, 8))).to_module()[0]
        Conv2d(1, 8, kernel_size=(3, 3), stride=(1, 1))
        """
        self._ready()
        made: list[torch.nn.Module] = []
        for k, layer in enumerate(self.layers_):
            with named(f"layer {k}"):
                made += layer.modules()
        return torch.nn.Sequential(*made, *([PooledRows(self.pooling_)] if rows else []))

    def _ready(self) -> None:
        check_is_fitted(self, "layers_")
        if not hasattr(self, "pooling_"):
            done, wanted = len(self.layers_), len(self.layers)
            raise ArgumentError(f"{done} of {wanted} layers have been learned; go on with partial_fit, or fit again")

    # --- parameters of layers by name ---

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return parameters; those of layers as ``layer0``, ``layer0__pool`` and so on."""
        found: dict[str, Any] = super().get_params(deep)
        if deep and isinstance(self.layers, (list, tuple)):
            for k, layer in enumerate(self.layers):
                if hasattr(layer, "get_params"):
                    found[f"layer{k}"] = layer
                    found |= {f"layer{k}__{name}": value for name, value in layer.get_params().items()}
        return found

    def set_params(self, **params: Any) -> Self:
        """Set parameters; ``layer0=...`` replaces a layer, ``layer0__pool=2`` changes one."""
        if "layers" in params:
            self.layers = params.pop("layers")
        known = self.get_params()
        for name in [name for name in params if _LAYER.fullmatch(name) and name in known]:
            self.layers = [params.pop(name) if f"layer{k}" == name else layer for k, layer in enumerate(self.layers)]
        return super().set_params(**params)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = False, True
        tags.transformer_tags.preserves_dtype = []
        return tags


def _same(a: Any, b: Any) -> bool:
    """Return whether two parameters ask for the same; where that cannot be told, they do not."""
    if type(a) is not type(b):
        return False
    if isinstance(a, BaseEstimator):
        return _same(a.get_params(deep=False), b.get_params(deep=False))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[name], b[name]) for name in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(_same(one, other) for one, other in zip(a, b, strict=True))
    if isinstance(a, np.random.RandomState):
        return _same(a.get_state(legacy=False), b.get_state(legacy=False))
    if isinstance(a, (np.ndarray, Tensor)):
        return a.shape == b.shape and bool((a == b).all())
    return bool(a is b or a == b)
