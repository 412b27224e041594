"""A trained network with what it needs beside its weights: how images are scaled, what its outputs are, how it was trained."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ninefold.errors import ModelError, ShapeError
from ninefold.segment.config import TrainConfig
from ninefold.segment.room import LITTLE, peak_bytes, probe, share_of_memory
from ninefold.segment.tiles import cuts, reach, smaller, window
from ninefold.spec.parse import per_axis
from ninefold.storing import packed_tensors, unpacked_tensors, write_whole
from ninefold.structured.networks import RecurrentConvNet, UNet
from ninefold.structured.room import refuse_beyond

__all__ = ["Segmenter", "Shape", "long_offsets"]

_KIND, _VERSION = "ninefold segmenter", 1


@dataclass(frozen=True)
class Shape:
    """What goes in and out: channels and spatial axes of images, classes of labels (0 for objects).

    Examples
    --------
    >>> Shape(channels=3, ndim=2, classes=4).outputs
    4
    """

    channels: int
    ndim: int
    classes: int = 0

    @property
    def offsets(self) -> tuple[tuple[int, ...], ...]:
        """Edges of each pixel that are predicted, for objects."""
        return long_offsets(self.ndim)

    @property
    def outputs(self) -> int:
        """Maps of the network."""
        return self.classes or len(self.offsets)


def long_offsets(ndim: int, reach: int = 9) -> tuple[tuple[int, ...], ...]:
    """Return neighbours along each axis, then far ones along each.

    The near edges join, the far ones tell apart: what a mutex watershed needs (Wolf et al. 2018).

    Examples
    --------
    >>> long_offsets(2)
    ((1, 0), (0, 1), (9, 0), (0, 9))
    """
    return tuple(tuple(d if k == axis else 0 for k in range(ndim)) for d in (1, reach) for axis in range(ndim))


def _by(sides: Sequence[int]) -> str:
    return "x".join(map(str, sides))


class Segmenter(nn.Module):
    """A network of label maps or affinities, from images as they are read to logits.

    Parameters
    ----------
    config : TrainConfig
        Names the network and its size.
    shape : Shape
    mean, deviation : sequence of float
        Of each channel, over the images that it is trained on.

    Examples
    --------
    >>> config = TrainConfig(images="a", masks="b", out="c", width=4, depth=2)
    >>> model = Segmenter(config, Shape(3, 2, classes=5), [0.5] * 3, [0.25] * 3)
    >>> [tuple(step.shape) for step in model(torch.zeros(1, 3, 7, 9, device="cpu"))]
    [(1, 5, 7, 9)]
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: TrainConfig, shape: Shape, mean: Sequence[float], deviation: Sequence[float]) -> None:
        super().__init__()
        self.config, self.shape = config, shape
        broadcast = (1, shape.channels, *[1] * shape.ndim)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32, device="cpu").view(broadcast))
        self.register_buffer("deviation", torch.tensor(deviation, dtype=torch.float32, device="cpu").view(broadcast))
        self.network = self._network()

    def _network(self) -> nn.Module:
        config, shape = self.config, self.shape
        if config.network == "recurrent":
            return RecurrentConvNet(
                shape.channels,
                config.width,
                shape.outputs,
                kernel_size=config.kernel,
                label_kernel_size=config.kernel,
                steps=config.steps,
                activation=nn.ReLU,
                ndim=shape.ndim,
            )
        widths = tuple(config.width << k for k in range(config.depth))
        # no normalisation: that of batches differs between processes, that of images hides how bright a background is
        return UNet(shape.channels, shape.outputs, widths=widths, ndim=shape.ndim, norm="none", up="resize")

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return logits (batch, outputs, *space) of every step of the network, of which most have one.

        Raises
        ------
        ShapeError
            If the images have another number of channels or axes than those that it was made for.
        """
        self._check(images)
        scaled = (images - self.mean) / self.deviation
        size, least = images.shape[2:], self.least
        lacking = [max(0, least - n) for n in size]
        if any(lacking):
            around = [side for n in reversed(lacking) for side in (0, n)]
            scaled = nn.functional.pad(scaled, around, mode="replicate")
        found = self.network(scaled)
        steps = found if isinstance(found, tuple) else (found,)
        return tuple(logits[(..., *(slice(n) for n in size))] for logits in steps) if any(lacking) else steps

    def _check(self, images: Tensor) -> None:
        shape = self.shape
        if images.dim() != shape.ndim + 2 or images.shape[1] != shape.channels:
            raise ShapeError(
                f"images have shape {tuple(images.shape)}; this model takes (batch, {shape.channels}, {shape.ndim} axes of space)"
            )

    @property
    def unit(self) -> int:
        """Pixels of a cell of the coarsest grid, along each axis."""
        return 2 ** (self.config.depth - 1) if self.config.network == "unet" else 1

    @property
    def least(self) -> int:
        """Length of a side below which images are padded."""
        return 2**self.config.depth if self.config.network == "unet" else 1

    def memory_needed(self, space: Sequence[int]) -> int:
        """Return how many bytes `predict` takes at least for an image of this size at once: measured on some pixels.

        Examples
        --------
        >>> config = TrainConfig(images="a", masks="b", out="c", width=4, depth=2)
        >>> model = Segmenter(config, Shape(3, 2, classes=5), [0.5] * 3, [0.25] * 3)
        >>> 1e9 < model.memory_needed((4000, 3000)) < 4e9
        True
        """
        size, times = probe(space, self.least)
        image = torch.zeros(self.shape.channels, *size, dtype=torch.float32, device="cpu")
        return int(peak_bytes(lambda: self._predicted(image)) * times)

    def fitting_tile(self, space: Sequence[int], tile: int | Sequence[int] | None = None) -> tuple[int, ...]:
        """Return the sides of the tiles that `predict` takes, all of the image where it fits: larger ones need more memory.

        Parameters
        ----------
        space : sequence of int
            Sides of the image.
        tile : int or sequence of int, optional
            As in `predict`.

        Raises
        ------
        RoomError
            With what is needed and what there is.

        Examples
        --------
        >>> config = TrainConfig(images="a", masks="b", out="c", width=4, depth=2)
        >>> model = Segmenter(config, Shape(3, 2, classes=5), [0.5] * 3, [0.25] * 3)
        >>> model.fitting_tile((40, 30)), model.fitting_tile((40, 30), 16)
        ((40, 30), (16, 16))
        """
        whole, around, width = tuple(space), reach(self.config), self.config.width
        sides = whole if tile is None else per_axis(tile, len(space), "tile", 1)
        if math.prod(window(space, sides, around, self.unit)) * width <= LITTLE:
            return sides
        limit, maps = share_of_memory(), 4 * self.shape.outputs * math.prod(space)
        of_pixel = self.memory_needed(space) / math.prod(space)

        def needed(sides: Sequence[int]) -> int:
            here = window(space, sides, around, self.unit)
            return int(of_pixel * math.prod(here)) + maps * (here != whole)

        if tile is None and needed(sides) > limit:
            # what is measured is the least that it takes: of what the maps leave, half stays free
            while 2 * needed(sides) - maps > limit and (less := smaller(sides, around, self.unit)):
                sides = less
        what, repair = f"an image of {_by(space)} pixels with a network of width {width}", "train a narrower network"
        if sides != whole:
            what, repair = f"{what}, in tiles of {_by(sides)},", "give a smaller tile, cut the image into parts, or " + repair
        refuse_beyond(needed(sides), limit, f"to predict {what}", repair)
        return sides

    def predict(self, image: Tensor, tile: int | Sequence[int] | None = None) -> Tensor:
        """Return probabilities of classes, or affinities, of one image.

        Parameters
        ----------
        image : Tensor of shape (channels, *space)
            As it was read, for training, too.
        tile : int or sequence of int, optional
            Side of the tiles that are predicted one after the other, or one for each axis; rounded up to a multiple of
            ``2 ** (depth - 1)``. Each is read with all that its outputs depend on, so that the result is that of the whole image
            to rounding. If None, the whole image at once, or, where memory has no room for it, tiles for which it has.

        Returns
        -------
        Tensor of float32, shape (classes or edges, *space)

        Raises
        ------
        ArgumentError, ArgumentTypeError
            If `tile` is no side, or not one for each axis.
        ShapeError
            As `forward`.
        RoomError
            If it needs more memory than there is; nothing was started.

        Examples
        --------
        >>> config = TrainConfig(images="a", masks="b", out="c", width=4, depth=2)
        >>> model = Segmenter(config, Shape(3, 2, classes=5), [0.5] * 3, [0.25] * 3)
        >>> image = torch.rand(3, 37, 51, device="cpu")
        >>> torch.allclose(model.predict(image, tile=(16, 20)), model.predict(image), atol=1e-5)
        True
        """
        self._check(image[None])
        space = tuple(image.shape[1:])
        if 0 in space:
            return self._predicted(image)
        sides = self.fitting_tile(space, tile)
        parts = list(cuts(space, sides, reach(self.config), self.unit, self.least))
        if len(parts) == 1:
            return self._predicted(image)
        found = torch.empty(self.shape.outputs, *space, dtype=torch.float32, device="cpu")
        for inner, outer, place in parts:
            found[(slice(None), *inner)] = self._predicted(image[(slice(None), *outer)])[(slice(None), *place)]
        return found

    def _predicted(self, image: Tensor) -> Tensor:
        training = self.training
        self.eval()
        try:
            with torch.no_grad():
                logits: Tensor = self(image[None].to(torch.float32))[-1][0]
        finally:
            self.train(training)
        return logits.softmax(0) if self.shape.classes else logits.sigmoid()

    def save(self, path: Path, **about: Any) -> None:
        """Write weights and settings to a safetensors file, whole or not at all.

        Raises
        ------
        ModelError
            If it cannot be written.
        """
        settings = {"config": asdict(self.config), "shape": asdict(self.shape), "about": about}
        tensors = {name: value.detach().contiguous().clone() for name, value in self.state_dict().items()}
        write_whole(path, packed_tensors(tensors, settings, _KIND, _VERSION), ModelError, parents=True)

    @classmethod
    def load(cls, path: Path) -> "Segmenter":
        """Read what `save` wrote.

        Raises
        ------
        ModelError
            If there is none, it is damaged, or something else.
        """
        settings, tensors = unpacked_tensors(path, _KIND, _VERSION, ModelError)
        try:
            config, shape = TrainConfig.of(settings["config"]), Shape(**settings["shape"])
            model = cls(config, shape, [0.0] * shape.channels, [1.0] * shape.channels)
            model.load_state_dict(tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ModelError(f"{path} holds no model that this version makes: {error}") from error
        return model.eval()
