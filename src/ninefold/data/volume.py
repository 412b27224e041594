"""Volumes: NIfTI and its kin by nibabel, stacks of TIFF by tifffile, with the size of a voxel where the file says it."""

import gzip
import struct
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ninefold.data.opening import named, needed, present, unreadable
from ninefold.data.sample import Sample, finite, sample_of, tensor_of
from ninefold.data.stack import read_stack, stack_bytes
from ninefold.errors import ArgumentError, DataError, ShapeError
from ninefold.storing import write_whole

__all__ = ["read_volume", "write_volume"]

_XYZ = ("x", "y", "z")
_NIFTI_UNITS = {"meter": "m", "mm": "mm", "micron": "µm", "sec": "s", "msec": "ms", "usec": "µs", "unknown": None}
_METRES = {"m": 1.0, "cm": 1e-2, "mm": 1e-3, "µm": 1e-6, "nm": 1e-9}
_NIFTI_TYPES = {torch.int64: torch.int32, torch.bool: torch.uint8, torch.float16: torch.float32, torch.bfloat16: torch.float32}


def read_volume(
    path: str | Path, *, dtype: torch.dtype | None = torch.float32, series: int | None = None, incomplete: str = "error"
) -> Sample:
    """Read a volume as channels over space, with the size of its voxels.

    A file that does not say how large a voxel is gives a spacing of 1 and ``units=None``; nothing is guessed, and nothing is
    warned of: ``sample.units is None`` is the test.

    Parameters
    ----------
    path : str or Path
        ``.nii``, ``.nii.gz`` and what else nibabel reads, ``.tif`` (ImageJ, OME or plain), or a ``.npz`` of `write`.
    dtype : torch.dtype, optional
        float32 by default; None keeps the file's: whole numbers where nothing scales them.
    series : int, optional
        Which of the series of a TIFF file, such as one position of a stage; needed where there are several beside thumbnails.
    incomplete : {"error", "keep"}
        What is done with a TIFF file that lacks pages or tags, or of whose set files are not there.

    Returns
    -------
    Sample
        Of NIfTI ``(C, x, y, z)`` in the file's order, so that the affine applies to indices as they are; a fourth axis (times of
        a functional scan, modalities) is the channels. Of TIFF ``(C, z, y, x)``, and ``(C, t, z, y, x)`` with times. `meta`:
        NIfTI's ``affine`` (4 x 4 nested lists, voxels to space), ``placed`` (whether the file says so itself), ``step`` (between
        neighbouring values, where whole numbers are scaled), ``time_spacing`` and ``time_unit``; TIFF's ``axes``, ``series``.

    Raises
    ------
    DataError
        If it is no volume, cut off, or holds several series, and it is not said which.

    Examples
    --------
    >>> import tempfile
    >>> cells = torch.arange(24, dtype=torch.float32, device="cpu").reshape(1, 2, 3, 4)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_volume(f"{folder}/cells.tif", Sample(cells, ("z", "y", "x"), (3.0, 0.5, 0.25), ("µm",) * 3))
    ...     read_volume(f"{folder}/cells.tif")
    Sample(1 channel, z 2 x 3 µm, y 3 x 0.5 µm, x 4 x 0.25 µm, float32 0..23)
    """
    if incomplete not in ("error", "keep"):
        raise ArgumentError(f"incomplete={incomplete!r} is not one of 'error', 'keep'")
    path = present(path, "volume")
    sample = read_stack(path, series, incomplete) if named(path) == "tiff" else _read_nifti(path)
    return sample if dtype is None else sample.to(dtype)


def write_volume(path: str | Path, sample: Sample, *, form: Literal["auto", "ome", "imagej"] = "auto") -> None:
    """Write a volume as NIfTI or a stack of TIFF by its suffix; the file is there whole, or as it was before.

    Axes named x, y, z (and t, of TIFF) are brought into the order of the format. Reading gives back the values, the spacing and
    the units.

    Parameters
    ----------
    path : str or Path
        ``.nii``, ``.nii.gz``, ``.tif`` or ``.ome.tif``.
    sample : Sample
        ``(C, *space)``. The affine under ``meta["affine"]`` is kept if it agrees with the spacing.
    form : {"auto", "ome", "imagej"}
        Of TIFF: ImageJ's, which holds uint8, uint16 and float32, or OME's; "auto" takes the first where it can.

    Raises
    ------
    ArgumentError, ShapeError
        If the sample is no volume, its labels do not fit a format's numbers, or a unit is none of length.
    DataError
        If the file cannot be written.
    """
    path, kind = Path(path), named(Path(path))
    data = finite(sample_of(sample, "a volume").data, "a volume")
    data = _narrow(data) if data.dtype in _NIFTI_TYPES else data
    sample = sample.with_data(data)
    if kind == "tiff":
        form = "ome" if form == "auto" and path.name.lower().endswith((".ome.tif", ".ome.tiff")) else form
        content = stack_bytes(sample, form)
    elif kind == "nifti" and path.name.lower().endswith((".nii", ".nii.gz")):
        content = _nifti_bytes(sample)
        content = gzip.compress(content, 6, mtime=0) if path.name.lower().endswith(".gz") else content
    else:
        raise ArgumentError(f"{path.name}: volumes are written as .nii, .nii.gz, .tif or .ome.tif")
    write_whole(path, content, DataError)


def _narrow(data: Tensor) -> Tensor:
    """Return labels and halves in a type that the formats hold, if they fit."""
    kind = _NIFTI_TYPES[data.dtype]
    if kind == torch.int32 and (int(data.min()) < -(2**31) or int(data.max()) >= 2**31):
        raise ArgumentError(f"labels from {int(data.min())} to {int(data.max())} do not fit 32 bits, the widest of these formats")
    return data.to(kind)


def _read_nifti(path: Path) -> Sample:
    nibabel = needed("nibabel", "reading NIfTI")
    try:
        image = nibabel.load(path)
        if not isinstance(image, nibabel.spatialimages.SpatialImage):
            raise TypeError(f"a {type(image).__name__} is no grid of voxels in space")  # noqa: TRY301
        values = np.asanyarray(image.dataobj)
        header, affine = image.header, np.asarray(image.affine, np.float64)
        units = header.get_xyzt_units() if hasattr(header, "get_xyzt_units") else ("unknown", "unknown")
        zooms = [float(z) for z in header.get_zooms()]
    except (
        nibabel.filebasedimages.ImageFileError,
        nibabel.spatialimages.HeaderDataError,
        OSError,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
        OverflowError,
        zlib.error,
        struct.error,
    ) as error:
        raise unreadable(path, "volume", error) from error
    if values.dtype.fields is not None or values.dtype.kind not in "iuf" or not values.size:
        raise DataError(f"{path} holds {values.dtype} of shape {values.shape}: a volume is of numbers")
    sample = _described(_channels_first(path, values), affine, zooms, units, header)
    step = getattr(image.dataobj, "slope", 1.0)
    scaled = header.get_data_dtype().kind in "iu" and values.dtype.kind == "f" and np.ndim(step) == 0
    return sample.with_data(sample.data, step=abs(float(step))) if scaled else sample


def _channels_first(path: Path, values: np.ndarray) -> Tensor:
    if values.ndim == 5 and values.shape[3] == 1:  # vectors are the fifth axis of NIfTI
        values = values[:, :, :, 0]
    if values.ndim > 4:
        raise DataError(f"{path} has shape {values.shape}; volumes have up to three axes and one of times or channels")
    values = np.moveaxis(values, 3, 0) if values.ndim == 4 else values[None]
    return tensor_of(values)


def _described(data: Tensor, affine: np.ndarray, zooms: list[float], units: tuple[str, str], header: Any) -> Sample:
    space = data.ndim - 1
    coded = any(int(header[key]) for key in ("qform_code", "sform_code") if key in header)
    steps = [float(s) for s in np.sqrt(np.square(affine[:3, :3]).sum(0))] if coded else zooms[:3]
    known = all(np.isfinite(s) and s > 0 for s in steps[:space])
    spacing = tuple(steps[:space]) if known else (1.0,) * space
    unit = _NIFTI_UNITS.get(units[0], units[0]) if known else None
    meta: dict[str, Any] = {"affine": affine.tolist(), "placed": coded or "goodRASFlag" in header}
    if len(zooms) > 3:
        meta |= {"time_spacing": zooms[3], "time_unit": _NIFTI_UNITS.get(units[1], units[1])}
    return Sample(data, _XYZ[:space], spacing, (unit,) * space, meta)


def _nifti_bytes(sample: Sample) -> bytes:
    nibabel = needed("nibabel", "writing NIfTI")
    space = len(sample.axes)
    if space > 3 or set(sample.axes) != set(_XYZ[:space]):
        raise ArgumentError(f"NIfTI holds axes {_XYZ}, got {sample.axes}; others go into .npz")
    order = [sample.axes.index(axis) for axis in _XYZ[:space]]
    units = sample.units or (None,) * space
    if len(set(units)) > 1:
        raise ArgumentError(f"NIfTI has one unit for all axes of space, got {sample.units}")
    factor, unit = _nifti_unit(units[0])
    steps = np.array([sample.spacing[k] * factor for k in order] + [1.0] * (3 - space))
    data = sample.data.permute(0, *(k + 1 for k in order))
    if data.shape[0] > 1 and space < 3:
        raise ShapeError(f"NIfTI holds channels of three axes only, got {sample!r}")
    values = data[0].numpy() if data.shape[0] == 1 else data.movedim(0, -1).numpy()
    image = nibabel.Nifti1Image(np.ascontiguousarray(values), _affine(sample, steps), dtype=values.dtype)
    image.header.set_xyzt_units(unit, "sec" if "time_spacing" in sample.meta else None)
    if data.shape[0] > 1:
        seconds = sample.meta.get("time_spacing", 1.0)
        image.header.set_zooms((*image.header.get_zooms()[:3], seconds))
        names = {told: code for code, told in _NIFTI_UNITS.items()}
        image.header.set_xyzt_units(unit, names.get(sample.meta.get("time_unit"), "unknown"))
    content: bytes = image.to_bytes()
    return content


def _nifti_unit(unit: str | None) -> tuple[float, str]:
    """Return a factor for spacings and NIfTI's name of the unit that they have then."""
    codes = {"m": "meter", "mm": "mm", "µm": "micron", None: "unknown"}
    if unit in codes:
        return 1.0, codes[unit]
    if unit not in _METRES:
        raise ArgumentError(f"the unit {unit!r} is none of length that NIfTI could say: {', '.join(_METRES)}")
    return _METRES[unit] / 1e-6, "micron"


def _affine(sample: Sample, steps: np.ndarray) -> np.ndarray:
    """Return the affine that is known, if it has these spacings; or one of them alone."""
    known = np.asarray(sample.meta.get("affine", np.eye(4)), np.float64)
    if known.shape == (4, 4) and np.allclose(np.sqrt(np.square(known[:3, :3]).sum(0)), steps, rtol=1e-5):
        return known
    return np.diag([*steps, 1.0])
