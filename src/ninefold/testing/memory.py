"""Watching memory from Python: poison what is fresh, count what is held."""

import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["PeakMemory", "Poisoned"]

_FRESH = ("empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided", "empty_permuted")


class Poisoned(TorchDispatchMode):
    """Within this mode, memory that an allocation leaves uninitialised holds NaN.

    A result that depends on such memory turns NaN, instead of being right as long as the memory happens to be zero.

    Examples
    --------
    >>> with Poisoned():
    ...     x = torch.empty(2)
    >>> x
    tensor([nan, nan])
    """

    def __init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and fill what it allocates."""
        out = func(*args, **(kwargs or {}))
        fresh = getattr(func, "overloadpacket", None) in _PACKETS
        if fresh and isinstance(out, Tensor) and (out.is_floating_point() or out.is_complex()):
            out.fill_(float("nan"))
        return out


_PACKETS = frozenset(getattr(torch.ops.aten, name) for name in _FRESH)


class PeakMemory(TorchDispatchMode):
    """Within this mode, the bytes of tensors that operations return are counted for as long as these live.

    What an operation allocates and frees internally is not seen.

    Parameters
    ----------
    held : sequence of Tensor
        Tensors that exist already and do not count.

    Attributes
    ----------
    peak : int
        Bytes alive at once, at most.

    Examples
    --------
    >>> x = torch.zeros(1000)
    >>> with PeakMemory([x]) as memory:
    ...     y = (x + 1).sum()
    >>> memory.peak
    4004
    """

    def __init__(self, held: Sequence[Tensor] = ()) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._live: dict[int, int] = {x.untyped_storage()._cdata: 0 for x in held}  # noqa: SLF001  no public name
        self._held = list(held)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and count what it returns."""
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, Tensor):
                self._count(x.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata  # noqa: SLF001  no public name
        if key not in self._live:
            self._live[key] = storage.nbytes()
            self._now += storage.nbytes()
            self.peak = max(self.peak, self._now)
            weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self._now -= self._live.pop(key)
