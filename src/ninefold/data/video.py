"""Films by PyAV, as streams: frames and clips one after another, never more of them in memory than are asked for."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ninefold.data.opening import needed, present, replacing, unreadable
from ninefold.data.sample import Sample, finite
from ninefold.errors import ArgumentError, DataError, ShapeError

__all__ = ["Video", "read_video", "write_video"]

_AXES, _STEP = ("time", "height", "width"), (1.0, 1.0)
_CLOCK = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)\0*")
_FORMATS = {"rgb": ("rgb24", 3), "grey": ("gray", 1)}


class Video:
    """A film on disk: its size and rate, and its frames as a stream.

    Parameters
    ----------
    path : str or Path
    colours : {"rgb", "grey"}
    scale : {"unit", "values"}
        float32 in [0, 1], or uint8.
    incomplete : {"error", "keep"}
        What is done when a film ends before the frames that it promises: an error behind the last frame, or no more than
        ``meta["promised"]`` beside what was read.

    Attributes
    ----------
    rate : float
        Frames per second, the mean one.
    size : tuple of int
        Height and width as stored.
    promised : int or None
        How many frames the header speaks of; None if it does not.
    codec : str

    Raises
    ------
    DataError
        If it is no film, or cut off so that it cannot be decoded.

    Examples
    --------
    >>> import tempfile
    >>> film = torch.zeros(3, 5, 16, 32, dtype=torch.uint8, device="cpu")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_video(f"{folder}/a.mp4", Sample(film, ("time", "height", "width"), (1 / 25, 1, 1), ("s", "pixel", "pixel")))
    ...     video = Video(f"{folder}/a.mp4")
    ...     video, [tuple(clip.data.shape) for clip in video.clips(2)]
    (Video('a.mp4', 5 frames of 16x32 at 25 per second), [(3, 2, 16, 32), (3, 2, 16, 32)])
    """

    def __init__(self, path: str | Path, *, colours: str = "rgb", scale: str = "unit", incomplete: str = "error") -> None:
        for name, value, known in (
            ("colours", colours, tuple(_FORMATS)),
            ("scale", scale, ("unit", "values")),
            ("incomplete", incomplete, ("error", "keep")),
        ):
            if value not in known:
                raise ArgumentError(f"{name}={value!r} is not one of {list(known)}")
        self.path, self.colours, self.scale, self.incomplete = present(path, "video"), colours, scale, incomplete
        with _opened(self.path) as (_, stream):
            self.rate = float(stream.average_rate)
            self.size = (int(stream.codec_context.height), int(stream.codec_context.width))
            self.codec = str(stream.codec_context.name)
            self.promised, self._exact = _promised(stream)

    def __repr__(self) -> str:
        count = "?" if self.promised is None else self.promised
        return f"Video({self.path.name!r}, {count} frames of {self.size[0]}x{self.size[1]} at {self.rate:g} per second)"

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[Sample]:
        """Yield frames ``(C, H, W)``, turned as the film says; in `meta` their ``index`` and ``time`` in seconds.

        Parameters
        ----------
        start, stop : int
            First frame, and the one behind the last. The film is decoded from the key frame before `start` on. Of a film of
            varying rate, a frame's number is its time times the mean rate, rounded.

        Raises
        ------
        DataError
            If the film is damaged, or ends before `stop`, or before what it promises; with how many frames were read. None of
            this if ``incomplete="keep"``.
        ArgumentError
        """
        for frame, index, time in self._decoded(start, stop):
            meta = {"index": index, "time": time, "promised": self.promised}
            yield Sample(self._tensor(frame), _AXES[1:], _STEP, ("pixel", "pixel"), meta)

    def clips(self, length: int, stride: int | None = None, start: int = 0, stop: int | None = None) -> Iterator[Sample]:
        """Yield clips ``(C, T, H, W)`` of consecutive frames; what is left behind the last whole one is left out.

        Parameters
        ----------
        length : int
            Frames in a clip, T.
        stride : int, optional
            Frames from the beginning of one to that of the next; `length` by default.
        start, stop : int
            As in `frames`.

        Raises
        ------
        DataError, ArgumentError
            As `frames`.
        """
        stride = length if stride is None else stride
        if min(length, stride) < 1:
            raise ArgumentError(f"length={length} and stride={stride} must be at least 1")
        held: list[tuple[Tensor, int]] = []
        skip = 0
        for frame, index, _ in self._decoded(start, stop):
            if skip:
                skip -= 1
                continue
            held.append((self._tensor(frame), index))
            if len(held) == length:
                yield self._clip(held)
                skip = max(0, stride - length)
                held = held[stride:]

    def _clip(self, held: list[tuple[Tensor, int]]) -> Sample:
        meta = {"index": held[0][1], "promised": self.promised, "rate": self.rate}
        data = torch.stack([frame for frame, _ in held], 1)
        return Sample(data, _AXES, (1 / self.rate, *_STEP), ("s", "pixel", "pixel"), meta)

    def _tensor(self, frame: Any) -> Tensor:
        pixels = frame.to_ndarray(format=_FORMATS[self.colours][0])
        pixels = _turned(pixels, frame)
        data = torch.from_numpy(np.ascontiguousarray(pixels))
        data = data.movedim(-1, 0).contiguous() if data.ndim == 3 else data[None]
        return data.to(torch.float32) / 255 if self.scale == "unit" else data

    def _decoded(self, start: int, stop: int | None) -> Iterator[tuple[Any, int, float]]:
        """Yield decoded frames from `start` on with their numbers and times."""
        if start < 0 or (stop is not None and stop <= start):
            raise ArgumentError(f"start={start}, stop={stop}: a film has frames from 0 on, and a part at least one")
        read, reached, error = 0, 0, None
        with _opened(self.path) as (container, stream):
            begin = stream.start_time
            frames = _until_broken(container, stream) if start == 0 or begin is None else _from(container, stream, start)
            for number, (frame, broken) in enumerate(frames):
                error = broken
                if frame is None:
                    break
                begin = (frame.pts or 0) if begin is None else begin
                seconds = float((frame.pts - begin) * frame.time_base) if frame.pts is not None else number / self.rate
                index = round(seconds * self.rate)
                if index < start:
                    continue
                if stop is not None and index >= stop:
                    return
                read, reached = read + 1, index + 1
                yield frame, index, seconds
        if self.incomplete == "error":
            self._check_end(start, stop, reached, read, error)

    def _check_end(self, start: int, stop: int | None, reached: int, read: int, error: Exception | None) -> None:
        """Raise if the film ended before the frame that it should have come to."""
        end = self.promised if stop is None else stop
        slack = 0 if self._exact or stop is not None else 1  # a duration is no count of frames
        short = end is not None and max(reached, read if start == 0 else 0) < end - slack
        if error is not None or short or not read:
            why = f" ({error})" if error is not None else ""
            told = "an unknown number" if self.promised is None else self.promised
            raise DataError(
                f"{self.path}: {read} frames could be read from frame {start} on, and the film promises {told}{why}; "
                "incomplete='keep' reads those"
            )


def read_video(path: str | Path, start: int = 0, stop: int | None = None, **options: Any) -> Sample:
    """Read a film, or a part of it, into memory at once.

    Parameters
    ----------
    path, start, stop
        As in `Video.frames`.
    **options
        ``colours``, ``scale`` and ``incomplete``, as in `Video`.

    Returns
    -------
    Sample
        ``(C, T, H, W)``; axes ``time`` in seconds, ``height`` and ``width`` in pixels. `meta`: ``rate``, ``promised``, ``index``
        (of the first frame).

    Raises
    ------
    DataError, ArgumentError
        As `Video.frames`; also if not one frame can be read.
    """
    video = Video(path, **options)
    held = [(frame.data, frame.meta["index"]) for frame in video.frames(start, stop)]
    if not held:
        raise DataError(f"{path}: no frame could be read from frame {start} on, and the film promises {video.promised}")
    return video._clip(held)  # noqa: SLF001


def write_video(
    path: str | Path,
    video: Sample | Iterable[Tensor],
    rate: float | None = None,
    *,
    codec: str | None = None,
    pixels: str | None = None,
    options: dict[str, str] | None = None,
) -> None:
    """Write a film, frame by frame; the file is there whole, or as it was before.

    Parameters
    ----------
    path : str or Path
        The suffix says the container: ``.mp4``, ``.mkv``, ``.avi`` and what else FFmpeg writes.
    video : Sample or iterable of Tensor
        ``(C, T, H, W)``, or frames ``(C, H, W)`` one after another; C is 1 or 3; uint8, or floats in [0, 1].
    rate : float, optional
        Frames per second; None takes it from the spacing of the sample.
    codec : str, optional
        FFmpeg's name; None takes H.264 if this build has it, else MPEG-4. ``"ffv1"`` in ``.mkv`` is lossless.
    pixels : str, optional
        FFmpeg's pixel format; None takes ``yuv420p``, or ``bgr0`` of ffv1.
    options : dict, optional
        Of the codec.

    Raises
    ------
    ArgumentError, ShapeError
        If frames are none, differ in size, or have odd sides where the pixel format halves them.
    DataError
        If the file cannot be written.
    """
    av = needed("av", "writing films")
    frames, rate = _frames_of(video, rate)
    first = next(frames, None)
    if first is None:
        raise ShapeError("a film has at least one frame, got none")
    codec = codec or ("libx264" if "libx264" in av.codecs_available else "mpeg4")
    pixels = pixels or ("bgr0" if codec == "ffv1" else "yuv420p")
    height, width = first.shape[1:]
    if pixels.startswith("yuv420") and (height % 2 or width % 2):
        raise ShapeError(f"frames are {height}x{width}, and {pixels} needs even sides: crop or pad them, or take another pixels=")
    with replacing(path, av.FFmpegError, ValueError) as temporary, av.open(str(temporary), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(rate).limit_denominator(1001), options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        for frame in chain([first], frames):
            if frame.shape != first.shape:
                raise ShapeError(f"frames of one film have one size, got {tuple(first.shape)} and {tuple(frame.shape)}")
            container.mux(stream.encode(av.VideoFrame.from_ndarray(_rgb(frame), format="rgb24")))
        container.mux(stream.encode(None))


def _turned(pixels: np.ndarray, frame: Any) -> np.ndarray:
    """Return pixels as the film's display matrix says: turned by quarters, mirrored, or both.

    Its rows are (a, b, u), (c, d, v), (x, y, w), and a pixel (p, q) goes to (a p + c q, b p + d q).
    """
    said = next((one for one in frame.side_data if one.type.name == "DISPLAYMATRIX"), None)
    if said is None:
        return pixels
    a, b, _, c, d = np.frombuffer(bytes(said), np.int32)[:5].astype(np.int64)
    quarter = abs(b) + abs(c) > abs(a) + abs(d)
    pixels, across, down = (pixels.swapaxes(0, 1), c, b) if quarter else (pixels, a, d)
    return pixels[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1]


def _frames_of(video: Sample | Iterable[Tensor], rate: float | None) -> tuple[Iterator[Tensor], float]:
    if isinstance(video, Sample):
        if video.data.ndim != 4:
            raise ShapeError(f"a film is (C, T, H, W), got {tuple(video.data.shape)}")
        rate = 1 / video.spacing[0] if rate is None else rate
        frames: Iterable[Tensor] = video.data.unbind(1)
    else:
        frames = video
    if rate is None or not rate > 0:
        raise ArgumentError(f"rate={rate}: frames without a spacing need a positive number per second")
    return (_checked(frame) for frame in frames), rate


def _checked(frame: Tensor) -> Tensor:
    frame = finite(frame, "a frame")
    if frame.ndim != 3 or frame.shape[0] not in (1, 3):
        raise ShapeError(f"a frame is (1 or 3, H, W), got {tuple(frame.shape)}")
    if frame.dtype == torch.uint8:
        return frame
    low, high = (float(v) for v in torch.aminmax(frame))
    if not frame.is_floating_point() or low < 0 or high > 1:
        raise ArgumentError(f"frames are uint8, or floats in [0, 1]; got {frame.dtype} from {low:g} to {high:g}")
    return (frame * 255).round().to(torch.uint8)


def _rgb(frame: Tensor) -> np.ndarray:
    array: np.ndarray = frame.expand(3, -1, -1).movedim(0, -1).contiguous().numpy()
    return array


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """Open a film and its first video stream, if there is a decoder for it.

    A stream that FFmpeg could not make sense of has no codec context, and asking PyAV for what is within ends the process.
    """
    av = needed("av", "reading films")
    try:
        container = av.open(str(path))
    except (av.FFmpegError, OSError, ValueError) as error:
        raise unreadable(path, "video", error) from error
    with container:
        stream = next((s for s in container.streams if s.type == "video"), None)
        if stream is None or stream.codec_context is None:
            found = "a stream of pictures that no decoder takes" if stream is not None else "no stream of pictures"
            raise DataError(f"{path} cannot be read as a video: it holds {found}; it may have been cut off")
        context = stream.codec_context
        if not stream.average_rate or not stream.time_base or not context.width or not context.height:
            raise DataError(
                f"{path} cannot be read as a video: frames of {context.height}x{context.width} at {stream.average_rate} per "
                "second; it may have been cut off"
            )
        yield container, stream


def _until_broken(container: Any, stream: Any) -> Iterator[tuple[Any, Exception | None]]:
    """Yield frames; where decoding breaks, None and why."""
    av = needed("av", "reading films")
    try:
        for frame in container.decode(stream):
            yield frame, None
    except (av.FFmpegError, OSError, ValueError) as error:
        yield None, error


def _from(container: Any, stream: Any, start: int) -> Iterator[tuple[Any, Exception | None]]:
    """Yield frames from the key frame before a number on, or from the first where the film cannot be asked for that one.

    Formats without an index, such as MPEG's streams, go to some key frame behind it, or nowhere.
    """
    av = needed("av", "reading films")
    wanted = stream.start_time + int(Fraction(start) / stream.average_rate / stream.time_base)
    if _went_to(container, stream, wanted):
        frames = _until_broken(container, stream)
        first, broken = next(frames, (None, None))
        if first is not None and first.pts is not None and first.pts <= wanted:
            yield first, broken
            yield from frames
            return
    with av.open(container.name) as again:
        yield from _until_broken(again, again.streams[stream.index])


def _went_to(container: Any, stream: Any, wanted: int) -> bool:
    try:
        container.seek(wanted, stream=stream)
    except (needed("av", "reading films").FFmpegError, OSError):
        return False
    return True


def _promised(stream: Any) -> tuple[int | None, bool]:
    """Return how many frames the header speaks of, and whether it counts them.

    A cut without a new encoding keeps frames that are decoded and not shown; the index of MP4 says which. Matroska has a duration
    for each stream where its writer put it there; that of the file may be that of a longer sound.
    """
    container = stream.container
    if stream.frames:
        index = stream.index_entries if "mp4" in container.format.name else ()
        return sum(not entry.is_discard for entry in index) or int(stream.frames), True
    if stream.duration:
        duration = Fraction(stream.duration * stream.time_base)
    elif told := _CLOCK.fullmatch(stream.metadata.get("DURATION", "")):
        hours, minutes, seconds = told.groups()
        duration = int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)
    else:
        duration = Fraction(container.duration or 0, 1_000_000) if len(container.streams) == 1 else Fraction(0)
    return (round(duration * stream.average_rate), False) if duration else (None, False)
