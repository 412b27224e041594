"""``ConvDBN``: convolutional Boltzmann machines on top of one another (Lee et al. 2009; Deep Learning, 20.6)."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from ninefold import functional as F
from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError
from ninefold.learn.base import seed_of, whole
from ninefold.learn.boltzmann import Boltzmann, check_above, fitting, stacked
from ninefold.learn.images import Channels, Images
from ninefold.learn.rbm import ConvRBM

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

__all__ = ["ConvDBN"]

_TOGETHER = 64  # images at a time


class ConvDBN(TransformerMixin, BaseEstimator):
    """A stack of `ConvRBM`, each learned from the pooling probabilities of the one below, when that one is done.

    What layers say together is defined by the sum of their energies, in which the pooling units of one layer are the pixels of
    the next: ``E(v, h1, h2) = E1(v, h1) - sum h2 (W2 * p1 + b2)``. The second layer's visible bias is left out, for the first
    one's hidden bias already stands for how often p1 is on. So given v and h2, a block of the first layer has the logits
    ``(I_1 + t, ..., I_n + t, 0)`` with t the adjoint of W2 applied to h2. (A deep belief network by name and by how it is
    learned; a deep Boltzmann machine in how it infers: Deep Learning, 20.6.)

    Images are trimmed once, to the pixels from which the blocks of all layers can be filled: what is lost is what each layer
    would lose of its own input.

    Parameters
    ----------
    layers : list of ConvRBM
        From the images upwards; all but the first with ``visible="binary"``. They are left as they are.
    channels : {"auto", "first", "last", "none"}
        As in `Images`; replaces that of the first layer.
    progress : callable, optional
        Called with (layer, epochs done, epochs in all) after each epoch.

    Attributes
    ----------
    layers_ : list of ConvRBM
        Those that have begun to learn, fitted.
    image_size_ : tuple of int
        Height and width of the first image in the last pass over what was no iterator.

    Examples
    --------
    >>> images = np.random.default_rng(0).normal(size=(30, 13, 12))
    >>> below, above = ConvRBM(4, (3, 2), n_epochs=2, random_state=0), ConvRBM(5, 2, visible="binary", n_epochs=2, random_state=0)
    >>> dbn = ConvDBN([below, above]).fit(images)
    >>> dbn.transform(images).shape, dbn.filters_of(1).shape
    ((30, 20), (5, 1, 6, 5))
    """

    def __init__(
        self,
        layers: list[ConvRBM],
        *,
        channels: Channels = "auto",
        progress: "Callable[[int, int, int], None] | None" = None,
    ) -> None:
        self.layers = layers
        self.channels = channels
        self.progress = progress

    # --- learning ---

    def fit(self, X: Any, y: "ArrayLike | None" = None) -> Self:  # noqa: ARG002  scikit-learn's signature
        """Learn all layers, from the start, each in its own number of epochs; see `Images` for what images may be.

        The pooling probabilities that a layer learns from are computed once, and are in memory while it learns. An interrupt
        leaves what was reached, and `partial_fit` goes on from there.

        Raises
        ------
        ArgumentTypeError, ArgumentError, ShapeError
            If the layers are none, or do not fit upon one another; or as `ConvRBM.fit`.
        """
        self._check_layers()
        if Images(X, self.channels).once:
            raise ArgumentError(
                "an iterator cannot be read for every epoch and layer; give a list, or call partial_fit for each pass"
            )
        self.layers_: list[ConvRBM] = []
        self._look(X)
        for k in range(len(self.layers)):
            below: Any = self._below(X, k) if k else X
            while self._next() == k:
                self._one(below, k)
        return self

    def partial_fit(self, X: Any, y: "ArrayLike | None" = None) -> Self:  # noqa: ARG002  scikit-learn's signature
        """Go on for one pass: of the lowest layer that has not had all its epochs, or else of the top one."""
        self._check_layers()
        self.layers_ = getattr(self, "layers_", [])
        self._look(X)
        k = min(self._next(), len(self.layers) - 1)
        self._one(self._below(X, k) if k else X, k)
        return self

    def _look(self, X: Any) -> None:
        """Remember the size of the first image; an iterator is left alone."""
        images = Images(X, self.channels)
        first = None if images.once else next(iter(images), None)
        if first is not None:
            self.image_size_ = (int(first.shape[2]), int(first.shape[3]))

    def _next(self) -> int:
        """Return which layer has epochs left."""
        left = [_epochs(layer) < layer.n_epochs for layer in self.layers_]
        return left.index(True) if True in left else len(left)

    def _one(self, below: Any, k: int) -> int:
        """Let layer k learn for one epoch from what is below it; return how many it has had."""
        if k == len(self.layers_):  # before it learns, so that an interrupt leaves what it has reached
            self.layers_.append(clone(self.layers[k]).set_params(channels="first" if k else self.channels))
        layer = self.layers_[k].partial_fit(below)
        if self.progress is not None:
            self.progress(k, layer.n_epochs_, layer.n_epochs)
        return layer.n_epochs_

    def _check_layers(self) -> None:
        if not isinstance(self.layers, (list, tuple)) or not self.layers:
            raise ArgumentTypeError(f"layers={self.layers!r} must be a list of at least one ConvRBM")
        for k, layer in enumerate(self.layers):
            if not isinstance(layer, ConvRBM):
                raise ArgumentTypeError(f"layer {k} is {layer!r}, not a ConvRBM")
            if k and layer.visible != "binary":
                raise ArgumentError(
                    f"layer {k} sees pooling units, which are on or off: visible={layer.visible!r} must be 'binary'"
                )
            whole(layer.n_epochs, f"n_epochs of layer {k}")

    # --- what it says of images ---

    def transform(self, X: Any) -> "NDArray[np.float32]":
        """Return the top layer's pooling probabilities as rows ``(N, K * h * w)``, bottom-up; images of one size."""
        layers = self._ready()
        return stacked([self._up(v)[-1][1].flatten(1) for v in self._images(X, layers)])

    def get_feature_names_out(self, input_features: Any = None) -> "NDArray[np.object_]":  # noqa: ARG002  scikit-learn's signature
        """Return names such as ``r0c1_filter7``: row and column of the top layer's pooling unit, for images of `image_size_`.

        Raises
        ------
        ArgumentError
            If only iterators have been learned from, so that the size is unknown; or not all layers have been learned.
        """
        layers = self._ready()
        if not hasattr(self, "image_size_"):
            raise ArgumentError("the size of images is unknown, for all came from iterators; set image_size_ to (height, width)")
        rows, columns = (pixels for _, pixels in self._windows(self.image_size_, layers))
        for model in (layer.machine() for layer in layers):
            height, width = model.weight.shape[2:]
            rows, columns = (rows - height + 1) // model.pool, (columns - width + 1) // model.pool
        places = [f"r{i}c{j}" for i in range(rows) for j in range(columns)]
        return np.array([f"{place}_filter{k}" for k in range(len(layers[-1].filters_)) for place in places], dtype=object)

    def infer(
        self, X: Any, *, rounds: int = 5, top_down: "ArrayLike | None" = None
    ) -> "list[tuple[NDArray[np.float32], NDArray[np.float32]]]":
        """Return the probabilities of detectors and of pooling units of each layer, with what the layers above say.

        Mean field: after a pass upwards, `rounds` times each layer is updated from its neighbours, downwards and upwards.

        Parameters
        ----------
        X : images of one size
        rounds : int
            0 is the pass upwards alone.
        top_down : ndarray, optional
            Input to the top layer's pooling units, as in `ConvRBM.infer`.

        Returns
        -------
        list of tuple of ndarray
            ``(N, K, H', W')`` and ``(N, K, H'/pool, W'/pool)`` by layer.
        """
        layers = self._ready()
        if isinstance(rounds, bool) or not isinstance(rounds, (int, np.integer)) or rounds < 0:
            raise ArgumentError(f"rounds={rounds!r} must be a whole number of at least 0")
        above = None if top_down is None else torch.as_tensor(np.asarray(top_down, np.float32), device="cpu")
        found, done = [], 0
        for v in self._images(X, layers):
            part = None
            if above is not None:
                part = above[done : done + len(v)]
                lower = self._up(v)[-2][1] if len(layers) > 1 else v
                check_above(above, done, len(v), layers[-1].machine(), lower)
            states = self._up(v, part)
            order = [*range(len(layers) - 1)[::-1], *range(1, len(layers))]
            for _ in range(rounds):
                for k in order:
                    states[k] = self._update(v, states, k, part)
            found.append(states)
            done += len(v)
        if above is not None and done != len(above):
            raise ShapeError(f"top_down is given for {len(above)} images, and there are {done}")
        return [(stacked([s[k][0] for s in found]), stacked([s[k][1] for s in found])) for k in range(len(layers))]

    def reconstruct(self, X: Any) -> "NDArray[np.float32]":
        """Return what images look like from the top: their expectation, ``(N, C, H, W)``, in the images' units, trimmed.

        From the top downwards each layer says which pooling units below are on; where in its block a detector is on is taken
        from the pass upwards.
        """
        layers, made = self._ready(), []
        for v in self._images(X, layers):
            seen = [v, *(pools for _, pools in self._up(v))]
            h = self._up(v)[-1][0]
            for k in range(len(layers) - 1, 0, -1):
                pools = layers[k].machine().visible(h)
                below = layers[k - 1].machine()
                forced = torch.full_like(pools, float("inf"))
                h = below.hidden(seen[k - 1], forced)[0] * _spread(pools, below.pool)
            made.append(torch.from_numpy(layers[0].pixels(layers[0].machine().visible(h))))
        return stacked(made)

    def sample(
        self,
        n_samples: int = 1,
        size: tuple[int, int] = (64, 64),
        *,
        n_steps: int = 100,
        start: Any = None,
        random_state: Any = None,
    ) -> "NDArray[np.float32]":
        """Return images ``(N, C, H, W)`` that all layers make up together, by Gibbs sampling: the expectation in the last step.

        Parameters
        ----------
        n_samples : int
        size : tuple of int
            Height and width, trimmed to the blocks of all layers.
        n_steps : int
            In each, all layers are drawn, upwards, given their neighbours, and then the pixels.
        start : images, optional
            Where the chains begin, instead of at random pixels; `n_samples` and `size` are theirs.
        random_state : int, RandomState or None
            Of this call.
        """
        layers, steps = self._ready(), whole(n_steps, "n_steps")
        generator = torch.Generator("cpu").manual_seed(seed_of(random_state))
        first = layers[0].machine()
        if start is None:
            height, width = (part[1] for part in self._windows(size, layers))
            shape = (whole(n_samples, "n_samples"), len(layers[0].mean_), height, width)
            flat = torch.full(shape, 0.0 if first.gaussian else 0.5, dtype=torch.float32, device="cpu")
            v = first.draw_visible(flat, generator)
        else:
            v = torch.cat(list(self._images(start, layers)))
        states = self._up(v, generator=generator)
        for _ in range(steps):
            mean = first.visible(states[0][0])
            v = first.draw_visible(mean, generator)
            for k in range(len(layers)):
                states[k] = self._update(v, states, k, generator=generator)
        return layers[0].pixels(mean)

    def filters_of(self, layer: int) -> "NDArray[np.float32]":
        """Return the filters of a layer in pixels, for pictures: ``(K, C, h, w)``.

        Each is the sum of the filters below it, weighted with its own; that of a pooling unit stands at the middle of its block
        (the upper left one of four).

        Raises
        ------
        ArgumentError
            If there is no such layer, or it has not been learned.
        """
        check_is_fitted(self, "layers_")
        if not 0 <= layer < len(self.layers_) or not hasattr(self.layers_[layer], "filters_"):
            raise ArgumentError(
                f"layer={layer} is not one of the {len(self.layers_)} layers, counted from 0, that have been learned"
            )
        made = self.layers_[layer].machine().weight
        for below in self.layers_[:layer][::-1]:
            model = below.machine()
            made = F.conv_transpose2d(_middle(made, model.pool), model.weight)
        return made.numpy().copy()

    # --- layers and their neighbours ---

    def _ready(self) -> list[ConvRBM]:
        check_is_fitted(self, "layers_")
        done = sum(hasattr(layer, "filters_") for layer in self.layers_)
        if done < len(self.layers):
            raise ArgumentError(f"{done} of {len(self.layers)} layers have been learned; go on with partial_fit, or fit again")
        return self.layers_

    def _images(self, X: Any, layers: list[ConvRBM]) -> Iterator[Tensor]:
        """Yield images of one size as the first layer sees them, trimmed for all layers, a few at a time."""
        seen: Any = None
        for batch in Images(X, self.channels):
            if seen is not None and batch.shape[1:] != seen:
                raise ShapeError(
                    f"images of {tuple(seen)} and of {tuple(batch.shape[1:])} are mixed; give those of one size at a time"
                )
            seen = batch.shape[1:]
            (top, height), (left, width) = self._windows(tuple(batch.shape[2:]), layers)
            yield from layers[0].prepared(batch[:, :, top : top + height, left : left + width]).split(_TOGETHER)

    @staticmethod
    def _windows(size: Sequence[int], layers: list[ConvRBM]) -> list[tuple[int, int]]:
        """Return where the pixels that all layers use begin, and how many there are, along each axis."""
        found = []
        for axis, n in enumerate(size):
            kernels = [(layer.machine().weight.shape[2 + axis], layer.machine().pool) for layer in layers]
            starts, units = [], int(n)
            for kernel, pool in kernels:
                used = fitting(units, kernel, pool)
                starts.append((units - used) // 2)
                units = (used - kernel + 1) // pool
            start = 0
            for (kernel, pool), own in zip(kernels[::-1], starts[::-1], strict=True):
                start, units = own + pool * start, units * pool + kernel - 1
            found.append((start, units))
        return found

    def _up(
        self, v: Tensor, top_down: Tensor | None = None, generator: torch.Generator | None = None
    ) -> list[tuple[Tensor, Tensor]]:
        """Return detectors and pooling units of all layers by a pass upwards: probabilities, or draws."""
        states: list[tuple[Tensor, Tensor]] = []
        for k, layer in enumerate(self.layers_):
            model = layer.machine()
            found = model.hidden(states[-1][1] if states else v, top_down if k + 1 == len(self.layers_) else None)
            states.append(found if generator is None else _drawn(model, found, generator))
        return states

    def _update(
        self,
        v: Tensor,
        states: list[tuple[Tensor, Tensor]],
        k: int,
        top_down: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return layer k given its neighbours."""
        model = self.layers_[k].machine()
        if k + 1 < len(states):
            top_down = F.conv_transpose2d(states[k + 1][0], self.layers_[k + 1].machine().weight)
        found = model.hidden(states[k - 1][1] if k else v, top_down)
        return found if generator is None else _drawn(model, found, generator)

    def _below(self, X: Any, k: int) -> list[Tensor]:
        """Return the pooling probabilities ``(K, h, w)`` that layer k learns from, image by image; sizes may differ."""
        found: list[Tensor] = []
        for batch in Images(X, self.channels):
            for part in batch.split(_TOGETHER):
                maps = part
                for layer in self.layers_[:k]:
                    maps = layer.machine().hidden(layer.prepared(maps))[1]
                found += maps
        return found

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = False, True
        tags.transformer_tags.preserves_dtype = []
        return tags


def _epochs(layer: ConvRBM) -> int:
    return getattr(layer, "n_epochs_", 0)


def _drawn(model: Boltzmann, found: tuple[Tensor, Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw detectors, and say which pooling units are on then."""
    h = model.draw_hidden(*found, generator)
    return h, F.max_pool2d(h, model.pool)


def _spread(pools: Tensor, side: int) -> Tensor:
    """Return what each detector's pooling unit has."""
    return pools.repeat_interleave(side, 2).repeat_interleave(side, 3)


def _middle(pools: Tensor, side: int) -> Tensor:
    """Return detectors of which the middle one of each block has what its pooling unit has."""
    made = torch.zeros(*pools.shape[:2], pools.shape[2] * side, pools.shape[3] * side, dtype=pools.dtype, device=pools.device)
    made[:, :, (side - 1) // 2 :: side, (side - 1) // 2 :: side] = pools
    return made
