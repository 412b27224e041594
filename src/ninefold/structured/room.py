"""How much memory there is, and the refusal of what needs more: said before it starts, with numbers."""

import sys
from pathlib import Path

from ninefold.errors import NinefoldError

__all__ = ["RoomError", "available_memory", "refuse_beyond"]


class RoomError(NinefoldError, MemoryError):
    """More memory would be needed than there is, or than is allowed."""


def available_memory() -> int:
    """Return the bytes that can be had without swapping; where the system does not say, more than anything needs.

    Examples
    --------
    >>> available_memory() > 0
    True
    """
    table = Path("/proc/meminfo")
    lines = table.read_text(encoding="ascii").splitlines() if table.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), sys.maxsize)


def refuse_beyond(needed: int, limit: int, what: str, repair: str) -> None:
    """Raise `RoomError` if more bytes are needed than the limit.

    Examples
    --------
    >>> refuse_beyond(3 << 30, 1 << 30, "a volume of 1000 voxels", "cut it up")
    Traceback (most recent call last):
    ...
    ninefold.structured.room.RoomError: a volume of 1000 voxels needs 3072 MiB at least, 1024 MiB may be used; cut it up
    """
    if needed > limit:
        raise RoomError(f"{what} needs {needed / 2**20:.0f} MiB at least, {limit / 2**20:.0f} MiB may be used; {repair}")
