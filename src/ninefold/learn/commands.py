"""What ``ninefold learn`` and ``ninefold features`` do, beside reading their arguments."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ninefold.errors import ArgumentError, ImageError, NinefoldError
from ninefold.learn.base import FilterSource
from ninefold.learn.features import ConvFeatures
from ninefold.learn.files import load_filters, save_features, save_filters
from ninefold.learn.images import Channels, Images, folder
from ninefold.learn.kmeans import KMeansFilters
from ninefold.learn.omp import OMPFilters
from ninefold.learn.rbm import ConvRBM
from ninefold.learn.resuming import Checkpoint, fingerprint
from ninefold.learn.simple import RandomFilters, SampledPatches
from ninefold.learn.sparse import SparseCodingFilters

__all__ = ["SOURCES", "extract", "learn"]

SOURCES: dict[str, type[FilterSource]] = {
    "kmeans": KMeansFilters,
    "omp": OMPFilters,
    "random": RandomFilters,
    "rbm": ConvRBM,
    "sampled": SampledPatches,
    "sparse": SparseCodingFilters,
}


def learn(
    data: Path,
    filters: str,
    count: int,
    patch: int,
    out: Path,
    *,
    channels: Channels = "auto",
    seed: int = 0,
    progress: Callable[[int, int | None], None] | None = None,
    tell: Callable[[str], None] = print,
) -> str:
    """Learn filters from images and write them; return in a sentence what that was.

    Sources that learn in passes are kept in ``OUT.partial`` on the way, and go on from there when the same is asked for again
    after an interrupt, whatever it was.

    Parameters
    ----------
    data : Path
        A folder of images, one image, an ``.npy`` file, or an ``.npz`` file with one array or one named ``images``.
    filters : str
        One of `SOURCES`.
    count, patch : int
        How many, and the side of each.
    out : Path
        A safetensors file.
    channels : {"auto", "first", "last", "none"}
        As in `Images`.
    seed : int
    progress : callable, optional
        Called with (passes done, in all or None).
    tell : callable
        Called with sentences on what happens to ``OUT.partial``.

    Raises
    ------
    ArgumentError, ImageError
        If there is no such source, or no images.
    FilterFileError
        If `out` cannot be written. What was learned is in ``OUT.partial`` then.
    KeyboardInterrupt
        With a sentence on what is kept.
    """
    if filters not in SOURCES:
        raise ArgumentError(f"--filters {filters!r} is not one of {', '.join(SOURCES)}")
    images = _images(data, channels)
    source = SOURCES[filters](count, patch, channels=channels, random_state=seed)  # type: ignore[call-arg]
    if not hasattr(source, "progress"):
        save_filters(source.fit(images), out)
    else:
        partial, about = out.with_name(f"{out.name}.partial"), fingerprint(source, data, images)
        kept = Checkpoint(source, partial, about, progress=progress, tell=tell)
        kept.learn(images, lambda: save_filters(source, out))
    number, *shape = source.filters_.shape
    return f"{number} filters of {'x'.join(map(str, shape))} learned from {_named(images)}, written to {out}"


def extract(
    filters: Path,
    data: Path,
    out: Path,
    *,
    encoder: str = "triangle",
    pooling: str = "quadrants",
    stride: int = 1,
    channels: Channels = "auto",
    progress: Callable[[int, int | None], None] | None = None,
) -> str:
    """Write the features of images as an ``.npz`` file, names beside them; return in a sentence what that was.

    Raises
    ------
    ArgumentError, FilterFileError, ImageError, ShapeError
        If something cannot be read, written, or does not fit.
    """
    images = _images(data, channels)
    features = ConvFeatures(
        load_filters(filters), encoder, pooling, stride=stride, prefit=True, channels=channels, progress=progress
    )
    rows = features.fit(images).transform(images)
    others: dict[str, Any] = {"names": features.get_feature_names_out().astype(str)}
    if not isinstance(images.source, np.ndarray):
        others["files"] = np.array([str(path) for path in images.source if str(path) not in images.skipped])
    save_features(out, rows, **others)
    return f"{rows.shape[1]} features of {_named(images)} written to {out}"


def _images(data: Path, channels: Channels) -> Images:
    """Return what a path holds: an array, or image files."""
    if data.suffix not in (".npy", ".npz"):
        return Images(folder(data), channels)
    try:
        loaded = np.load(data, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return Images(loaded, channels)
        with loaded:
            names = ["images"] if "images" in loaded.files else loaded.files
            if len(names) == 1:
                return Images(loaded[names[0]], channels)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, NinefoldError):
            raise
        raise ImageError(f"{data} cannot be read as an array: {error}") from error
    raise ImageError(f"{data} holds {', '.join(names) or 'no array'}: name the images 'images'")


def _named(images: Images) -> str:
    """Return how many images were read, and which could not be."""
    skipped = sorted(images.skipped)
    left = f" ({len(skipped)} cannot be read: {', '.join(skipped[:3])}{', ...' if len(skipped) > 3 else ''})" if skipped else ""
    return f"{(images.count() or 0) - len(skipped)} images{left}"
