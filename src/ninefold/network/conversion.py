"""Whole models: torch.nn's convolutions exchanged for their planned twins and back, parameters shared."""

from torch.nn import Module

from ninefold.errors import UnsupportedError
from ninefold.network.copying import share
from ninefold.network.kinds import beyond_torch, left_alone, plain_kind, plain_type, twin_type
from ninefold.nn.conv import Planned

__all__ = ["as_torch", "convert", "freeze", "revert", "swap", "unconverted"]


def convert(model: Module, *, inplace: bool = False) -> Module:
    """Exchange the convolutions of ``torch.nn`` for ninefold's, which plan each call.

    What is exchanged is decided by what a call would run: a layer with the ``forward`` and the ``_conv_forward`` of ``torch.nn``,
    a subclass that only sets defaults, a parametrized and a lazy layer among them. One that overrides either, on its class or on
    the object, is left alone; `unconverted` names those and says why. Parameters and buffers are shared with `model`, hooks are
    kept. Results are those of the definition within the ``tolerance`` of `ninefold.options`, by default 1e-5 of the largest value
    possible in single precision: other algorithms round otherwise than torch's. NaN and infinity reach what they reach there; on
    an accelerator that takes ``check_finite=True``.

    Parameters
    ----------
    model : torch.nn.Module
    inplace : bool
        Change `model` itself instead of a copy that shares its tensors. What it holds beside modules and tensors, and cannot be
        copied, is shared, too.

    Returns
    -------
    torch.nn.Module

    Raises
    ------
    ModelError
        If a module cannot be copied; nothing is changed then.

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
        if (kind := twin_type(module)) is not None:
            swap(module, kind)
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
        if plain_kind(module) is not None and (reason := beyond_torch(module)):
            raise UnsupportedError(f"layer {name or '(the model itself)'} cannot become a torch layer: {reason}")
    return as_torch(model if inplace else share(model))


def as_torch(model: Module) -> Module:
    """Exchange, in place, every planned layer that torch has for torch's own; the others stay."""
    for module in model.modules():
        if (kind := plain_type(module)) is not None:
            swap(module, kind)
    return model


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
    >>> class Doubled(torch.nn.Conv1d):
    ...     def forward(self, x):
    ...         return 2 * super().forward(x)
    >>> nf.unconverted(torch.nn.Sequential(Doubled(1, 1, 3), torch.nn.Conv1d(1, 1, 3)))
    {'0': 'Doubled.forward may mean something else than Conv1d.forward'}
    """
    reasons = {name: left_alone(module) for name, module in model.named_modules()}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def swap(module: Module, kind: type[Module]) -> None:
    """Change the class of a layer, whose attributes both classes share."""
    if isinstance(module, Planned):
        module.unfreeze()
        module.__dict__.pop("plan_options", None)
        module.__dict__.pop("flip_kernel", None)
    module.__class__ = kind
