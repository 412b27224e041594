"""Files that are there whole or not at all, and tensors in safetensors with a sum over all that they hold."""

import json
import os
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ninefold.errors import ArgumentError, NinefoldError

__all__ = ["packed_tensors", "unpacked_tensors", "user_cache_folder", "write_whole"]


def user_cache_folder() -> Path:
    """Return where caches of this user lie, by the rules of the platform, with this package's name.

    Examples
    --------
    >>> user_cache_folder().is_absolute()
    True
    """
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        return base / "ninefold" / "ninefold" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "ninefold"
    named = os.environ.get("XDG_CACHE_HOME", "").strip()
    return (Path(named) if named else Path.home() / ".cache") / "ninefold"


def write_whole(path: Path, content: bytes, error: type[NinefoldError] = ArgumentError, *, parents: bool = False) -> None:
    """Write a file so that it is there whole, or as it was before.

    Parameters
    ----------
    path : Path
    content : bytes
    error : type
        What is raised if that cannot be done, such as on a full disk.
    parents : bool
        Make the folders above that lack.

    Examples
    --------
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_whole(Path(folder) / "a" / "b.txt", b"words", parents=True)
    ...     (Path(folder) / "a" / "b.txt").read_text()
    'words'
    """
    temporary = None
    try:
        if parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = file.name
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(path.stat().st_mode & 0o777 if path.exists() else 0o644)  # a temporary file is its owner's alone
        Path(temporary).replace(path)
    except OSError as problem:
        raise error(f"{path} cannot be written: {problem}; what was there before is as it was") from problem
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def packed_tensors(tensors: dict[str, Tensor], about: dict[str, Any], kind: str, version: int) -> bytes:
    """Return a safetensors file: tensors, and what is JSON about them in the metadata.

    Parameters
    ----------
    tensors : dict of str to Tensor
        Contiguous, none sharing memory with another.
    about : dict
        Anything that JSON holds.
    kind : str
        What the file is, such as ``"ninefold filters"``.
    version : int
        Of its format.

    Examples
    --------
    >>> content = packed_tensors({"a": torch.ones(2, dtype=torch.float32, device="cpu")}, {"step": 3}, "example", 1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_whole(Path(folder) / "x", content)
    ...     unpacked_tensors(Path(folder) / "x", "example", 1, ArgumentError)
    ({'step': 3}, {'a': tensor([1., 1.])})
    """
    from safetensors.torch import save  # noqa: PLC0415  comes with an extra

    told = json.dumps(about)
    return save(tensors, {"format": kind, "version": str(version), "about": told, "sum": _sum(tensors, told)})


def unpacked_tensors(path: Path, kind: str, version: int, error: type[NinefoldError]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a file of `packed_tensors`: what it is about, and the tensors.

    Raises
    ------
    NinefoldError
        Of the type `error`, if there is none, it is damaged, or something else.
    """
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415  comes with an extra

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != kind:
                raise error(f"{path} is a safetensors file, but not of {kind}")
            if metadata.get("version") != str(version):
                raise error(f"{path} has version {metadata.get('version')}, and this ninefold reads {version}")
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118  not a dictionary
        told = metadata["about"]
        if metadata["sum"] != _sum(tensors, told):
            raise error(f"{path} is damaged: its sum is not the one that was written")
        return json.loads(told), tensors
    except FileNotFoundError as problem:
        raise error(f"there is no file {path}") from problem
    except (OSError, SafetensorError, KeyError, ValueError) as problem:
        if isinstance(problem, error):
            raise
        raise error(f"{path} cannot be read: {type(problem).__name__}: {problem}") from problem


def _sum(tensors: dict[str, Tensor], text: str) -> str:
    """Return a sum over all that a file holds, for safetensors has none."""
    found = zlib.crc32(text.encode())
    for name in sorted(tensors):
        flat: Any = tensors[name].detach().reshape(-1).view(torch.uint8).numpy()
        found = zlib.crc32(flat, zlib.crc32(f"{name} {tuple(tensors[name].shape)}".encode(), found))
    return f"{found:08x}"
