"""Which of the two routes a call takes: the one place that looks at torch's interpreter state."""

import os
import sys

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

__all__ = ["autocast_dtype", "batched", "exporting", "is_plain", "tracing", "transformed"]

_functorch_active = torch._C._are_functorch_transforms_active  # noqa: SLF001  no public name
_dispatch_modes = torch._C._len_torch_dispatch_stack  # noqa: SLF001  no public name
_tracing = torch._C._get_tracing_state  # noqa: SLF001  torch.jit.is_tracing, ten times as fast
_autocasting = torch._C._is_any_autocast_enabled  # noqa: SLF001  torch.is_autocast_enabled for every device at once
batched = torch._C._functorch.is_legacy_batchedtensor  # noqa: SLF001  no public name; what is_grads_batched makes
_PLAIN = frozenset((Tensor, Parameter))


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


def exporting() -> bool:
    """Return whether the ONNX exporter records a graph, which knows PyTorch's own operations only."""
    loaded = "torch.onnx._internal.exporter._flags" in sys.modules  # asking torch.onnx would import all of it
    return loaded and torch.onnx.is_in_onnx_export()


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """Return what autocast would turn this operand into, or None where it is off."""
    kind = x.device.type
    eligible = x.dtype in (torch.float32, torch.float16, torch.bfloat16) and torch.amp.is_autocast_available(kind)
    return torch.get_autocast_dtype(kind) if eligible and torch.is_autocast_enabled(kind) else None


def _one_thread() -> None:
    torch.set_num_threads(1)


# A forked child has the parent's thread pool by name only and would wait for it for ever; torch itself does not guard this.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_one_thread)

exporting._dynamo_marked_constant = True  # type: ignore[attr-defined]  # noqa: SLF001  no exporter starts within a graph
