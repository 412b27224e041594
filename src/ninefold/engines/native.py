"""The native extension: loaded in this one place, with the instruction set that runs, or the reason why it is not there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor

from ninefold.errors import ArgumentError, DeviceError
from ninefold.spec.channels import ChannelTable
from ninefold.spec.form import Form
from ninefold.spec.problem import Problem

_module: ModuleType | None
try:
    _module = import_module("ninefold._native")
except ImportError as error:  # built without a compiler, or for another Python
    _module, _missing = None, str(error)
else:
    _missing = ""

__all__ = [
    "TYPES",
    "address",
    "blockless",
    "either",
    "extension_module",
    "flushed_denormals",
    "instruction_set",
    "plain",
    "scratch",
    "unavailable",
    "unfolded",
]

TYPES = {"float32": 0, "float64": 1, "bfloat16": 2}
"""Numbers that the kernels know the dtypes by."""


@lru_cache(maxsize=1)
def instruction_set() -> str | None:
    """Return the instruction set of the kernels: ``NINEFOLD_ISA``, or the widest; None where there is no extension.

    Raises
    ------
    ArgumentError
        If ``NINEFOLD_ISA`` names one that this build or this processor lacks.
    """
    if _module is None:
        return None
    known = _module.isas()
    wanted = os.environ.get("NINEFOLD_ISA")
    if wanted and wanted not in known:
        raise ArgumentError(f"NINEFOLD_ISA={wanted!r} is not one that this build and this processor have: {', '.join(known)}")
    return wanted or known[-1]


def extension_module() -> ModuleType:
    """Return the extension; ask `unavailable` first."""
    if _module is None:
        raise ImportError(f"ninefold was built without its native extension ({_missing})")
    return _module


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Take denormal numbers for zero within the block, on every thread that PyTorch computes with.

    ``torch.set_flush_denormal`` does so on the calling thread only, and on threads that are made later.

    Examples
    --------
    >>> x = torch.full((100_000,), 1e-39)
    >>> with flushed_denormals():
    ...     zeros = x * 1.0
    >>> int((x * 1.0).count_nonzero()), int(zeros.count_nonzero()) if instruction_set() else 0  # not without the extension
    (100000, 0)
    """
    if _module is None:
        yield
        return
    words = _module.flush_denormals(torch.get_num_threads())
    try:
        yield
    finally:
        _module.restore_control(words)


def unavailable(problem: Problem) -> str | None:
    """Return why no native kernel can run a problem, or None."""
    if instruction_set() is None:
        return f"0 native kernels are installed ({_missing or 'no extension'}); build ninefold with a C++20 compiler"
    if problem.device != "cpu":
        return f"native kernels run on 1 device, the CPU, not on {problem.device}"
    if problem.dtype not in TYPES:
        return f"native kernels know the {len(TYPES)} dtypes {', '.join(TYPES)}, not {problem.dtype}"
    return None


def blockless(form: Form, what: str) -> str | None:
    """Return why a form has no blocks of channels that serve all positions, as products and transforms need, or None."""
    if isinstance(form.channels, ChannelTable):
        return f"a table of {form.channels.connections} channel connections has no blocks to multiply"
    if form.tiled:
        return f"{what} needs one kernel for all positions; this form cycles through {form.period} of them"
    if form.ndim > 3:
        return f"kernels have up to 3 axes, this one has {form.ndim}"
    return None


def unfolded(problem: Problem) -> str | None:
    """Return why a kernel that gathers what inputs are fed by cannot run map h, or None."""
    form = problem.form
    if problem.map == "h" and form.mode != "zeros":
        return f"what outputs read beyond the {form.n_in} positions ({form.mode}) has to be folded back by a rewrite"
    return None


def address(x: Tensor) -> int:
    """Return where an operand lies, for native code: every address that a kernel is given comes from here.

    Raises
    ------
    DeviceError
        If it is not in the memory of the CPU; the address would be of nothing, or of another device's memory.
    """
    if not x.is_cpu:
        raise DeviceError(f"native kernels read the memory of the CPU; a tensor {tuple(x.shape)} is on {x.device}: call .cpu()")
    return x.data_ptr()


def scratch(size: int) -> Tensor:
    """Return uninitialised memory of the CPU, in bytes, for what native code keeps."""
    return torch.empty(size, dtype=torch.uint8, device="cpu")


def plain(x: Tensor, channels_last: bool = False) -> Tensor:
    """Return x as memory that an address alone describes: no lazy negation, contiguous or channels-last."""
    if x.is_neg():
        x = x.resolve_neg()
    if channels_last and x.ndim in (4, 5):
        return x.contiguous(memory_format=torch.channels_last if x.ndim == 4 else torch.channels_last_3d)
    return x.contiguous()


def either(x: Tensor) -> tuple[Tensor, bool]:
    """Return x as memory in one of the two formats, its own where it has one, and whether that is channels-last."""
    x = x.resolve_neg()
    if x.is_contiguous() or x.ndim not in (4, 5):
        return x.contiguous(), False
    if x.is_contiguous(memory_format=torch.channels_last if x.ndim == 4 else torch.channels_last_3d):
        return x, True
    return x.contiguous(), False
