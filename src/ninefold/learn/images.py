"""Images as people have them (arrays of either channel order, lists, files, Dask arrays) as a stream of float32 tensors."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ninefold.errors import ArgumentError, ArgumentTypeError, ImageError, ShapeError

__all__ = ["Channels", "Images", "folder"]

Channels = Literal["auto", "first", "last", "none"]
BYTES = 1 << 24
"""Of images in one batch, about; a batch holds at least one."""
_FEW = 4  # as many channels as a picture may have when "auto" tells them from pixels
_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


@dataclass
class Images:
    """A stream of batches ``(B, C, H, W)``, float32, values as they were; over and over unless what was given is an iterator.

    Parameters
    ----------
    source : array, tensor, Dask array, sequence, iterable or Images
        ``(N, H, W)``, ``(N, H, W, C)`` or ``(N, C, H, W)``; or single images ``(H, W)``, ``(H, W, C)`` or ``(C, H, W)``
        of any sizes, each an array, a tensor or the path of a file, in a list, an array of objects or strings, a column of a
        table; or an iterable of batches of four axes, such as a ``DataLoader``.
    channels : {"auto", "first", "last", "none"}
        Where the channels are; "auto" looks for an axis of at most four at either end and refuses to guess between two.
    hint : {"first", "last"}, optional
        What "auto" takes where it would refuse: where they were in the images that something was learned from.

    Raises
    ------
    ArgumentError, ArgumentTypeError, ShapeError
        If it is none of these, while it is made or while it is read.

    Examples
    --------
    >>> [tuple(batch.shape) for batch in Images(np.zeros((2, 9, 8, 3), np.uint8))]
    [(2, 3, 9, 8)]
    >>> [tuple(batch.shape) for batch in Images([np.zeros((9, 8)), np.zeros((9, 8)), np.zeros((7, 5))])]
    [(2, 1, 9, 8), (1, 1, 7, 5)]
    """

    source: Any
    channels: Channels = "auto"
    hint: Channels | None = None

    def __post_init__(self) -> None:
        if self.channels not in ("auto", "first", "last", "none"):
            raise ArgumentError(f"channels={self.channels!r} is not one of 'auto', 'first', 'last', 'none'")
        self.where: Channels | None = None
        """Where the channels are, once that is known."""
        self.skipped: dict[str, str] = {}
        """Files that could not be read, by name, each with the reason, after a pass."""
        if isinstance(self.source, Images):  # another view of the same: what cannot be read is known to both
            self.skipped, self.source = self.source.skipped, self.source.source
        if isinstance(self.source, (str, Path)):
            self.source = folder(self.source)
        if hasattr(self.source, "toarray"):
            raise ArgumentTypeError(f"Sparse data was passed ({type(self.source).__name__}), but images are dense; use toarray()")
        if hasattr(self.source, "__array__") and not _is_stack(self.source):
            self.source = np.asarray(self.source)
        if _is_column(self.source):
            self.source = list(np.asarray(self.source, object).ravel())
        if _is_stack(self.source):
            _check_stack(self.source)
            self.where = self._channels_of(self.source.shape[1:])
        elif not isinstance(self.source, Iterable) or isinstance(self.source, (bytes, dict)):
            raise ArgumentTypeError(
                f"images must be an array (N, H, W), (N, H, W, C) or (N, C, H, W), or an iterable of single images, got "
                f"{type(self.source).__name__}; an image by itself is [image], and what holds labels, too, is given without "
                "them: [image for image, label in data]"
            )

    @property
    def once(self) -> bool:
        """Whether the images can be read only once."""
        return not _is_stack(self.source) and iter(self.source) is self.source

    def __iter__(self) -> Iterator[Tensor]:
        return self._stack() if _is_stack(self.source) else self._singles()

    def count(self) -> int | None:
        """Return how many images there are; None of an iterator, of batches, and of a Dask array that does not know."""
        if _is_stack(self.source):
            return None if np.isnan(self.source.shape[0]) else int(self.source.shape[0])
        if not (hasattr(self.source, "__len__") and hasattr(self.source, "__getitem__")):
            return None
        return None if len(self.source) and getattr(self.source[0], "ndim", 0) == 4 else len(self.source)

    def _stack(self) -> Iterator[Tensor]:
        for part in _parts(self.source):
            images = _as_float(part)
            yield _channels_first(images, self.where)

    def _singles(self) -> Iterator[Tensor]:
        self.skipped.clear()
        held: list[Tensor] = []
        for k, item in enumerate(self.source):
            if getattr(item, "ndim", 0) == 4:
                if held:
                    yield torch.stack(held)
                    held = []
                yield from self._batch(item, k)
                continue
            image = self._single(item, k)
            if image is None:
                continue
            if held and (image.shape != held[0].shape or len(held) * image.nbytes >= BYTES):
                yield torch.stack(held)
                held = []
            held.append(image)
        if held:
            yield torch.stack(held)

    def _single(self, item: Any, k: int) -> Tensor | None:
        of_a_file = isinstance(item, (str, Path))
        if of_a_file:
            try:
                item = _read(Path(item))
            except ImageError as error:
                self.skipped[str(item)] = str(error)
                return None
        array = _as_array(item, k)
        if array.ndim not in (2, 3):
            raise ShapeError(
                f"image {k} has shape {tuple(array.shape)}"
                + ("" if _is_stack(item) else f", as it is a {type(item).__name__}")
                + "; a single image is (H, W), (H, W, C) or (C, H, W)"
            )
        self.where = ("none" if array.ndim == 2 else "last") if of_a_file else self._channels_of(array.shape)
        return _channels_first(_as_float(array[None], f"image {k}"), self.where)[0]

    def _batch(self, item: Any, k: int) -> Iterator[Tensor]:
        """Yield images that came together."""
        images = Images(item, self.channels, self.hint)
        self.where = images.where
        try:
            yield from images
        except ArgumentError as error:
            raise type(error)(f"batch {k}: {error}") from error

    def _channels_of(self, shape: Sequence[int]) -> Channels:
        found = _channels_of(tuple(shape), self.channels)
        if found is not None:
            return found
        if self.hint in ("first", "last"):
            return self.hint
        raise ShapeError(
            f"images of shape {tuple(shape)} have {'two axes' if shape[0] <= _FEW else 'no axis'} that could be channels; say "
            "channels='first' or channels='last'"
        )


def folder(path: str | Path) -> Sequence[Path]:
    """Return the image files of a folder and of those within, in order of their names; or the one file.

    Raises
    ------
    ImageError
        If there is no such folder, or no image in it.
    """
    root = Path(path)
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise ImageError(f"{root} is neither a folder nor a file")
    files = sorted(p for p in root.rglob("*") if p.suffix.lower() in _SUFFIXES)
    if not files:
        raise ImageError(f"{root} holds no image: none of its files ends in {', '.join(sorted(_SUFFIXES))}")
    return files


def _read(path: Path) -> np.ndarray:
    """Read a file, turned as it was taken; palettes become colours, and transparency is left out."""
    from PIL import Image, ImageOps  # noqa: PLC0415  an extra

    try:
        # from an open file: Pillow maps a path into memory, and turns rows of some TIFF by what it knows of them too late
        with path.open("rb") as file, Image.open(file) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode in ("P", "RGBA", "CMYK", "YCbCr", "LAB", "HSV"):
                image = image.convert("RGB")
            elif image.mode in ("1", "LA"):
                image = image.convert("L")
            return np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path} cannot be read as an image: {error}") from error


def _is_stack(source: Any) -> bool:
    return hasattr(source, "shape") and hasattr(source, "dtype")


def _is_column(source: Any) -> bool:
    """Return whether it is a row or column of things that are images each: paths, arrays."""
    shape = tuple(source.shape) if _is_stack(source) else ()
    return bool(shape) and shape[1:] in ((), (1,)) and getattr(source.dtype, "kind", "") in ("O", "U", "T")


def _check_stack(source: Any) -> None:
    shape = tuple(source.shape)
    if len(shape) not in (3, 4):
        raise ShapeError(
            f"images must have shape (N, H, W), (N, H, W, C) or (N, C, H, W), got {shape}"
            + ("; Reshape your data: rows of pixels are no images, and an image by itself is X[None]" if len(shape) < 3 else "")
        )
    if np.isnan(shape[1:]).any():
        raise ShapeError(f"images of shape {shape} have unknown sizes; X.compute_chunk_sizes() finds them")
    if 0 in shape:
        raise ShapeError(f"images of shape {shape}: Found array with {shape[0]} sample(s) while a minimum of 1 is required")


def _channels_of(shape: tuple[int, ...], channels: Channels) -> Channels | None:
    """Return where the channels of one image are, None where that is not clear."""
    if len(shape) == 2:
        if channels in ("first", "last"):
            raise ShapeError(f"channels={channels!r} needs images of three axes, got {shape}")
        return "none"
    if channels != "auto":
        if channels == "none":
            raise ShapeError(f"channels='none' needs images of two axes, got {shape}")
        return channels
    first, last = shape[0] <= _FEW, shape[-1] <= _FEW
    return None if first == last else "first" if first else "last"


def _parts(source: Any) -> Iterator[Any]:
    """Yield parts of a stack, each of about `BYTES` once it is float32; of a Dask array, never two chunks at a time."""
    each = max(1, int(BYTES / 4 / max(1, int(np.prod(source.shape[1:])))))
    if hasattr(source, "dask"):
        for chunk in source.to_delayed().ravel() if source.numblocks[0] == source.npartitions else [source]:
            yield from _cut(np.asanyarray(chunk.compute()), each)
    else:
        yield from _cut(source, each)


def _cut(source: Any, each: int) -> Iterator[Any]:
    for start in range(0, len(source), each):
        yield source[start : start + each]


def _as_array(item: Any, k: int) -> Any:
    """Return a single image as an array or a tensor, a mask kept."""
    if isinstance(item, (Tensor, np.ma.MaskedArray)):
        return item
    try:
        return np.asarray(item)
    except ValueError as error:
        raise ShapeError(
            f"image {k} is a {type(item).__name__} of things that differ in shape; give images without labels, such as "
            "(image for image, label in data)"
        ) from error


def _as_float(images: Any, what: str = "the images") -> Tensor:
    """Return float32 of whatever numbers, and refuse what are none."""
    if isinstance(images, Tensor):
        if images.is_complex():
            raise ArgumentError(f"{what}: Complex data not supported, got {images.dtype}")
        made = images.detach().to("cpu", torch.float32, copy=True)
    else:
        if bool(np.ma.is_masked(images)):
            raise ArgumentError(
                f"{what}: {int(np.ma.count_masked(images))} of {images.size} values are masked, and a patch has no gaps; fill "
                "them, such as by X.filled(X.mean())"
            )
        array = np.asarray(images)
        if array.dtype.kind == "c":
            raise ArgumentError(f"{what}: Complex data not supported, got {array.dtype}")
        if array.dtype.kind == "O":
            try:
                array = array.astype(np.float64)
            except TypeError as error:
                raise ArgumentTypeError(f"{what} must hold numbers: {error}") from error
        if array.dtype.kind not in "fiub":
            raise ArgumentError(f"{what} must hold numbers, got dtype {array.dtype}")
        made = torch.from_numpy(np.array(array, np.float32))  # a copy, for what is given may be read-only
    if not bool(made.isfinite().all()):
        raise ArgumentError(f"{what}: Input contains NaN or infinity, {int((~made.isfinite()).sum())} of {made.numel()} values")
    return made


def _channels_first(images: Tensor, where: Channels | None) -> Tensor:
    return images.unsqueeze(1) if where == "none" else images if where == "first" else images.movedim(-1, 1).contiguous()
