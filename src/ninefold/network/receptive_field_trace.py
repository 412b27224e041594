"""ReceptiveFieldTrace what every tensor of a running network reads of its input, one ATen operation at a time."""

from collections.abc import MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from ninefold.network.receptive_field_rules import CONSTANTS, RULES, Arguments, Places, elementwise, everything

__all__ = ["ReceptiveFieldTrace"]


class ReceptiveFieldTrace(TorchDispatchMode):
    """Keep, for every tensor made while the mode is on, its `Places`; tensors that depend on no input have none.

    An operation without a rule is taken to read everything: a field is never reported smaller than it is.

    Examples
    --------
    >>> from ninefold.network.receptive_field import ReceptiveField
    >>> x = torch.ones(1, 1, 9, 11)
    >>> follow = ReceptiveFieldTrace(2)
    >>> follow.put(x, {0: (2, ReceptiveField()), 1: (3, ReceptiveField())})
    >>> with follow, torch.no_grad():
    ...     y = torch.max_pool2d(x, (2, 3)) + 1
    >>> [reach.extent() for _, reach in follow.get(y).values()]
    [2, 3]
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else the first operation imports all of Dynamo, which takes longer than many a network

    def __init__(self, axes: int) -> None:
        super().__init__()
        self.axes = axes
        self.paused = 0
        self._places: MutableMapping[Tensor, Places | None] = WeakIdKeyDictionary()

    def get(self, tensor: Tensor) -> Places | None:
        """Return the places of a tensor, None if it reads nothing of the input."""
        return self._places.get(tensor)

    def put(self, tensor: Tensor, places: Places | None) -> None:
        """Set the places of a tensor."""
        self._places[tensor] = places

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation, then derive the places of what it gave."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not self.paused:
            self._record(func, args, kwargs, result)
        return result

    def _record(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        named = _bind(func, args, kwargs)
        name = func.overloadpacket.__name__
        read = [t for k, v in named.items() if not _overwritten(name, k) for t in pytree.tree_leaves(v)]
        inputs = [t for t in read if isinstance(t, Tensor)]
        for tensor in inputs:  # a constant must be known before something is written into a view of it
            self._places.setdefault(tensor, None)
        known = [(t, places) for t in inputs if (places := self.get(t)) is not None]
        rule = RULES.get(name, elementwise if torch.Tag.pointwise in func.tags else everything)
        written = [(t, self.get(t)) for t in _written(func, named)]
        for out in pytree.tree_leaves(result):
            if isinstance(out, Tensor):
                self.put(out, rule(known, named, out) if known and name not in CONSTANTS else None)
        for tensor, before in written:
            if self.get(tensor) != before:
                self._spoil_aliases(tensor)

    def _spoil_aliases(self, written: Tensor) -> None:
        # Through a view any part of the base can have changed, and the views of the base with it.
        storage = written.untyped_storage()._cdata  # noqa: SLF001
        for other in list(self._places):
            strided = other.layout is torch.strided and other is not written
            if strided and other.untyped_storage()._cdata == storage:  # noqa: SLF001
                self.put(other, {})


def _bind(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
    names = [a.name for a in func._schema.arguments]  # noqa: SLF001
    return dict(zip(names, args, strict=False)) | kwargs


def _written(func: Any, named: Arguments) -> list[Tensor]:
    marked = [a.name for a in func._schema.arguments if a.alias_info and a.alias_info.is_write]  # noqa: SLF001
    return [t for name in marked for t in pytree.tree_leaves(named.get(name)) if isinstance(t, Tensor)]


def _overwritten(name: str, argument: str) -> bool:
    return (argument == "self" and name in {"copy_", "zero_", "fill_"}) or argument == "out"
