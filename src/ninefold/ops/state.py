"""Which of the two routes a call takes: the one place that looks at torch's interpreter state, by names that may change.

What differs between torch's versions is said here, too, and found out by looking, not by comparing versions.
"""

import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

__all__ = [
    "autocast_dtype",
    "batched",
    "constant",
    "exporting",
    "is_plain",
    "knows_autocast",
    "lacks_kernel",
    "tracing",
    "transformed",
]

_F = TypeVar("_F", bound=Callable[..., Any])

batched: Callable[[Tensor], bool] = torch._C._functorch.is_legacy_batchedtensor  # noqa: SLF001  what is_grads_batched makes

_functorch_active = torch._C._are_functorch_transforms_active  # noqa: SLF001  no public name
_dispatch_modes = torch._C._len_torch_dispatch_stack  # noqa: SLF001  no public name
_tracing = torch._C._get_tracing_state  # noqa: SLF001  torch.jit.is_tracing, ten times as fast
_autocasting = torch._C._is_any_autocast_enabled  # noqa: SLF001  torch.is_autocast_enabled for every device at once
_EXPORTER = "torch.onnx._internal.exporter._core"
_PLAIN = frozenset((Tensor, Parameter))


def constant(function: _F) -> _F:
    """Let compilers call a function of constants while they trace, and take what it returns for a constant.

    It does what torch.compiler.assume_constant_result does, which would import the whole compiler for it.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]  # noqa: SLF001
    return function


def is_plain(x: Tensor, weight: Tensor) -> bool:
    """Return whether these are ordinary tensors in ordinary eager mode: the thin route."""
    return (
        type(x) in _PLAIN
        and type(weight) in _PLAIN
        and not _functorch_active()
        and not _dispatch_modes()
        and forward_ad._current_level < 0  # noqa: SLF001  no public name
        and not _autocasting()
        and _tracing() is None
    )


def transformed(x: Tensor) -> bool:
    """Return whether a transform of ``torch.func`` or a batch of gradients is at work, where strides are not what they seem."""
    return _functorch_active() or batched(x)


def tracing() -> bool:
    """Return whether torch.jit.trace, or an exporter built on it, records."""
    return _tracing() is not None


@constant  # no exporter starts within a graph
def exporting() -> bool:
    """Return whether the ONNX exporter records a graph, which knows PyTorch's own operations only."""
    if "torch.onnx._internal.exporter._flags" in sys.modules:  # asking torch.onnx would import all of it
        return torch.onnx.is_in_onnx_export()
    frame = sys._getframe() if _EXPORTER in sys.modules else None  # noqa: SLF001  the exporter of torch 2.6 sets no flag: who calls?
    while frame is not None and frame.f_globals.get("__name__") != _EXPORTER:
        frame = frame.f_back
    return frame is not None


@constant  # the compiler of torch 2.6 does not know the function that is asked
def knows_autocast(kind: str) -> bool:
    """Return whether a kind of device has autocast."""
    return torch.amp.is_autocast_available(kind)


def lacks_kernel(error: RuntimeError) -> bool:
    """Return whether torch refuses for want of a kernel of this dtype: a NotImplementedError, said in words only by torch 2.6.

    Examples
    --------
    >>> lacks_kernel(RuntimeError("pool not implemented for 'Half'")), lacks_kernel(RuntimeError("too small"))
    (True, False)
    """
    return isinstance(error, NotImplementedError) or "not implemented for '" in str(error)


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """Return what autocast would turn this operand into, or None where it is off."""
    kind = x.device.type
    eligible = x.dtype in (torch.float32, torch.float16, torch.bfloat16) and knows_autocast(kind)
    return torch.get_autocast_dtype(kind) if eligible and torch.is_autocast_enabled(kind) else None


def _one_thread() -> None:
    torch.set_num_threads(1)


# A forked child has the parent's thread pool by name only and would wait for it for ever; torch itself does not guard this.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_one_thread)
