"""Crops that a training sees: each drawn from its own numbers, so that any step can be made again without those before."""

import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ninefold.errors import ArgumentError, ArgumentTypeError, DTypeError, ShapeError
from ninefold.segment.config import TrainConfig
from ninefold.segment.model import Shape
from ninefold.segment.parallel import World

__all__ = ["NOTHING", "Crops", "Kept", "Pairs", "Survey", "check_held", "split", "survey"]

NOTHING = -1
"""The label of padding, and of pixels to be ignored, within a training."""


class Pairs(Protocol):
    """Images and masks by number, such as `ninefold.data.Folder`: (channels, *space) float32 and (*space) int64."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]: ...


class Kept:
    """Pairs, checked when they are read, those last used kept in memory up to a number of bytes.

    Parameters
    ----------
    pairs : Pairs
    most : int
        Bytes.

    Examples
    --------
    >>> pairs = [(torch.zeros(1, 4, 5, device="cpu"), torch.zeros(4, 5, dtype=torch.int64, device="cpu"))]
    >>> Kept(pairs)[0][0].shape
    torch.Size([1, 4, 5])
    """

    def __init__(self, pairs: Pairs, most: int = 1 << 30) -> None:
        self.pairs, self.most, self._held = pairs, most, 0
        self._found: OrderedDict[int, tuple[Tensor, Tensor]] = OrderedDict()

    def __len__(self) -> int:
        """How many there are."""
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return one, from memory or as it is read."""
        if index in self._found:
            self._found.move_to_end(index)
            return self._found[index]
        found = _checked(self.pairs[index], index)
        self._found[index] = found
        self._held += _bytes(found)
        while self._held > self.most and len(self._found) > 1:
            self._held -= _bytes(self._found.popitem(last=False)[1])
        return found


def _checked(pair: Any, k: int) -> tuple[Tensor, Tensor]:
    """Return an image and its mask, as which scripts give many other things.

    Raises
    ------
    ArgumentTypeError, DTypeError, ShapeError
        With what it is, and what makes it one.
    """
    image, mask = pair
    for what, x in (("image", image), ("mask", mask)):
        if not isinstance(x, Tensor):
            raise ArgumentTypeError(
                f"{what} {k} is a {type(x).__name__}: it must be a tensor; torch.from_numpy makes one of an array"
            )
    if mask.is_floating_point() or mask.is_complex():
        raise DTypeError(f"mask {k} is {mask.dtype}: labels are whole numbers; .long() makes them so")
    if image.shape[1:] != mask.shape:
        repair = "they must be (channels, *space) and (*space)"
        if mask.shape == (1, *image.shape[1:]):
            repair = "a mask has no axis of channels: mask[0]"
        elif mask.shape == image.shape:
            repair = "an image has an axis of channels: image[None]"
        elif mask.shape[1:] == image.shape[1:]:
            repair = "one map for each class becomes labels by mask.argmax(0)"
        elif mask.shape == image.shape[:-1]:
            repair = "channels come first: image.movedim(-1, 0)"
        raise ShapeError(f"image {k} is {tuple(image.shape)} and its mask {tuple(mask.shape)}: {repair}")
    return image.detach(), mask


def _bytes(pair: tuple[Tensor, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in pair)


@dataclass(frozen=True)
class Survey:
    """What is known of the images that are trained on: their channels and axes, values, and how often each class occurs.

    Examples
    --------
    >>> Survey(Shape(1, 2, 3), (0.5,), (0.1,), (10, 5, 0)).shape.classes
    3
    """

    shape: Shape
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    counts: tuple[int, ...]
    largest: tuple[int, ...] = ()
    """Size of the image held out that has the most pixels."""


def survey(pairs: Pairs, indices: Sequence[int], config: TrainConfig, held: Sequence[int] = ()) -> Survey:
    """Read the images and masks once; of those held out only what must fit the others: channels, axes, numbers, and classes.

    Raises
    ------
    ArgumentError, ShapeError
        If there are none, they differ in channels or axes, hold NaN, labels that are no class, or nothing to learn.
    """
    if not indices:
        raise ArgumentError("there are no images to train on")
    sums, counts, first, objects = [], np.zeros(0, np.int64), None, False
    largest: tuple[int, ...] = ()
    for at, k in enumerate([*indices, *held]):
        image, mask = pairs[k]
        first = _fitting(image, k, first)
        taught = at < len(indices)
        if config.task == "labels":
            counts = _counted(counts, mask[mask != config.ignore], k, config.classes, taught)
        if not taught:
            largest = max(largest, tuple(mask.shape), key=math.prod) if largest else tuple(mask.shape)
            continue
        values = image.flatten(1).to(torch.float64)
        sums.append(
            torch.stack(
                [
                    torch.full((len(values),), float(values.shape[1]), dtype=torch.float64, device="cpu"),
                    values.sum(1),
                    values.square().sum(1),
                ]
            )
        )
        objects = objects or bool(mask.any())
    number, total, squares = torch.stack(sums).sum(0)
    mean = total / number
    deviation = (squares / number - mean.square()).clamp(min=0).sqrt()
    deviation = torch.where(deviation > 1e-6, deviation, 1.0)
    classes = config.classes or max(len(counts), 2) if config.task == "labels" else 0
    counts = np.pad(counts, (0, max(0, classes - len(counts))))
    if not (counts.any() if config.task == "labels" else objects):
        what = "a labelled pixel" if config.task == "labels" else "an object"
        raise ArgumentError(f"none of the {len(indices)} images that are trained on has {what}: nothing is to be learned")
    channels, ndim = first or (0, 0)
    told = tuple(mean.tolist()), tuple(deviation.tolist()), tuple(int(n) for n in counts)
    return Survey(Shape(channels, ndim, classes), *told, largest)


def _fitting(image: Tensor, k: int, first: tuple[int, int] | None) -> tuple[int, int]:
    """Return channels and axes of an image, those of the first one."""
    here = image.shape[0], image.dim() - 1
    if first is not None and here != first:
        raise ShapeError(f"image {k} has {here[0]} channels and {here[1]} axes of space, others have {first[0]} and {first[1]}")
    if not bool(image.isfinite().all()):
        raise ArgumentError(f"image {k} holds {int((~image.isfinite()).sum())} values that are NaN or infinite")
    return here


def _counted(counts: np.ndarray, labels: Tensor, k: int, classes: int | None, taught: bool) -> np.ndarray:
    """Add how often each label occurs; of a mask held out only that it does."""
    if labels.numel() and int(labels.min()) < 0:
        raise ArgumentError(f"mask {k} holds the label {int(labels.min())}: classes are numbered from 0")
    found = np.bincount(labels.flatten().numpy())
    if classes is not None and len(found) > classes:
        raise ArgumentError(f"mask {k} holds the label {len(found) - 1}, and classes={classes} are numbered 0 to {classes - 1}")
    size = max(len(counts), len(found))
    return np.pad(counts, (0, size - len(counts))) + np.pad(found * taught, (0, size - len(found)))


def split(count: int, share: float, seed: int) -> tuple[list[int], list[int]]:
    """Return which images are trained on, and which are held out.

    Raises
    ------
    ArgumentError
        If there are fewer than two.

    Examples
    --------
    >>> [len(part) for part in split(10, 0.2, 0)]
    [8, 2]
    """
    if count < 2:
        raise ArgumentError(f"there are {count} images with masks: 2 or more are needed, one of them to be held out")
    order = np.random.default_rng([seed, 7]).permutation(count)
    held = min(count - 1, max(1, round(count * share)))
    return sorted(map(int, order[held:])), sorted(map(int, order[:held]))


def check_held(pairs: Pairs, held: Sequence[int], config: TrainConfig) -> None:
    """Refuse held-out images that no model can be chosen by.

    Raises
    ------
    ArgumentError
        If none of them has a labelled pixel, or an object.
    """
    nothing = config.ignore if config.task == "labels" else 0
    if any(bool((pairs[k][1] != nothing).any()) for k in held):
        return
    what = "a labelled pixel" if config.task == "labels" else "an object"
    raise ArgumentError(
        f"none of the {len(held)} images that are held out has {what}, and no model can be chosen by them: take another seed "
        f"than {config.seed}, or a larger share than validation={config.validation:g}"
    )


class Crops:
    """Batches of random crops, by epoch and step.

    Parameters
    ----------
    pairs : Pairs
    indices : sequence of int
        Those that are trained on.
    config : TrainConfig
    world : World

    Examples
    --------
    >>> pairs = [(torch.ones(1, 9, 8, device="cpu"), torch.ones(9, 8, dtype=torch.int64, device="cpu")) for _ in range(3)]
    >>> config = TrainConfig(images="a", masks="b", out="c", crop=5, batch=2, repeats=1)
    >>> crops = Crops(pairs, [0, 1, 2], config)
    >>> len(crops), [tuple(x.shape) for x in crops.batch(0, 1)]
    (2, [(2, 1, 5, 5), (2, 5, 5)])
    """

    def __init__(self, pairs: Pairs, indices: Sequence[int], config: TrainConfig, world: World = World()) -> None:  # noqa: B008  frozen
        if config.batch < world.size:
            raise ArgumentError(f"batch is {config.batch}, less than the {world.size} processes: each needs a crop a step")
        self.pairs, self.indices, self.config, self.world = pairs, list(indices), config, world

    def __len__(self) -> int:
        """Return the steps of an epoch; the last one is filled up from its start."""
        return math.ceil(len(self.indices) * self.config.repeats / self.config.batch)

    def batch(self, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """Return the images and labels of a step, this process's share of them.

        Returns
        -------
        images : Tensor of float32, shape (share, channels, *crop)
        labels : Tensor of int64, shape (share, *crop)
            `NOTHING` where there is no label, or no image.
        """
        config = self.config
        order = self._order(epoch)
        numbers = [n % len(order) for n in range(step * config.batch, (step + 1) * config.batch)]
        pairs = [self._crop(order[n], (config.seed, epoch, n)) for n in self.world.mine(numbers)]
        return torch.stack([image for image, _ in pairs]), torch.stack([labels for _, labels in pairs])

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Go through the steps of an epoch from one on, the next one read while one is used."""
        with ThreadPoolExecutor(1) as pool:
            following = pool.submit(self.batch, epoch, start) if start < len(self) else None
            for step in range(start, len(self)):
                now = following
                following = pool.submit(self.batch, epoch, step + 1) if step + 1 < len(self) else None
                if now is not None:
                    yield now.result()

    def _order(self, epoch: int) -> list[int]:
        draw = np.random.default_rng([self.config.seed, 11, epoch])
        return [self.indices[k] for _ in range(self.config.repeats) for k in draw.permutation(len(self.indices))]

    def _crop(self, index: int, key: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
        """Cut a piece out of a picture, mirrored or not; padded where the picture is smaller."""
        draw, config = np.random.default_rng([13, *key]), self.config
        image, labels = self.pairs[index]
        sides = config.crop_sides(labels.dim())
        for axis, (size, side) in enumerate(zip(labels.shape, sides, strict=True)):
            start, length = int(draw.integers(max(1, size - side + 1))), min(size, side)
            image, labels = image.narrow(axis + 1, start, length), labels.narrow(axis, start, length)
        if config.task == "labels":
            labels = labels.masked_fill(labels == config.ignore, NOTHING)
        if config.flip and (axes := [axis for axis in range(labels.dim()) if draw.integers(2)]):
            image, labels = image.flip([axis + 1 for axis in axes]), labels.flip(axes)
        around = [n for size, side in zip(reversed(labels.shape), reversed(sides), strict=True) for n in (0, side - size)]
        return (
            torch.nn.functional.pad(image.to(torch.float32), around),
            torch.nn.functional.pad(labels.to(torch.int64), around, value=NOTHING),
        )
