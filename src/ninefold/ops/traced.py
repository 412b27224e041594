"""How torch.fx, and whatever else traces by stand-ins for tensors, sees ninefold: a function is one call, a layer one node.

A stand-in is no tensor but answers ``__torch_function__``, the protocol by which PyTorch's own functions hand themselves over to
whoever asks. Ours do the same for stand-ins (tensors that use the protocol are seen by the operators of
`ninefold.ops.operator`). PyTorch's layers are nodes of a graph because torch.fx knows their module by name; ours say so
themselves.
"""

from collections.abc import Callable, Iterable
from functools import wraps
from inspect import signature
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.fx import Proxy
from torch.nn.modules import module as modules
from torch.overrides import handle_torch_function, has_torch_function

__all__ = ["hooked", "node", "overridable", "stand_ins"]

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_Function = TypeVar("_Function", bound=Callable[..., Any])


def stand_ins(values: Iterable[Any]) -> tuple[Any, ...]:
    """Return those of some arguments that stand for tensors.

    Examples
    --------
    >>> stand_ins((torch.zeros(2), 3, "same"))
    ()
    """
    return tuple(x for x in values if not isinstance(x, Tensor) and hasattr(type(x), "__torch_function__"))


def overridable(function: _Function) -> _Function:
    """Return the function, which hands itself over to stand-ins among its arguments.

    It must be found under its ``__module__`` and ``__name__``, for graphs name it so.

    Examples
    --------
    >>> import ninefold.functional as F
    >>> graph = torch.fx.symbolic_trace(lambda x: F.max_pool2d(x, 2)).graph
    >>> [(node.op, node.name, node.args[1:]) for node in graph.nodes][1]
    ('call_function', 'max_pool2d', (2,))
    """

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        given = (*args, *kwargs.values()) if kwargs else args
        if has_torch_function(given) and not torch.compiler.is_compiling() and (found := stand_ins(given)):
            return handle_torch_function(call, found, *args, **kwargs)
        return function(*args, **kwargs)

    return call  # type: ignore[return-value]


def node(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Make a layer's ``forward`` one node of torch.fx's graph, whose hooks run when the graph does, as those of torch's layers.

    Where calling the layer is more than this function (a subclass's own ``forward``, hooks, which torch.fx traces around it, or
    the layer is the model itself), the function is traced, and its parameters are the graph's.

    Examples
    --------
    >>> import ninefold.nn as nn
    >>> graph = torch.fx.symbolic_trace(torch.nn.Sequential(nn.MaxPool2d(2))).graph
    >>> [(node.op, node.target) for node in graph.nodes][1]
    ('call_module', '0')
    """

    @wraps(forward)
    def call(self: torch.nn.Module, input: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: A002  torch's name
        if isinstance(input, Proxy) and _is_node(self, call, input.tracer):
            return _recorded(self, input, args, kwargs)
        return forward(self, input, *args, **kwargs)

    @wraps(forward)
    def call_of_one(self: torch.nn.Module, input: Any) -> Any:  # noqa: A002  the same, at a third of the cost
        if isinstance(input, Proxy) and _is_node(self, call_of_one, input.tracer):
            return _recorded(self, input, (), {})
        return forward(self, input)

    return call_of_one if len(signature(forward).parameters) == 2 else call


def _is_node(layer: torch.nn.Module, forward: Callable[..., Any], tracer: Any) -> bool:
    """Whether calling the layer is calling this function and nothing else, and the layer a part of what is traced."""
    alone = type(layer).forward is forward and "forward" not in vars(layer)
    return alone and not hooked(layer) and not _for_all() and layer is not getattr(tracer, "root", None)


def _recorded(layer: torch.nn.Module, x: Proxy, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    tracer: Any = x.tracer
    return tracer.create_proxy("call_module", tracer.path_of_module(layer), (x, *args), kwargs)


def hooked(module: torch.nn.Module) -> bool:
    """Return whether hooks look at what goes into a module or comes out of it.

    Examples
    --------
    >>> layer = torch.nn.Identity()
    >>> before, _ = hooked(layer), layer.register_forward_hook(print)
    >>> before, hooked(layer)
    (False, True)
    """
    return any(getattr(module, kind) for kind in _HOOKS)


def _for_all() -> bool:
    """Whether there are hooks of all modules, ``torch.nn.modules.module.register_module_forward_hook`` and its kin."""
    return any(getattr(modules, "_global" + kind) for kind in _HOOKS)
