"""Results and operands in memory: their format, whose they are, in how large blocks they are worked on."""

import cmath
from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["BLOCK", "add_bias", "all_finite", "blocks", "empty", "in_format", "owned"]

BLOCK = 8 << 20
"""Bytes that an engine cutting its work into blocks aims at: enough to keep a product busy, few enough for the cache."""


def empty(like: Tensor, shape: tuple[int, ...], channels_last: bool = False) -> Tensor:
    """Allocate a result beside `like`, in the memory format that is asked for."""
    if channels_last and len(shape) in (4, 5):
        fmt = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
        return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=fmt)
    return like.new_empty(shape)


def in_format(x: Tensor, channels_last: bool) -> Tensor:
    """Return x in channels-last memory if `channels_last`, else contiguous; x itself where it is already."""
    if channels_last and x.ndim in (4, 5):
        return x.contiguous(memory_format=torch.channels_last if x.ndim == 4 else torch.channels_last_3d)
    return x.contiguous()


def owned(x: Tensor) -> Tensor:
    """Return x as no view of other memory: autograd lets nobody change in place what a Function gives out as a view.

    Not for tensors that others hold too, for changes of the one are then no longer noticed in the other.

    Examples
    --------
    >>> owned(torch.zeros(1, 3)[0])._is_view()
    False
    """
    return x.data if x._is_view() else x  # noqa: SLF001  no public name


def add_bias(out: Tensor, bias: Tensor | None) -> Tensor:
    """Add one number per channel, in place."""
    return out if bias is None else out.add_(bias.view(-1, *(1,) * (out.ndim - 2)))


def all_finite(x: Tensor) -> bool:
    """Return whether all elements are finite, by their sum: False also of numbers so large that this overflows.

    Examples
    --------
    >>> all_finite(torch.tensor([1.0, -2.0])), all_finite(torch.tensor([torch.inf, -torch.inf]))
    (True, False)
    """
    return cmath.isfinite(x.sum(dtype=torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype).item())


def blocks(total: int, size: int) -> Iterator[slice]:
    """Cut ``range(total)`` into consecutive slices of at most `size`.

    Examples
    --------
    >>> [(b.start, b.stop) for b in blocks(7, 3)]
    [(0, 3), (3, 6), (6, 7)]
    """
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))
