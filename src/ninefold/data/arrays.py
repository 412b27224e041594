"""Samples of any kind in one file, with their axes, spacing and units: NumPy's npz, or safetensors; never a pickle."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ninefold.data.opening import needed, present, unreadable
from ninefold.data.sample import Sample, sample_of
from ninefold.errors import ArgumentError, ArgumentTypeError, DataError, NinefoldError
from ninefold.storing import packed_tensors, unpacked_tensors, write_whole

__all__ = ["read_arrays", "write_arrays"]

_KIND, _VERSION = "a ninefold sample", 1


def write_arrays(path: str | Path, sample: Sample) -> None:
    """Write a sample, such as a spectrogram, as ``.npz`` or ``.safetensors``; the file is there whole, or as it was before.

    Parameters
    ----------
    path : str or Path
    sample : Sample
        Its `meta` is what JSON holds: numbers, text, lists, dictionaries.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If `meta` holds something else, such as a `Skeleton`, or there is no such format.
    DataError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> noise = Sample(torch.rand(1, 3, 5, dtype=torch.float32, device="cpu"), ("frequency", "time"), (20.0, 0.1), ("Hz", "s"))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_arrays(f"{folder}/noise.npz", noise)
    ...     again = read_arrays(f"{folder}/noise.npz")
    >>> torch.equal(again.data, noise.data), again.axes, again.spacing, again.units
    (True, ('frequency', 'time'), (20.0, 0.1), ('Hz', 's'))
    """
    path, sample = Path(path), sample_of(sample, "what is written")
    about = {"axes": sample.axes, "spacing": sample.spacing, "units": sample.units, "meta": dict(sample.meta)}
    try:
        told = json.dumps(about)
    except (TypeError, ValueError) as error:
        raise ArgumentTypeError(
            f"meta must be what JSON holds: {error}; write it with sample.with_data without that key"
        ) from error
    data = sample.data.detach().cpu().contiguous()
    if path.suffix.lower() == ".safetensors":
        needed("safetensors.torch", "writing safetensors", "segment")
        return write_whole(path, packed_tensors({"data": data}, about, _KIND, _VERSION), DataError)
    if path.suffix.lower() != ".npz":
        raise ArgumentError(f"{path.name}: samples are written as .npz or .safetensors")
    if data.dtype == torch.bfloat16:
        raise ArgumentTypeError("NumPy has no bfloat16: write .safetensors, or sample.to(torch.float32)")
    content = io.BytesIO()
    np.savez(content, data=data.numpy(), about=np.array(told))
    return write_whole(path, content.getvalue(), DataError)


def read_arrays(path: str | Path) -> Sample:
    """Read a sample that `write_arrays` wrote.

    Raises
    ------
    DataError
        If there is no such file, it is damaged, or holds something else.
    """
    path = present(path, "sample")
    try:
        about, data = _safetensors(path) if path.suffix.lower() == ".safetensors" else _npz(path)
        units = about["units"]
        return Sample(data, tuple(about["axes"]), tuple(about["spacing"]), units and tuple(units), about["meta"])
    except (KeyError, TypeError, ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        if isinstance(error, DataError):
            raise
        raise unreadable(path, "sample of write_arrays", error) from error
    except NinefoldError as error:  # a sample that contradicts itself
        raise unreadable(path, "sample of write_arrays", error) from error


def _safetensors(path: Path) -> tuple[dict[str, Any], torch.Tensor]:
    needed("safetensors.torch", "reading safetensors", "segment")
    about, tensors = unpacked_tensors(path, _KIND, _VERSION, DataError)
    return about, tensors["data"]


def _npz(path: Path) -> tuple[dict[str, Any], torch.Tensor]:
    with np.load(path, allow_pickle=False) as found:
        if not hasattr(found, "files"):
            raise DataError(f"{path} holds one array alone, without axes; write_arrays writes both")
        return json.loads(str(found["about"])), torch.from_numpy(found["data"])
