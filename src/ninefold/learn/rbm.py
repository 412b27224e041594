"""``ConvRBM``: filters that make images probable, with probabilistic max pooling (Lee et al. 2009; Deep Learning, 20.6)."""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from ninefold.errors import ArgumentError, ShapeError
from ninefold.learn.base import FilterSource, seed_of, size_of, tensor_of, whole
from ninefold.learn.boltzmann import Boltzmann, check_above, fitting, measured, stacked, trimmed
from ninefold.learn.images import BYTES, Channels, Images
from ninefold.learn.patches import Preparation

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

__all__ = ["ConvRBM"]


class ConvRBM(FilterSource):
    """A restricted Boltzmann machine whose detectors share their weights over the image, with probabilistic max pooling.

    Learned by contrastive divergence from whole images or crops. It is a source of filters like any other, and beyond that it
    infers (also from above), reconstructs and samples. The weights and both biases are those of `Boltzmann`.

    Inputs need not be scaled: Gaussian visibles have their mean (by channel) and their common deviation, taken from the images
    of the first pass, removed, and `sigma` is in units of that deviation. Photographs should be whitened
    (`whiten_photographs`), or the filters are blobs. Binary visibles must lie in 0..1 and may be probabilities.

    The learning rate depends neither on the size of an image nor on how rare activity is nor on sigma: a gradient is divided
    by the number of detectors that are on in the batch, so that it is a difference of mean patches, and one longer than a patch
    of unit deviation is clipped. Momentum averages gradients; it does not make steps longer.

    Detectors fill whole blocks: where ``H - h + 1`` is no multiple of `pool`, the image loses rows at its edges, half of the
    surplus at the top (rounded down) and the others at the bottom, and likewise columns.

    Parameters
    ----------
    n_filters : int
    patch_size : int or tuple of int
        Height and width of a filter.
    pool : int
        Side of a block; 1 is the machine without pooling.
    visible : {"gaussian", "binary"}
    learning_rate : float
        Of the first epoch; ``learning_rate / (1 + decay * t)`` in epoch t.
    decay : float
    momentum : tuple of float
        Before and from epoch `momentum_epoch` on.
    momentum_epoch : int
    weight_decay : float
        Share of a weight that is lost in a step, times the learning rate.
    sparsity : "auto", float or None
        Mean activity of detectors that the hidden biases are driven to; None leaves it to the data. "auto" lets about five
        detectors share a pixel, ``5 / (K h w)``, and none of a block's probabilities exceed a half.
    sparsity_cost : float
        Weight of that, relative to the gradient. A bias is drawn to the target, not held there.
    sigma : float
        Deviation of Gaussian visibles, in units of the images' own: what is left over by less is noise to the machine. Near 1
        suits whitened photographs, 0.4 the strokes of digits. Multiplied by `sigma_decay` after each epoch, down to
        `sigma_floor`, or to `sigma` if that is less.
    sigma_decay, sigma_floor : float
    cd_steps : int
        Steps of Gibbs sampling in the negative phase.
    n_epochs : int
    batch_size : int
        Images, or crops, of one step.
    crop : int, tuple of int or None
        Learn from crops of this size at random places; None takes whole images. Cut to a fitting size.
    n_crops : int
        Crops of each image in an epoch.
    channels : {"auto", "first", "last", "none"}
        As in `Images`.
    random_state : int, RandomState or None
    progress : callable, optional
        Called with (epochs done in this fit, epochs in all) after each.

    Attributes
    ----------
    hidden_bias_, visible_bias_ : ndarray
        ``(K,)`` and ``(C,)``.
    sigma_, mean_, scale_ : float, ndarray, float
        What Gaussian visibles have reached, and what is removed from images.
    errors_, sparsity_ : list of float
        By epoch: mean squared difference of images and their reconstructions, in squared deviations; mean activity of detectors.
    history_ : dict of str to list of float
        Those two as ``"error"`` and ``"sparsity"``.
    n_epochs_ : int
        Epochs done.

    Examples
    --------
    >>> images = np.random.default_rng(0).normal(size=(30, 9, 8))
    >>> rbm = ConvRBM(4, (3, 2), n_epochs=2, random_state=0).fit(images)
    >>> detectors, pools = rbm.infer(images)
    >>> rbm.filters_.shape, detectors.shape, pools.shape
    ((4, 1, 3, 2), (30, 4, 6, 6), (30, 4, 3, 3))
    """

    _model: Boltzmann
    _speed: list[Tensor]
    _target: float | None
    _random: Tensor

    def __init__(
        self,
        n_filters: int = 32,
        patch_size: int | tuple[int, int] = 6,
        *,
        pool: int = 2,
        visible: Literal["gaussian", "binary"] = "gaussian",
        learning_rate: float = 0.05,
        decay: float = 0.01,
        momentum: tuple[float, float] = (0.5, 0.9),
        momentum_epoch: int = 5,
        weight_decay: float = 0.01,
        sparsity: Any = "auto",
        sparsity_cost: float = 1.0,
        sigma: float = 1.0,
        sigma_decay: float = 0.97,
        sigma_floor: float = 0.7,
        cd_steps: int = 1,
        n_epochs: int = 20,
        batch_size: int = 10,
        crop: int | tuple[int, int] | None = None,
        n_crops: int = 1,
        channels: Channels = "auto",
        random_state: Any = None,
        progress: "Callable[[int, int], None] | None" = None,
    ) -> None:
        self.n_filters = n_filters
        self.patch_size = patch_size
        self.pool = pool
        self.visible = visible
        self.learning_rate = learning_rate
        self.decay = decay
        self.momentum = momentum
        self.momentum_epoch = momentum_epoch
        self.weight_decay = weight_decay
        self.sparsity = sparsity
        self.sparsity_cost = sparsity_cost
        self.sigma = sigma
        self.sigma_decay = sigma_decay
        self.sigma_floor = sigma_floor
        self.cd_steps = cd_steps
        self.n_epochs = n_epochs
        self.batch_size = batch_size
        self.crop = crop
        self.n_crops = n_crops
        self.channels = channels
        self.random_state = random_state
        self.progress = progress

    def fit(self, X: Any, y: "ArrayLike | None" = None) -> Self:  # noqa: ARG002  scikit-learn's signature
        """Learn from images, from the start; see `Images` for what these may be.

        An interrupt leaves what was reached, and `partial_fit` goes on from there.

        Raises
        ------
        ArgumentError, ShapeError
            If a parameter is out of its range, or the images do not fit.
        """
        images, epochs = Images(X, self.channels), whole(self.n_epochs, "n_epochs")
        if images.once and epochs > 1:
            raise ArgumentError(
                f"an iterator cannot be read n_epochs={epochs} times; give a list, or call partial_fit for each pass"
            )
        self._begun = False
        for k in range(epochs):
            self._pass(images)
            if self.progress is not None:
                self.progress(k + 1, epochs)
        return self

    def partial_fit(self, X: Any, y: "ArrayLike | None" = None) -> Self:  # noqa: ARG002  scikit-learn's signature
        """Go on for one pass over images; after an interrupt, too."""
        self._pass(Images(X, self.channels))
        return self

    def _pass(self, images: Images) -> None:
        batches: Iterable[Tensor] = images
        if images.once:
            stream = iter(images)
            first = next(stream, None)
            batches = [] if first is None else [first]
        if not getattr(self, "_begun", False):
            self._begin(batches)
        if images.once:
            batches = chain(batches, stream)
        self._check_parameters()
        sums, steps = torch.zeros(2, dtype=torch.float64, device="cpu"), 0
        generator = torch.Generator("cpu")
        generator.set_state(self._random)
        try:
            for v in self._minibatches(batches, generator):
                sums += self._step(v, generator)
                steps += 1
            self._finish(sums / max(1, steps))
        finally:
            self._random = generator.get_state()
            self._keep()

    def infer(self, X: Any, top_down: "ArrayLike | None" = None) -> "tuple[NDArray[np.float32], NDArray[np.float32]]":
        """Return the probabilities of detectors ``(N, K, H', W')`` and of pooling units ``(N, K, H'/pool, W'/pool)``.

        Parameters
        ----------
        X : images of one size
        top_down : ndarray, optional
            ``(N, K, H'/pool, W'/pool)``: added to the logits of each pooling unit's block. Infinity forces it on, so that its
            detectors share a probability of 1; minus infinity forces it off.

        Raises
        ------
        ShapeError
            If the images differ in size, do not fit, or `top_down` has another shape than the pooling units.
        """
        model = self.machine()
        above = None if top_down is None else torch.as_tensor(np.asarray(top_down, np.float32), device="cpu")
        found, done = [], 0
        for v in self._images(X):
            if above is not None:
                check_above(above, done, len(v), model, v)
            found.append(model.hidden(v, None if above is None else above[done : done + len(v)]))
            done += len(v)
        if above is not None and done != len(above):
            raise ShapeError(f"top_down is given for {len(above)} images, and there are {done}")
        return stacked([h for h, _ in found]), stacked([p for _, p in found])

    def reconstruct(self, X: Any, top_down: "ArrayLike | None" = None) -> "NDArray[np.float32]":
        """Return the expected images ``(N, C, H, W)`` of the detectors' probabilities, in the images' units, trimmed."""
        detectors, _ = self.infer(X, top_down)
        return np.concatenate([self.pixels(self._model.visible(h)) for h in torch.from_numpy(detectors).split(64)])

    def free_energy(self, X: Any) -> "NDArray[np.float32]":
        """Return the free energy ``(N,)`` of images of one size: the lower, the more probable, up to a constant of the model."""
        model = self.machine()
        return stacked([model.free_energy(v) for v in self._images(X)])

    def sample(
        self,
        n_samples: int = 1,
        size: tuple[int, int] = (32, 32),
        *,
        n_steps: int = 100,
        start: Any = None,
        top_down: "ArrayLike | None" = None,
        random_state: Any = None,
    ) -> "NDArray[np.float32]":
        """Return images ``(N, C, H, W)`` that the machine makes up by Gibbs sampling: the expectation in the last step.

        Parameters
        ----------
        n_samples : int
        size : tuple of int
            Height and width, trimmed to blocks.
        n_steps : int
            Of Gibbs sampling, all detectors and then all pixels.
        start : images, optional
            Where the chains begin, instead of at random pixels; `n_samples` and `size` are theirs.
        top_down : ndarray, optional
            As in `infer`, for the images trimmed.
        random_state : int, RandomState or None
            Of this call.
        """
        model, steps = self.machine(), whole(n_steps, "n_steps")
        generator = torch.Generator("cpu").manual_seed(seed_of(random_state))
        if start is None:
            height, width = (fitting(n, k, model.pool) for n, k in zip(size, model.weight.shape[2:], strict=True))
            shape = (whole(n_samples, "n_samples"), len(self.mean_), height, width)
            flat = torch.zeros(shape, dtype=torch.float32, device="cpu")
            v = model.draw_visible(flat if model.gaussian else flat + 0.5, generator)
        else:
            v = torch.cat(list(self._images(start)))
        above = None if top_down is None else torch.as_tensor(np.asarray(top_down, np.float32), device="cpu")
        if above is not None:
            check_above(above, 0, len(v), model, v)
        for _ in range(steps):
            mean = model.visible(model.draw_hidden(*model.hidden(v, above), generator))
            v = model.draw_visible(mean, generator)
        return self.pixels(mean)

    def machine(self) -> Boltzmann:
        """Return the model that was learned, for images as `prepared` returns them."""
        check_is_fitted(self, "filters_")
        return self._model

    def prepared(self, batch: Tensor) -> Tensor:
        """Return images ``(B, C, H, W)`` as the machine sees them: standardised unless binary, and trimmed to blocks."""
        return trimmed(self._standardised(batch), self._model.weight.shape[2:], self._model.pool)

    def pixels(self, v: Tensor) -> "NDArray[np.float32]":
        """Return what the machine sees, or makes up, in the images' units."""
        return (v * self.scale_ + tensor_of(self.mean_).view(1, -1, 1, 1)).numpy()

    def _images(self, X: Any) -> Iterator[Tensor]:
        """Yield images as the machine sees them, a few at a time, and refuse those of several sizes."""
        seen: Any = None
        for batch in Images(X, self.channels):
            if seen is not None and batch.shape[1:] != seen:
                raise ShapeError(
                    f"images of {tuple(seen)} and of {tuple(batch.shape[1:])} are mixed; give those of one size at a time"
                )
            seen = batch.shape[1:]
            yield from self.prepared(batch).split(64)

    def _check_parameters(self) -> None:
        for name in ("n_filters", "pool", "cd_steps", "batch_size", "n_crops"):
            whole(getattr(self, name), name)
        if self.visible not in ("gaussian", "binary"):
            raise ArgumentError(f"visible={self.visible!r} is not one of 'gaussian', 'binary'")
        for name in ("learning_rate", "sigma", "sigma_decay", "sigma_floor"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ArgumentError(f"{name}={getattr(self, name)} must be above 0 and finite")
        for name in ("decay", "weight_decay", "sparsity_cost", "momentum_epoch"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ArgumentError(f"{name}={getattr(self, name)} must not be below 0, and finite")
        if len(self.momentum) != 2 or not all(0 <= m < 1 for m in self.momentum):
            raise ArgumentError(f"momentum={self.momentum} must be two numbers of at least 0 and below 1")
        if self.sparsity not in ("auto", None) and not 0 < self.sparsity < 1 / self.pool**2:
            raise ArgumentError(f"sparsity={self.sparsity} must lie between 0 and 1/{self.pool**2}: one of a block is on at most")

    def _begin(self, batches: Iterable[Tensor]) -> None:
        """Measure the images and draw the first weights."""
        self._check_parameters()
        size, count, seed = size_of(self.patch_size), whole(self.n_filters, "n_filters"), seed_of(self.random_state)
        mean, deviation = measured(batches)
        if not deviation > 0:
            raise ArgumentError(f"all pixels of the images are {mean.tolist()} (by channel): there is nothing to learn")
        gaussian, channels = self.visible == "gaussian", len(mean)
        self.mean_ = mean.numpy() if gaussian else np.zeros(channels, np.float32)
        self.scale_ = deviation if gaussian else 1.0
        d = channels * size[0] * size[1]
        self._target = self.sparsity if self.sparsity != "auto" else min(5 / (count * size[0] * size[1]), 0.5 / self.pool**2)
        generator = torch.Generator("cpu").manual_seed(seed)
        weight = torch.randn(count, channels, *size, generator=generator, dtype=torch.float32, device="cpu").mul_(0.1 / d**0.5)
        sigma = float(self.sigma) if gaussian else 1.0
        free = 0.0 if self._target is None else np.log(self._target / (1 - self.pool**2 * self._target))
        hidden = torch.full((count,), sigma**2 * free, dtype=torch.float32, device="cpu")
        share = mean.clamp(0.01, 0.99)
        visible = torch.zeros_like(mean) if gaussian else (share / (1 - share)).log()
        self._model = Boltzmann(weight, hidden, visible, self.pool, gaussian, sigma)
        self._speed = [torch.zeros_like(p) for p in (weight, hidden, visible)]
        self._random, self._begun = generator.get_state(), True
        self.n_epochs_ = 0
        self.errors_: list[float] = []
        self.sparsity_: list[float] = []
        self.history_ = {"error": self.errors_, "sparsity": self.sparsity_}

    def _minibatches(self, batches: Iterable[Tensor], generator: torch.Generator) -> Iterator[Tensor]:
        """Yield standardised images or crops, of a size that blocks fill; those in memory together come in random order."""
        for held in self._whole(batches) if self.crop is None else self._crops(batches, generator):
            for part in torch.randperm(len(held), generator=generator, device="cpu").split(self.batch_size):
                yield held[part]

    def _whole(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        for batch in batches:
            yield self.prepared(batch)

    def _crops(self, batches: Iterable[Tensor], generator: torch.Generator) -> Iterator[Tensor]:
        """Yield crops of many images, so that a step does not see one alone."""
        model = self._model
        crop = size_of(self.crop)
        height, width = (fitting(n, k, model.pool) for n, k in zip(crop, model.weight.shape[2:], strict=True))
        held: list[Tensor] = []
        for batch in batches:
            room = batch.shape[2] - height + 1, batch.shape[3] - width + 1
            if min(room) < 1:
                raise ShapeError(f"crop={crop} does not fit into an image of {tuple(batch.shape[2:])}")
            for image in self._standardised(batch):
                tops, lefts = (torch.randint(n, (self.n_crops,), generator=generator, device="cpu").tolist() for n in room)
                held += [image[:, i : i + height, j : j + width] for i, j in zip(tops, lefts, strict=True)]
                if len(held) * held[0].nbytes >= BYTES:
                    yield torch.stack(held)
                    held = []
        if held:
            yield torch.stack(held)

    def _step(self, v: Tensor, generator: torch.Generator) -> Tensor:
        """Take one step of contrastive divergence; return error and activity."""
        model = self._model
        h, pools = model.hidden(v)
        first, sampled, after = model.chain(h, pools, self.cd_steps, generator)
        error = (v - first).square().mean()
        if not bool(error.isfinite()):
            raise ArgumentError(f"learning_rate={self.learning_rate} made the weights overflow; fit again with a smaller one")
        gradient = [p - n for p, n in zip(model.ascent(v, h), model.ascent(sampled, after), strict=True)]
        self._move(gradient, h)
        return torch.stack([error, h.mean()]).double()

    def _move(self, gradient: list[Tensor], h: Tensor) -> None:
        """Move along a gradient summed over a batch whose detectors have the probabilities `h`."""
        model, t = self._model, self.n_epochs_
        size = h.numel() / len(model.weight)  # detectors of a filter
        target = self._target
        active = max(1.0, size * (float(h.mean()) if target is None else max(target, float(h.mean()))))
        weight, hidden = (g * (model.sigma**2 / active) for g in gradient[:2])
        visible = gradient[2] * (model.sigma**2 / size)
        weight -= self.weight_decay * model.weight
        if target is not None:
            hidden += self.sparsity_cost * model.sigma**2 * (1 - h.mean((0, 2, 3)) / target).clamp(-1, 1)
        rate = self.learning_rate / (1 + self.decay * t)
        momentum = self.momentum[t >= self.momentum_epoch]
        parameters = (model.weight, model.hidden_bias, model.visible_bias)
        limits = (weight[0].numel() ** 0.5, 1.0, 1.0)
        for parameter, speed, ascent, most in zip(parameters, self._speed, (weight, hidden, visible), limits, strict=True):
            length = ascent.flatten(1).norm(dim=1).view(-1, 1, 1, 1) if ascent.ndim > 1 else ascent.abs()
            speed.mul_(momentum).add_(ascent.mul_(most / length.clamp_min(most)), alpha=rate * (1 - momentum))
            parameter.add_(speed)

    def _finish(self, means: Tensor) -> None:
        """End an epoch."""
        self.errors_.append(float(means[0]))
        self.sparsity_.append(float(means[1]))
        self.n_epochs_ += 1
        if self._model.gaussian:
            self._model.sigma = max(min(self.sigma, self.sigma_floor), self._model.sigma * self.sigma_decay)

    def _keep(self) -> None:
        """Publish what was learned so far."""
        model = self._model
        d = model.weight[0].numel()
        preparation = Preparation.none(d)
        if model.gaussian:
            each = tensor_of(self.mean_).repeat_interleave(d // len(self.mean_))
            preparation.mean, preparation.matrix = each, preparation.matrix / self.scale_
        self._learned(model.weight, preparation)
        self.hidden_bias_, self.visible_bias_ = model.hidden_bias.numpy().copy(), model.visible_bias.numpy().copy()
        self.sigma_ = model.sigma

    def _standardised(self, batch: Tensor) -> Tensor:
        if batch.shape[1] != len(self.mean_):
            raise ShapeError(f"images of {batch.shape[1]} channels among, or after, those of {len(self.mean_)} channels")
        if self._model.gaussian:
            return (batch - tensor_of(self.mean_).view(1, -1, 1, 1)) / self.scale_
        least, most = float(batch.min()), float(batch.max())
        if least < 0 or most > 1:
            raise ArgumentError(
                f"pixels from {least:g} to {most:g} are no probabilities: scale them to 0..1, or take visible='gaussian'"
            )
        return batch
