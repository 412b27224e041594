"""Folders of masks compared with the true ones."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ninefold.data import Folder, read_mask
from ninefold.data.masks import Colours
from ninefold.data.places import misplaced
from ninefold.errors import DataError, ShapeError
from ninefold.structured.partition import Confusion, PartitionScores, boundary_f, match_objects, score

__all__ = ["score_folders"]

Labels = NDArray[np.int64]
_SHOWN = 8  # labels in a sentence


def score_folders(
    predicted: Path,
    masks: Path,
    *,
    objects: bool = False,
    ignore: int | None = None,
    tolerance: float = 2.0,
    labels: Mapping[int, int] | None = None,
    colours: Colours | None = None,
) -> tuple[str, dict[str, Any]]:
    """Compare masks with the true ones of the same names.

    Parameters
    ----------
    predicted, masks : Path
        Folders.
    objects : bool
        Masks number objects, 0 is what is between them; else they hold classes.
    ignore : int, optional
        The true label of pixels that count nowhere.
    tolerance : float
        Pixels by which boundaries of classes may be off.
    labels, colours
        Of the true masks, as in `ninefold.data.Folder`: those of the training, where it had them.

    Returns
    -------
    told : str
        A table.
    scores : dict
        The same, for JSON.

    Raises
    ------
    DataError
        If files cannot be read, a true mask has no predicted one, or one of a volume lies elsewhere in space.
    ShapeError
        If two of one name differ in size.
    """
    pairs, out = _pairs(predicted, Folder(masks, labels=labels, colours=colours)), () if ignore is None else (ignore,)
    return _objects(pairs, out) if objects else _classes(pairs, out, tolerance)


def _pairs(predicted: Path, truth: Folder) -> Iterator[tuple[str, Labels, Labels]]:
    found, truth.masks = Folder(predicted), truth.images
    there = dict(zip(found.names, found.images, strict=True))
    if lacking := [name for name in truth.names if name not in there]:
        raise DataError(f"{len(lacking)} of {len(truth)} masks have none in {predicted}: there is no {lacking[0]}")
    for k, (name, path) in enumerate(zip(truth.names, truth.images, strict=True)):
        truth_mask = truth.mask(k)
        found_mask = read_mask(there[name]).along(truth_mask.axes)
        one, other = (mask.data[0].numpy() for mask in (truth_mask, found_mask))
        if one.shape != other.shape:
            raise ShapeError(f"{name}: the true mask is {one.shape}, the predicted one {other.shape}")
        if elsewhere := misplaced(truth_mask, found_mask, path, there[name]):
            raise DataError(elsewhere)
        yield name, one, other


def _classes(
    pairs: Iterator[tuple[str, Labels, Labels]], ignore: tuple[int, ...], tolerance: float
) -> tuple[str, dict[str, Any]]:
    kept, boundaries = [], []
    for _, truth, found in pairs:
        kept.append((truth, found))
        if not np.isin(truth, ignore).all():
            boundaries.append(boundary_f(truth, found, tolerance=tolerance, ignore=ignore).f)
    if not boundaries:
        raise DataError(
            f"all pixels of the {len(kept)} true masks are of the ignored label {ignore[0]}; nothing is left to score"
        )
    there = np.unique(
        np.concatenate([np.unique(labels[~np.isin(truth, ignore)]) for truth, found in kept for labels in (truth, found)])
    )
    strange = _strange(kept, ignore)
    confusion = Confusion(max(1, len(there)), names=[str(label) for label in there] or ["none"])
    for truth, found in kept:
        counted = ~np.isin(truth, ignore)
        confusion.update(*(np.searchsorted(there, labels[counted]) for labels in (truth, found)))
    boundary = float(np.mean(boundaries))
    scores = {
        "masks": len(kept),
        "pixel accuracy": confusion.pixel_accuracy,
        "mean class accuracy": confusion.mean_class_accuracy(),
        "mean IoU": confusion.mean_iou(),
        "boundary F": boundary,
        "IoU": {name: float(value) for name, value in zip(confusion.names, confusion.iou, strict=True)},
    }
    return f"{len(kept)} masks\n{confusion}\n{f'boundary F within {tolerance:g} pixels':<34}{boundary:>10.4f}{strange}", scores


def _strange(kept: Sequence[tuple[Labels, Labels]], ignore: tuple[int, ...]) -> str:
    """Return a sentence if labels are predicted that no true mask has, and true ones never are: they may be the same."""
    true, predicted = ({int(label) for pair in kept for label in np.unique(pair[k][~np.isin(pair[0], ignore)])} for k in (0, 1))
    if not (true - predicted and predicted - true):
        return ""
    missed, strange = (", ".join(map(str, sorted(some)[:_SHOWN])) for some in (true - predicted, predicted - true))
    return (
        f"\nlabels {missed} are never predicted, and the predicted {strange} are in no true mask: if labels stood for others in "
        "the training, give the same here, labels= or --config"
    )


def _objects(pairs: Iterator[tuple[str, Labels, Labels]], ignore: tuple[int, ...]) -> tuple[str, dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for name, truth, found in pairs:
        rows[name] = _row(truth, found, ignore)
    columns = ["adapted_rand_error", "voi_split", "voi_merge", "average precision", "true_objects", "predicted_objects"]
    means = {column: _mean([row[column] for row in rows.values()]) for column in columns}
    heads = ["ARE", "VOI split", "VOI merge", "AP at 0.5", "true", "predicted"]
    lines = [f"{'':<24}" + "".join(f"{head:>11}" for head in heads)]
    for name, row in [*rows.items(), ("mean", means)]:
        cells = ("-" if row[column] is None else f"{row[column]:.4g}" for column in columns)
        lines.append(f"{name[-24:]:<24}" + "".join(f"{cell:>11}" for cell in cells))
    return "\n".join(lines), json.loads(json.dumps({"masks": rows, "mean": means}, default=float))


def _row(truth: Labels, found: Labels, ignore: tuple[int, ...]) -> dict[str, Any]:
    """Return the scores of one mask; None for those that it has not, as without true objects there is nothing to split."""
    out: dict[str, Any] = dict.fromkeys([*(f.name for f in fields(PartitionScores)), "average precision"])
    counted = ~np.isin(truth, ignore)
    if not counted.any():
        return out
    matches = match_objects(truth, found, 0.5, ignore=ignore)
    if truth[counted].any():
        out |= asdict(score(truth, found, background=0, ignore=ignore))
    # of all objects, also those that lie in what truth calls background, which the other scores leave out
    objects = matches.true_positives + matches.false_negatives, matches.true_positives + matches.false_positives
    return out | {"average precision": matches.average_precision, "true_objects": objects[0], "predicted_objects": objects[1]}


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None
