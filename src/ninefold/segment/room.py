"""How much memory a network takes, measured on a few pixels: it grows with their number."""

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from ninefold.structured.room import available_memory

__all__ = ["LITTLE", "peak_bytes", "probe", "share_of_memory", "weights_bytes"]

LITTLE = 1 << 22
"""Pixels times channels that are not worth asking about: they take some hundred megabytes."""
_FEW = 4096


class _Watching(TorchDispatchMode):
    """Adds up the tensors that operators make, as long as they are there."""

    def __init__(self) -> None:
        super().__init__()
        self.there: dict[int, tuple[StorageWeakRef, int]] = {}
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for one in found if isinstance(found, (tuple, list)) else (found,):
            if isinstance(one, Tensor):
                storage = one.untyped_storage()
                self.there[storage.data_ptr()] = StorageWeakRef(storage), storage.nbytes()
        self.there = {at: (ref, size) for at, (ref, size) in self.there.items() if not ref.expired()}
        self.most = max(self.most, sum(size for _, size in self.there.values()))
        return found


def peak_bytes(call: Callable[[], object]) -> int:
    """Return the most bytes of tensors that a call has at once, beside those that were there before.

    Examples
    --------
    >>> def call():
    ...     return (torch.ones(1000, dtype=torch.float32, device="cpu") + 1) * 2
    >>> peak_bytes(call)
    8000
    """
    watching = _Watching()
    with watching:
        call()
    return watching.most


def probe(space: Sequence[int], least: int) -> tuple[tuple[int, ...], float]:
    """Return a size of few pixels, and how many times more `space` has; its sides are `least` or more, or those of `space`.

    Examples
    --------
    >>> probe((4000, 3000), 8)
    ((64, 64), 2929.6875)
    >>> probe((10, 20), 8)
    ((10, 20), 1.0)
    """
    side = max(round(_FEW ** (1 / len(space))), least)
    size = tuple(min(n, side) for n in space)
    return size, math.prod(space) / math.prod(size)


def weights_bytes(make: Callable[[], nn.Module]) -> int:
    """Return the bytes of a network's weights, which are not made, with their gradients and the two means of AdamW.

    Examples
    --------
    >>> weights_bytes(lambda: nn.Linear(10**6, 10**6, bias=False, dtype=torch.float32)) // 10**9
    16000
    """
    with torch.device("meta"):
        return 16 * sum(int(weight.numel()) for weight in make().parameters())


def share_of_memory() -> int:
    """Return the bytes that this process may take: what is free, shared out to all that torchrun started on this machine.

    Examples
    --------
    >>> share_of_memory() > 0
    True
    """
    return available_memory() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
