"""What the commands under ``ninefold segment`` do, beside reading their arguments."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ninefold.data import Folder, MaskReport, Sample, check_masks, read_arrays, write_arrays, write_image, write_mask
from ninefold.errors import DataError, ShapeError
from ninefold.segment.config import TrainConfig
from ninefold.segment.cutting import Method, objects_of
from ninefold.segment.model import Segmenter
from ninefold.segment.parallel import silent, world
from ninefold.segment.pictures import as_picture, overlay, stretched
from ninefold.segment.training import Outcome, train
from ninefold.structured.crf.kernels import BilateralKernel, GaussianKernel
from ninefold.structured.crf.layer import DenseCRF
from ninefold.structured.partition import Affinities
from ninefold.structured.room import RoomError

__all__ = ["Progress", "partition", "predict", "refine", "train_folder"]

Progress = Callable[[int, int, str], None]


def train_folder(config: TrainConfig, *, tell: Callable[[str], None] = print, progress: Progress | None = None) -> Outcome:
    """Look at a folder of images and masks, say what is wrong with it, and train on the rest.

    Raises
    ------
    DataError
        If nothing of it can be used.
    ArgumentError, CheckpointError, KeyboardInterrupt
        As `train`.
    """
    say = tell if world().first else silent
    folder = Folder(
        config.images, config.masks, mask_name=config.mask_name, mode=config.mode, labels=config.labels, colours=config.colours
    )
    report = check_masks(folder, config.classes, config.ignore if config.task == "labels" else None)
    if config.task == "labels":
        say(str(report))
        report.require()
        _classes(report, config)
    else:  # objects are many, and none of them is a class
        report.problems = [problem for problem in report.problems if problem.kind not in ("labels", "absent")]
        say(
            "\n".join(
                [f"{report.total} pairs, {len(report.bad)} of them bad", *(problem.sentence for problem in report.problems)]
            )
        )
        report.require()
        if not any(report.pixels):
            raise DataError(
                f"none of the {report.total} masks has an object, all of their pixels are 0: nothing is to be learned"
            )
        if len(report.pixels) <= 2:
            say(
                f"all masks together hold the labels {sorted(report.pixels)}: one object an image. "
                "If they are many, number them first, such as by scipy.ndimage.label"
            )
    good = folder.without(report.bad) if report.bad else folder
    return train(config, good, names=list(good.names), tell=tell, progress=progress)


def _classes(report: MaskReport, config: TrainConfig) -> None:
    """Refuse masks of which no classes can be learned.

    Raises
    ------
    DataError
        If they hold one class, or labels that look like grey values.
    """
    there = sorted(label for label, count in report.pixels.items() if count and label != config.ignore)
    beside = f" beside {config.ignore}, which is ignored" if report.pixels[config.ignore] else ""
    repair = "--set 'labels={255: 1}' makes black and white masks 0 and 1" if config.ignore == 255 and beside else ""
    if len(there) < 2:
        raise DataError(f"all masks together hold one class, {there}{beside}: nothing is to be learned. {repair}".rstrip(" ."))
    if config.classes is None and len(there) < report.classes / 2:
        named = "{" + ", ".join(f"{label}: {k}" for k, label in enumerate(there[:6])) + (", ..." if len(there) > 6 else "") + "}"
        raise DataError(
            f"masks hold {len(there)} labels up to {there[-1]}, which look like grey values: "
            f"--set 'labels={named}' numbers them, --set classes={report.classes} takes them as they are"
        )


def predict(
    model: Path | str,
    images: Path | str,
    out: Path | str,
    *,
    probabilities: bool = False,
    overlays: bool = False,
    method: Method = "watershed",
    minimum_size: int = 20,
    tile: int | Sequence[int] | None = None,
    progress: Progress | None = None,
) -> str:
    """Write a mask for every image of a folder; return in a sentence what that was.

    Parameters
    ----------
    model : Path
        What `train` wrote.
    images, out : Path
        Folders.
    probabilities : bool
        Also write what the masks were made of, ``NAME.npz``, for `refine` and `partition`.
    overlays : bool
        Also write ``overlays/NAME.png``.
    method, minimum_size
        As in `objects_of`, for models of objects.
    tile
        As in `Segmenter.predict`.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If `tile` is no side, or not one for each axis.
    ModelError, DataError
        If the model cannot be read, or no image can.
    """
    model, images, out = Path(model), Path(images), Path(out)
    segmenter = Segmenter.load(model)
    folder = Folder(images, mode=segmenter.config.mode)
    done, skipped = 0, []
    for k, name in enumerate(folder.names):
        try:
            sample = folder.image(k)
            found = segmenter.predict(sample.data.to(torch.float32), tile)
        except (DataError, RoomError, ShapeError) as error:
            skipped.append(str(error) if str(folder.images[k]) in str(error) else f"{folder.images[k]}: {error}")
            continue
        written = sample.with_data(found, **_about(segmenter, folder.images[k]))
        labels = _cut(written, method, 0.5, minimum_size) if not segmenter.shape.classes else found.argmax(0)
        _write(out, name, written, labels, overlays=sample if overlays else None)
        if probabilities:
            write_arrays(_place(out, name, ".npz"), written)
        done += 1
        if progress:
            progress(k + 1, len(folder), name)
    if not done:
        raise DataError(f"no image of {images} can be used; the first: {skipped[0]}")
    return _told(done, "masks", out, skipped)


def refine(
    probabilities: Path | str,
    images: Path | str,
    out: Path | str,
    *,
    steps: int = 10,
    widths: tuple[float, float, float] = (3.0, 40.0, 10.0),
    weights: tuple[float, float] = (3.0, 5.0),
    overlays: bool = False,
    progress: Progress | None = None,
) -> str:
    """Refine label maps by a fully connected random field over the images; return in a sentence what that was.

    Parameters
    ----------
    probabilities : Path
        A folder of ``NAME.npz`` that `predict` wrote.
    images, out : Path
        Folders.
    steps : int
        Of mean field.
    widths : (smoothness, appearance, colour)
        In pixels, pixels, and parts of 255 of the range of the image's values.
    weights : (smoothness, appearance)
    overlays : bool

    Raises
    ------
    DataError, ShapeError
        If files cannot be read, or do not fit.
    """
    probabilities, images, out = Path(probabilities), Path(images), Path(out)
    paths, folder = _arrays(probabilities), Folder(images)
    numbers = {name: k for k, name in enumerate(folder.names)}
    if lacking := [name for name in paths if name not in numbers]:
        raise DataError(f"{len(lacking)} of {len(paths)} probabilities have no image in {images}: there is no {lacking[0]}")
    kernels = [GaussianKernel(widths[0], weights[0]), BilateralKernel(widths[1], widths[2], weights[1])]
    field = DenseCRF(kernels, steps=steps)
    for k, (name, path) in enumerate(paths.items()):
        sample, image = read_arrays(path), folder.image(numbers[name])
        if "offsets" in sample.meta:
            raise DataError(f"{path} holds affinities, not probabilities of classes: 'ninefold segment partition' cuts these")
        with torch.no_grad():
            found = field(sample.data[None].clamp(min=1e-6).log(), stretched(image.data)[None])[0]
        _write(out, name, sample, found.argmax(0), overlays=image if overlays else None)
        write_arrays(_place(out, name, ".npz"), sample.with_data(found))
        if progress:
            progress(k + 1, len(paths), name)
    return _told(len(paths), "masks", out, [])


def partition(
    affinities: Path | str,
    out: Path | str,
    *,
    method: Method = "watershed",
    threshold: float = 0.5,
    minimum_size: int = 20,
    progress: Progress | None = None,
) -> str:
    """Cut affinities that `predict` wrote into objects; return in a sentence what that was.

    Parameters
    ----------
    affinities, out : Path
        Folders.
    method, threshold, minimum_size
        As in `objects_of`.

    Raises
    ------
    DataError
        If there is no file of affinities.
    """
    affinities, out = Path(affinities), Path(out)
    paths = _arrays(affinities)
    objects = 0
    for k, (name, path) in enumerate(paths.items()):
        sample = read_arrays(path)
        if "offsets" not in sample.meta:
            raise DataError(f"{path} holds probabilities of classes, not affinities: train with task: objects")
        labels = _cut(sample, method, threshold, minimum_size)
        objects += int(labels.max())
        _write(out, name, sample, labels)
        if progress:
            progress(k + 1, len(paths), name)
    return f"{objects} objects; {_told(len(paths), 'masks', out, [])}"


def _about(model: Segmenter, path: Path) -> dict[str, Any]:
    """Return what is to be known of probabilities beside their values."""
    about: dict[str, Any] = {"suffix": ".nii.gz" if path.name.lower().endswith((".nii", ".nii.gz")) else ".tif"}
    return about | ({} if model.shape.classes else {"offsets": [list(offset) for offset in model.shape.offsets]})


def _cut(sample: Sample, method: Method, threshold: float, minimum_size: int) -> Tensor:
    offsets = tuple(tuple(int(d) for d in offset) for offset in sample.meta["offsets"])
    affinities = Affinities(sample.numpy().astype(np.float32), offsets)
    return torch.from_numpy(objects_of(affinities, method, threshold=threshold, minimum_size=minimum_size))


def _arrays(folder: Path) -> dict[str, Path]:
    found = {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.npz"))}
    if not found:
        raise DataError(f"{folder} holds no .npz file: 'ninefold segment predict --probabilities' writes them")
    return found


def _place(out: Path, name: str, suffix: str) -> Path:
    path = out / f"{name}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _write(out: Path, name: str, about: Sample, labels: Tensor, overlays: Sample | None = None) -> None:
    suffix = ".png" if labels.dim() == 2 else about.meta.get("suffix", ".tif")
    write_mask(_place(out, name, suffix), about.with_data(labels[None].to(torch.int64)))
    if overlays is not None:
        picture = overlay(as_picture(overlays.data), labels.numpy())
        write_image(_place(out / "overlays", name, ".png"), torch.from_numpy(picture).permute(2, 0, 1).contiguous())


def _told(done: int, what: str, out: Path, skipped: list[str]) -> str:
    left = f"; {len(skipped)} images were passed over, the first: {skipped[0]}" if skipped else ""
    return f"{done} {what} written to {out}{left}"
