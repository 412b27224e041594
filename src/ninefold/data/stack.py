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

__all__ = ["is_picture", "read_stack", "stack_bytes"]

_ORDER = "TZYX"
_UNITS = {"micron": "µm", "microns": "µm", "um": "µm", "µm": "µm", "μm": "µm", "\\u00B5m": "µm", "millimeter": "mm", "sec": "s"}
_UNTOLD = ("", "pixel", "pixels", "voxel", None)
_PIXELS = re.compile(r"<(?:\w+:)?Pixels\b([^>]*)>")
_ATTRIBUTE = re.compile(r"(\w+)\s*=\s*\"([^\"]*)\"")
_SECONDS = {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "min": 60.0, "h": 3600.0}
_SHOWN = 4  # series in an error
_COLOURS, _GREYS = ("uint8", "uint16"), ("bool", "uint8", "uint16", "float32")  # numbers of images
_IMAGEJ = (torch.uint8, torch.uint16, torch.float32)
Steps = dict[str, tuple[float, str | None]]


def read_stack(path: Path, series: int | None, incomplete: str) -> Sample:
    """Read a TIFF file as ``(C, [t], [z], y, x)``; see `read_volume`.

    Raises
    ------
    DataError
    """
    with _opened(path) as (file, said):
        number = _number_of(path, file, series)
        found, pixels = file.series[number], _pixels(file, number)
        promised = _promised(file, number, pixels)
        planes = prod(n for n, axis in zip(found.shape, found.axes, strict=True) if axis not in "YXS")
        if planes < promised and incomplete == "error":
            raise DataError(
                f"{path} ends after {planes} of the {promised} planes that it promises; incomplete='keep' reads those"
            )
        if file.is_ome and (lacking := sum(page is None for page in found.pages)) and incomplete == "error":
            raise DataError(
                f"{path}: {lacking} of {planes} planes lie in other files of its set, which are not there; "
                "incomplete='keep' reads them as 0"
            )
        values = found.asarray()
        steps = _ome_steps(pixels) if file.is_ome else _imagej_steps(file) if file.is_imagej else {}
        about = {"axes": found.axes, "series": len(file.series), "promised": promised}
        grey = int(found.keyframe.photometric) < 2
        if (tag := found.keyframe.tags.get("Orientation")) is not None and found.axes in ("YX", "YXS"):
            about["orientation"] = int(tag.value)
    if said and incomplete == "error":
        raise DataError(f"{path} is damaged: {said[0]}; incomplete='keep' reads what is there")
    # planes of no colour in one page are bands, as geographic programs write them
    return _ordered(path, values, "CYX" if found.axes == "SYX" and grey else found.axes, steps, about)


def _number_of(path: Path, file: Any, series: int | None) -> int:
    """Return which series is read: the one that was asked for, or the only one that is no thumbnail."""
    if series is not None:
        if not 0 <= series < len(file.series):
            raise DataError(f"{path} holds {len(file.series)} series of images, numbered from 0; there is no series {series}")
        return series
    whole = [k for k, one in enumerate(file.series) if not one.keyframe.is_reduced]
    if len(whole) > 1:
        some = [f"{k}: {'x'.join(map(str, file.series[k].shape))} {file.series[k].axes}" for k in whole]
        told = ", ".join(some[:_SHOWN] + ["..."] * (len(some) > _SHOWN))
        raise DataError(f"{path} holds {len(whole)} series of images ({told}); read_volume reads the one that series= says")
    if not len(file.series):
        raise DataError(f"{path} holds 0 series of images, and nothing can be read")
    return whole[0] if whole else 0


def is_picture(path: Path) -> bool:
    """Return whether a TIFF file is one page of grey or colour as Pillow takes them; other numbers and more bands are a volume.

    Raises
    ------
    DataError
    """
    with _opened(path) as (file, _):
        if not len(file.series) or file.series[0].axes not in ("YX", "YXS"):
            return False
        page = file.series[0].keyframe
        more = tuple(map(int, page.extrasamples))
        # a band beside colours that is said to be no transparency, such as infrared, would be left out of an image
        colours = page.samplesperpixel, int(page.photometric) > 1 and more[:1] != (0,), more[:1] in ((1,), (2,))
    if colours[0] == 1:
        return str(page.dtype) in _GREYS
    return str(page.dtype) in _COLOURS and ((colours[0] in (3, 4) and colours[1]) or colours == (2, False, True))


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


def _promised(file: Any, number: int, pixels: dict[str, str]) -> int:
    """Return how many planes the metadata speak of, 0 where they do not."""
    if file.is_imagej:
        return int((file.imagej_metadata or {}).get("images", 0)) if number == 0 else 0
    try:
        samples = max(1, int(file.series[number].keyframe.samplesperpixel))
        return prod(int(pixels[key]) for key in ("SizeZ", "SizeC", "SizeT")) // samples
    except (KeyError, ValueError):
        return 0


def _pixels(file: Any, number: int) -> dict[str, str]:
    """Return what the metadata of OME say of the pixels of a series."""
    found = _PIXELS.findall(file.ome_metadata or "") if file.is_ome else []
    if number >= len(found) or len(found) not in (1, len(file.series)):
        return {}
    return {key: unescape(value) for key, value in _ATTRIBUTE.findall(found[number])}


def _ome_steps(pixels: dict[str, str]) -> Steps:
    steps = Steps()
    for axis in "XYZ":
        if (step := _number(pixels.get(f"PhysicalSize{axis}"))) is not None:
            steps[axis] = step, _unit(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
    if (step := _number(pixels.get("TimeIncrement"))) is not None:
        steps["T"] = step, _unit(pixels.get("TimeIncrementUnit", "s"))
    return steps


def _imagej_steps(file: Any) -> Steps:
    said, tags = file.imagej_metadata or {}, file.pages[0].tags
    unit, steps = _unit(said.get("unit")), Steps()
    if (step := _number(said.get("finterval"))) is not None:
        steps["T"] = step, "s"
    if unit is None:  # a resolution without a unit is what paint programs put there
        return steps
    for axis in "XY":
        tag = tags.get(f"{axis}Resolution")
        above, below = tag.value if tag is not None else (0, 0)
        if above and below:
            steps[axis] = below / above, unit
    if (step := _number(said.get("spacing"))) is not None:
        steps["Z"] = step, unit
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
    if axes == "SYX":
        axes = "ZYX"  # planes in one page, of a plain stack
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
    timed = steps.get("t", (1.0, None))[1]
    fits = data.dtype in _IMAGEJ and len(units) == 1 and (timed is None or timed in _SECONDS)
    imagej = form == "imagej" or (form == "auto" and fits)
    if imagej and not fits:
        raise ArgumentError(
            f"ImageJ holds uint8, uint16 and float32 in one unit, and times in seconds, got {data.dtype} in {sample.units}; "
            "form='ome'"
        )
    named = "".join(space).upper().replace("YX", "CYX")
    array = np.moveaxis(data.numpy(), 0, len(space) - 2)
    content = io.BytesIO()
    if imagej:
        unit = units.pop()
        about: dict[str, Any] = {"axes": named, "unit": unit.replace("µm", "micron") if unit else "pixel"}
        about |= {"spacing": steps["z"][0]} if "z" in steps else {}
        about |= {"finterval": steps["t"][0] * _SECONDS[timed]} if timed else {}
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
