"""Whole models: torch.nn's convolutions exchanged for their planned twins and back, parameters shared."""

import copy
from typing import Any

import torch
from torch.nn import Module

from ninefold import nn
from ninefold.errors import UnsupportedError
from ninefold.nn.conv import Planned

__all__ = ["TWINS", "as_torch", "convert", "freeze", "plain_type", "revert", "share", "swap", "unconverted"]

TWINS: dict[type[Module], type[Planned]] = {
    getattr(torch.nn, name): getattr(nn, name)
    for name in ("Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d")
}
_PLAIN: dict[type[Module], type[Module]] = {
    **{twin: plain for plain, twin in TWINS.items()},
    nn.PointwiseGroupConv1d: torch.nn.Conv1d,
    nn.PointwiseGroupConv2d: torch.nn.Conv2d,
    nn.PointwiseGroupConv3d: torch.nn.Conv3d,
}
_TORCH_MODES = ("zeros", "reflect", "replicate", "circular")


def convert(model: Module, *, inplace: bool = False) -> Module:
    """Exchange the convolutions of ``torch.nn`` for ninefold's, which plan each call.

    Exactly the plain types are touched: a subclass, a quantised or a parametrised layer may mean something else by its attributes
    and is left alone; `unconverted` names those and says why. Parameters and buffers are shared with `model`, hooks are kept.
    Results are those of the definition within the ``tolerance`` of `ninefold.options`, by default 1e-5 of the largest value
    possible in single precision: other algorithms round otherwise than torch's. NaN and infinity reach what they reach there; on
    an accelerator that takes ``check_finite=True``.

    Parameters
    ----------
    model : torch.nn.Module
    inplace : bool
        Change `model` itself instead of a copy that shares its tensors.

    Returns
    -------
    torch.nn.Module

    Examples
    --------
    >>> import torch, ninefold as nf
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 5), torch.nn.ReLU())
    >>> twin = nf.convert(model)
    >>> type(twin[0]).__module__, twin[0].weight is model[0].weight
    ('ninefold.nn.conv', True)
    """
    result = model if inplace else share(model)
    for module in result.modules():
        if type(module) in TWINS:
            swap(module, TWINS[type(module)])
    return result


def revert(model: Module, *, inplace: bool = False) -> Module:
    """Exchange ninefold's convolutions for those of ``torch.nn``: the other way of `convert`.

    Parameters
    ----------
    model : torch.nn.Module
    inplace : bool

    Returns
    -------
    torch.nn.Module

    Raises
    ------
    UnsupportedError
        If a layer uses what torch lacks, with its name; nothing is changed then.

    Examples
    --------
    >>> import torch, ninefold as nf
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 5), torch.nn.ReLU())
    >>> type(nf.revert(nf.convert(model))[0]) is torch.nn.Conv2d
    True
    """
    for name, module in model.named_modules():
        if type(module) in _PLAIN and (reason := _beyond_torch(module)):
            raise UnsupportedError(f"layer {name or '(the model itself)'} cannot become a torch layer: {reason}")
    return as_torch(model if inplace else share(model))


def as_torch(model: Module) -> Module:
    """Exchange, in place, every planned layer that torch has for torch's own; the others stay."""
    for module in model.modules():
        if (kind := plain_type(module)) is not None:
            swap(module, kind)
    return model


def plain_type(module: Module) -> type[Module] | None:
    """Return the class of ``torch.nn`` that computes what a planned layer does, None if there is none."""
    kind = _PLAIN.get(type(module))
    return None if kind is None or _beyond_torch(module) else kind


def freeze(model: Module) -> Module:
    """Declare the weights of all planned layers final, so that prepared forms of them may be kept; returns `model`.

    ``train()``, ``load_state_dict`` and moves to another device or dtype take it back. In between a change of a weight is not
    seen: that is the user's own word.

    Examples
    --------
    >>> import torch, ninefold as nf
    >>> model = nf.freeze(nf.convert(torch.nn.Conv2d(3, 8, 5)).eval())
    >>> model.frozen, model.train().frozen
    (True, False)
    """
    for module in model.modules():
        if isinstance(module, Planned):
            module.freeze()
    return model


def unconverted(model: Module) -> dict[str, str]:
    """Return the convolution-like layers that `convert` leaves alone, by name, each with the reason.

    Examples
    --------
    >>> import torch, ninefold as nf
    >>> nf.unconverted(torch.nn.Sequential(torch.nn.LazyConv2d(8, 3)))
    {'0': 'LazyConv2d has no weight yet: run the model once'}
    """
    found = {}
    for name, module in model.named_modules():
        if type(module) in TWINS or isinstance(module, Planned):
            continue
        if isinstance(module, torch.nn.modules.conv._ConvNd):  # noqa: SLF001  the one common parent of torch's convolutions
            found[name] = _left_alone(module)
        elif "conv" in type(module).__name__.lower() and "weight" in dir(module) and not list(module.children()):
            found[name] = f"{type(module).__name__} of {type(module).__module__} is not a layer of torch.nn"
    return found


def _left_alone(module: Module) -> str:
    kind = type(module).__name__
    if isinstance(module, torch.nn.modules.lazy.LazyModuleMixin):
        return f"{kind} has no weight yet: run the model once"
    if torch.nn.utils.parametrize.is_parametrized(module):
        return f"{kind} computes its weight through a parametrization"
    return f"{kind} is a subclass of {type(module).__mro__[1].__name__}, which may mean something else"


def _beyond_torch(module: Module) -> str | None:
    if epilogue := getattr(module, "epilogue", None):
        return f"optimize has put {epilogue} behind its bias"
    if module.flip_kernel:
        return "torch has no flip_kernel=True"
    if module.padding_mode not in _TORCH_MODES:
        return f"torch has no padding_mode={module.padding_mode!r}"
    if isinstance(module.padding, str):
        strided = any(s != 1 for s in module.stride)  # type: ignore[union-attr]
        if module.padding not in ("valid", "same") or (module.padding == "same" and strided):
            return f"torch has no padding={module.padding!r} with stride {module.stride}"
    elif any(isinstance(p, tuple) for p in module.padding):  # type: ignore[union-attr]
        return f"torch pads both sides alike, not padding={module.padding!r}"
    return None


def share(model: Module) -> Module:
    """Copy a model's structure, with the very same parameters and buffers."""
    memo: dict[int, Any] = {id(t): t for t in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, memo)


def swap(module: Module, kind: type[Module]) -> None:
    """Change the class of a layer, whose attributes both classes share."""
    if isinstance(module, Planned):
        module.unfreeze()
        module.__dict__.pop("plan_options", None)
        module.__dict__.pop("flip_kernel", None)
    module.__class__ = kind
