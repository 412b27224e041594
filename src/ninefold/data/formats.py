"""Any of the six kinds by one name: what a file is, is told by its first bytes, or else its suffix."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ninefold.data.arrays import read_arrays, write_arrays
from ninefold.data.bvh import read_bvh, write_bvh
from ninefold.data.image import read_image, write_image
from ninefold.data.opening import KINDS, kind_of, named
from ninefold.data.sample import Sample
from ninefold.data.stack import is_picture
from ninefold.data.video import read_video, write_video
from ninefold.data.volume import read_volume, write_volume
from ninefold.data.waveform import read_waveform, write_waveform
from ninefold.errors import ArgumentError, ArgumentTypeError

__all__ = ["read", "write"]

_READERS: dict[str, Callable[..., Sample]] = {
    "waveform": read_waveform,
    "bvh": read_bvh,
    "npz": read_arrays,
    "safetensors": read_arrays,
    "image": read_image,
    "nifti": read_volume,
    "video": read_video,
}
_WRITERS: dict[str, Callable[..., None]] = {
    "waveform": write_waveform,
    "bvh": write_bvh,
    "npz": write_arrays,
    "safetensors": write_arrays,
    "image": write_image,
    "nifti": write_volume,
    "video": write_video,
}


def read(path: str | Path, **options: Any) -> Sample:
    """Read a waveform, an animation, a spectrogram, an image, a volume or a film.

    A TIFF file with one page of grey or colour is an image; with more pages or bands, or numbers that images have not, it is a
    volume, whose values are left alone.

    Parameters
    ----------
    path : str or Path
    **options
        Of the reader: `read_waveform`, `read_bvh`, `read_arrays`, `read_image`, `read_volume`, `read_video`.

    Returns
    -------
    Sample
        Channels over space.

    Raises
    ------
    DataError
        If there is no such file, it is of no known kind, or damaged.

    Examples
    --------
    >>> import tempfile, torch
    >>> tone = Sample(torch.zeros(2, 800, dtype=torch.float32, device="cpu"), ("time",), (1 / 8000,), ("s",))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(f"{folder}/tone.wav", tone)
    ...     read(f"{folder}/tone.wav")
    Sample(2 channels, time 800 x 0.000125 s, float32 0..0)
    """
    return _READERS[reader_kind(path)](path, **options)


def reader_kind(path: str | Path) -> str:
    """Return whose reader takes a file: TIFF is ``image`` with one page of grey or colour, else ``nifti``.

    Raises
    ------
    DataError
    """
    kind = kind_of(path)
    return kind if kind != "tiff" else "image" if is_picture(Path(path)) else "nifti"


def write(path: str | Path, sample: Sample, **options: Any) -> None:
    """Write a sample in the format of the suffix; the file is there whole, or as it was before.

    Parameters
    ----------
    path : str or Path
    sample : Sample
    **options
        Of the writer.

    Raises
    ------
    ArgumentError, ArgumentTypeError, ShapeError
        If no writer has that suffix, or the sample is not of its kind.
    DataError
        If the file cannot be written.
    """
    if not isinstance(sample, Sample):
        raise ArgumentTypeError(f"what is written is a Sample, got type {type(sample).__name__}; write_image takes tensors, too")
    kind = named(Path(path))
    if kind is None:
        raise ArgumentError(f"{path}: no writer has the suffix {Path(path).suffix!r}; known are {', '.join(KINDS)}")
    if kind == "tiff":
        kind = "image" if sample.axes == ("height", "width") else "nifti"
    _WRITERS[kind](path, sample, **options)
