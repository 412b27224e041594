"""An encoder and a decoder with switches: features that a shift leaves alone, beside the shift (Ranzato et al. 2007b)."""

from itertools import chain
from statistics import fmean
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from ninefold import functional as F
from ninefold.errors import ArgumentError, ShapeError
from ninefold.learn.base import FilterSource, seed_of, size_of, tensor_of, whole
from ninefold.learn.coding import analysis, lipschitz, synthesis
from ninefold.learn.images import Channels, Images
from ninefold.learn.patches import Preparation, draw_patches
from ninefold.learn.simple import at_most

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SparseEncoderDecoder"]

_EACH = 1 << 22
"""Values of feature maps at a time, about."""


class SparseEncoderDecoder(FilterSource):
    """Convolutions, the largest of each window, a sigmoid; and a decoder that is told where the largest stood.

    The code is ``f(x) = sigmoid(gain (max over a window of W_k x + b_k))`` with the positions of the maxima, the switches. The
    decoder puts each code at its switch, zeros elsewhere, and adds up its atoms: ``x ~ sum_k D_k * unpool(z_k)``. A shift within
    windows changes switches and leaves features alone. Learning alternates: for some images the code is improved,

        |x - sum_k D_k * unpool(z_k, s)|^2 / 2 + pull |z - f(x)|^2 / 2 + penalty sum z,    z from 0 to 1, s = s(x),

    by projected gradient from ``f(x)``; then decoder and encoder each take a step (Adam) towards it, and atoms of the decoder go
    back to norms of at most 1. Images are shifted and scaled so that patches have squared norm 1 in the mean. The paper's 0.64%
    on MNIST is reported for more than this one level: a second one and a classifier trained with it.

    Parameters
    ----------
    n_filters : int
    patch_size : int or tuple of int
        Height and width of a filter.
    window : int or tuple of int
        Height and width of the windows, side by side; rows and columns of maps that fill none are left out.
    penalty : float
        Of what features sum to; a code of 1 explains a squared norm of 1, as a mean patch has, at the most.
    pull : float
        Of codes towards the encoder.
    gain : float
        Of the sigmoid.
    n_epochs : int
    batch_size : int
        Crops in a step.
    crop : int
        Windows along a side of a crop, at most.
    n_crops : int
        Drawn from the images for learning, at most.
    learning_rate : float
    code_iter : int
        Steps of projected gradient for the codes.
    channels : {"auto", "first", "last", "none"}
        As in `Images`.
    random_state : int, RandomState or None

    Attributes
    ----------
    encoder_weight_, encoder_bias_ : ndarray
        ``(K, C, h, w)`` and ``(K,)``, for images less `mean_` and divided by `scale_`; `filters_` is the weight for images as
        they are.
    decoder_weight_ : ndarray
        ``(K, C, h, w)``.
    mean_, scale_ : float
    objective_, error_, activity_ : list of float
        By step: the objective of the improved code, and ``|x - D * unpool(f(x))|^2 / 2``, both over ``|x|^2 / 2``; and the mean
        feature.
    history_ : dict of str to list of float
        By epoch, the means over its steps: ``"error"``, of `error_`, and ``"sparsity"``, of `activity_`.

    Examples
    --------
    >>> images = np.random.default_rng(0).normal(size=(8, 13, 14))
    >>> source = SparseEncoderDecoder(5, (3, 4), window=(2, 3), n_epochs=1, random_state=0).fit(images)
    >>> features, switches = source.encode(images)
    >>> features.shape, switches.shape, source.decode(features, switches).shape
    ((8, 5, 5, 3), (8, 5, 5, 3), (8, 1, 12, 12))
    """

    _values: list[Tensor]

    def __init__(
        self,
        n_filters: int = 64,
        patch_size: int | tuple[int, int] = 7,
        *,
        window: int | tuple[int, int] = 2,
        penalty: float = 0.1,
        pull: float = 1.0,
        gain: float = 5.0,
        n_epochs: int = 10,
        batch_size: int = 32,
        crop: int = 4,
        n_crops: int = 4096,
        learning_rate: float = 0.01,
        code_iter: int = 5,
        channels: Channels = "auto",
        random_state: Any = None,
    ) -> None:
        self.n_filters = n_filters
        self.patch_size = patch_size
        self.window = window
        self.penalty = penalty
        self.pull = pull
        self.gain = gain
        self.n_epochs = n_epochs
        self.batch_size = batch_size
        self.crop = crop
        self.n_crops = n_crops
        self.learning_rate = learning_rate
        self.code_iter = code_iter
        self.channels = channels
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002  scikit-learn's signature
        """Learn from crops of images; an interrupt leaves what the last step reached, and `partial_fit` goes on.

        Raises
        ------
        ArgumentError, ArgumentTypeError, ShapeError
            If a parameter is out of its range, or the images do not fit, or are constant.
        """
        self.__dict__.pop("_values", None)
        return self._run(X, whole(self.n_epochs, "n_epochs"))

    def partial_fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002  scikit-learn's signature
        """Go on for one epoch, with more images; the first call fixes what is taken off them and their scale.

        Raises
        ------
        ArgumentError, ArgumentTypeError, ShapeError
            As `fit`; and if the images have other channels than those before.

        Examples
        --------
        >>> images = np.random.default_rng(0).normal(size=(8, 13, 14))
        >>> source = SparseEncoderDecoder(5, (3, 4), random_state=0)
        >>> source.partial_fit(images[:4]).partial_fit(images[4:]).filters_.shape
        (5, 1, 3, 4)
        """
        return self._run(X, 1)

    def _run(self, X: Any, epochs: int) -> Self:
        batch = self._check()
        seed = seed_of(self.random_state)
        crops = self._crops(X, seed)
        generator = torch.Generator("cpu").manual_seed(seed)
        if not hasattr(self, "_values"):
            self._start(crops, seed)
        elif crops.shape[1] != self._values[0].shape[1]:
            raise ShapeError(f"images of {crops.shape[1]} channels, but the filters have {self._values[0].shape[1]}")
        try:
            for _ in range(epochs):
                order = torch.randperm(len(crops), generator=generator, device="cpu")
                for chosen in order.split(batch):
                    self._step((crops[chosen] - self.mean_) / self.scale_)
                steps = -(-len(crops) // batch)
                self.history_["error"].append(fmean(self.error_[-steps:]))
                self.history_["sparsity"].append(fmean(self.activity_[-steps:]))
        finally:
            self._keep()
        return self

    def _check(self) -> int:
        for name in ("n_filters", "n_crops", "crop", "code_iter"):
            whole(getattr(self, name), name)
        size_of(self.patch_size)
        self._windows()
        for name in ("gain", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ArgumentError(f"{name}={getattr(self, name)} must be above 0")
        for name in ("penalty", "pull"):
            if not getattr(self, name) >= 0:
                raise ArgumentError(f"{name}={getattr(self, name)} must not be below 0")
        return whole(self.batch_size, "batch_size")

    def _windows(self) -> tuple[int, int]:
        pair = self.window if isinstance(self.window, (tuple, list)) else (self.window, self.window)
        if len(pair) != 2:
            raise ArgumentError(f"window={self.window!r} must be one whole number or two")
        return whole(pair[0], "window"), whole(pair[1], "window")

    def _crops(self, X: Any, seed: int) -> Tensor:
        """Draw crops that windows fill, no larger than the first image."""
        images = Images(X, self.channels)
        if images.once:
            first = next(images.source, None)
            if first is None:
                raise ArgumentError("there are no images to learn from")
            images = Images(chain((first,), images.source), self.channels)
            one = next(iter(Images([first], self.channels)))
        else:
            found = next(iter(images), None)
            if found is None:
                raise ArgumentError("there are no images to learn from")
            one = found
        filled = self._filled(one.shape[2], one.shape[3])
        sides = [p - 1 + w * min(n, self.crop) for p, w, n in zip(size_of(self.patch_size), self._windows(), filled, strict=True)]
        return draw_patches(images, (sides[0], sides[1]), self.n_crops, seed)

    def _filled(self, height: int, width: int) -> tuple[int, int]:
        """Return how many windows an image of this size fills."""
        (h, w), (rows, columns) = size_of(self.patch_size), self._windows()
        filled = (height - h + 1) // rows, (width - w + 1) // columns
        if min(filled) < 1:
            raise ShapeError(
                f"an image of {height}x{width} fills no window of {rows}x{columns} positions of a filter of {h}x{w}; it must be "
                f"{h + rows - 1}x{w + columns - 1} at least"
            )
        return filled

    def _start(self, crops: Tensor, seed: int) -> None:
        size, channels = size_of(self.patch_size), crops.shape[1]
        deviation = float(crops.double().std(correction=0))
        if not deviation > 1e-6 * float(crops.abs().max()):
            raise ArgumentError(f"all {len(crops)} crops are constant: nothing can be learned from them")
        self.mean_, self.scale_ = float(crops.double().mean()), deviation * (channels * size[0] * size[1]) ** 0.5
        atoms = (draw_patches(Images(crops, "first"), size, self.n_filters, seed) - self.mean_) / self.scale_
        atoms = _within(atoms[: at_most(self.n_filters, len(atoms))])
        bias = torch.full((len(atoms),), -0.5, dtype=torch.float32, device="cpu")
        self._values = [atoms.clone().requires_grad_(), bias.requires_grad_(), atoms.clone().requires_grad_()]
        self._optimizer = torch.optim.Adam(self._values, lr=self.learning_rate)
        self.objective_: list[float] = []
        self.error_: list[float] = []
        self.activity_: list[float] = []
        self.history_: dict[str, list[float]] = {"error": [], "sparsity": []}

    def _step(self, x: Tensor) -> None:
        weight, bias, decoder = self._values
        with torch.enable_grad():
            features, switches = self._encoded(x, weight, bias)
            with torch.no_grad():
                code, objective = self._improved(x, features.detach(), switches, decoder)
            left = x - self._decoded(code, switches, decoder)
            loss = (left.square().sum() + self.pull * (code - features).square().sum()) / (2 * len(x))
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        with torch.no_grad():
            energy = float(x.square().sum()) / 2
            error = float((x - self._decoded(features.detach(), switches, decoder)).square().sum()) / 2
            decoder.copy_(_within(decoder))
        self.objective_.append(objective / energy)
        self.error_.append(error / energy)
        self.activity_.append(float(features.detach().mean()))

    def _improved(self, x: Tensor, features: Tensor, switches: Tensor, decoder: Tensor) -> tuple[Tensor, float]:
        """Return the code after steps of projected gradient from the features, and its objective."""
        step = 1 / (lipschitz(decoder, (x.shape[2], x.shape[3])) + self.pull)
        code = features
        for _ in range(self.code_iter):
            products = analysis(x - self._decoded(code, switches, decoder), decoder)
            slope = products.flatten(2).gather(2, switches.flatten(2)).view_as(code)
            code = (code + step * (slope - self.pull * (code - features) - self.penalty)).clamp_(0, 1)
        return code, self._objective(x, code, features, switches, decoder)

    def _objective(self, x: Tensor, code: Tensor, features: Tensor, switches: Tensor, decoder: Tensor) -> float:
        left = (x - self._decoded(code, switches, decoder)).double().square().sum()
        return float(left / 2 + self.pull / 2 * (code - features).double().square().sum() + self.penalty * code.double().sum())

    def _encoded(self, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        windows, filled = self._windows(), self._filled(x.shape[2], x.shape[3])
        maps = F.conv2d(x, weight)[:, :, : filled[0] * windows[0], : filled[1] * windows[1]].contiguous()
        largest, switches = F.max_pool2d(maps, windows, return_indices=True)
        return torch.sigmoid(self.gain * (largest + bias.view(-1, 1, 1))), switches

    def _decoded(self, code: Tensor, switches: Tensor, decoder: Tensor) -> Tensor:
        """Return images as large as the windows and a border of the filters; what they do not reach of an image is zero."""
        return synthesis(F.max_unpool2d(code, switches, self._windows()), decoder)

    def _keep(self) -> None:
        weight, bias, decoder = (v.detach().clone() for v in self._values)
        self.encoder_weight_, self.encoder_bias_, self.decoder_weight_ = weight.numpy(), bias.numpy(), decoder.numpy()
        preparation = Preparation.none(weight[0].numel())
        preparation.mean += self.mean_
        preparation.matrix /= self.scale_
        self._learned(weight, preparation)

    def encode(self, X: Any) -> "tuple[NDArray[np.float32], NDArray[np.int64]]":
        """Return features ``(N, K, H', W')`` and switches of the same shape, of images of one size.

        Switches are flat positions in the map of a filter, cut to what windows fill, as `ninefold.functional.max_pool2d` returns
        them.

        Raises
        ------
        ArgumentError, ShapeError
            If there are no images, or they differ in size, or fill no window.
        """
        check_is_fitted(self, "encoder_weight_")
        weight, bias = tensor_of(self.encoder_weight_), tensor_of(self.encoder_bias_)
        found: list[tuple[Tensor, Tensor]] = []
        with torch.no_grad():
            for batch in Images(X, self.channels):
                for part in batch.split(max(1, _EACH // (len(weight) * batch.shape[2] * batch.shape[3]))):
                    found.append(self._encoded((part - self.mean_) / self.scale_, weight, bias))
                    if found[0][0].shape[1:] != found[-1][0].shape[1:]:
                        raise ShapeError(
                            "images of different sizes have features of different sizes; give those of one at a time"
                        )
        if not found:
            raise ArgumentError("there are no images")
        features, switches = (torch.cat(parts) for parts in zip(*found, strict=True))
        return features.numpy(), switches.numpy()

    def decode(self, features: Any, switches: Any) -> "NDArray[np.float32]":
        """Return images ``(N, C, H, W)`` from features and switches, in the units of those that were learned from.

        Raises
        ------
        ShapeError
            If their shapes differ, or a switch lies outside the map.
        """
        check_is_fitted(self, "decoder_weight_")
        code = torch.from_numpy(np.array(features, np.float32))
        decoder = tensor_of(self.decoder_weight_)
        made = self._decoded(code, torch.from_numpy(np.array(switches, np.int64)), decoder)
        return (made * self.scale_ + self.mean_).numpy()

    def reconstruct(self, X: Any) -> "NDArray[np.float32]":
        """Return what the decoder makes of the features and switches of images."""
        return self.decode(*self.encode(X))


def _within(atoms: Tensor) -> Tensor:
    """Return atoms, those of a norm above 1 shortened to it."""
    return atoms / atoms.flatten(1).norm(dim=1).clamp_min(1).view(-1, 1, 1, 1)
