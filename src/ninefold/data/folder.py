"""A folder of images or volumes, and of label masks of the same names: what a training loop reads."""

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ninefold.data.formats import read, reader_kind
from ninefold.data.image import image_info
from ninefold.data.masks import Colours, read_mask
from ninefold.data.opening import KINDS, named
from ninefold.data.places import misplaced
from ninefold.data.sample import Sample
from ninefold.errors import ArgumentError, DataError, ShapeError

__all__ = ["Folder"]

_SOME = 3  # names in an error
_KINDS = ("image", "tiff", "nifti")


class Folder(Dataset[Any]):
    """Pairs of an image and its mask, by number, read when they are asked for.

    An image and a mask belong together if their paths within their folders are equal but for the suffix.

    Parameters
    ----------
    images : str or Path
        A folder of images or volumes, and folders within.
    masks : str or Path, optional
        The folder of masks; it may be the same one. None reads images alone.
    pattern : str
        Which images, such as ``"train/*.png"``, of their paths within the folder.
    mask_name : str
        A mask's name by its image's, such as ``"{stem}_mask"``.
    mode : str, optional
        Channels that images are converted to, such as ``"RGB"``; needed where grey and colour are mixed.
    scale : {"unit", "values"}
        Of images, as in `read_image`; volumes are what they are.
    colours : sequence of (red, green, blue), optional
        Of masks in colour: that of label 0, of label 1 and so on.
    labels : mapping of int to int, optional
        Labels that stand for others, such as ``{255: 1}``, or ``{255: -100}`` for what no loss counts.
    transform : callable, optional
        Called with image and mask (or None), and returns both; crops and flips.

    Raises
    ------
    DataError
        If there is no such folder, no image in it, an image without a mask, or two with one name.

    Examples
    --------
    >>> import tempfile
    >>> from ninefold.data import write_image, write_mask
    >>> with tempfile.TemporaryDirectory() as root:
    ...     for name in ("images", "masks"):
    ...         (Path(root) / name).mkdir()
    ...     write_image(f"{root}/images/a.png", torch.zeros(3, 4, 6, dtype=torch.uint8, device="cpu"))
    ...     write_mask(f"{root}/masks/a.png", torch.ones(4, 6, dtype=torch.int64, device="cpu"))
    ...     pairs = Folder(f"{root}/images", f"{root}/masks")
    ...     image, mask = pairs[0]
    >>> len(pairs), pairs.names, image.shape, image.dtype, mask.shape, mask.dtype
    (1, ('a',), torch.Size([3, 4, 6]), torch.float32, torch.Size([4, 6]), torch.int64)
    """

    def __init__(
        self,
        images: str | Path,
        masks: str | Path | None = None,
        *,
        pattern: str = "*",
        mask_name: str = "{stem}",
        mode: str | None = None,
        scale: str = "unit",
        colours: Colours | None = None,
        labels: Mapping[int, int] | None = None,
        transform: Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor | None]] | None = None,
    ) -> None:
        if "{stem}" not in mask_name:
            raise ArgumentError(f"mask_name={mask_name!r} must hold '{{stem}}', such as '{{stem}}_mask'")
        self.mode, self.scale, self.colours, self.labels, self.transform = mode, scale, colours, dict(labels or {}), transform
        found, self.root = _files(Path(images)), Path(images)
        in_one = masks is not None and Path(masks).resolve() == Path(images).resolve()
        others = None if masks is None else found if in_one else _files(Path(masks))
        if in_one:
            if mask_name == "{stem}":
                raise ArgumentError(
                    f"images and masks are both in {images}: say how masks are called, such as mask_name='{{stem}}_mask'"
                )
            belonging = {_mask_of(name, mask_name) for name in found}
            found = {name: path for name, path in found.items() if name not in belonging}
        found = {name: path for name, path in found.items() if fnmatch(path.relative_to(self.root).as_posix(), pattern)}
        if not found:
            raise DataError(f"{images} holds no image like {pattern!r}; suffixes are {', '.join(_suffixes())}")
        self.names: tuple[str, ...] = tuple(found)
        """Of the pairs, in order: paths within the folder, without the suffix."""
        self.images = tuple(found.values())
        self.masks: tuple[Path, ...] | None = None
        if others is not None:
            self.masks = _masks(found, others, mask_name, Path(str(masks)))
        self._sizes: dict[str, tuple[int, ...]] = {}

    def __repr__(self) -> str:
        return f"Folder({str(self.root)!r}, {len(self)} {'images' if self.masks is None else 'pairs'})"

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, k: int) -> Any:
        """Return the image ``(C, *space)``, float32, and its mask ``(*space)``, int64; the image alone if there are no masks.

        Raises
        ------
        DataError
            If a file cannot be read, holds NaN, or the mask of a volume lies elsewhere in space.
        ShapeError
            If the two differ in size.
        """
        if not -len(self) <= k < len(self):
            raise IndexError(f"number {k} of {len(self)}")
        sample = self.image(k)
        image, mask = sample.data, None
        if image.is_floating_point() and not bool(image.isfinite().all()):
            raise DataError(f"{self.images[k]} holds NaN or infinity, {int((~image.isfinite()).sum())} of {image.numel()} values")
        image = image.to(torch.float32)
        if self.masks is not None:
            labels = self.mask(k).along(sample.axes)
            mask = labels.data[0]
            if mask.shape != image.shape[1:]:
                raise ShapeError(sizes_differ(self.masks[k], labels, sample))
            if elsewhere := misplaced(sample, labels, self.images[k], self.masks[k]):
                raise DataError(elsewhere)
        if self.transform is not None:
            image, mask = self.transform(image, mask)
        return image if mask is None else (image, mask)

    def image(self, k: int) -> Sample:
        """Return image or volume k with its axes, spacing and units.

        Raises
        ------
        DataError
        """
        path = self.images[k]
        return read(path, mode=self.mode, scale=self.scale) if reader_kind(path) == "image" else read(path)

    def mask(self, k: int) -> Sample:
        """Return mask k, ``(1, *space)`` int64, its labels replaced as `labels` says.

        Raises
        ------
        DataError
        """
        if self.masks is None:
            raise DataError(f"{self!r} has no masks: give their folder")
        sample = read_mask(self.masks[k], self.colours)
        data = sample.data
        for label, other in self.labels.items():
            data = torch.where(sample.data == label, other, data)
        return sample.with_data(data)

    def sizes(self) -> list[tuple[int, ...]]:
        """Return the size of space of every image, for `BucketSampler`.

        Of images it is in the header; volumes are read once for it.

        Raises
        ------
        DataError
        """
        for k, name in enumerate(self.names):
            if name not in self._sizes:
                path = self.images[k]
                flat = reader_kind(path) == "image"
                self._sizes[name] = tuple(image_info(path)["size"]) if flat else tuple(self.image(k).data.shape[1:])
        return [self._sizes[name] for name in self.names]

    def without(self, names: Iterable[str]) -> Self:
        """Return the same without some, such as those of ``check_masks(folder).bad``.

        Raises
        ------
        DataError
            If nothing is left.
        """
        out = set(names)
        return self.subset([k for k, name in enumerate(self.names) if name not in out])

    def subset(self, numbers: Iterable[int]) -> Self:
        """Return the same with these numbers only, such as a part for validation.

        Raises
        ------
        DataError
            If nothing is left.
        """
        numbers = list(numbers)
        if not numbers:
            raise DataError(f"nothing is left of the {len(self)} images of {self.root}")
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.names, other.images = tuple(self.names[k] for k in numbers), tuple(self.images[k] for k in numbers)
        other.masks = None if self.masks is None else tuple(self.masks[k] for k in numbers)
        return other


def sizes_differ(path: Path, mask: Sample, image: Sample) -> str:
    """Return the sentence for a mask of another size than its image."""
    one, other = tuple(mask.data.shape[1:]), tuple(image.data.shape[1:])
    turned = one == other[::-1] and len(one) == 2
    hint = "; one is turned: images are read as their EXIF orientation says, and their masks must be drawn so" if turned else ""
    return f"{path} is {one}, and its image is {other}{hint}"


def _suffixes() -> list[str]:
    return [suffix for suffix, kind in KINDS.items() if kind in _KINDS]


def _files(root: Path) -> dict[str, Path]:
    """Return the images of a folder by their paths within, without the suffix, in order."""
    if not root.is_dir():
        raise DataError(f"there is no folder {root}")
    found: dict[str, Path] = {}
    for path in sorted(root.rglob("*")):
        within = path.relative_to(root)
        if named(path) not in _KINDS or any(part.startswith(".") for part in within.parts) or not path.is_file():
            continue
        suffix = max((s for s in _suffixes() if path.name.lower().endswith(s)), key=len)
        name = within.as_posix()[: -len(suffix)]
        if name in found:
            raise DataError(f"{found[name]} and {path} have one name: which one belongs to the mask cannot be told")
        found[name] = path
    return found


def _mask_of(name: str, mask_name: str) -> str:
    folder, slash, stem = name.rpartition("/")
    return folder + slash + mask_name.replace("{stem}", stem)


def _masks(images: dict[str, Path], masks: dict[str, Path], mask_name: str, root: Path) -> tuple[Path, ...]:
    wanted = {name: _mask_of(name, mask_name) for name in images}
    lacking = [mask for mask in wanted.values() if mask not in masks]
    if lacking:
        some = ", ".join(lacking[:_SOME]) + (", ..." if len(lacking) > _SOME else "")
        raise DataError(f"{len(lacking)} of {len(images)} images have no mask in {root}: there is no {some} (with any suffix)")
    return tuple(masks[mask] for mask in wanted.values())
