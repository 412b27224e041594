"""Images and label masks by Pillow: turned as they were taken, 8 and 16 bits, palettes as colours or as indices, as asked for."""

import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ninefold.data.opening import needed, present, unreadable
from ninefold.data.png import png16
from ninefold.data.sample import Sample, finite
from ninefold.errors import ArgumentError, DataError, ShapeError
from ninefold.storing import write_whole

__all__ = ["image_info", "read_image", "write_image"]

AXES, PIXEL, UNITS = ("height", "width"), (1.0, 1.0), ("pixel", "pixel")
_CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4}
_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's conversion to L
_LOSSLESS = (".png", ".tif", ".tiff", ".bmp", ".ppm", ".pgm")


def read_image(
    path: str | Path,
    mode: str | None = None,
    *,
    scale: Literal["unit", "values"] = "unit",
    palette: Literal["colours", "indices"] = "colours",
) -> Sample:
    """Read an image as channels over height and width, turned as its EXIF orientation says.

    Parameters
    ----------
    path : str or Path
    mode : {"L", "LA", "RGB", "RGBA", "CMYK"}, optional
        Channels to convert to; None keeps those of the file. What RGB and L leave out of RGBA and LA is the transparency; grey is
        the luma of ITU-R BT.601; CMYK becomes RGB without colour profiles.
    scale : {"unit", "values"}
        float32 divided by the largest value of the bit depth, or whole numbers as they are: uint8, and int32 for 16 bits.
    palette : {"colours", "indices"}
        What a pixel of an image with a palette is: the colour that it points to, or the index, as an int64, never divided. Where
        an image has no palette, ``indices`` is an error; label masks are for `read_mask`.

    Returns
    -------
    Sample
        ``(C, H, W)``; axes ``height`` and ``width``, in pixels. `meta`: ``mode`` (of the file), ``bits``, ``divisor``,
        ``channels`` (such as ``"RGB"``), and ``palette`` (a list of colours) with indices.

    Raises
    ------
    DataError
        If it is no image, is cut off, or holds several pages.
    ArgumentError

    Examples
    --------
    >>> import tempfile
    >>> colours = torch.arange(24, dtype=torch.uint8, device="cpu").reshape(3, 2, 4)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_image(f"{folder}/a.png", colours)
    ...     again = read_image(f"{folder}/a.png", scale="values")
    >>> again, torch.equal(again.data, colours)
    (Sample(3 channels, height 2 x 1 pixel, width 4 x 1 pixel, uint8 0..23), True)
    """
    for name, value, known in (("scale", scale, ("unit", "values")), ("palette", palette, ("colours", "indices"))):
        if value not in known:
            raise ArgumentError(f"{name}={value!r} is not one of {list(known)}")
    if mode is not None and mode not in _CHANNELS:
        raise ArgumentError(f"mode={mode!r} is not one of {list(_CHANNELS)}")
    path = present(path, "image")
    with opened(path) as image:
        meta: dict[str, Any] = {"mode": image.mode, "bits": _bits(image)}
        if palette == "indices":
            return _indices(path, image, meta)
        pixels, channels = _pixels(path, image)
    if mode is not None and mode != channels:
        pixels, channels = _converted(path, pixels, channels, mode, meta["bits"]), mode
    data = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    divisor = 1 if data.is_floating_point() or scale == "values" else 2 ** meta["bits"] - 1
    data = data.to(torch.float32) / divisor if scale == "unit" else data
    return Sample(data, AXES, PIXEL, UNITS, {**meta, "channels": channels, "divisor": divisor})


def image_info(path: str | Path) -> dict[str, Any]:
    """Return size ``(height, width)`` after turning, mode, bits and pages of an image; pixels are not decoded.

    Raises
    ------
    DataError
    """
    with opened(present(path, "image"), pages=True) as image:
        # Pillow gives the size of a TIFF file as it is when turned, and that of others as it is stored.
        width, height = (image.tag_v2[256], image.tag_v2[257]) if image.format == "TIFF" else image.size
        size = (width, height) if image.getexif().get(0x0112, 1) in (5, 6, 7, 8) else (height, width)
        return {"size": size, "mode": image.mode, "bits": _bits(image), "pages": _pages(image)}


def write_image(path: str | Path, image: Sample | Tensor, *, bits: int | None = None, **options: Any) -> None:
    """Write an image in the format of the suffix; the file is there whole, or as it was before.

    Parameters
    ----------
    path : str or Path
    image : Sample or Tensor of shape ``(C, H, W)``
        One channel is grey, two grey with transparency, three RGB, four RGBA, or CMYK where ``meta["channels"]`` says so. Floats
        lie in ``[0, 1]``; whole numbers are written as they are.
    bits : {8, 16}, optional
        None takes 16 for whole numbers of a sample that had 16, and 8 otherwise. 16 bits go into PNG, and one channel also into
        TIFF.
    **options
        Of Pillow's writer of the format, such as ``quality=95``.

    Raises
    ------
    ArgumentError, ArgumentTypeError, ShapeError
        If the tensor is no image, or holds values that do not fit.
    DataError
        If the format does not hold such an image, or the file cannot be written.
    """
    Image, path = needed("PIL.Image", "writing images"), Path(path)
    meta = image.meta if isinstance(image, Sample) else {}
    data = finite(image.data if isinstance(image, Sample) else image, "an image")
    if data.ndim != 3 or not 1 <= data.shape[0] <= 4:
        raise ShapeError(f"an image is (1 to 4, H, W), got {tuple(data.shape)}")
    bits = bits or (16 if meta.get("bits") == 16 and not data.is_floating_point() else 8)
    array = _whole(data, bits).numpy().transpose(1, 2, 0).astype(np.uint8 if bits == 8 else np.uint16)
    mode = ("L", "LA", "RGB", meta.get("channels") if meta.get("channels") == "CMYK" else "RGBA")[data.shape[0] - 1]
    if bits == 16 and path.suffix.lower() == ".png":
        return write_whole(path, png16(np.ascontiguousarray(array)), DataError)
    if bits == 16 and (data.shape[0] > 1 or path.suffix.lower() not in (".tif", ".tiff")):
        raise DataError(f"{path.name}: 16 bits of {data.shape[0]} channels go into .png; one channel goes into .tif, too")
    squeezed = np.ascontiguousarray(array[..., 0] if data.shape[0] == 1 else array)
    return save(path, Image.fromarray(squeezed) if mode != "CMYK" else Image.fromarray(squeezed, "CMYK"), **options)


def save(path: Path, image: Any, **options: Any) -> None:
    """Write a Pillow image in the format of the suffix, whole.

    Raises
    ------
    DataError
    """
    known = needed("PIL.Image", "writing images").registered_extensions()
    suffix, content = path.suffix.lower(), io.BytesIO()
    if suffix not in known:
        raise DataError(f"{path.name}: Pillow writes no {suffix!r}; take .png")
    try:
        image.save(content, known[suffix], **options)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} cannot be written: {error}") from error
    write_whole(path, content.getvalue(), DataError)


def lossless(path: Path) -> None:
    """Refuse formats that change values.

    Raises
    ------
    ArgumentError
    """
    if path.suffix.lower() not in _LOSSLESS:
        raise ArgumentError(f"{path.name}: labels must come back as they were; take .png, not {path.suffix!r}")


@contextmanager
def opened(path: Path, *, pages: bool = False) -> Iterator[Any]:
    """Open an image that Pillow decodes; whatever goes wrong is one sentence.

    Raises
    ------
    DataError
        Also if there are several pages, unless they are allowed.
    """
    Image = needed("PIL.Image", "reading images")
    try:
        # Not by its path: Pillow then maps files that are not compressed, and mixes up the rows of those that are to be turned.
        with path.open("rb") as file, Image.open(file) as image:
            if not pages and _pages(image) > 1:
                reader = "read_volume reads pages of TIFF" if image.format == "TIFF" else "Video reads films"
                raise DataError(f"{path} holds {image.n_frames} pages or frames, not one image; {reader}")
            yield image
    except Image.DecompressionBombError as error:
        raise DataError(f"{path} is larger than PIL.Image.MAX_IMAGE_PIXELS={Image.MAX_IMAGE_PIXELS} allows: {error}") from error
    except Image.UnidentifiedImageError as error:
        raise unreadable(path, "image", "Pillow knows no format that begins like this") from error
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, OverflowError) as error:
        if isinstance(error, (DataError, ArgumentError)):
            raise
        raise unreadable(path, "image", error) from error


def _pages(image: Any) -> int:
    """Return how many images there are; what cameras put behind a JPEG (MPO), such as a preview, is none to be asked for."""
    return 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))


def stretched(image: Any) -> tuple[int, int] | None:
    """Return the largest grey value of a file and what Pillow makes of it, where these differ; before it is decoded."""
    raws = {_raw(tile) for tile in image.tile}
    if image.mode == "L" and raws <= {"L;2", "L;4"} and len(raws) == 1:
        return 2 ** int(raws.pop()[-1]) - 1, 255
    if image.format == "PPM" and image.mode in ("L", "I") and isinstance(image.tile[0].args, tuple):
        return int(image.tile[0].args[1]), 255 if image.mode == "L" else 65535
    return None


def _bits(image: Any) -> int:
    if image.mode == "1":
        return 1
    if image.mode in ("F", "I"):
        return 16 if image.mode == "I" and image.format in ("PNG", "PPM") else 32
    return 16 if image.mode.startswith("I;16") or _sixteen(image) else 8


def _sixteen(image: Any) -> bool:
    """Whether there are 16 bits in a file of which Pillow gives 8."""
    return image.mode in ("RGB", "RGBA") and any(";16" in _raw(tile) for tile in image.tile)


def _raw(tile: Any) -> str:
    raw = tile[3][0] if isinstance(tile[3], tuple) and tile[3] else tile[3]
    return raw if isinstance(raw, str) else ""


def _indices(path: Path, image: Any, meta: dict[str, Any]) -> Sample:
    if image.mode != "P":
        raise ArgumentError(f"{path} has no palette (mode {image.mode}); palette='colours' reads it, read_mask reads labels")
    data = torch.from_numpy(np.array(turned(image))).to(torch.int64)[None]
    raw = image.getpalette() or []
    colours = [tuple(raw[k : k + 3]) for k in range(0, len(raw), 3)]
    return Sample(data, AXES, PIXEL, UNITS, {**meta, "channels": "P", "divisor": 1, "palette": colours})


def turned(image: Any) -> Any:
    """Return an image as its EXIF orientation says."""
    return needed("PIL.ImageOps", "reading images").exif_transpose(image)


def _pixels(path: Path, image: Any) -> tuple[np.ndarray, str]:
    """Return pixels (H, W, C) and the names of their channels."""
    if _sixteen(image):
        return _both_bytes(path, image)
    mode = image.mode
    if mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    elif mode == "PA":
        image = image.convert("RGBA")
    elif mode in ("YCbCr", "LAB", "HSV", "RGBX"):
        image = image.convert("RGB")
    pixels = np.array(turned(image))
    if mode == "1":
        pixels = pixels.astype(np.uint8)
    elif mode == "I" or mode.startswith("I;16"):
        pixels = pixels.astype(np.int32)
    channels = image.mode if image.mode in _CHANNELS else "L"
    return pixels.reshape(*pixels.shape[:2], -1), channels


def _both_bytes(path: Path, image: Any) -> tuple[np.ndarray, str]:
    """Return 16-bit colours, of which Pillow's decoders keep one byte: read twice, the other byte the second time."""
    raws = {_raw(tile) for tile in image.tile}
    raw = raws.pop() if len(raws) == 1 else ""
    if raw.endswith("N"):
        raw = raw[:-1] + ("L" if sys.byteorder == "little" else "B")
    if raw not in ("RGB;16B", "RGB;16L", "RGBA;16B", "RGBA;16L", "LA;16B"):
        raise DataError(
            f"{path} holds 16-bit colours in a layout that Pillow gives no more than 8 bits of; save it as a plain PNG or TIFF"
        )
    passes = ("RGBA",) if raw == "LA;16B" else (raw, raw[:-1] + ("L" if raw.endswith("B") else "B"))
    found = []
    for form in passes:
        with opened(path) as again:
            again.tile = [
                tile._replace(args=(form, *tile.args[1:]) if isinstance(tile.args, tuple) else form) for tile in again.tile
            ]
            found.append(np.array(turned(again)).astype(np.int32))
    if raw == "LA;16B":  # grey and transparency, two bytes each, look like four channels of one
        return found[0][..., ::2] * 256 + found[0][..., 1::2], "LA"
    return found[0] * 256 + found[1], image.mode


def _converted(path: Path, pixels: np.ndarray, channels: str, mode: str, bits: int) -> np.ndarray:
    """Return pixels with other channels; of all dtypes, where Pillow converts 8 bits only."""
    if mode == "CMYK":
        raise ArgumentError(f"{path} has channels {channels}; colours on a screen become CMYK only with a profile of the printer")
    top = 2**bits - 1 if pixels.dtype.kind in "iu" else 1
    if channels == "CMYK":  # ink upon white
        ink = pixels.astype(np.float32)
        pixels = np.rint((top - ink[..., :3]) * (top - ink[..., 3:]) / top).astype(pixels.dtype)
        channels = "RGB"
    opaque = np.full_like(pixels[..., :1], top)
    alpha = pixels[..., -1:] if channels.endswith("A") else opaque
    colours = pixels[..., :3] if channels.startswith("RGB") else pixels[..., :1]
    if mode.startswith("RGB"):
        colours = np.repeat(colours, 3, -1) if colours.shape[-1] == 1 else colours
    elif colours.shape[-1] == 3:
        grey = colours.astype(np.float64) @ np.array(_GREY)
        colours = (np.rint(grey) if pixels.dtype.kind in "iu" else grey).astype(pixels.dtype)[..., None]
    return np.concatenate([colours, alpha], -1) if mode.endswith("A") else colours


def _whole(data: Tensor, bits: int) -> Tensor:
    if bits not in (8, 16):
        raise ArgumentError(f"bits={bits} must be 8 or 16")
    top = 2**bits - 1
    if data.dtype == torch.bool:
        return data.to(torch.int32).mul(top)
    low, high = (float(v) for v in torch.aminmax(data))
    limit = 1 if data.is_floating_point() else top
    if low < 0 or high > limit:
        raise ArgumentError(f"values from {low:g} to {high:g}, but an image of {data.dtype} and {bits} bits holds 0 to {limit}")
    return (data.to(torch.float64) * top).round().to(torch.int32) if data.is_floating_point() else data.to(torch.int32)


def labels_of(colours: np.ndarray, table: Sequence[Sequence[int]], path: Path) -> np.ndarray:
    """Return the number in a table of every pixel's colour (H, W, 3).

    Raises
    ------
    DataError
        If a colour is not in the table.
    """
    code = (colours.astype(np.int64) << np.array([16, 8, 0])).sum(-1)
    known = np.array([(r << 16) + (g << 8) + b for r, g, b in table])
    order = np.argsort(known, kind="stable")
    place = np.searchsorted(known[order], code).clip(max=len(known) - 1)
    labels: np.ndarray = order[place]
    wrong = known[labels] != code
    if wrong.any():
        first = tuple(int(v) for v in colours[wrong][0])
        raise DataError(f"{path}: {int(wrong.sum())} of {wrong.size} pixels have colours that are not given, such as {first}")
    return labels
