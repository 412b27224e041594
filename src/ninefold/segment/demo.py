"""``ninefold segment --demo``: textures labelled step by step and refined, nuclei and coins cut apart, with a page to look at.

All is made here or lies inside installed packages. What is tested on was not trained on: textures come from the other half of
their photographs, nuclei from the other half of their picture.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from torch import Tensor

from ninefold.segment.commands import Progress
from ninefold.segment.config import TrainConfig
from ninefold.segment.cutting import METHODS, objects_of
from ninefold.segment.model import Segmenter
from ninefold.segment.page import Pair, page
from ninefold.segment.parallel import silent
from ninefold.segment.pictures import as_picture, overlay, stretched
from ninefold.segment.scenes import bundled, nuclei, texture_scenes
from ninefold.segment.training import train
from ninefold.storing import write_whole
from ninefold.structured.crf import BilateralKernel, DenseCRF, GaussianKernel
from ninefold.structured.partition import Affinities, adapted_rand_error, average_precision, boundary_f, cell_image, voronoi_cells

__all__ = ["Table", "coins", "distance_objects", "gain", "objects_table", "otsu_objects", "run", "textures_table"]


_TINT = 0.7
"""Of the scenes: colours that tell where a region ends."""


@dataclass
class Table:
    """A table of the demo.

    Examples
    --------
    >>> Table("Scores", ["step", "IoU"], [["one", "0.5"]]).rows[0]
    ['one', '0.5']
    """

    title: str
    names: list[str]
    rows: list[list[str]]

    def __rich__(self) -> Any:
        """Return it as the terminal shows it."""
        from rich import box  # noqa: PLC0415
        from rich.table import Table as Rich  # noqa: PLC0415

        table = Rich(self.names[0], title=self.title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1))
        for name in self.names[1:]:
            table.add_column(name, justify="right")
        for row in self.rows:
            table.add_row(*row)
        return table


def gain(values: NDArray[np.float64]) -> str:
    """Return a mean with its 95% interval, as ``+0.123 [+0.100, +0.146]``.

    Examples
    --------
    >>> gain(np.array([0.1, 0.2, 0.3]))
    '+0.200 [-0.048, +0.448]'
    """
    from scipy.stats import t  # noqa: PLC0415  takes half a second

    half = float(t.ppf(0.975, len(values) - 1)) * values.std(ddof=1) / len(values) ** 0.5
    return f"{values.mean():+.3f} [{values.mean() - half:+.3f}, {values.mean() + half:+.3f}]"


def textures_table(
    out: Path, *, scenes: int = 40, tested: int = 20, epochs: int = 20, progress: Progress | None = None
) -> tuple[Table, list[Pair]]:
    """Train figure 9.17's network on textures; return its scores after each step and after a dense CRF, and pictures.

    Parameters
    ----------
    out : Path
        Where the training is kept.
    scenes, tested : int
        Pictures to train and to test on.
    epochs : int
    progress : callable, optional
    """
    model = _taught_textures(out, scenes, epochs, progress)
    held = texture_scenes(tested, 1, half="right", tint=_TINT)
    found = [_refined(model, image) for image, _ in held]
    truth = [mask.numpy() for _, mask in held]
    accuracy, boundary = (
        np.array([[score(mask, labels) for labels in maps] for mask, maps in zip(truth, found, strict=True)])
        for score in (_accuracy, _boundary)
    )
    rows = []
    for k, name in enumerate([*(f"step {k + 1}" for k in range(model.config.steps)), "dense CRF"]):
        more = [gain(values[:, k] - values[:, k - 1]) if k else "" for values in (accuracy, boundary)]
        rows.append([name, f"{accuracy[:, k].mean():.3f}", more[0], f"{boundary[:, k].mean():.3f}", more[1]])
    columns = ["", "pixels right", "more than the row above (95%)", "boundary F", "more than the row above (95%)"]
    title = f"Three textures, {tested} unseen pictures, by a recurrent network (fig. 9.17) and a dense CRF"
    pairs = []
    for k in range(min(2, tested)):
        picture = as_picture(held[k][0])
        drawn = [overlay(picture, labels, background=None) for labels in (found[k][0], found[k][-1], truth[k])]
        pairs.append(Pair(f"Textures {k + 1}", drawn[0], drawn[1], ("step 1", "after the dense CRF"), "Drag over the picture."))
        pairs.append(Pair(f"Textures {k + 1}: the truth", picture, drawn[2], ("picture", "truth")))
    return Table(title, columns, rows), pairs


def _taught_textures(out: Path, scenes: int, epochs: int, progress: Progress | None) -> Segmenter:
    config = TrainConfig(
        "textures",
        "textures",
        str(out),
        network="recurrent",
        width=24,
        kernel=11,
        steps=3,
        crop=96,
        epochs=epochs,
        repeats=2,
        validation=0.1,
        learning_rate=0.01,
        resume=False,
    )
    return Segmenter.load(train(config, texture_scenes(scenes, 0, tint=_TINT), tell=silent, progress=progress).path)


def _refined(model: Segmenter, image: Tensor) -> list[NDArray[Any]]:
    """Return the labels of each step, and those of the last one after a dense CRF."""
    field = DenseCRF([GaussianKernel(3.0, 3.0), BilateralKernel(40.0, 10.0, 5.0)], steps=10)
    with torch.no_grad():
        steps = [logits[0] for logits in model(image[None])]
        refined = field(steps[-1][None], stretched(image)[None])[0]
    return [scores.argmax(0).numpy() for scores in (*steps, refined)]


def objects_table(out: Path, *, epochs: int = 20, progress: Progress | None = None) -> tuple[Table, list[Pair]]:
    """Train affinities on one half of a picture; return scores of its objects on the other half, and pictures.

    The picture is stardist's, where its wheel is installed, and else made of Voronoi cells.

    Parameters
    ----------
    out : Path
        Where the training is kept.
    epochs : int
    progress : callable, optional
    """
    there = nuclei(2)
    name = "nuclei" if there else "made cells"
    image, objects = there or _cells()
    middle, height = image.shape[2] // 2, image.shape[1]
    taught = [
        (image[:, top : top + height // 4, :middle], objects[top : top + height // 4, :middle])
        for top in range(0, height, height // 4)
    ]
    config = TrainConfig(name, name, str(out), task="objects", crop=96, epochs=epochs, repeats=8, validation=0.25, resume=False)
    outcome = train(config, taught, tell=silent, progress=progress)
    model = Segmenter.load(outcome.path)
    tested, truth = image[..., middle:], objects[:, middle:].numpy()
    affinities = Affinities(model.predict(tested).numpy(), model.shape.offsets)
    found = {"Otsu and watershed of distances": otsu_objects(tested[0].numpy())}
    found |= {f"U-Net affinities, {method}": objects_of(affinities, method) for method in METHODS}
    rows = [[row, *_scores(truth, labels)] for row, labels in found.items()]
    title = f"Objects of the unseen half: {name}, {len(np.unique(truth)) - 1} true ones; one training, others differ"
    columns = ["", "objects", "adapted Rand error", "precision", "recall", "AP at IoU 0.5"]
    picture = as_picture(tested)
    drawn = [overlay(picture, labels) for labels in (next(iter(found.values())), found["U-Net affinities, watershed"], truth)]
    pairs = [
        Pair(name.capitalize(), drawn[0], drawn[1], ("Otsu and watershed", "U-Net affinities"), "Drag over the picture."),
        Pair(f"{name.capitalize()}: the truth", picture, drawn[2], ("picture", "truth")),
    ]
    return Table(title, columns, rows), pairs


def _scores(truth: NDArray[Any], labels: NDArray[Any]) -> list[str]:
    rand = adapted_rand_error(truth, labels, background=0)
    precision = float(average_precision(truth, labels, thresholds=(0.5,))[0])
    return [str(len(np.unique(labels)) - 1), *(f"{value:.3f}" for value in (rand.error, rand.precision, rand.recall, precision))]


def coins() -> tuple[Table, list[Pair]]:
    """Return how many of the 24 coins on scikit-image's picture are found by brightness alone, and after a dense CRF."""
    path = bundled("skimage", "data", "coins.png")
    if path is None:
        return Table("Coins: scikit-image's picture is not inside the installed package", ["", ""], []), []
    with Image.open(path) as opened:
        values = torch.from_numpy(np.asarray(opened.convert("L"), np.float32).copy())
    # light from above: what is brighter than its surroundings
    plain = values.numpy() - ndimage.gaussian_filter(values.numpy(), 40)
    scale = float(plain.std())
    logits = torch.from_numpy(np.stack([-plain, plain]) / (2 * scale))
    field = DenseCRF([GaussianKernel(3.0, 3.0), BilateralKernel(15.0, 15.0, 4.0)], steps=10)
    with torch.no_grad():
        refined = field(logits[None].float(), values[None, None])[0].argmax(0).numpy()
    maps = {"brighter than around": plain > 0, "dense CRF": refined > 0}
    rows, drawn, picture = [], [], as_picture(values[None])
    for name, inside in maps.items():
        labels = ndimage.label(inside)[0]
        sizes = np.bincount(labels.ravel())[1:]
        rows.append([name, str(len(sizes)), str(int((sizes > 500).sum()))])
        drawn.append(overlay(picture, labels))
    table = Table("Coins: there are 24", ["", "connected regions", "of more than 500 pixels"], rows)
    return table, [Pair("Coins", drawn[0], drawn[1], tuple(maps), "Drag over the picture.")]  # type: ignore[arg-type]


def run(out: Path, *, progress: Progress | None = None) -> list[Any]:
    """Do all of it; return what is to be printed: tables, and where the page is.

    Parameters
    ----------
    out : Path
        Folder for models, pictures and ``index.html``.
    progress : callable, optional
        Called with (steps done, steps, a word on what is done).
    """
    parts: list[tuple[Table, list[Pair]]] = [
        textures_table(out / "textures", progress=_named(progress, "textures")),
        objects_table(out / "objects", progress=_named(progress, "objects")),
        coins(),
    ]
    written: list[Any] = ["Everything on this page was computed on images that nothing was trained on."]
    for table, pairs in parts:
        written += [table.title, (table.names, table.rows), *pairs]
        for number, pair in enumerate(pairs):
            content = io.BytesIO()
            Image.fromarray(pair.after).save(content, "PNG")
            name = f"{pair.title.lower().replace(' ', '-').replace(':', '')}-{number}.png"
            write_whole(out / name, content.getvalue(), parents=True)
    path = out / "index.html"
    write_whole(path, page("Label maps", written).encode(), parents=True)
    return [*(table for table, _ in parts), f"pictures and {path}"]


def _named(progress: Progress | None, name: str) -> Progress | None:
    if progress is None:
        return None
    return lambda done, total, words: progress(done, total, f"{name}: {words}")


def _accuracy(truth: NDArray[Any], labels: NDArray[Any]) -> float:
    return float((truth == labels).mean())


def _boundary(truth: NDArray[Any], labels: NDArray[Any]) -> float:
    return float(boundary_f(truth, labels, tolerance=2).f)


def _cells() -> tuple[Tensor, Tensor]:
    labels = voronoi_cells((256, 256), 90, seed=0)
    image = cell_image(labels, noise=0.2, seed=0)
    return torch.from_numpy(np.asarray(image, np.float32))[None], torch.from_numpy(np.asarray(labels, np.int64))


def otsu_objects(values: NDArray[np.float32]) -> NDArray[Any]:
    """Return what one does without a network: Otsu's threshold, and a watershed of the distance to its border.

    Examples
    --------
    >>> image = np.pad(np.ones((9, 9), np.float32), 8)
    >>> int(otsu_objects(np.concatenate([image, image])).max())
    2
    """
    from skimage.filters import gaussian, threshold_otsu  # noqa: PLC0415

    smooth = gaussian(values, 1)
    return distance_objects(smooth > threshold_otsu(smooth))


def distance_objects(inside: NDArray[np.bool_]) -> NDArray[Any]:
    """Return the parts of a mask, cut by a watershed of the distance to its border.

    Examples
    --------
    >>> rows, columns = np.mgrid[:20, :36]
    >>> discs = [(rows - 10) ** 2 + (columns - c) ** 2 < 81 for c in (10, 24)]
    >>> int(distance_objects(discs[0] | discs[1]).max())
    2
    """
    from skimage.feature import peak_local_max  # noqa: PLC0415
    from skimage.segmentation import watershed  # noqa: PLC0415

    distance = ndimage.distance_transform_edt(inside)
    peaks: Any = peak_local_max(distance, min_distance=5, labels=ndimage.label(inside)[0])
    seeds = np.zeros(inside.shape, np.int64)
    seeds[tuple(np.transpose(peaks))] = np.arange(1, len(peaks) + 1)
    found: NDArray[Any] = watershed(-distance, seeds, mask=inside)
    return found
