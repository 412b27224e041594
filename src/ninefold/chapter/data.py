"""What the experiments of the chapter learn from: tasks made here, and pictures that scikit-learn and scikit-image bring along.

Nothing is ever fetched: a picture that is not inside the installed package is an error.
"""

from collections.abc import Callable
from importlib.resources import files
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ninefold.errors import ArgumentError, UnsupportedError

__all__ = [
    "MOUTH",
    "PLUS",
    "SIDE",
    "TASKS",
    "TIMES",
    "Labelled",
    "anywhere",
    "apart",
    "column",
    "digits",
    "half",
    "halves_of",
    "mark",
    "photograph",
    "rotated",
    "textures",
]

SIDE = 12  # of the pictures of all made tasks

# Two shapes of as many pixels, and a mouth that smiles: upside down it does not.
PLUS = torch.from_numpy(np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.float32))
TIMES = torch.from_numpy(np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]], np.float32))
MOUTH = torch.from_numpy(np.array([[1, 0, 0, 0, 1], [0, 1, 1, 1, 0]], np.float32))


class Labelled(NamedTuple):
    """Pictures of shape ``(N, 1, H, W)`` and a class for each.

    Examples
    --------
    >>> anywhere(4, seed=0).pictures.shape
    torch.Size([4, 1, 12, 12])
    """

    pictures: Tensor
    labels: Tensor


def anywhere(count: int, seed: int, noise: float = 0.25) -> Labelled:
    """Is the shape a plus (0) or a cross (1)? It lies anywhere: a task that no translation changes.

    Examples
    --------
    >>> sorted(anywhere(50, seed=0).labels.unique().tolist())
    [0, 1]
    """
    draw = torch.Generator("cpu").manual_seed(seed)
    pictures, labels = _empty(count, noise, draw)
    tops, lefts = _below(SIDE - 2, count, draw), _below(SIDE - 2, count, draw)
    mark(pictures, torch.stack((PLUS, TIMES))[labels], tops, lefts)
    return Labelled(pictures, labels)


def half(count: int, seed: int, noise: float = 0.2, *, alone: bool = False) -> Labelled:
    """Is the smiling mouth in the lower half (1)? Only the place tells the classes apart.

    The other half has one upside down, unless the mouth is to be `alone`. Either way, rolling a picture by half its height makes
    one of the other class.

    Examples
    --------
    >>> sorted(half(50, seed=0).labels.unique().tolist())
    [0, 1]
    """
    draw = torch.Generator("cpu").manual_seed(seed)
    pictures, labels = _empty(count, noise, draw)
    tops, lefts = _below(SIDE // 2 - 1, 2 * count, draw), _below(SIDE - 4, 2 * count, draw)
    lower = SIDE // 2
    mark(pictures, MOUTH, tops[:count] + lower * labels, lefts[:count])
    if not alone:
        mark(pictures, MOUTH.flip(0), tops[count:] + lower * (1 - labels), lefts[count:])
    return Labelled(pictures, labels)


def column(count: int, seed: int, noise: float = 0.1) -> Labelled:
    """Is the marked pixel in an odd column (1)? A step to the side makes the other class: a task of exact positions.

    Examples
    --------
    >>> told = column(1, seed=0, noise=0.0)
    >>> int(told.pictures.flatten().argmax()) % 12 % 2 == int(told.labels)
    True
    """
    draw = torch.Generator("cpu").manual_seed(seed)
    pictures, labels = _empty(count, noise, draw)
    rows, pairs = _below(SIDE, count, draw), _below(SIDE // 2, count, draw)
    mark(pictures, pictures.new_ones(1, 1), rows, 2 * pairs + labels)
    return Labelled(pictures, labels)


def apart(count: int, seed: int, gap: int = 4, noise: float = 0.1) -> Labelled:
    """Tell whether two pixels in a row are exactly `gap` columns apart (1), or one more or one less (0).

    Examples
    --------
    >>> told = apart(1, seed=0, gap=4, noise=0.0)
    >>> first, second = told.pictures.flatten().nonzero().flatten().tolist()
    >>> (second - first == 4) == bool(told.labels)
    True
    """
    draw = torch.Generator("cpu").manual_seed(seed)
    pictures, labels = _empty(count, noise, draw)
    wrong = 2 * _below(2, count, draw) - 1
    rows, starts = _below(SIDE, count, draw), _below(SIDE - gap - 1, count, draw)
    mark(pictures, pictures.new_ones(1, 1), rows, starts)
    mark(pictures, pictures.new_ones(1, 1), rows, starts + gap + wrong * (1 - labels))
    return Labelled(pictures, labels)


TASKS: dict[str, Callable[[int, int], Labelled]] = {"anywhere": anywhere, "half": half, "column": column, "apart": apart}


def mark(pictures: Tensor, shapes: Tensor, tops: Tensor, lefts: Tensor) -> None:
    """Add a shape to each picture, in place.

    Parameters
    ----------
    pictures : Tensor of shape ``(N, 1, H, W)``
    shapes : Tensor of shape ``(h, w)`` or ``(N, h, w)``
    tops, lefts : Tensor of shape ``(N,)``
        Where the first pixel of each goes.

    Examples
    --------
    >>> pictures = torch.zeros(1, 1, 2, 3)
    >>> mark(pictures, torch.ones(1, 2), torch.tensor([1]), torch.tensor([1]))
    >>> pictures[0, 0].tolist()
    [[0.0, 0.0, 0.0], [0.0, 1.0, 1.0]]
    """
    each = torch.arange(len(pictures), device=pictures.device)
    for down in range(shapes.shape[-2]):
        for across in range(shapes.shape[-1]):
            pictures[each, 0, tops + down, lefts + across] += shapes[..., down, across]


def digits() -> Labelled:
    """Return scikit-learn's 1797 handwritten digits of 8x8 pixels, between 0 and 1.

    Examples
    --------
    >>> digits().pictures.shape
    torch.Size([1797, 1, 8, 8])
    """
    from sklearn.datasets import load_digits  # noqa: PLC0415  loaded by those who learn from it

    told = load_digits()
    return Labelled(torch.from_numpy(told.images / 16).float()[:, None], torch.from_numpy(told.target))


def halves_of(told: Labelled, learnt: float = 0.6) -> Callable[[int, int], Labelled]:
    """Return a task of examples drawn from a part of a set for even seeds, from the rest for odd ones, anew for every pair.

    Examples
    --------
    >>> task = halves_of(Labelled(torch.arange(10.0), torch.arange(10)), learnt=0.5)
    >>> sorted(task(5, 0).labels.tolist() + task(5, 1).labels.tolist())
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """

    def task(count: int, seed: int) -> Labelled:
        draw = torch.Generator("cpu").manual_seed(seed // 2)
        order = torch.randperm(len(told.labels), generator=draw, device="cpu")
        cut = int(learnt * len(order))
        part = order[:cut] if seed % 2 == 0 else order[cut:]
        if count > len(part):
            raise ArgumentError(f"{count} examples are asked for; this part of the {len(order)} has {len(part)}")
        return Labelled(told.pictures[part[:count]], told.labels[part[:count]])

    return task


def rotated(pictures: Tensor, degrees: Tensor) -> Tensor:
    """Return pictures ``(N, C, H, W)`` turned counter-clockwise about their centres, each by its own angle, interpolated.

    Examples
    --------
    >>> picture = torch.arange(9.0).reshape(1, 1, 3, 3)
    >>> torch.allclose(rotated(picture, torch.tensor([90.0])), picture.rot90(1, (2, 3)), atol=1e-5)
    True
    """
    angle = torch.deg2rad(degrees.to(pictures.dtype))
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    turn = torch.stack((torch.stack((cos, -sin, zero), 1), torch.stack((sin, cos, zero), 1)), 1)
    grid = torch.nn.functional.affine_grid(turn, list(pictures.shape), align_corners=False)
    return torch.nn.functional.grid_sample(pictures, grid, align_corners=False)


def photograph(name: str) -> Tensor:
    """Return a photograph in grey between 0 and 1, of shape ``(H, W)``.

    Parameters
    ----------
    name : str
        ``"china"`` or ``"flower"`` of scikit-learn, or a picture inside the installed scikit-image, as ``"camera"``.

    Raises
    ------
    ArgumentError
        If neither package holds it. Nothing is downloaded.

    Examples
    --------
    >>> photograph("china").shape
    torch.Size([427, 640])
    """
    from PIL import Image  # noqa: PLC0415  loaded by those who ask for pictures

    places = [("sklearn.datasets", f"images/{name}.jpg"), ("skimage", f"data/{name}.png"), ("skimage", f"data/{name}.jpg")]
    for package, path in places:
        try:
            found = files(package) / path
        except ModuleNotFoundError as error:
            raise UnsupportedError(f"{name!r} is looked for in {package}; install ninefold[chapter]") from error
        if found.is_file():
            with found.open("rb") as file, Image.open(file) as image:
                return torch.from_numpy(np.asarray(image.convert("L"), dtype=np.float32) / 255)
    raise ArgumentError(f"no picture {name!r} among {[f'{package}/{path}' for package, path in places]}; nothing is downloaded")


def textures(count: int, seed: int, side: int = 16) -> Labelled:
    """Cut squares at random from brick (0), grass (1) and gravel (2), each with mean 0 and variance 1.

    Labels alternate; the upper half of each photograph is for even seeds, the lower one for odd seeds, so that squares of an even
    and of an odd seed share no pixel.

    Examples
    --------
    >>> told = textures(6, seed=0)
    >>> told.pictures.shape, told.labels.tolist()
    (torch.Size([6, 1, 16, 16]), [0, 1, 2, 0, 1, 2])
    """
    draw = torch.Generator("cpu").manual_seed(seed)
    sources = [photograph(name) for name in ("brick", "grass", "gravel")]
    labels = torch.arange(count, device="cpu") % len(sources)
    squares = []
    for label in labels.tolist():
        source = sources[label]
        source = source[: len(source) // 2] if seed % 2 == 0 else source[len(source) // 2 :]
        top, left = (int(_below(n - side + 1, 1, draw)) for n in source.shape)
        squares.append(source[top : top + side, left : left + side])
    stack = torch.stack(squares)[:, None]
    spread = stack.std((1, 2, 3), keepdim=True).clamp_min(1e-3)
    return Labelled((stack - stack.mean((1, 2, 3), keepdim=True)) / spread, labels)


def _empty(count: int, noise: float, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    labels = torch.arange(count, device="cpu") % 2
    pictures = noise * torch.randn(count, 1, SIDE, SIDE, generator=draw, dtype=torch.float32, device="cpu")
    return pictures, labels[torch.randperm(count, generator=draw, device="cpu")]


def _below(end: int, count: int, draw: torch.Generator) -> Tensor:
    return torch.randint(end, (count,), generator=draw, device="cpu")
