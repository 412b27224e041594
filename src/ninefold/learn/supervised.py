"""``SupervisedFilters``: a layer of filters learned from labels, under a head that is thrown away."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from ninefold import functional as F
from ninefold.errors import ArgumentError, ShapeError
from ninefold.learn.base import FilterSource, seed_of, size_of, whole
from ninefold.learn.compare import Compared
from ninefold.learn.encoders import SoftThreshold, encoder_named
from ninefold.learn.images import Channels, Images
from ninefold.learn.layers import PooledRows
from ninefold.learn.patches import Preparation, draw_patches
from ninefold.learn.pooling import GridPool

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

__all__ = ["SupervisedFilters", "labels_of"]


class SupervisedFilters(FilterSource):
    """Filters that tell labels apart: learned with pooling and a linear classifier behind them, which are thrown away.

    One layer of greedy supervised training (Bengio, Lamblin, Popovici and Larochelle 2007; Deep Learning, 8.7.4): a convolution,
    a soft threshold, pooling, and a softmax over classes, trained together on the cross-entropy by Adam. Patches have the mean
    patch removed and are whitened, but not divided by their own deviation, so that the filters are those of a
    convolution with a bias. The encoder behind the filters should be the one that they were trained with.

    Images go by in batches of about 16 MB, mixed within each: more than that should not come sorted by label.

    Parameters
    ----------
    n_filters : int
    patch_size : int or tuple of int
        Height and width of a filter.
    encoder : SoftThreshold or "soft"
        What filters are trained with.
    grid : int or tuple of int
        Rows and columns of regions of the head's pooling.
    operation : {"mean", "max", "sum"}
    n_epochs : int
    learning_rate : float
        At the start; it goes down to zero along a cosine.
    batch_size : int
        Images of one step.
    weight_decay : float
        Of filters and head, apart from the gradient (AdamW).
    whitening : float or None
        Added to the eigenvalues of the covariance of patches, in units of the variance of their values; None does not whiten.
    n_patches : int
        How many patches to learn the whitening from, at most.
    channels : {"auto", "first", "last", "none"}
        As in `Images`.
    random_state : int, RandomState or None
    progress : callable, optional
        Called with (epochs done, epochs in all) after each.

    Attributes
    ----------
    losses_ : list of float
        Mean cross-entropy by epoch, each mini-batch before its step.
    classes_ : ndarray

    Examples
    --------
    >>> rng, y = np.random.default_rng(0), np.arange(20) % 2
    >>> images = np.where(y[:, None, None], np.eye(8), np.eye(8)[::-1]) + rng.normal(size=(20, 8, 8)) * 0.1
    >>> source = SupervisedFilters(4, (3, 2), n_epochs=20, random_state=0).fit(images, y)
    >>> source.filters_.shape, source.losses_[-1] < 0.5 * source.losses_[0]
    ((4, 1, 3, 2), True)
    """

    losses_: list[float]
    classes_: "NDArray[Any]"

    def __init__(
        self,
        n_filters: int = 64,
        patch_size: int | tuple[int, int] = 6,
        *,
        encoder: Any = "soft",
        grid: int | tuple[int, int] = 2,
        operation: str = "mean",
        n_epochs: int = 40,
        learning_rate: float = 0.01,
        batch_size: int = 32,
        weight_decay: float = 0.01,
        whitening: float | None = 0.1,
        n_patches: int = 100_000,
        channels: Channels = "auto",
        random_state: Any = None,
        progress: "Callable[[int, int], None] | None" = None,
    ) -> None:
        self.n_filters = n_filters
        self.patch_size = patch_size
        self.encoder = encoder
        self.grid = grid
        self.operation = operation
        self.n_epochs = n_epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.weight_decay = weight_decay
        self.whitening = whitening
        self.n_patches = n_patches
        self.channels = channels
        self.random_state = random_state
        self.progress = progress

    def fit(self, X: Any, y: "ArrayLike | None" = None) -> Self:
        """Learn from images and their labels; see `Images` for what images may be. An interrupt leaves what was there before.

        Raises
        ------
        ArgumentError
            If labels are missing, do not match the images, hold NaN or are all the same; a parameter is out of its range.
        ShapeError
            If an image is smaller than a filter, or its map than the grid.
        """
        images, encoder = Images(X, self.channels), self._checked()
        classes, targets = labels_of(y, images.count() if not images.skipped else None)
        if images.once:
            raise ArgumentError("an iterator cannot be read for every epoch; give a list")
        seed = seed_of(self.random_state)
        preparation = self._preparation(draw_patches(images, size_of(self.patch_size), whole(self.n_patches, "n_patches"), seed))
        first = next(iter(images))
        head = _Headed(self, encoder, preparation, tuple(first.shape[1:]), len(classes), torch.Generator("cpu").manual_seed(seed))
        self.losses_ = self._train(head, images, torch.from_numpy(targets))
        self.classes_ = classes
        atoms = head.atoms.detach()
        return self._learned(atoms.reshape(len(atoms), first.shape[1], *size_of(self.patch_size)), preparation)

    def _checked(self) -> SoftThreshold:
        for name in ("n_filters", "n_epochs", "batch_size"):
            whole(getattr(self, name), name)
        if not self.learning_rate > 0 or not self.weight_decay >= 0:
            raise ArgumentError(
                f"learning_rate={self.learning_rate} must be above 0, and weight_decay={self.weight_decay} not below"
            )
        encoder = encoder_named(self.encoder)
        if type(encoder) is not SoftThreshold:
            raise ArgumentError(f"encoder={self.encoder!r} is not 'soft' or a SoftThreshold, which filters are trained through")
        return encoder

    def _preparation(self, patches: Tensor) -> Preparation:
        """Return the whitening of patches in units of their deviation, none of it being a patch's own."""
        scale = float(patches.std()) if patches.numel() > 1 else 1.0
        scale = scale if scale > 0 else 1.0
        made = Preparation.fitted(patches / scale, None, self.whitening)
        mean = made.mean * scale if self.whitening is not None else patches.flatten(1).mean(0)
        return Preparation(mean, made.matrix / scale, float("inf"))

    def _train(self, head: "_Headed", images: Images, targets: Tensor) -> list[float]:
        optimiser = torch.optim.AdamW(head.parameters(), self.learning_rate, weight_decay=self.weight_decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.n_epochs)
        losses = []
        for epoch in range(self.n_epochs):
            total, seen = 0.0, 0
            for part, wanted in self._minibatches(images, targets, head.generator):
                loss = torch.nn.functional.cross_entropy(head(part), wanted, reduction="sum")
                (loss / self.batch_size).backward()
                total += float(loss.detach())
                if (seen + len(part)) // self.batch_size > seen // self.batch_size:
                    _step(optimiser)
                seen += len(part)
            if seen % self.batch_size:
                _step(optimiser)
            schedule.step()
            losses.append(total / seen)
            if self.progress is not None:
                self.progress(epoch + 1, self.n_epochs)
        return losses

    def _minibatches(self, images: Images, targets: Tensor, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        done = 0
        for batch in images:
            wanted = targets[done : done + len(batch)]
            if len(wanted) == len(batch):
                for part in torch.randperm(len(batch), generator=generator, device="cpu").split(self.batch_size):
                    yield batch[part], wanted[part]
            done += len(batch)
        if done != len(targets):
            skipped = f", {len(images.skipped)} more could not be read" if images.skipped else ""
            raise ArgumentError(f"y holds {len(targets)} labels, and there are {done} images{skipped}; give one for each")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags


class _Headed(torch.nn.Module):
    """Filters in the space of prepared patches, and the head that is thrown away."""

    def __init__(
        self,
        of: SupervisedFilters,
        encoder: SoftThreshold,
        preparation: Preparation,
        shape: tuple[int, ...],
        classes: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.encoder, self.preparation, self.generator = encoder, preparation, generator
        self.kernel = (shape[0], *size_of(of.patch_size))
        pooling = GridPool(of.grid, of.operation)
        self.pooling = PooledRows(pooling)
        d = self.kernel[0] * self.kernel[1] * self.kernel[2]
        drawn = torch.randn(of.n_filters, d, generator=generator, dtype=torch.float32, device="cpu")
        self.atoms = torch.nn.Parameter(drawn / drawn.norm(dim=1, keepdim=True))
        width = len(pooling.names()) * encoder.width(of.n_filters)
        self.weight = torch.nn.Parameter(torch.zeros(classes, width, dtype=torch.float32, device="cpu"))
        self.bias = torch.nn.Parameter(torch.zeros(classes, dtype=torch.float32, device="cpu"))

    def forward(self, images: Tensor) -> Tensor:
        """Return the score of every class."""
        if images.shape[1] != self.kernel[0]:
            raise ShapeError(
                f"images of {self.kernel[0]} and of {images.shape[1]} channels are mixed; convert them to one number"
            )
        if images.shape[2] < self.kernel[1] or images.shape[3] < self.kernel[2]:
            raise ShapeError(f"images of {tuple(images.shape[2:])} are smaller than the filters, {self.kernel[1:]}")
        kernels, offsets = self.preparation.folded(self.atoms)
        dots = F.conv2d(images, kernels.view(-1, *self.kernel), -offsets)
        compared = Compared(dots, None, images, None)  # type: ignore[arg-type]
        maps = self.encoder(compared)  # which only looks at the products
        return torch.nn.functional.linear(self.pooling(maps), self.weight, self.bias)


def _step(optimiser: torch.optim.Optimizer) -> None:
    optimiser.step()
    optimiser.zero_grad()


def labels_of(y: Any, count: int | None) -> "tuple[NDArray[Any], NDArray[np.int64]]":
    """Return the classes, and which of them each label is.

    Raises
    ------
    ArgumentError
        If there are no labels, not one for each of `count` images, NaN among them, or one class only.

    Examples
    --------
    >>> labels_of(["b", "a", "b"], 3)
    (array(['a', 'b'], dtype='<U1'), array([1, 0, 1]))
    """
    if y is None:
        raise ArgumentError("learning filters from labels requires y to be passed, but the target y is None")
    labels = np.asarray(y)
    if labels.ndim != 1 or (count is not None and len(labels) != count):
        wanted = "the images" if count is None else f"{count} images"
        raise ArgumentError(f"y has shape {labels.shape}; it must hold one label for each of {wanted}")
    if labels.dtype.kind in "fc" and not np.isfinite(labels).all():
        raise ArgumentError(f"y holds {int((~np.isfinite(labels)).sum())} labels of NaN or infinity")
    classes, targets = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise ArgumentError(f"y holds {len(classes)} class, {classes.tolist()}; filters cannot be learned from fewer than two")
    return classes, targets.astype(np.int64).reshape(-1)
