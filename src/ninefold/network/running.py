"""Run a network that somebody else wrote: with the arguments that its user gives it, on the values that it really has."""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves, tree_map

from ninefold.errors import ArgumentTypeError, ModelError

__all__ = ["Call", "Clock", "first_tensor", "outputs", "step", "tensors_in", "tried", "untouched"]


@dataclass(frozen=True)
class Call:
    """The arguments of one call of a network, any nest of tensors and other things.

    Examples
    --------
    >>> Call.of(torch.zeros(2)), Call.of((1, 2), {"scale": 3})
    (Call(args=(tensor([0., 0.]),), kwargs={}), Call(args=(1, 2), kwargs={'scale': 3}))
    >>> print(Call.of([torch.zeros(2)]), Call.of({"pixels": torch.zeros(2)}))
    ([float32 (2,)]) (pixels=float32 (2,))
    """

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    written: bool = field(default=False, repr=False)
    """Whether the network writes over its arguments, so that every step needs new ones."""

    @staticmethod
    def of(example: Any, kwargs: Mapping[str, Any] | None = None) -> "Call":
        """Read an example: a tuple holds the arguments, a mapping those with names, and anything else is the only one.

        Raises
        ------
        ArgumentTypeError
            If a name is no text.
        """
        if isinstance(example, Call):
            return example
        named = dict(kwargs or {})
        if isinstance(example, Mapping):
            example, named = (), dict(example) | named
        if wrong := [name for name in named if not isinstance(name, str)]:
            raise ArgumentTypeError(
                f"a mapping gives arguments by name, and {wrong[0]!r} is none; for a dictionary that is itself the one argument "
                "write (dictionary,)"
            )
        return Call(example if isinstance(example, tuple) else (example,), named)

    def on(self, model: Module) -> Any:
        """Call a model."""
        return model(*self.args, **self.kwargs)

    def tensors(self) -> list[Tensor]:
        """Return all tensors among the arguments, in order."""
        return tensors_in((self.args, self.kwargs))

    def fresh(self) -> "Call":
        """Return the call with copies of its tensors, for a network may write over what it is given."""
        args, kwargs = tree_map(_copied, (self.args, self.kwargs))
        return replace(self, args=tuple(args), kwargs=kwargs)

    def __str__(self) -> str:
        parts = [_described(x) for x in self.args] + [f"{name}={_described(x)}" for name, x in self.kwargs.items()]
        return f"({', '.join(parts)})"


def _copied(x: Any) -> Any:
    if not isinstance(x, Tensor):
        return x
    copy = x.detach().clone()
    return copy.requires_grad_() if x.requires_grad else copy


def _described(x: Any) -> str:
    if isinstance(x, Tensor):
        return f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape)}"
    if isinstance(x, (list, tuple)):
        return f"[{', '.join(map(_described, x))}]"
    if isinstance(x, Mapping):
        return "{" + ", ".join(f"{k}: {_described(v)}" for k, v in x.items()) + "}"
    return type(x).__name__


def first_tensor(*nest: Any) -> Tensor:
    """Return the first tensor of what a layer was called with.

    Raises
    ------
    ArgumentTypeError
        If there is none.
    """
    found = tensors_in(nest)
    if not found:
        raise ArgumentTypeError("a convolution was called without a tensor")
    return found[0]


def tensors_in(nest: Any) -> list[Tensor]:
    """Return the tensors of a nest, in order: of containers that ``torch.utils._pytree`` knows, of dataclasses, of plain objects.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> [len(x) for x in tensors_in([torch.zeros(2), {"boxes": SimpleNamespace(corners=torch.zeros(3), name="a")}])]
    [2, 3]
    """
    seen: set[int] = set()

    def look(value: Any) -> Iterator[Tensor]:
        if isinstance(value, Tensor):
            yield value
        elif id(value) not in seen and not isinstance(value, (type, Module)) and not callable(value):
            seen.add(id(value))
            for part in _parts(value):
                yield from look(part)

    return list(look(nest))


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    if hasattr(value, "__dict__"):
        return list(vars(value).values())
    return [leaf for leaf in tree_leaves(value) if leaf is not value]


@contextmanager
def untouched(model: Module) -> Iterator[None]:
    """Leave buffers and the generators of random numbers as they were before the block, in which these start from one seed."""
    own = [m for m in model.modules() if not isinstance(m, torch.jit.ScriptModule)]  # whose buffers are there for good
    modules = [(m, dict(m._buffers), set(m._non_persistent_buffers_set)) for m in own]  # noqa: SLF001  a module's tables
    held = [(b, b.detach().clone()) for b in model.buffers() if not (b.is_inference() or is_lazy(b))]
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  the one that networks draw from
    try:
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(0)
            random.seed(0)
            np.random.seed(0)  # noqa: NPY002
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        for module, buffers, passing in modules:
            module._buffers.clear()  # noqa: SLF001
            module._buffers.update(buffers)  # noqa: SLF001
            module._non_persistent_buffers_set = passing  # noqa: SLF001
        with torch.no_grad():
            for buffer, before in held:  # version counters do not tell: batch normalisation writes past them
                if not torch.equal(buffer, before) and torch._debug_has_internal_overlap(buffer) != 1:  # noqa: SLF001  else nobody wrote
                    buffer.copy_(before)


def outputs(
    model: Module, call: Call, within: AbstractContextManager[object] | None = None, *, grad: bool = False
) -> list[Tensor]:
    """Run once, `within` a context, leaving the state as it was; return the floating-point and complex results.

    With `grad`, whatever it makes requires gradients as in training; else nothing does.
    """
    with untouched(model), torch.set_grad_enabled(grad):
        own = call.fresh()
        with within or nullcontext():
            out = own.on(model)
    return [x for x in tensors_in(out) if x.is_floating_point() or x.is_complex()]


def tried(model: Module, call: Call) -> tuple[list[Tensor], Call]:
    """Run as `outputs` does; return the results, and the call with a note whether the network writes over what it is given.

    Raises
    ------
    ModelError
        If the model cannot be called so.
    """
    own = call.fresh()
    versions = [x._version for x in own.tensors()]  # noqa: SLF001  no public name
    try:
        with untouched(model), torch.no_grad():
            out = own.on(model)
    except Exception as error:
        raise ModelError(f"{type(model).__name__} cannot be called with the example {call}: {error}") from error
    written = versions != [x._version for x in own.tensors()]  # noqa: SLF001
    return [x for x in tensors_in(out) if x.is_floating_point() or x.is_complex()], replace(call, written=written)


def step(model: Module, call: Call, train: bool) -> Callable[[], object]:
    """Return one step of work: a call, or in training a call and the gradients to all parameters.

    A network that writes over its arguments gets new ones at every step, on either side of a comparison.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    own = call.fresh()

    def infer() -> object:
        with torch.no_grad():
            return (own.fresh() if own.written else own).on(model)

    def learn() -> object:
        with torch.enable_grad():
            out = (own.fresh() if own.written else own).on(model)
            parts = [x.abs().square().mean() for x in tensors_in(out) if x.requires_grad]
            return torch.autograd.grad(torch.stack(parts).sum(), parameters, allow_unused=True) if parts else out

    return learn if train and parameters else infer


class Clock:
    """Seconds that a running network spends in some of its layers, forward and backward, on the values that it really has.

    Parameters
    ----------
    layers : list of torch.nn.Module
        One within another counts once.

    Examples
    --------
    >>> net = torch.nn.Sequential(torch.nn.Conv1d(1, 2, 3), torch.nn.ReLU())
    >>> with Clock([net[0]]) as clock:
    ...     out = net(torch.zeros(1, 1, 9))
    >>> clock.seconds > 0
    True
    """

    def __init__(self, layers: list[Module]) -> None:
        self.seconds = 0.0
        self._layers = layers
        self._depth = 0
        self._since = 0.0
        self._handles: list[Any] = []

    def __enter__(self) -> Self:
        for layer in self._layers:
            self._handles.append(layer.register_forward_pre_hook(self._start))
            self._handles.append(layer.register_forward_hook(self._stop))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _start(self, *_: object) -> None:
        if self._depth == 0:
            self._since = _now()
        self._depth += 1

    def _stop(self, module: Module, args: tuple[Any, ...], out: Any) -> None:
        del module, args
        self._depth -= 1
        if self._depth:
            return
        self.seconds += _now() - self._since
        if isinstance(out, Tensor) and out.grad_fn is not None:
            out.grad_fn.register_prehook(self._start_backward)
            out.grad_fn.register_hook(self._stop_backward)

    def _start_backward(self, *_: object) -> None:
        self._since = _now()

    def _stop_backward(self, *_: object) -> None:
        self.seconds += _now() - self._since


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return perf_counter()
