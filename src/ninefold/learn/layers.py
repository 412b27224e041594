"""One layer of many: filters, an encoder and local pooling, images in and maps out; and the maps of layers below as images."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import torch
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from ninefold import functional as F
from ninefold import nn
from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError, UnsupportedError
from ninefold.learn.base import FilterSource, as_source, tensor_of, whole
from ninefold.learn.compare import Comparison
from ninefold.learn.encoders import SoftThreshold, encoder_named
from ninefold.learn.features import _MAPS
from ninefold.learn.images import Channels, Images
from ninefold.learn.pooling import RegionPool

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["FilterLayer", "MapStream", "PooledRows", "named", "through"]

_REDUCE: dict[str, Any] = {"sum": torch.sum, "mean": torch.mean, "max": torch.amax}


class FilterLayer(BaseEstimator):
    """Filters, an encoder, and pooling over windows beside one another: a layer of `GreedyLayers`.

    Parameters
    ----------
    filters : FilterSource
        Learned from what the layers below give; the one that is given is left as it is.
    encoder : Encoder or str
        As in `ConvFeatures`.
    pool : int or tuple of int
        Height and width of a window; 1 pools nothing. The last window of a map that it does not divide holds what is left.
    operation : {"max", "mean"}
    stride : int
        Between patches.

    Attributes
    ----------
    source_ : FilterSource
        Fitted.

    Examples
    --------
    >>> import numpy as np
    >>> from ninefold.learn import RandomFilters
    >>> layer = FilterLayer(RandomFilters(4, (3, 2), random_state=0), "soft", pool=(2, 3)).fit(np.zeros((2, 9, 8, 3)))
    >>> [tuple(maps.shape) for maps in layer.maps([torch.zeros(2, 3, 9, 8)])]
    [(2, 8, 4, 3)]
    """

    source_: FilterSource

    def __init__(
        self,
        filters: FilterSource,
        encoder: Any = "triangle",
        pool: int | tuple[int, int] = 1,
        operation: str = "max",
        *,
        stride: int = 1,
    ) -> None:
        self.filters = filters
        self.encoder = encoder
        self.pool = pool
        self.operation = operation
        self.stride = stride

    def check(self) -> None:
        """Refuse parameters out of their range."""
        as_source(self.filters)
        if self.operation not in ("max", "mean"):
            raise ArgumentError(f"operation={self.operation!r} is not one of 'max', 'mean'")
        encoder_named(self.encoder)
        whole(self.stride, "stride")
        self.window()

    def fit(self, X: Any, y: "ArrayLike | None" = None, *, channels: Channels = "auto") -> Self:
        """Learn the filters from images, or from maps, which are images of many channels."""
        self.check()
        source = clone(self.filters)
        if hasattr(source, "channels"):
            source.set_params(channels=channels)
        self.source_ = source.fit(X, y)
        return self

    def partial_fit(self, X: Any, y: "ArrayLike | None" = None) -> Self:
        """Go on learning the filters, if their source can."""
        check_is_fitted(self, "source_")
        if not hasattr(self.source_, "partial_fit"):
            raise ArgumentTypeError(f"{type(self.source_).__name__} cannot go on learning: it has no partial_fit")
        self.source_.partial_fit(X, y)
        return self

    def width(self) -> int:
        """Return how many values a position has."""
        check_is_fitted(self, "source_")
        return encoder_named(self.encoder).width(len(self.source_.filters_))

    def maps(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield maps ``(B, F, h, w)`` of a few images at a time, of batches ``(B, C, H, W)``."""
        width, window, encoder = self.width(), self.window(), encoder_named(self.encoder)
        comparison = Comparison(self.source_, self.stride)
        pool = F.max_pool2d if self.operation == "max" else F.avg_pool2d
        for batch in batches:
            height, breadth = (max(1, n) for n in comparison.positions(batch.shape[2], batch.shape[3]))
            for part in batch.split(max(1, _MAPS // (4 * width * height * breadth))):
                with torch.no_grad():  # and not where it yields: what is done with the maps is not its business
                    maps = encoder(comparison(part))
                    maps = maps if window == (1, 1) else pool(maps, window, ceil_mode=True)
                yield maps

    def modules(self) -> list[torch.nn.Module]:
        """Return the same as layers of a network.

        A soft threshold of products is a convolution with a bias and a ReLU; for both signs, a convolution of twice the filters.

        Raises
        ------
        UnsupportedError
            If that is not exact: for other encoders, and filters that compare patches divided by their deviation.
        """
        check_is_fitted(self, "source_")
        encoder, source = encoder_named(self.encoder), self.source_
        if type(encoder) is not SoftThreshold:
            raise UnsupportedError(
                f"{type(encoder).__name__} is no convolution and ReLU, which a soft threshold is; use SoftThreshold()"
            )
        preparation = source.preparation_
        if preparation.contrast != float("inf"):
            raise UnsupportedError(
                f"{type(source).__name__} divides every patch by its deviation (contrast={preparation.contrast:.3g}), which no "
                "convolution does; learn it with contrast=None"
            )
        kernels, offsets = preparation.folded(tensor_of(source.atoms_).flatten(1))
        if encoder.split:
            kernels, offsets = torch.cat([kernels, -kernels]), torch.cat([offsets, -offsets])
        _, channels, height, width = source.atoms_.shape
        conv = torch.nn.utils.skip_init(
            nn.Conv2d, channels, len(kernels), (height, width), stride=self.stride, dtype=torch.float32, device="cpu"
        )
        with torch.no_grad():
            conv.weight.copy_(kernels.view_as(conv.weight))
            conv.bias.copy_(-offsets - encoder.alpha)
        made: list[torch.nn.Module] = [conv, torch.nn.ReLU()]
        if self.window() != (1, 1):
            made.append((nn.MaxPool2d if self.operation == "max" else nn.AvgPool2d)(self.window(), ceil_mode=True))
        return made

    def window(self) -> tuple[int, int]:
        """Return height and width of the windows that are pooled over."""
        pair = tuple(self.pool) if isinstance(self.pool, (tuple, list)) else (self.pool, self.pool)
        if len(pair) != 2:
            raise ArgumentError(f"pool={self.pool!r} must be one whole number or two")
        return whole(pair[0], "pool"), whole(pair[1], "pool")


class PooledRows(torch.nn.Module):
    """A pooling over regions as the last layer of a network: maps ``(B, F, h, w)`` in, rows ``(B, regions * F)`` out.

    Parameters
    ----------
    pooling : RegionPool
    """

    def __init__(self, pooling: RegionPool) -> None:
        super().__init__()
        if not isinstance(pooling, RegionPool) or hasattr(pooling, "fit"):
            raise UnsupportedError(f"{type(pooling).__name__} is no pooling over fixed regions, such as QuadrantSums()")
        if pooling.operation not in _REDUCE:
            raise ArgumentError(f"operation={pooling.operation!r} is not one of {list(_REDUCE)}")
        self.pooling = pooling

    def forward(self, maps: Tensor) -> Tensor:
        """Return rows, in operations that gradients pass."""
        regions = self.pooling.regions(maps.shape[2], maps.shape[3])
        reduce = _REDUCE[self.pooling.operation]
        return torch.cat([reduce(maps[:, :, top:bottom, left:right], (2, 3)) for top, bottom, left, right in regions], 1)

    def extra_repr(self) -> str:
        """Say which."""
        return repr(self.pooling)


@contextmanager
def named(what: str) -> Iterator[None]:
    """Say in errors where they arose; one from further below says that already."""
    try:
        yield
    except (ArgumentError, ArgumentTypeError, ShapeError, UnsupportedError) as error:
        if str(error).startswith("layer "):
            raise
        raise type(error)(f"{what}: {error}") from error


def through(layers: Sequence[FilterLayer], batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield what layers give, one upon the other, a few images at a time."""
    stream = iter(batches)
    for k, layer in enumerate(layers):
        stream = _through(k, layer, stream)
    return stream


def _through(k: int, layer: FilterLayer, batches: Iterable[Tensor]) -> Iterator[Tensor]:
    with named(f"layer {k}"):
        yield from layer.maps(batches)


class MapStream:
    """The maps that layers give, as single images ``(F, h, w)``, over and over: what the next layer learns from.

    Parameters
    ----------
    layers : sequence of FilterLayer
        Fitted.
    images : Images
    keep : int
        Bytes: maps that fit into as many are computed in the first whole pass and kept; others are computed in each pass.

    Examples
    --------
    >>> import numpy as np
    >>> from ninefold.learn import RandomFilters
    >>> images = Images(np.random.default_rng(0).normal(size=(3, 9, 8)))
    >>> layer = FilterLayer(RandomFilters(4, 3, random_state=0), "soft").fit(images)
    >>> stream = MapStream([layer], images)
    >>> [tuple(one.shape) for one in stream], stream.kept
    ([(8, 7, 6), (8, 7, 6), (8, 7, 6)], True)
    """

    def __init__(self, layers: Sequence[FilterLayer], images: Images, keep: int = 1 << 28) -> None:
        self._layers, self._images, self._keep = layers, images, keep
        self._held: list[Tensor] | None = None

    @property
    def kept(self) -> bool:
        """Whether the maps are in memory."""
        return self._held is not None

    def __iter__(self) -> Iterator[Tensor]:
        if self._held is not None:
            for maps in self._held:
                yield from maps
            return
        held: list[Tensor] | None = []
        size = 0
        for maps in through(self._layers, self._images):
            yield from maps
            size += maps.nbytes
            if held is not None and size <= self._keep:
                held.append(maps)
            else:
                held = None
        self._held = held
