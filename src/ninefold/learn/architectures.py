"""One stage of convolution as an architecture: with random filters as features, or as a network that is trained whole."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import product
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ninefold import nn
from ninefold.errors import ArgumentError
from ninefold.learn.base import size_of, whole
from ninefold.learn.compare import Compared
from ninefold.learn.encoders import Encoder
from ninefold.learn.features import ConvFeatures
from ninefold.learn.pooling import GridPool
from ninefold.learn.simple import RandomFilters

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Architecture", "Stage", "StageNetwork", "architectures_of", "train"]

_WINDOW = 9
_ENCODERS = ("rectified", "relu", "split", "square")


@dataclass(frozen=True)
class Architecture:
    """Filters, a non-linearity, normalisation and pooling: what is compared before anything is learned.

    Attributes
    ----------
    n_filters : int
    patch_size : int or tuple of int
    stride : int
    encoder : {"rectified", "relu", "split", "square"}
        ``|tanh|`` (Jarrett 2009), the positive part, the positive parts of both signs, or the square (Saxe 2011).
    normalise : bool
        Local contrast normalisation behind it.
    grid : int or tuple of int
        Rows and columns of regions that are pooled over.
    operation : {"mean", "max"}

    Examples
    --------
    >>> print(Architecture(16, (3, 5), encoder="split", grid=3))
    16 filters of 3x5, stride 1, split, 3x3 mean
    """

    n_filters: int = 32
    patch_size: int | tuple[int, int] = 5
    stride: int = 1
    encoder: str = "rectified"
    normalise: bool = False
    grid: int | tuple[int, int] = 2
    operation: str = "mean"

    def __post_init__(self) -> None:
        for name in ("patch_size", "grid"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        whole(self.n_filters, "n_filters")
        whole(self.stride, "stride")
        size_of(self.patch_size)
        self.cells()
        if self.encoder not in _ENCODERS:
            raise ArgumentError(
                f"encoder={self.encoder!r} is not one of {list(_ENCODERS)}, which a network can be trained through"
            )
        if self.operation not in ("mean", "max"):
            raise ArgumentError(f"operation={self.operation!r} is not one of 'mean', 'max'")

    def __str__(self) -> str:
        (height, width), (rows, columns) = size_of(self.patch_size), self.cells()
        norm = ", normalised" if self.normalise else ""
        return (
            f"{self.n_filters} filters of {height}x{width}, stride {self.stride}, {self.encoder}{norm}, {rows}x{columns} "
            f"{self.operation}"
        )

    def cells(self) -> tuple[int, int]:
        """Return rows and columns of regions."""
        return GridPool(self.grid)._cells()  # noqa: SLF001  the same rule

    def misfit(self, height: int, width: int) -> str | None:
        """Return why it takes no images of that size, or None."""
        size, cells = size_of(self.patch_size), self.cells()
        if size[0] > height or size[1] > width:
            return f"filters of {size[0]}x{size[1]} are larger than images of {height}x{width}"
        maps = [(n - k) // self.stride + 1 for n, k in zip((height, width), size, strict=True)]
        if maps[0] < cells[0] or maps[1] < cells[1]:
            return f"maps of {maps[0]}x{maps[1]} positions cannot be cut into {cells[0]}x{cells[1]} regions"
        return None

    def filters(self, images: Tensor, seed: int) -> RandomFilters:
        """Return random filters for images ``(N, C, H, W)``."""
        return RandomFilters(self.n_filters, self.patch_size, channels="first", random_state=seed).fit(images[:1])

    def features(self, images: Tensor, source: RandomFilters) -> "NDArray[np.float32]":
        """Return features ``(N, F)`` of images ``(N, C, H, W)``, float32."""
        pooling = GridPool(self.grid, self.operation)
        stage = Stage(self.encoder, normalise=self.normalise)
        made = ConvFeatures(source, stage, pooling, stride=self.stride, prefit=True, channels="first")
        return made.fit(images[:1]).transform(images)


class Stage(Encoder):
    """The non-linearity and normalisation of an `Architecture`, which gradients pass.

    Parameters
    ----------
    kind : {"rectified", "relu", "split", "square"}
    normalise : bool
    """

    def __init__(self, kind: str = "rectified", *, normalise: bool = False) -> None:
        self.kind = kind
        self.normalise = normalise

    def width(self, atoms: int) -> int:
        """Return 2K if both signs have values of their own."""
        return 2 * atoms if self.kind == "split" else atoms

    def __call__(self, compared: Compared) -> Tensor:
        """Return it."""
        return self.of(compared.dots)

    def of(self, x: Tensor) -> Tensor:
        """Return it of maps ``(B, K, h, w)``."""
        if self.kind == "rectified":
            out = torch.tanh(x).abs()
        elif self.kind == "square":
            out = x.square()
        else:
            out = torch.relu(torch.cat([x, -x], 1) if self.kind == "split" else x)
        if not self.normalise:
            return out
        window = tuple(min(_WINDOW, n - 1 + n % 2) for n in out.shape[2:])
        return nn.LocalContrastNorm2d(window)(out)  # type: ignore[no-any-return]


class StageNetwork(torch.nn.Module):
    """The same architecture as a network; before it is trained it has the features of the filters that it was given.

    Parameters
    ----------
    architecture : Architecture
    source : RandomFilters
        Fitted.
    images : Tensor
        ``(N, C, H, W)``: features are divided by their deviations on these, once.
    classes : int

    Examples
    --------
    >>> images = torch.rand(6, 1, 9, 8, generator=torch.Generator().manual_seed(0))
    >>> shape = Architecture(4, 3)
    >>> StageNetwork(shape, shape.filters(images, 0), images, 3)(images).shape
    torch.Size([6, 3])
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, architecture: Architecture, source: RandomFilters, images: Tensor, classes: int) -> None:
        super().__init__()
        self.architecture = architecture
        self.stage = Stage(architecture.encoder, normalise=architecture.normalise)
        with torch.random.fork_rng(devices=[]):  # a new layer draws a weight, which is written over
            self.convolution = source.to_layer(stride=architecture.stride)
        pool = nn.AdaptiveMaxPool2d if architecture.operation == "max" else nn.AdaptiveAvgPool2d
        self.pooling = pool(architecture.cells(), bins="disjoint")
        with torch.no_grad():
            rows = torch.cat([self.features(part) for part in images.split(256)])
            scale, mean = torch.std_mean(rows, 0, correction=0)
        self.register_buffer("mean", mean)
        self.register_buffer("scale", torch.where(scale > 1e-6 * scale.max(), scale, 1))
        self.linear = torch.nn.utils.skip_init(torch.nn.Linear, rows.shape[1], classes, dtype=torch.float32, device="cpu")
        torch.nn.init.zeros_(self.linear.weight)
        torch.nn.init.zeros_(self.linear.bias)

    def features(self, images: Tensor) -> Tensor:
        """Return them, region by region, as `Architecture.features` does."""
        maps = self.pooling(self.stage.of(self.convolution(images)))
        return maps.movedim(1, -1).flatten(1)  # type: ignore[no-any-return]

    def forward(self, images: Tensor) -> Tensor:
        """Return the score of every class."""
        return self.linear((self.features(images) - self.mean) / self.scale)  # type: ignore[no-any-return]


def train(
    network: torch.nn.Module, images: Tensor, targets: Tensor, *, epochs: int, rate: float, seed: int, batch: int = 64
) -> None:
    """Train all weights by Adam on the cross-entropy, in mini-batches, the rate going down to zero along a cosine.

    Parameters
    ----------
    network : torch.nn.Module
    images : Tensor
        ``(N, C, H, W)``.
    targets : Tensor
        ``(N,)``, whole numbers.
    epochs : int
    rate : float
        At the start.
    seed : int
        Of the order of the images.
    batch : int
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    optimiser = torch.optim.Adam(network.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * -(-len(images) // batch))
    network.train()
    for _ in range(epochs):
        for part in torch.randperm(len(images), generator=generator, device="cpu").split(batch):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(network(images[part]), targets[part]).backward()
            optimiser.step()
            schedule.step()
    network.eval()


def architectures_of(space: Mapping[str, Sequence[Any]] | Sequence[Architecture]) -> list[Architecture]:
    """Return all architectures of a space: the products of lists of values, by the names of the attributes; or a list as it is.

    Raises
    ------
    ArgumentError
        If a name is not one, a list is empty, or a value is out of its range.

    Examples
    --------
    >>> [str(a) for a in architectures_of({"n_filters": [8], "patch_size": [3, (2, 4)]})]
    ['8 filters of 3x3, stride 1, rectified, 2x2 mean', '8 filters of 2x4, stride 1, rectified, 2x2 mean']
    """
    made = list(_products(space)) if isinstance(space, Mapping) else list(space)
    if not made or not all(isinstance(a, Architecture) for a in made):
        raise ArgumentError(f"space={space!r} must hold at least one Architecture, or lists of values by name")
    return list(dict.fromkeys(made))


def _products(space: Mapping[str, Sequence[Any]]) -> Iterator[Architecture]:
    known = [field.name for field in fields(Architecture)]
    for name, values in space.items():
        if name not in known:
            raise ArgumentError(f"space names {name!r}, which is not one of {known}")
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise ArgumentError(f"space[{name!r}]={values!r} must be a list of values, one or more")
    for values in product(*space.values()):
        yield Architecture(**dict(zip(space, values, strict=True)))
