"""What all readers and writers share: is the file there, what does its beginning say, which package reads it."""

import importlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ninefold.errors import DataError, MissingExtraError, NinefoldError

__all__ = ["kind_of", "needed", "present", "replacing", "unreadable"]

_HEAD = 4096
_MAGIC = (  # offset, bytes, what it is
    (0, b"\x89PNG\r\n", "image"),
    (0, b"\xff\xd8\xff", "image"),
    (0, b"GIF8", "image"),
    (0, b"BM", "image"),
    (0, b"II*\0", "tiff"),
    (0, b"MM\0*", "tiff"),
    (0, b"II+\0", "tiff"),
    (0, b"MM\0+", "tiff"),
    (0, b"fLaC", "waveform"),
    (0, b"OggS", "waveform"),
    (8, b"WAVE", "waveform"),
    (8, b"AIFF", "waveform"),
    (8, b"WEBP", "image"),
    (8, b"AVI ", "video"),
    (4, b"ftyp", "video"),
    (4, b"moov", "video"),
    (0, b"\x1aE\xdf\xa3", "video"),
    (344, b"n+1\0", "nifti"),
    (344, b"ni1\0", "nifti"),
    (0, b"PK\x03\x04", "npz"),
    (0, b"HIERARCHY", "bvh"),
)
_SUFFIXES = {
    "waveform": (".wav", ".flac", ".ogg", ".oga", ".aif", ".aiff", ".au", ".caf", ".w64", ".mp3"),
    "bvh": (".bvh",),
    "npz": (".npz",),
    "safetensors": (".safetensors",),
    "image": (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".pbm", ".avif"),
    "tiff": (".tif", ".tiff"),
    "nifti": (".nii", ".nii.gz", ".hdr", ".img", ".mgz", ".mgh"),
    "video": (".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv", ".3gp"),
}
KINDS = {suffix: kind for kind, suffixes in _SUFFIXES.items() for suffix in suffixes}
"""Kind of file by suffix."""


def needed(package: str, what: str, extra: str = "data") -> Any:
    """Import a package of an extra, when it is used.

    Raises
    ------
    MissingExtraError
        If it is not installed, or its shared libraries are not.

    Examples
    --------
    >>> needed("no_such_package", "reading tea leaves")
    Traceback (most recent call last):
    ninefold.errors.MissingExtraError: reading tea leaves needs no_such_package: pip install 'ninefold[data]' (...)
    """
    try:
        return importlib.import_module(package)
    except (ImportError, OSError) as error:
        raise MissingExtraError(f"{what} needs {package}: pip install 'ninefold[{extra}]' ({error})") from error


def present(path: str | Path, what: str) -> Path:
    """Return the path of a file that is there and not empty.

    Raises
    ------
    DataError
    """
    path = Path(path)
    if path.is_dir():
        raise DataError(f"{path} is a folder, not a {what}; ninefold.data.Folder reads folders")
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"there is no {what} {path}: {error.strerror or error}") from error
    if not size:
        raise DataError(f"{path} is empty: 0 bytes are no {what}")
    return path


def kind_of(path: str | Path) -> str:
    """Return what a file is by its first bytes, or by its suffix where these say nothing.

    Raises
    ------
    DataError
        If neither says it, or there is no such file.
    """
    path = present(path, "file")
    found = _sniffed(path) or named(path)
    if found is None:
        raise DataError(
            f"{path} is of no known kind: neither its first bytes nor its suffix {path.suffix!r}; known are {_known()}"
        )
    return found


def named(path: Path) -> str | None:
    """Return the kind that a suffix stands for.

    Examples
    --------
    >>> named(Path("brain.nii.gz")), named(Path("walk.BVH")), named(Path("x.doc"))
    ('nifti', 'bvh', None)
    """
    name = path.name.lower()
    return next((kind for suffix, kind in KINDS.items() if name.endswith(suffix)), None)


def _known() -> str:
    return ", ".join(KINDS)


def _sniffed(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    found = next((kind for at, magic, kind in _MAGIC if head[at : at + len(magic)] == magic), None)
    return "bvh" if found is None and head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"HIERARCHY") else found


def unreadable(path: Path, what: str, error: BaseException | str) -> DataError:
    """Return the error of a file that a package could not read, in one sentence, with what the file seems to be instead.

    Examples
    --------
    >>> str(unreadable(Path("gone"), "waveform", ValueError("no header")))
    'gone cannot be read as a waveform: no header'
    """
    said = error if isinstance(error, str) else " ".join(str(error).split()) or type(error).__name__
    try:
        other = _sniffed(path)
    except DataError:
        other = None
    alike = other is None or other in what or (other in ("tiff", "nifti") and what in ("volume", "image"))
    article = "an" if what[0] in "aeiou" else "a"
    return DataError(
        f"{path} cannot be read as {article} {what}: {said}" + ("" if alike else f"; its first bytes are of {other}")
    )


@contextmanager
def replacing(path: str | Path, *errors: type[BaseException]) -> Iterator[Path]:
    """Give a path beside another to write to, and put it into place when that is done; else the old file stays as it was.

    For what is too large to be made in memory first; `write_whole` of `ninefold.storing` does the rest.

    Parameters
    ----------
    path : str or Path
    errors : type
        What the package that writes raises, besides `OSError`.

    Raises
    ------
    DataError
        If it cannot be written, such as on a full disk.
    """
    path = Path(path)
    temporary = path.with_name(f".{secrets.token_hex(4)}.{path.name}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        if not isinstance(error, (OSError, *errors)) or isinstance(error, NinefoldError):
            raise
        raise DataError(f"{path} cannot be written: {error}; what was there before is as it was") from error
    finally:
        temporary.unlink(missing_ok=True)
