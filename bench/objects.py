"""``python -m bench.objects SECTION``: what learned affinities are worth, beside thresholded boundaries and Otsu.

``cells2d``, ``cells3d``: thin-walled Voronoi cells, some walls missing. One U-Net learns the map of boundaries, one affinities,
of the same size, steps and images. A boundary map is cut by ``objects_of`` as affinities are (`Affinities.from_boundary_map`):
``components`` are then the connected components of the thresholded map. ``malis``: plain cross-entropy, and that plus the loss
of pairs, for the same CPU seconds. ``nuclei2d``, ``nuclei3d``: stardist's pictures (its wheel on the path), trained on one half,
tested on the other. All thresholds are chosen on training images that were held out; 0.5 stands beside them.
"""

import argparse
import itertools
import math
import tempfile
from collections.abc import Callable, Iterable
from time import process_time
from typing import Any

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table

from bench import machine
from ninefold.segment.config import TrainConfig
from ninefold.segment.crops import Crops, split, survey
from ninefold.segment.cutting import METHODS, objects_of
from ninefold.segment.demo import distance_objects, gain, otsu_objects
from ninefold.segment.model import Segmenter
from ninefold.segment.scenes import nuclei
from ninefold.segment.tasks import task_of
from ninefold.segment.training import train
from ninefold.structured.partition import (
    Affinities,
    adapted_rand_error,
    cell_image,
    connected_components,
    match_objects,
    rand_index,
    voronoi_cells,
)

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
DEFAULT = 0.5
SMALLEST = 20  # voxels of an object
_WARM = 20  # steps over which the learning rate rises, as in a training

Pair = tuple[torch.Tensor, torch.Tensor]
Maps = Any  # probabilities of classes, or affinities, of an image
Cut = Callable[[Maps, float], np.ndarray]


def cells(shape: tuple[int, ...], number: int, seeds: Iterable[int], noise: float, faint: float) -> list[Pair]:
    """Return pictures of cells and their objects."""
    pairs = []
    for seed in seeds:
        labels = voronoi_cells(shape, number, seed=seed)
        image = cell_image(labels, noise=noise, faint=faint, seed=seed)
        pairs.append((torch.from_numpy(image)[None], torch.from_numpy(labels)))
    return pairs


def inside(pairs: list[Pair]) -> list[Pair]:
    """Return the pairs with two classes instead of objects."""
    return [(image, (objects > 0).long()) for image, objects in pairs]


def trained(pairs: list[Pair], **settings: Any) -> tuple[Segmenter, list[int]]:
    """Train; return the network of the best epoch, and which pairs were held out."""
    with tempfile.TemporaryDirectory() as out:
        config = TrainConfig("made", "made", out, resume=False, **settings)
        outcome = train(config, pairs, tell=lambda _: None)
        return Segmenter.load(outcome.path), split(len(pairs), config.validation, config.seed)[1]


def affinity_cut(model: Segmenter, method: Any) -> Cut:
    """Return what cuts the affinities that a model gives."""
    return lambda maps, t: objects_of(Affinities(maps, model.shape.offsets), method, threshold=t, minimum_size=SMALLEST)


def map_cut(method: Any) -> Cut:
    """Return what cuts a map of what is inside of objects: edges of the smaller of both ends."""
    return lambda maps, t: objects_of(Affinities.from_boundary_map(maps[0]), method, threshold=t, minimum_size=SMALLEST)


def distance_cut(maps: Maps, threshold: float) -> np.ndarray:
    """Cut a thresholded map by the distance to its border."""
    return distance_objects(maps[1] > threshold)


def scores(truth: torch.Tensor, found: np.ndarray) -> np.ndarray:
    """Return adapted Rand error, its precision and recall, Rand error, average precision at IoU 0.5, number of objects."""
    true = truth.numpy()
    adapted, plain = adapted_rand_error(true, found, background=0), 1 - rand_index(true, found, background=0)
    precision, number = match_objects(true, found).average_precision, len(np.unique(found[found > 0]))
    return np.array([adapted.error, adapted.precision, adapted.recall, plain, precision, number])


ADAPTED, RAND, AP = 0, 3, 4


def measured(model: Segmenter, cuts: dict[str, Cut], held: list[Pair], tested: list[Pair], by: int) -> dict[str, dict[str, Any]]:
    """Choose each cut's threshold on what was held out, by a score; return scores at it and at the default on test images."""
    known, unknown = ([model.predict(image).numpy() for image, _ in pairs] for pairs in (held, tested))
    sign, found = -1 if by == AP else 1, {}
    for name, cut in cuts.items():
        costs = [
            np.mean([sign * scores(truth, cut(m, t))[by] for m, (_, truth) in zip(known, held, strict=True)]) for t in THRESHOLDS
        ]
        # in the middle of the best ones
        best = np.flatnonzero(np.isclose(costs, min(costs)))
        chosen = THRESHOLDS[int(best[len(best) // 2])]
        found[name] = {"chosen": chosen} | {
            key: np.array([scores(truth, cut(m, t)) for m, (_, truth) in zip(unknown, tested, strict=True)])
            for key, t in (("at chosen", chosen), ("at default", DEFAULT))
        }
    return found


def gathered(runs: list[dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Return arrays (trainings, images, scores) by name."""
    return {
        name: {key: np.array([run[name][key] for run in runs]) for key in ("chosen", "at chosen", "at default")}
        for name in runs[0]
    }


def cells_table(shape: tuple[int, ...], number: int, crop: int, width: int, arguments: argparse.Namespace) -> Table:
    """Measure cells: errors of every cut, and how much less each affinity cut has than thresholded boundaries, by test image."""
    taught = cells(shape, number, range(8), arguments.noise, arguments.faint)
    tested = cells(shape, number, range(100, 100 + arguments.images), arguments.noise, arguments.faint)
    runs, epochs = [], arguments.epochs or 20
    for seed in range(arguments.seeds or 2):
        common = {"width": width, "crop": crop, "epochs": epochs, "repeats": 16, "validation": 0.25, "seed": seed}
        model, held = trained(inside(taught), **common)
        pairs = [taught[k] for k in held]
        cuts = {f"boundary map, {method}": map_cut(method) for method in ("components", "watershed")}
        found = measured(model, cuts, pairs, tested, ADAPTED)
        model, _ = trained(taught, task="objects", **common)
        cuts = {f"affinities, {method}": affinity_cut(model, method) for method in ("components", "watershed", "mutex")}
        runs.append(found | measured(model, cuts, pairs, tested, ADAPTED))
    steps = math.ceil(6 * 16 / 4) * epochs
    title = f"{number} cells in {'x'.join(map(str, shape))}, noise {arguments.noise}, {arguments.faint:.0%} of walls missing; "
    title += f"{steps} steps, {len(tested)} test images, {len(runs)} trainings"
    columns = ("threshold", "adapted Rand error", "precision", "recall", "AP at IoU 0.5", "Rand error", "adapted, at 0.5")
    table = Table("", *columns, "adapted less by (95%)", "Rand less by (95%)", title=title, box=box.MARKDOWN)
    every = gathered(runs)
    base = every["boundary map, components"]["at chosen"].mean(0)
    for name, values in every.items():
        of_image, default = values["at chosen"].mean(0), values["at default"][..., ADAPTED].mean()
        row = [numbers(values["chosen"]), *(f"{of_image[:, k].mean():.3f}" for k in (0, 1, 2, AP))]
        row += [f"{of_image[:, RAND].mean():.4f}", f"{default:.3f}"]
        less = [gain(base[:, k] - of_image[:, k]) for k in (ADAPTED, RAND)] if of_image is not base else []
        table.add_row(name, *row, *(less if name != "boundary map, components" else ("", "")))
    return table


def numbers(values: np.ndarray) -> str:
    """Return numbers, each once, in a row."""
    return ", ".join(f"{x:g}" for x in np.unique(values))


def timed(config: TrainConfig, pairs: list[Pair], seconds: float) -> tuple[Segmenter, int]:
    """Train for CPU seconds, the learning rate a cosine of them; return the network, and its steps."""
    found = survey(pairs, range(len(pairs)), config)
    torch.manual_seed(config.seed)
    model = Segmenter(config, found.shape, found.mean, found.deviation)
    task, crops = task_of(config, found.shape, None), Crops(pairs, range(len(pairs)), config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, foreach=False)
    model(crops.batch(0, 0)[0])[0].sum().backward()  # plans are made before the clock runs
    start = process_time()
    for step in itertools.count():
        share = (process_time() - start) / seconds
        if share >= 1:
            return model, step
        rate = config.learning_rate * min(1.0, (step + 1) / _WARM) * 0.5 * (1 + math.cos(math.pi * share))
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        images, labels = crops.batch(*divmod(step, len(crops)))
        total, count = task.sums(model(images), labels, step)
        (total / count).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimizer.step()
    raise AssertionError


def malis_table(arguments: argparse.Namespace) -> Table:
    """Measure both losses at equal CPU time, in turns; differences are between trainings of one seed."""
    shape, number = (128, 112), 70
    taught = cells(shape, number, range(8), arguments.noise, arguments.faint)
    tested = cells(shape, number, range(100, 100 + arguments.images), arguments.noise, arguments.faint)
    held = cells(shape, number, (50, 51), arguments.noise, arguments.faint)
    losses, seeds = ("cross_entropy", "malis"), arguments.seeds or 6
    steps: dict[str, list[int]] = {loss: [] for loss in losses}
    found: dict[tuple[str, str, str], list[np.ndarray]] = {}
    for seed in range(seeds):
        for loss in losses[:: 1 if seed % 2 else -1]:
            config = TrainConfig(
                "made", "made", "", task="objects", width=8, crop=64, loss=loss, malis_after=arguments.malis_after, seed=seed
            )
            model, done = timed(config, taught, arguments.seconds)
            steps[loss].append(done)
            cuts = {method: affinity_cut(model, method) for method in METHODS} | {ALL: all_pixels}
            for cut, values in measured(model, cuts, held, tested, ADAPTED).items():
                found.setdefault((cut, "0.5", loss), []).append(values["at default"].mean(0))
                found.setdefault((cut, "chosen", loss), []).append(values["at chosen"].mean(0))
    title = f"MALIS after {arguments.malis_after} steps, {arguments.seconds:g} s of CPU each, {seeds} seeds, "
    title += f"{len(tested)} test images; steps: " + "; ".join(f"{loss} {min(n)} to {max(n)}" for loss, n in steps.items())
    columns = ("threshold", "loss", "Rand error", "adapted Rand error", "precision", "recall", "AP at IoU 0.5")
    table = Table("", *columns, title=title, box=box.MARKDOWN)
    for name in ("Rand less by (95%)", "adapted less by (95%)"):
        table.add_column(name)
    for (cut, threshold, loss), each in sorted(found.items()):
        values = np.array(each)
        row = [f"{values[:, RAND].mean():.4f}", *(f"{values[:, k].mean():.3f}" for k in (0, 1, 2, AP))]
        base = np.array(found[cut, threshold, losses[0]])
        less = [gain(base[:, k] - values[:, k]) for k in (RAND, ADAPTED)] if loss == losses[1] else ["", ""]
        table.add_row(cut, threshold, loss, *row, *less)
    return table


ALL = "components, all pixels"


def all_pixels(maps: Maps, threshold: float) -> np.ndarray:
    """Return components as they are: a pixel that nothing joins is an object."""
    return connected_components(near(maps), threshold)


def near(maps: np.ndarray) -> Affinities:
    """Return the edges between neighbours."""
    ndim = maps.ndim - 1
    return Affinities(np.ascontiguousarray(maps[:ndim]), tuple(map(tuple, np.eye(ndim, dtype=int).tolist())))


def nuclei_table(axes: int, arguments: argparse.Namespace) -> Table:
    """Measure nuclei: one half of a picture to train on, the other to test."""
    there = nuclei(axes)
    if there is None:
        raise SystemExit("stardist is not installed: pip install --no-deps stardist brings its pictures")
    image, objects = there
    middle = image.shape[-1] // 2
    known, unknown = slice(None, middle), slice(middle, None)
    if arguments.swap:
        known, unknown = unknown, known
    parts = 4 if axes == 2 else 3
    pieces = zip(image[..., known].chunk(parts, axes - 1), objects[..., known].chunk(parts, axes - 2), strict=True)
    taught = list(pieces)
    tested = [(image[..., unknown], objects[..., unknown])]
    common = {"width": 16, "crop": 96, "repeats": 8} if axes == 2 else {"width": 8, "crop": 20, "repeats": 16}
    common |= {"epochs": arguments.epochs or 20, "validation": 1 / parts}
    runs, otsu = [], scores(tested[0][1], otsu_objects(tested[0][0][0].numpy()))
    for seed in range(arguments.seeds or 3):
        model, held = trained(inside(taught), **common, seed=seed)
        pairs = [taught[k] for k in held]
        cuts = {"U-Net mask, components": map_cut("components"), "U-Net mask, watershed of distances": distance_cut}
        found = measured(model, cuts, pairs, tested, AP)
        model, _ = trained(taught, **common, task="objects", seed=seed)
        cuts = {f"affinities, {method}": affinity_cut(model, method) for method in METHODS}
        runs.append(found | measured(model, cuts, pairs, tested, AP))
    true = len(np.unique(tested[0][1])) - 1
    title = f"Nuclei, {axes}-D, {'first' if arguments.swap else 'second'} half of {'x'.join(map(str, objects.shape))}, "
    title += f"{true} objects; mean of {len(runs)} trainings (least to most)"
    columns = ("threshold", "objects", "adapted Rand error", "precision", "recall", "AP at IoU 0.5")
    table = Table("", *columns, "adapted, at 0.5", "AP, at 0.5", title=title, box=box.MARKDOWN)
    table.add_row("Otsu, watershed of distances", "", f"{otsu[5]:.0f}", *(f"{otsu[k]:.3f}" for k in (0, 1, 2, AP)), "", "")
    for name, values in gathered(runs).items():
        each, default = values["at chosen"][:, 0], values["at default"][:, 0]
        row = [numbers(values["chosen"]), f"{each[:, 5].mean():.0f}", spread(each[:, ADAPTED])]
        row += [*(f"{each[:, k].mean():.3f}" for k in (1, 2)), spread(each[:, AP])]
        table.add_row(name, *row, spread(default[:, ADAPTED]), spread(default[:, AP]))
    return table


def spread(values: np.ndarray) -> str:
    """Return a mean with the least and the most."""
    return f"{values.mean():.3f} ({values.min():.3f} to {values.max():.3f})"


SECTIONS: dict[str, Callable[[argparse.Namespace], Table]] = {
    "cells2d": lambda a: cells_table((128, 112), 70, 64, 8, a),
    "cells3d": lambda a: cells_table((40, 44, 36), 60, 24, 6, a),
    "malis": malis_table,
    "nuclei2d": lambda a: nuclei_table(2, a),
    "nuclei3d": lambda a: nuclei_table(3, a),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("section", choices=SECTIONS)
    parser.add_argument("--seeds", type=int, help="trainings; 2 for cells, 6 for malis, 3 for nuclei if not given")
    parser.add_argument("--epochs", type=int, help="20 if not given")
    parser.add_argument("--images", type=int, default=12, help="cells to test on")
    parser.add_argument("--noise", type=float, default=0.3, help="of cells")
    parser.add_argument("--faint", type=float, default=0.1, help="share of wall voxels that are missing")
    parser.add_argument("--seconds", type=float, default=12, help="of CPU, for each training of malis")
    parser.add_argument("--malis-after", type=int, default=100, help="steps")
    parser.add_argument("--swap", action="store_true", help="train nuclei on the second half")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    start = process_time()
    table = SECTIONS[arguments.section](arguments)
    Console(width=240).print(table)
    print(f"{machine.line(machine.describe())}; {process_time() - start:.0f} s of CPU")


if __name__ == "__main__":
    main()
