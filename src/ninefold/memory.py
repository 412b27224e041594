"""Memory of the process: keeping it between calls (only when asked to), counting page faults, measuring peaks.

A large result is fresh memory. The C library asks the system for it and gives it back when the tensor dies, so that
every call pays a page fault, and a page of zeros, for every 4 KiB that it writes.
"""

import ctypes
import gc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["Peak", "faults", "peak_memory", "retain_memory"]

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # mallopt's names for them, from malloc.h
_TRIAL = 16 << 20
_PAGE = 4096


def retain_memory() -> bool:
    """Ask the C library to keep freed memory for the next tensor, for the rest of the process.

    By default glibc serves large blocks straight from the system (``mmap``) and returns them when they are freed. Each
    large output of a convolution then costs a page fault per 4 KiB, which for a cheap layer can exceed the convolution
    itself many times over. This switches ``mmap`` for blocks off and never trims the heap, for every library of the
    process that uses the C allocator, PyTorch on the CPU among them. Nothing in ninefold calls this by itself.

    Returns
    -------
    bool
        Whether it took effect: a block that was freed came back without page faults. Where the allocator is another one
        (no glibc, or a replacement that is preloaded), a warning says so and nothing has changed.

    Notes
    -----
    What it costs: the memory of the process does not shrink any more. It stays at its peak, and above it by some copies
    of the largest tensors: PyTorch asks for aligned blocks, and glibc may need a few calls (rarely up to eight) until
    the block it finds again is large enough for both. It cannot be undone within the process. Results are not affected.

    Examples
    --------
    >>> retain_memory()  # doctest: +SKIP
    True
    """
    try:
        libc = ctypes.CDLL(None)
        settled = bool(libc.mallopt(_M_MMAP_MAX, 0)) and bool(libc.mallopt(_M_TRIM_THRESHOLD, -1))
    except (AttributeError, TypeError, OSError):
        settled = False
    if settled and _returns_without_faults(libc):
        _fill_small_bins(libc)
        return True
    warnings.warn(
        "retain_memory() has no effect here: the allocator of this process is not glibc's, and keeps or returns memory "
        "by rules of its own",
        RuntimeWarning,
        stacklevel=2,
    )
    return False


def _returns_without_faults(libc: ctypes.CDLL) -> bool:
    """Return whether a large block that is freed and allocated anew is the same memory, still mapped."""
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.restype, libc.free.argtypes = None, [ctypes.c_void_p]
    count = 0
    for _ in range(2):
        block = libc.malloc(_TRIAL)
        if not block:
            return False
        before = faults()
        ctypes.memset(block, 1, _TRIAL)
        count = faults() - before
        libc.free(block)
    return count < _TRIAL // _PAGE // 8


def _fill_small_bins(libc: ctypes.CDLL) -> None:
    """Fill the bins of small freed blocks, seven each.

    Aligning a large block splits a few bytes off it. Freed, these go to such a bin while it has room, and the large
    block stays too small by them, so that the next call gets fresh memory. A full bin lets them grow together again.
    """
    for size in range(24, 136, 16):
        held = [libc.malloc(size) for _ in range(7)]
        for block in held:
            libc.free(block)


def faults() -> int:
    """Return the page faults of this process so far that needed no disk: fresh pages, mostly.

    The system counts them; the difference over a call tells what the call paid for fresh memory. Returns 0 throughout
    where the system does not say (Windows).

    Examples
    --------
    >>> before = faults()
    >>> block = bytearray(1 << 20)
    >>> faults() >= before
    True
    """
    try:
        import resource  # noqa: PLC0415  not on every system
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


class Peak:
    """What `peak_memory` found; `bytes` is None until the block ends, and where the system does not say."""

    __slots__ = ("bytes",)

    def __init__(self) -> None:
        self.bytes: int | None = None

    def __repr__(self) -> str:
        return "Peak(unknown)" if self.bytes is None else f"Peak({self.bytes / 1e6:.1f} MB)"


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """Measure by how much a block raises the memory of the process at its highest, results included.

    Linux keeps the high-water mark of resident memory; it is reset at the start. Memory that was freed before but is
    still held by the C library is returned first, so that using it again counts.

    Yields
    ------
    Peak
        Its `bytes` is set when the block ends, None where the system has no such mark.

    Examples
    --------
    >>> with peak_memory() as peak:
    ...     block = bytearray(b"x" * (8 << 20))
    >>> peak.bytes is None or peak.bytes > 8_000_000
    True
    """
    peak = Peak()
    gc.collect()
    _trim()
    start = _status("VmRSS") if _reset_mark() else None
    try:
        yield peak
    finally:
        highest = _status("VmHWM") if start is not None else None
        if start is not None and highest is not None:
            peak.bytes = max(0, highest - start)


def _trim() -> None:
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, TypeError, OSError):
        return


def _reset_mark() -> bool:
    """Set the high-water mark to what is resident now; return whether the system let us."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _status(field: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":")), None)
