"""Stacks of TIFF by tifffile: axes, and the spacing that ImageJ or OME wrote."""

import io
import logging
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ninefold.data.opening import needed, unreadable
from ninefold.data.sample import Sample, tensor_of
from ninefold.errors import ArgumentError, DataError

__all__ = ["read_stack", "stack_axes", "stack_bytes"]

_ORDER = "TZYX"
_UNITS = {"micron": "µm", "microns": "µm", "um": "µm", "µm": "µm", "μm": "µm", "\\u00B5m": "µm", "millimeter": "mm", "sec": "s"}
_UNTOLD = ("", "pixel", "pixels", "voxel", None)
_PIXELS = re.compile(r"<(?:\w+:)?Pixels\b([^>]*)>")
_ATTRIBUTE = re.compile(r"(\w+)\s*=\s*\"([^\"]*)\"")
_IMAGEJ = (torch.uint8, torch.uint16, torch.float32)
Steps = dict[str, tuple[float, str | None]]


def read_stack(path: Path, series: int, incomplete: str) -> Sample:
    """Read a TIFF file as ``(C, [t], [z], y, x)``; see `read_volume`.

    Raises
    ------
    DataError
    """
    with _opened(path) as (file, said):
        if not 0 <= series < len(file.series):
            raise DataError(f"{path} holds {len(file.series)} series of images, numbered from 0; there is no series {series}")
        found = file.series[series]
        promised = _promised(file) if series == 0 else 0
        pages = prod(n for n, axis in zip(found.shape, found.axes, strict=True) if axis not in "YXS")
        if pages < promised and incomplete == "error":
            raise DataError(f"{path} ends after {pages} of the {promised} planes that it promises; incomplete='keep' reads those")
        values = found.asarray()
        steps = _ome_steps(file) if file.is_ome else _imagej_steps(file) if file.is_imagej else {}
        about = {"axes": found.axes, "series": len(file.series), "promised": promised}
        if (tag := found.keyframe.tags.get("Orientation")) is not None and found.axes in ("YX", "YXS"):
            about["orientation"] = int(tag.value)
    if said and incomplete == "error":
        raise DataError(f"{path} is damaged: {said[0]}; incomplete='keep' reads what is there")
    return _ordered(path, values, found.axes, steps, about)


def stack_axes(path: Path) -> str:
    """Return the axes of the first series, such as ``"ZYX"``.

    Raises
    ------
    DataError
    """
    with _opened(path) as (file, _):
        return str(file.series[0].axes) if len(file.series) else ""


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, list[str]]]:
    """Open a file, and gather what tifffile logs as an error: of a damaged one it returns what it finds."""
    tifffile = needed("tifffile", "reading stacks of TIFF")
    said: list[str] = []

    class Gather(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.ERROR:
                said.append(" ".join(record.getMessage().split()))

    log, handler = logging.getLogger("tifffile"), Gather()
    propagates, log.propagate = log.propagate, False
    others = log.handlers[:]
    log.handlers[:] = [handler]
    try:
        with tifffile.TiffFile(path) as file:
            yield file, said
    except (
        tifffile.TiffFileError,
        OSError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        struct.error,
        zlib.error,
        MemoryError,
    ) as error:
        if isinstance(error, DataError):
            raise
        raise unreadable(path, "volume", error) from error
    finally:
        log.propagate, log.handlers[:] = propagates, others


def _promised(file: Any) -> int:
    """Return how many planes the metadata speak of, 0 where they do not."""
    if file.is_imagej:
        return int((file.imagej_metadata or {}).get("images", 0))
    pixels = _pixels(file) if file.is_ome else {}
    try:
        return prod(int(pixels[key]) for key in ("SizeZ", "SizeC", "SizeT")) // max(1, int(file.pages[0].samplesperpixel))
    except (KeyError, ValueError):
        return 0


def _pixels(file: Any) -> dict[str, str]:
    found = _PIXELS.search(file.ome_metadata or "")
    return {key: unescape(value) for key, value in _ATTRIBUTE.findall(found[1])} if found else {}


def _ome_steps(file: Any) -> Steps:
    pixels, steps = _pixels(file), Steps()
    for axis in "XYZ":
        if (step := _number(pixels.get(f"PhysicalSize{axis}"))) is not None:
            steps[axis] = step, _unit(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
    if (step := _number(pixels.get("TimeIncrement"))) is not None:
        steps["T"] = step, _unit(pixels.get("TimeIncrementUnit", "s"))
    return steps


def _imagej_steps(file: Any) -> Steps:
    said, tags = file.imagej_metadata or {}, file.pages[0].tags
    unit, steps = _unit(said.get("unit")), Steps()
    if unit is None:  # a resolution without a unit is what paint programs put there
        return steps
    for axis in "XY":
        tag = tags.get(f"{axis}Resolution")
        above, below = tag.value if tag is not None else (0, 0)
        if above and below:
            steps[axis] = below / above, unit
    if (step := _number(said.get("spacing"))) is not None:
        steps["Z"] = step, unit
    if (step := _number(said.get("finterval"))) is not None:
        steps["T"] = step, "s"
    return steps


def _number(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if value > 0 and np.isfinite(value) else None


def _unit(name: Any) -> str | None:
    return None if name in _UNTOLD else _UNITS.get(str(name), str(name))


def _ordered(path: Path, values: np.ndarray, axes: str, steps: Steps, meta: dict[str, Any]) -> Sample:
    """Return channels (C and S) in front, then t, z, y, x; what has no name (Q, I) is z."""
    if values.dtype.kind not in "iufb" or not values.size:
        raise DataError(f"{path} holds {values.dtype} of shape {values.shape}: a volume is of numbers")
    if axes.count("S") and "Y" in axes and axes.index("S") < axes.index("Y") and "Z" not in axes:
        axes = axes.replace("S", "Z", 1)  # planes in one page, of a plain stack
    axes = axes if "Z" in axes else axes.replace("Q", "Z", 1).replace("I", "Z", 1) if set("QI") & set(axes) else axes
    if unknown := set(axes) - set("CSTZYX"):
        raise DataError(f"{path} has axes {axes}; those of a volume are C, S, T, Z, Y, X, not {', '.join(sorted(unknown))}")
    space = [axis for axis in _ORDER if axis in axes]
    channels = [axis for axis in "CS" if axis in axes]
    moved = values.transpose([axes.index(axis) for axis in [*channels, *space]])
    moved = moved.reshape(-1, *moved.shape[len(channels) :])
    known = [steps.get(axis, (1.0, None)) for axis in space]
    spacing, units = tuple(s for s, _ in known), tuple(u for _, u in known)
    return Sample(tensor_of(moved), tuple(axis.lower() for axis in space), spacing, units, meta)


def stack_bytes(sample: Sample, form: str) -> bytes:
    """Return a TIFF file of a volume; see `write_volume`.

    Raises
    ------
    ArgumentError
    """
    tifffile = needed("tifffile", "writing stacks of TIFF")
    if form not in ("auto", "ome", "imagej"):
        raise ArgumentError(f"form={form!r} is not one of 'auto', 'ome', 'imagej'")
    space = [axis for axis in "tzyx" if axis in sample.axes]
    if set(space) != set(sample.axes) or space[-2:] != ["y", "x"]:
        raise ArgumentError(
            f"a stack of TIFF holds axes y and x, with z and t before them, got {sample.axes}; others go into .npz"
        )
    data = sample.data.permute(0, *(sample.axes.index(axis) + 1 for axis in space))
    if data.dtype == torch.int32 and int(data.min()) >= 0 and int(data.max()) < 2**16 and form != "ome":
        data = data.to(torch.uint16)
    steps = {axis: (sample.spacing[k], (sample.units or (None,) * len(space))[k]) for k, axis in enumerate(sample.axes)}
    units = {steps[axis][1] for axis in space if axis != "t"}
    imagej = form == "imagej" or (form == "auto" and data.dtype in _IMAGEJ and len(units) == 1)
    if imagej and (data.dtype not in _IMAGEJ or len(units) > 1):
        raise ArgumentError(f"ImageJ holds uint8, uint16 and float32 in one unit, got {data.dtype} in {sample.units}; form='ome'")
    named = "".join(space).upper().replace("YX", "CYX")
    array = np.moveaxis(data.numpy(), 0, len(space) - 2)
    content = io.BytesIO()
    if imagej:
        unit = units.pop()
        about: dict[str, Any] = {"axes": named, "unit": unit.replace("µm", "micron") if unit else "pixel"}
        about |= {key: steps[axis][0] for axis, key in (("z", "spacing"), ("t", "finterval")) if axis in steps}
        resolution = tuple(_ratio(1 / steps[axis][0]) for axis in "xy")
        tifffile.imwrite(content, array, imagej=True, resolution=resolution, metadata=about)
    else:
        about = {"axes": named}
        for axis, key in (("x", "PhysicalSizeX"), ("y", "PhysicalSizeY"), ("z", "PhysicalSizeZ"), ("t", "TimeIncrement")):
            if steps.get(axis, (1, None))[1] is not None:
                about |= {key: steps[axis][0], f"{key}Unit": steps[axis][1]}
        tifffile.imwrite(content, array, ome=True, metadata=about)
    return content.getvalue()


def _ratio(value: float) -> tuple[int, int]:
    """Return numerator and denominator of 32 bits."""
    scale = 1
    while value * scale < 2**28 and scale < 2**28:
        scale *= 2
    return round(value * scale), scale
