"""Sound as channels over time, by libsndfile: read whole, in part or in blocks, and written."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ninefold.data.opening import needed, present, unreadable
from ninefold.data.sample import Sample, finite, sample_of
from ninefold.errors import ArgumentError, DataError
from ninefold.storing import write_whole

__all__ = ["read_waveform", "stream_waveform", "waveform_info", "write_waveform"]

_UNTOLD = 0x7FFF_0000  # bytes: what writes to a pipe does not know its length, and says 0 or the largest
_SHORTER = re.compile(r"^data\s*:\s*(\d+) \(should be (\d+)\)", re.MULTILINE)
_BLOCK = 1 << 16  # frames given to libsndfile at once, whose Vorbis encoder keeps what it is given on the stack
_FORMATS = {"oga": "OGG", "aif": "AIFF"}


def read_waveform(path: str | Path, start: int = 0, stop: int | None = None, *, incomplete: str = "error") -> Sample:
    """Read a sound file (WAV, FLAC, Ogg and what else libsndfile knows), or a part of it.

    Parameters
    ----------
    path : str or Path
    start, stop : int
        First position, and the one behind the last; what lies before is not decoded where the format can seek.
    incomplete : {"error", "keep"}
        What is done with a file that ends before its header says.

    Returns
    -------
    Sample
        ``(C, T)`` float32, integers scaled to ``[-1, 1)``; axis ``time`` in seconds. `meta`: ``rate`` in Hz, ``format``,
        ``subtype``, ``frames`` (in the whole file), ``promised`` (by its header), ``start``.

    Raises
    ------
    DataError
        If there is no such file, it is something else, or ends early.
    ArgumentError
        If the part lies outside.

    Examples
    --------
    >>> import tempfile
    >>> tone = torch.sin(torch.arange(800, device="cpu") / 9)[None] / 2
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_waveform(f"{folder}/tone.wav", Sample(tone, ("time",), (1 / 8000,), ("s",)), subtype="FLOAT")
    ...     part = read_waveform(f"{folder}/tone.wav", 100, 300)
    >>> part.data.shape, torch.equal(part.data, tone[:, 100:300])
    (torch.Size([1, 200]), True)
    """
    with _opened(path, incomplete) as (file, about):
        first, last = _part(about, start, stop, path)
        return _read(file, about, first, last, Path(path))


def stream_waveform(
    path: str | Path, block: int, step: int | None = None, start: int = 0, stop: int | None = None, *, incomplete: str = "error"
) -> Iterator[Sample]:
    """Yield blocks of a sound file without ever holding more than one.

    Parameters
    ----------
    path, start, stop, incomplete
        As in `read_waveform`.
    block : int
        Positions in each; the last one may be shorter.
    step : int, optional
        From the beginning of one to that of the next: `block` by default, less for blocks that overlap.

    Raises
    ------
    DataError, ArgumentError
        As `read_waveform`.

    Examples
    --------
    >>> import tempfile
    >>> tone = torch.sin(torch.arange(800, device="cpu") / 9)[None] / 2
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_waveform(f"{folder}/tone.flac", Sample(tone, ("time",), (1 / 8000,), ("s",)))
    ...     [(b.meta["start"], b.data.shape[1]) for b in stream_waveform(f"{folder}/tone.flac", 300)]
    [(0, 300), (300, 300), (600, 200)]
    """
    step = block if step is None else step
    if min(block, step) < 1:
        raise ArgumentError(f"block={block} and step={step} must be at least 1")
    with _opened(path, incomplete) as (file, about):
        first, last = _part(about, start, stop, path)
        for at in range(first, last, step):
            yield _read(file, about, at, min(at + block, last), Path(path))
            if at + block >= last:
                return


def waveform_info(path: str | Path) -> dict[str, Any]:
    """Return what the header says: rate, frames, channels, format, subtype; nothing is decoded.

    Raises
    ------
    DataError
    """
    with _opened(path, "keep") as (_, about):
        return about


def write_waveform(path: str | Path, sample: Sample, subtype: str | None = None) -> None:
    """Write channels over time in the format of the suffix; the file is there whole, or as it was before.

    Parameters
    ----------
    path : str or Path
        ``.wav``, ``.flac``, ``.ogg`` and what else libsndfile writes.
    sample : Sample
        ``(C, T)``; its spacing, in seconds, is one over a whole rate.
    subtype : str, optional
        libsndfile's name, such as ``"PCM_16"``, ``"PCM_24"`` or ``"FLOAT"``; None takes the format's own.

    Raises
    ------
    ArgumentError, ShapeError
        If the sample is no waveform, holds NaN, or values beyond 1 that the format would cut off.
    DataError
        If it cannot be written.
    """
    sf, path = needed("soundfile", "writing sound"), Path(path)
    data = finite(sample_of(sample, "a waveform").data, "a waveform")
    if data.ndim != 2 or sample.units not in (("s",), None):
        raise ArgumentError(f"a waveform is (C, T) with a spacing in seconds, got {sample!r}")
    rate = round(1 / sample.spacing[0])
    if rate < 1 or abs(rate * sample.spacing[0] - 1) > 1e-6:
        raise ArgumentError(f"a spacing of {sample.spacing[0]} s is {1 / sample.spacing[0]:.6g} Hz; sound files take whole rates")
    suffix = path.suffix[1:].lower()
    form = _FORMATS.get(suffix, suffix.upper())
    if form not in sf.available_formats():
        raise ArgumentError(f"{path.name}: libsndfile writes no {path.suffix!r}; take .wav, .flac or .ogg")
    subtype = subtype or sf.default_subtype(form)
    if not data.is_floating_point():
        raise ArgumentError(f"a waveform is floating-point in [-1, 1], got {data.dtype}; divide whole numbers by their largest")
    peak = float(data.abs().max())
    if peak > 1 and subtype not in ("FLOAT", "DOUBLE"):
        raise ArgumentError(
            f"the largest value is {peak:.6g}, and {subtype} cuts off at 1: scale, or take subtype='FLOAT' in .wav"
        )
    content, frames = io.BytesIO(), data.T.contiguous().numpy()
    try:
        with sf.SoundFile(content, "w", rate, data.shape[0], subtype, format=form) as file:
            for k in range(0, len(frames), _BLOCK):
                file.write(frames[k : k + _BLOCK])
    except (sf.SoundFileError, ValueError, TypeError) as error:
        raise DataError(f"{path} cannot be written: {error}") from error
    write_whole(path, content.getvalue(), DataError)


@contextmanager
def _opened(path: str | Path, incomplete: str) -> Iterator[tuple[Any, dict[str, Any]]]:
    if incomplete not in ("error", "keep"):
        raise ArgumentError(f"incomplete={incomplete!r} is not one of 'error', 'keep'")
    sf, path = needed("soundfile", "reading sound"), present(path, "waveform")
    try:
        with sf.SoundFile(str(path)) as file:
            frames = promised = file.frames
            if shorter := _SHORTER.search(file.extra_info):
                told, have = map(int, shorter.groups())
                if 0 < told < _UNTOLD and have:
                    promised = max(frames, round(frames * told / have))
                elif 0 < told < _UNTOLD:
                    promised = max(1, told // file.channels)
            if frames <= 0 or frames >= 2**62:
                raise DataError(f"{path} holds no samples, {file.channels} channels of them at {file.samplerate} Hz")
            if frames < promised and incomplete == "error":
                raise DataError(
                    f"{path} ends after {frames} of the {promised} samples that it promises; incomplete='keep' reads those"
                )
            yield (
                file,
                {
                    "rate": file.samplerate,
                    "format": file.format,
                    "subtype": file.subtype,
                    "channels": file.channels,
                    "frames": frames,
                    "promised": promised,
                },
            )
    except (sf.SoundFileError, OSError) as error:
        raise unreadable(path, "waveform", error) from error


def _part(about: dict[str, Any], start: int, stop: int | None, path: str | Path) -> tuple[int, int]:
    frames = about["frames"]
    last = frames if stop is None else stop
    if not 0 <= start < last <= frames:
        raise ArgumentError(f"start={start}, stop={stop}: {path} has positions 0 to {frames}, and a part has at least one")
    return start, last


def _read(file: Any, about: dict[str, Any], first: int, last: int, path: Path) -> Sample:
    if file.tell() != first:
        file.seek(first)
    frames = file.read(last - first, dtype="float32", always_2d=True)
    if len(frames) != last - first:
        raise DataError(f"{path} ends after {first + len(frames)} of the {about['frames']} samples that it promises")
    data = torch.from_numpy(frames).T.contiguous()
    return Sample(data, ("time",), (1 / about["rate"],), ("s",), {**about, "start": first})
