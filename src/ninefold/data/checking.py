"""What is wrong with a folder of images and masks, found before training on it."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ninefold.data.folder import Folder, sizes_differ
from ninefold.data.places import misplaced
from ninefold.data.sample import Sample
from ninefold.errors import DataError, NinefoldError

__all__ = ["MaskReport", "Problem", "check_masks"]

_SHOWN = 8  # labels in a sentence


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Parameters
    ----------
    kind : str
        ``image`` and ``mask`` (cannot be read), ``size``, ``place`` (a volume's mask lies elsewhere in space), ``labels`` (out of
        range); ``absent`` (a class of which no mask has a pixel), ``bits``, ``channels``, ``spacing`` and ``palette`` (mixed).
    name : str
        Of the pair, or empty where it is about all.
    sentence : str
    """

    kind: str
    name: str
    sentence: str


@dataclass
class MaskReport:
    """What `check_masks` found; printed, it is a table.

    Attributes
    ----------
    total : int
        Pairs looked at.
    classes : int
        How many there are, or must be: one more than the largest label, unless it was given.
    pixels : Counter of int to int
        Positions by label.
    masks : Counter of int to int
        Masks that hold a label.
    problems : list of Problem
    """

    total: int = 0
    classes: int = 0
    ignore: int | None = None
    pixels: Counter[int] = field(default_factory=Counter)
    masks: Counter[int] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)
    seen: dict[str, Counter[str]] = field(default_factory=dict)

    @property
    def bad(self) -> tuple[str, ...]:
        """Names of the pairs that cannot be trained on; ``folder.without(report.bad)`` leaves them out."""
        return tuple(dict.fromkeys(p.name for p in self.problems if p.name))

    @property
    def ok(self) -> bool:
        """Whether nothing at all is wrong."""
        return not self.problems

    def require(self) -> None:
        """Raise unless there is something to train on, with images of one number of channels.

        Raises
        ------
        DataError
            If every pair is bad, or channels are mixed; with the first reason.
        """
        fatal = [p for p in self.problems if p.kind == "channels"]
        if len(self.bad) == self.total:
            raise DataError(f"none of the {self.total} pairs can be used; the first: {self.problems[0].sentence}")
        if fatal:
            raise DataError(fatal[0].sentence)

    def __str__(self) -> str:
        every = sum(self.pixels.values())
        lines = [f"{self.total} pairs, {len(self.bad)} of them bad, {self.classes} classes"]
        for what, counts in self.seen.items():
            whose = "masks" if what == "palette" else "images"
            lines.append(f"{whose}: " + ", ".join(f"{n} x {value}" for value, n in sorted(counts.items())))
        lines += ["", f"{'label':>8}{'pixels':>14}{'share':>9}{'masks':>8}"]
        known = set(range(self.classes)) if self.classes <= 1000 else set()
        for label in sorted(set(self.pixels) | known):
            note = "  ignored" if label == self.ignore else "" if 0 <= label < self.classes else "  out of range"
            share = self.pixels[label] / every if every else 0.0
            lines.append(f"{label:>8}{self.pixels[label]:>14}{share:>9.2%}{self.masks[label]:>8}{note}")
        if self.problems:
            lines += ["", *(f"{p.kind:<9}{p.sentence}" for p in self.problems)]
        return "\n".join(lines)


def check_masks(
    folder: Folder,
    classes: int | None = None,
    ignore: int | None = -100,
    progress: Callable[[int, int], None] | None = None,
) -> MaskReport:
    """Look at every image and mask of a folder: read, sizes, labels, classes, bit depths; one pair in memory at a time.

    A file that cannot be read is named and counted; what is done with it is for `MaskReport.require` and `Folder.without`.

    Parameters
    ----------
    folder : Folder
        With masks.
    classes : int, optional
        How many; labels are 0 to one less. None takes one more than the largest label that is found.
    ignore : int, optional
        A label that is no class.
    progress : callable, optional
        Called with (pairs done, pairs).

    Returns
    -------
    MaskReport

    Raises
    ------
    DataError
        If the folder has no masks.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from ninefold.data import write_image, write_mask
    >>> with tempfile.TemporaryDirectory() as root:
    ...     for name in ("images", "masks"):
    ...         (Path(root) / name).mkdir()
    ...     write_image(f"{root}/images/a.png", torch.zeros(3, 2, 4, dtype=torch.uint8, device="cpu"))
    ...     write_mask(f"{root}/masks/a.png", torch.tensor([[0, 0, 2, 2], [0, 0, 0, 7]], dtype=torch.int64, device="cpu"))
    ...     report = check_masks(Folder(f"{root}/images", f"{root}/masks"), classes=3)
    >>> report.bad, [problem.kind for problem in report.problems]
    (('a',), ['labels', 'absent'])
    """
    if folder.masks is None:
        raise DataError(f"{folder!r} has no masks to check: give their folder")
    report = MaskReport(len(folder), classes or 0, ignore)
    found: list[tuple[str, str, dict[int, int]]] = []
    for k, name in enumerate(folder.names):
        image, mask = _read(report, "image", name, folder.image, k), _read(report, "mask", name, folder.mask, k)
        if image is not None:
            _see(report, image, ("bits", "channels", "units"))
        if mask is not None:
            mask = mask if image is None else mask.along(image.axes)
            labels, counts = torch.unique(mask.data, return_counts=True)
            here = dict(zip(labels.tolist(), counts.tolist(), strict=True))
            report.pixels.update(here)
            report.masks.update(here.keys())
            found.append((name, str(mask.meta.get("mode")), here))
            _see(report, mask, ("palette",))
        if image is not None and mask is not None:
            _check_pair(report, name, (folder.images[k], image), (folder.masks[k], mask))
        if progress is not None:
            progress(k + 1, len(folder))
    _check_labels(report, classes, found)
    _check_mixed(report)
    return report


def _check_pair(report: MaskReport, name: str, image: tuple[Path, Sample], mask: tuple[Path, Sample]) -> None:
    if image[1].data.shape[1:] != mask[1].data.shape[1:]:
        report.problems.append(Problem("size", name, sizes_differ(mask[0], mask[1], image[1])))
    elif elsewhere := misplaced(image[1], mask[1], image[0], mask[0]):
        report.problems.append(Problem("place", name, elsewhere))


def _read(report: MaskReport, kind: str, name: str, reader: Callable[[int], Sample], k: int) -> Sample | None:
    try:
        sample = reader(k)
    except NinefoldError as error:
        report.problems.append(Problem(kind, name, str(error)))
        return None
    data = sample.data
    if data.is_floating_point() and not bool(data.isfinite().all()):
        bad = int((~data.isfinite()).sum())
        report.problems.append(Problem(kind, name, f"{name}: the {kind} holds NaN or infinity, {bad} of {data.numel()} values"))
    return sample


def _see(report: MaskReport, sample: Sample, keys: Iterable[str]) -> None:
    values: dict[str, Any] = {
        "bits": f"{sample.meta['bits']} bits" if "bits" in sample.meta else None,
        "channels": f"{sample.data.shape[0]} channels",
        "units": "a spacing" if sample.units else "no spacing" if set(sample.spacing) == {1.0} else "a spacing without a unit",
        "palette": "a palette" if sample.meta.get("palette") else "plain numbers",
    }
    for key in keys:
        if values[key] is not None:
            report.seen.setdefault(key, Counter())[values[key]] += 1


def _check_labels(report: MaskReport, classes: int | None, found: list[tuple[str, str, dict[int, int]]]) -> None:
    labels = sorted(label for label in report.pixels if label != report.ignore)
    report.classes = max(labels, default=-1) + 1 if classes is None else classes
    for name, mode, here in found:
        wrong = sorted(label for label in here if label != report.ignore and not 0 <= label < report.classes)
        if wrong:
            count = sum(here[label] for label in wrong)
            told = ", ".join(map(str, wrong[:_SHOWN])) + (", ..." if len(wrong) > _SHOWN else "")
            sentence = f"{name}: {count} pixels have labels {told}, out of 0..{report.classes - 1}; {_repair(mode, wrong, here)}"
            report.problems.append(Problem("labels", name, sentence))
    absent = [label for label in range(report.classes) if not report.pixels[label]]
    if absent:
        told = ", ".join(map(str, absent[:_SHOWN])) + (", ..." if len(absent) > _SHOWN else "")
        report.problems.append(Problem("absent", "", f"no mask has a pixel of class {told}: nothing can be learned of it"))


def _repair(mode: str, wrong: list[int], here: dict[int, int]) -> str:
    """Return what most likely happened, and what is done about it."""
    if set(here) == {0, 255}:
        return "0 and 255 are black and white: labels={255: 1}"
    if wrong == [255]:
        return "255 often marks what is not labelled: labels={255: -100}"
    if mode == "L":
        return "these look like grey values of a palette or of colours, not class numbers: save indices, or labels={...}"
    return "more classes, or labels={...}"


def _check_mixed(report: MaskReport) -> None:
    for key, kind, repair in (
        ("bits", "bits", "scale='unit' brings them to one range"),
        ("channels", "channels", "mode='RGB' or mode='L' brings them to one"),
        ("units", "spacing", "their voxels cannot be compared"),
        ("palette", "palette", "labels are indices of the one and numbers of the other; look whether they mean the same"),
    ):
        counts = report.seen.get(key, Counter())
        if len(counts) > 1:
            told = ", ".join(f"{n} with {value}" for value, n in sorted(counts.items()))
            what = "masks" if key == "palette" else "images"
            report.problems.append(Problem(kind, "", f"{what} are mixed: {told}; {repair}"))
