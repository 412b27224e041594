"""Which planned class a layer of ``torch.nn`` becomes, decided by what a call of it would run, and the way back.

A layer qualifies if calling it runs the ``forward`` and the ``_conv_forward`` of ``torch.nn`` and nothing else: neither its
class nor the object itself puts anything in their place. A subclass that only sets defaults qualifies, then; its twin is a class
of both, so that ``isinstance`` holds for either. A parametrized layer has a class of its own, made by
``torch.nn.utils.parametrize``; its twin is the same class on another base, so that a parametrization can be removed from it, too.
"""

import copy
from functools import lru_cache
from typing import Any

import torch
from torch.nn import Module
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils.parametrize import is_parametrized

from ninefold import nn
from ninefold.nn.conv import Planned

__all__ = [
    "TWINS",
    "altered",
    "as_defined",
    "beyond_torch",
    "computes_only_a_convolution",
    "left_alone",
    "plain_kind",
    "plain_type",
    "planned",
    "twin_type",
]

TWINS: dict[type[Module], type[Planned]] = {
    getattr(torch.nn, name): getattr(nn, name)
    for name in ("Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d")
}
_LAZY: dict[type[Module], type[Module]] = {
    getattr(torch.nn, f"Lazy{kind.__name__}"): getattr(nn, f"Lazy{kind.__name__}") for kind in TWINS
}
_PLAIN: dict[type[Module], type[Module]] = {
    **{twin: plain for plain, twin in (TWINS | _LAZY).items()},
    nn.PointwiseGroupConv1d: torch.nn.Conv1d,
    nn.PointwiseGroupConv2d: torch.nn.Conv2d,
    nn.PointwiseGroupConv3d: torch.nn.Conv3d,
}
_OWN = frozenset(
    kind for kind in (getattr(nn, name) for name in nn.__all__) if isinstance(kind, type) and issubclass(kind, Planned)
)
_TORCH_MODES = ("zeros", "reflect", "replicate", "circular")
_CALLED = frozenset(
    ("forward", "_conv_forward", "_output_padding", "__call__", "_call_impl", "_wrapped_call_impl", "_slow_forward")
)
_READ = frozenset(
    (
        *("__getattr__", "__getattribute__", "__torch_function__"),
        *("weight", "bias", "in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups"),
        *("padding_mode", "transposed", "output_padding", "_reversed_padding_repeated_twice"),
    )
)


def altered(module: Module, kind: type[Module]) -> str | None:
    """Return what stands in the place of something that a call of `kind` runs or reads, on the class or on the object.

    Examples
    --------
    >>> class Doubled(torch.nn.Conv1d):
    ...     def forward(self, x):
    ...         return 2 * super().forward(x)
    >>> altered(Doubled(1, 1, 3), torch.nn.Conv1d), altered(torch.nn.Conv1d(1, 1, 3), torch.nn.Conv1d)
    ('Doubled.forward', None)
    """
    if found := sorted(_CALLED & vars(module).keys()):
        return f"{found[0]} of this object"
    for cls in type(module).__mro__:
        if cls is kind:
            return None
        own = _CALLED | _READ - (_parametrized(module) if cls is type(module) else set())
        if found := sorted(own & vars(cls).keys()):
            return f"{cls.__name__}.{found[0]}"
    return f"{type(module).__name__} as a whole"


def _parametrized(module: Any) -> set[str]:
    return set(module.parametrizations) if is_parametrized(module) else set()


def _base(module: Module) -> type[Module] | None:
    """Return the convolution of ``torch.nn`` that a layer is, or derives from."""
    return next((cls for cls in type(module).__mro__ if cls in TWINS), None)


def twin_type(module: Module) -> type[Module] | None:
    """Return the planned class that computes what this layer of ``torch.nn`` does, None if there is none.

    Examples
    --------
    >>> twin_type(torch.nn.Conv2d(3, 4, 5)), twin_type(torch.nn.Linear(3, 4))
    (<class 'ninefold.nn.conv.Conv2d'>, None)
    """
    base = _base(module)
    if base is None or isinstance(module, Planned) or altered(module, base):
        return None
    if isinstance(module, LazyModuleMixin):
        return _LAZY.get(type(module))
    twin: Any = TWINS[base]
    kind: Any = type(module)
    return _rebased(_joined(twin, kind.__mro__[1]), kind) if is_parametrized(module) else _joined(twin, kind)


def plain_type(module: Module) -> type[Module] | None:
    """Return the class of ``torch.nn`` that computes what a planned layer does, None if there is none."""
    kind = plain_kind(module)
    return None if kind is None or beyond_torch(module) else kind


def plain_kind(module: Module) -> type[Module] | None:
    """Return the class of ``torch.nn`` that a planned layer is the twin of, whatever its settings, None if of none."""
    kind = type(module)
    known: type[Module] | None = vars(kind).get("_plain_kind") or _PLAIN.get(kind)
    if known is None and isinstance(module, Planned) and is_parametrized(module):  # after it became planned
        base = kind.__mro__[1]
        below = vars(base).get("_plain_kind") or _PLAIN.get(base)
        return None if below is None else _rebased(below, kind)
    return known


def planned(module: Module) -> bool:
    """Whether calling a layer runs a planned layer of ninefold's and nothing else."""
    return isinstance(module, Planned) and not _CALLED & vars(module).keys()


def as_defined(module: Module, kinds: tuple[type[Module], ...]) -> bool:
    """Whether a module is exactly of one of these kinds, and nothing on the object stands in the place of what a call runs."""
    return type(module) in kinds and not _CALLED & vars(module).keys()


def computes_only_a_convolution(module: Module) -> bool:
    """Whether a layer is known to compute a convolution with the parameters weight and bias: no subclass with its own forward."""
    if is_parametrized(module) or not {"weight", "bias"} <= module._parameters.keys():  # noqa: SLF001  a module's own table
        return False
    kind = type(module)
    own = (kind in _OWN or "_plain_kind" in vars(kind)) and not _CALLED & vars(module).keys()
    return own or twin_type(module) is not None


def left_alone(module: Module) -> str | None:
    """Return why a layer that looks like a convolution has no twin, or None for a layer that has one or does not look like it."""
    kind = type(module)
    if isinstance(module, Planned) or twin_type(module) is not None:
        return None
    if (base := _base(module)) is not None:
        if isinstance(module, LazyModuleMixin):
            return f"{kind.__name__} has no weight yet: run the model once"
        return f"{altered(module, base)} may mean something else than {base.__name__}.{_part(module, base)}"
    weight = getattr(module, "weight", None)
    if next(module.children(), None) is None and hasattr(module, "kernel_size") and getattr(weight, "ndim", 0) >= 3:
        return f"{kind.__name__} of {kind.__module__} is not a layer of torch.nn"
    return None


def _part(module: Module, base: type[Module]) -> str:
    return str(altered(module, base)).rpartition(".")[2].partition(" ")[0]


def beyond_torch(module: Any) -> str | None:
    """Return why ``torch.nn`` has no layer that computes what a planned one does, or None."""
    if epilogue := getattr(module, "epilogue", None):
        return f"optimize has put {epilogue} behind its bias"
    if module.flip_kernel:
        return "torch has no flip_kernel=True"
    if module.padding_mode not in _TORCH_MODES:
        return f"torch has no padding_mode={module.padding_mode!r}"
    if isinstance(module.padding, str):
        strided = any(s != 1 for s in module.stride)
        if module.padding not in ("valid", "same") or (module.padding == "same" and strided):
            return f"torch has no padding={module.padding!r} with stride {module.stride}"
    elif any(isinstance(p, tuple) for p in module.padding):
        return f"torch pads both sides alike, not padding={module.padding!r}"
    return None


@lru_cache(maxsize=256)
def _joined(twin: Any, kind: Any) -> type[Module]:
    """Return the class of a planned layer that is also a user's subclass of torch's, which overrides nothing that is called."""
    if kind in TWINS:
        return twin  # type: ignore[no-any-return]
    names = {"__module__": kind.__module__, "__doc__": kind.__doc__, "__reduce_ex__": _reduced, "_plain_kind": kind}
    return type(kind.__name__, (twin, kind), names)


def _rebased(base: type[Module], kind: type[Module]) -> type[Module]:
    """Return a parametrized class on another base."""
    names = {k: v for k, v in vars(kind).items() if k not in ("__dict__", "__weakref__", "_plain_kind")}
    if issubclass(base, Planned):
        names |= {"__deepcopy__": _deep_copied, "_plain_kind": kind}
    return type(kind.__name__, (base,), names)


def _reduced(self: Any, protocol: Any) -> Any:
    """Pickle a layer of a class that was made here by the two that it was made of."""
    del protocol
    twin = next(cls for cls in type(self).__mro__ if cls in _OWN)
    return _made_anew, (twin, type(self)._plain_kind), self.__getstate__()  # noqa: SLF001  set above


def _made_anew(twin: Any, kind: Any) -> Any:
    made: Any = _joined(twin, kind)
    return object.__new__(made)


def _deep_copied(self: Any, memo: dict[int, Any]) -> Any:
    """Copy a parametrized layer, without what a planned one remembers."""
    replica: Any = object.__new__(type(self))
    memo[id(self)] = replica
    replica.__dict__.update(copy.deepcopy(Planned.__getstate__(self), memo))
    return replica
