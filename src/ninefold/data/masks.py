"""Label masks: whole numbers that must come back as they were, never colours that look alike."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ninefold.data.image import AXES, PIXEL, UNITS, labels_of, lossless, opened, save, stretched, turned
from ninefold.data.opening import kind_of, named, needed, present
from ninefold.data.png import png16
from ninefold.data.sample import Sample
from ninefold.data.volume import read_volume, write_volume
from ninefold.errors import ArgumentError, ArgumentTypeError, DataError, ShapeError
from ninefold.storing import write_whole

__all__ = ["read_mask", "write_mask"]

Colours = Sequence[Sequence[int]]

_TURNS: dict[int, Callable[[Tensor], Tensor]] = {  # of a mask (1, H, W), by the orientation that EXIF and TIFF have
    2: lambda x: x.flip(2),
    3: lambda x: x.flip(1, 2),
    4: lambda x: x.flip(1),
    5: lambda x: x.transpose(1, 2),
    6: lambda x: x.rot90(-1, (1, 2)),
    7: lambda x: x.transpose(1, 2).flip(1, 2),
    8: lambda x: x.rot90(1, (1, 2)),
}
_NEAR = 0.25  # of a label: what is further from it is none, however large the steps of the file
_ROUNDING = 1e-6  # of a step in float32, times what it is multiplied by


def read_mask(path: str | Path, colours: Colours | None = None) -> Sample:
    """Read a label for every pixel or voxel: palette indices, grey values or voxels as they are, in int64.

    Parameters
    ----------
    path : str or Path
        An image without losses, NIfTI, or TIFF.
    colours : sequence of (red, green, blue), optional
        Of masks in colour: the colour of label 0, of label 1 and so on.

    NIfTI files may hold labels as multiples of a step that is no whole number, which programs choose that save floats: those are
    the labels nearest to them, within half a step.

    Returns
    -------
    Sample
        ``(1, *space)`` int64. `meta`: ``mode`` and ``bits`` of an image, ``palette`` (whether the labels are indices of one).

    Raises
    ------
    DataError
        If the file cannot be read, holds colours and `colours` is not given, or other ones, or fractions.

    Examples
    --------
    >>> import tempfile
    >>> labels = torch.tensor([[0, 2, 1], [2, 2, 0]], device="cpu")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_mask(f"{folder}/a.png", labels)
    ...     again = read_mask(f"{folder}/a.png")
    >>> torch.equal(again.data[0], labels), again.meta["palette"]
    (True, True)
    """
    path = present(path, "mask")
    kind = kind_of(path)
    if kind == "nifti" or (kind == "tiff" and colours is None):
        return _of_volume(path)
    if kind not in ("image", "tiff"):
        raise DataError(f"{path} is of kind {kind!r}; a mask is an image, NIfTI or TIFF")
    with opened(path) as image:
        mode = image.mode
        if image.format in ("JPEG", "WEBP") and mode != "P":
            raise DataError(f"{path} is {image.format}, which changes labels while it compresses; masks are .png")
        stretch = stretched(image)
        values = np.array(turned(image if mode != "PA" else image.convert("RGB")))
    if stretch is not None:  # a grey value of few bits is a label as it is, not the brightness that it stands for
        values = np.rint(values * (stretch[0] / stretch[1]))
    meta: dict[str, Any] = {"mode": mode, "palette": mode == "P", "bits": 16 if mode.startswith("I") else 8}
    if values.ndim == 3:
        values = _of_colours(path, values, mode, colours)
    elif mode == "F":
        values = _whole(path, values)
    return Sample(torch.from_numpy(values.astype(np.int64))[None], AXES, PIXEL, UNITS, meta)


def _of_colours(path: Path, values: np.ndarray, mode: str, colours: Colours | None) -> np.ndarray:
    if mode == "LA":
        return values[..., 0]
    if values.shape[2] not in (3, 4) or mode == "CMYK":
        raise DataError(f"{path} has channels {mode}, of which no labels are known")
    if colours is None:
        found = np.unique(values.reshape(-1, values.shape[2])[:, :3], axis=0)
        raise DataError(
            f"{path} holds {len(found)} colours (mode {mode}), and labels are numbers: save indices, or give "
            "colours=[(r, g, b), ...]"
        )
    return labels_of(values[..., :3], colours, path)


def _of_volume(path: Path) -> Sample:
    sample = read_volume(path, dtype=None)
    if sample.data.shape[0] != 1:
        raise DataError(f"{path} has {sample.data.shape[0]} channels; a mask has one label for every position")
    data = sample.data
    if turn := _TURNS.get(sample.meta.get("orientation", 1)):  # as images are
        data = turn(data).contiguous()
        sample = replace(sample, spacing=sample.spacing[:: 1 if data.shape == sample.data.shape else -1], data=data)
    if data.is_floating_point():
        data = torch.from_numpy(_whole(path, data.numpy(), sample.meta.get("step", 0.0)))
    return sample.with_data(data.to(torch.int64), palette=False)


def _whole(path: Path, values: np.ndarray, step: float = 0.0) -> np.ndarray:
    """Return whole numbers; where a file holds multiples of a step, the nearest one is what was written, within half of it."""
    nearest = np.rint(values)
    off = min(step / 2, _NEAR) + _ROUNDING * np.abs(values) if step else 0.0
    wrong = ~(np.abs(values - nearest) <= off)  # NaN among them
    if wrong.any():
        raise DataError(f"{path}: {int(wrong.sum())} of {wrong.size} values are no whole numbers, such as {values[wrong][0]:g}")
    labels: np.ndarray = nearest.astype(np.int64)
    return labels


def write_mask(path: str | Path, mask: Sample | Tensor, colours: Colours | Mapping[int, Sequence[int]] | None = None) -> None:
    """Write labels so that they come back as they were; the file is there whole, or as it was before.

    Parameters
    ----------
    path : str or Path
        ``.png``, ``.tif``, ``.bmp``; ``.nii``, ``.nii.gz`` and ``.tif`` for volumes.
    mask : Sample or Tensor
        Whole numbers ``(1, *space)`` or ``(*space)``, at least 0. Up to 255 they are indices of a palette, beyond that 16 bits.
    colours : sequence or mapping of label to (red, green, blue), optional
        Of the palette; else colours that are told apart.

    Raises
    ------
    ArgumentError, ArgumentTypeError, ShapeError
        If these are no labels, or the format would change them.
    DataError
        If the file cannot be written.
    """
    path = Path(path)
    data = mask.data if isinstance(mask, Sample) else mask
    if not isinstance(data, Tensor) or data.is_floating_point() or data.is_complex():
        raise ArgumentTypeError(f"labels are a tensor of whole numbers, got {getattr(data, 'dtype', type(data).__name__)}")
    if isinstance(mask, Sample) and len(mask.axes) != 2:
        return write_volume(path, mask)
    data = data[0] if data.ndim == 3 and data.shape[0] == 1 else data
    if data.ndim != 2 or not data.numel():
        raise ShapeError(
            f"a mask is (H, W) or (1, H, W), got {tuple(data.shape)}; volumes are written as a Sample, with their axes"
        )
    lossless(path)
    labels = data.detach().cpu().to(torch.int64).numpy()
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high > 65535:
        raise ArgumentError(f"labels from {low} to {high}; an image holds 0 to 65535, .npz any")
    if high > 255:
        if named(path) == "tiff":
            return write_volume(path, Sample(torch.from_numpy(labels)[None], ("y", "x"), PIXEL))
        if path.suffix.lower() != ".png":
            raise ArgumentError(f"{path.name}: labels up to {high} need 16 bits: .png or .tif")
        return write_whole(path, png16(labels.astype(np.uint16)[..., None]), DataError)
    image = needed("PIL.Image", "writing masks").fromarray(labels.astype(np.uint8), "P")
    image.putpalette(_palette(colours))
    return save(path, image)


def _palette(colours: Colours | Mapping[int, Sequence[int]] | None) -> list[int]:
    """Return 256 colours: those given, and for other labels ones whose bits are those of the label (as in PASCAL VOC)."""
    table = []
    for label in range(256):
        colour, rest = [0, 0, 0], label
        for bit in range(7, 4, -1):
            for channel in range(3):
                colour[channel] |= (rest >> channel & 1) << bit
            rest >>= 3
        table.append(colour)
    given = colours if isinstance(colours, Mapping) else dict(enumerate(colours or ()))
    for label, one in given.items():
        table[label] = list(one)
    return [value for colour in table for value in colour]
