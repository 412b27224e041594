"""Which module reads what which module made: observed in one run, one ATen operation at a time.

A traced graph (``torch.fx``) would say the same of a network whose path does not depend on the data, and nothing of any other:
it cannot be made of those. Observing works for every network, and also sees what a graph does not: a tensor that a hook or the
network itself keeps, a weight that is read outside its layer. What it does not see is a path that the example does not take.
"""

from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor
from torch.nn import Module
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from ninefold.network.running import Call, outputs

__all__ = ["Dataflow", "observe"]


@dataclass
class _Call:
    """One call of a watched module: who made what it reads, who reads what it made (None: anything else)."""

    name: str
    reads: list[str | None] = field(default_factory=list)
    read_by: list[str | None] = field(default_factory=list)
    shape: tuple[int, ...] = ()


@dataclass
class Dataflow:
    """What a run showed of the watched modules.

    Parameters
    ----------
    calls : dict of str to list of _Call
        By module, in order.
    used : set of str
        Modules whose parameters or buffers something else has read, too.
    """

    calls: dict[str, list[_Call]] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def sources(self, name: str) -> list[str | None]:
        """Return the watched modules whose outputs this one reads, None for a call that reads none of them."""
        return list(dict.fromkeys(maker for call in self.calls[name] for maker in (call.reads or [None])))

    def source(self, name: str) -> str | None:
        """Return the one watched module whose outputs are all that this one reads, None if there is none."""
        made = self.sources(name)
        return made[0] if len(made) == 1 else None

    def alone(self, name: str, reader: str) -> bool:
        """Whether every output of a module is read by this reader and by nothing else, neither during the run nor after it."""
        return all(set(call.read_by) == {reader} for call in self.calls[name])

    def shapes(self, name: str) -> list[tuple[int, ...]]:
        """Return the shapes of a module's outputs."""
        return [call.shape for call in self.calls[name]]


def observe(model: Module, example: Any, watched: dict[str, Module]) -> Dataflow:
    """Run a network once, without gradients, and return how data flowed between the watched modules, which hold no others.

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Conv1d(1, 2, 3), torch.nn.BatchNorm1d(2), torch.nn.ReLU()).eval()
    >>> flow = observe(net, (torch.zeros(1, 1, 9),), dict(net.named_children()))
    >>> flow.source("1"), flow.alone("0", "1"), flow.alone("1", "2"), flow.alone("2", "0")
    ('0', True, True, False)
    """
    watch = _Watch(watched)
    outputs(model, Call.of(example), watch.on(watched))
    return watch.flow


class _Watch(TorchDispatchMode):
    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # as in ReceptiveFieldTrace

    def __init__(self, watched: dict[str, Module]) -> None:
        super().__init__()
        self.flow = Dataflow({name: [] for name in watched})
        self._made: MutableMapping[Tensor, _Call] = WeakIdKeyDictionary()
        self._owned: MutableMapping[Tensor, set[str]] = WeakIdKeyDictionary()
        self._running: list[_Call] = []
        for name, module in watched.items():
            for tensor in (*module.parameters(), *module.buffers()):
                self._owned.setdefault(tensor, set()).add(name)

    @contextmanager
    def on(self, watched: dict[str, Module]) -> Iterator[None]:
        """Watch within the block; what still lives at its end, as a result or kept by somebody, counts as read by others."""
        handles: list[Any] = []
        try:
            for name, module in watched.items():
                handles.append(module.register_forward_pre_hook(partial(self._enter, name)))
                handles.append(module.register_forward_hook(self._leave))
            with self:
                yield
            for call in list(self._made.values()):
                call.read_by.append(None)
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, name: str, module: Module, args: tuple[Any, ...]) -> None:
        del module, args
        self._running.append(_Call(name))

    def _leave(self, module: Module, args: tuple[Any, ...], output: Any) -> None:
        del module, args
        call = self._running.pop()
        self.flow.calls[call.name].append(call)
        if isinstance(output, Tensor):
            call.shape = tuple(output.shape)
            self._made[output] = call

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation; note what it reads for the module that it runs in."""
        del types
        running = self._running[-1] if self._running else None
        name = running.name if running else None
        for tensor in pytree.tree_leaves((args, kwargs)):
            if not isinstance(tensor, Tensor):
                continue
            if (call := self._made.get(tensor)) is not None:
                call.read_by.append(name)
                if running is not None:
                    running.reads.append(call.name)
            owners = self._owned.get(tensor, set())
            if owners and owners != {name}:
                self.flow.used |= owners
        return func(*args, **(kwargs or {}))
