"""Batch normalisation folded into the convolution before it, for inference.

With fixed statistics it is one multiplication and one addition per channel, ``s (z - m) + b`` with ``s = w / sqrt(v + eps)``, and
these may be done to the kernels and the biases once: ``(s K) * x + (s (z0 - m) + b)`` for a bias ``z0``. That saves a pass over
the output. It is done in double precision and rounded once. Padding and border do not matter, for they are before the kernel.

Who may be folded is observed in a run of the example (see `observe`): nothing but the normalisation may read what the convolution
makes, and the normalisation nothing else, at every call of both.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from ninefold.errors import UnsupportedError
from ninefold.network.copying import copied
from ninefold.network.dataflow import Dataflow, observe
from ninefold.network.kinds import as_defined, computes_only_a_convolution
from ninefold.network.running import Call, outputs
from ninefold.nn.conv import Planned, hooked
from ninefold.spec.conv import ConvSpec

__all__ = ["NORMS", "Folded", "Folds", "fold_norms"]

NORMS = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)


class Folded(Module):
    """What is left of a batch normalisation that a convolution has taken in: nothing to do, and nothing to train.

    Parameters
    ----------
    into : str
        The convolution's name.

    Raises
    ------
    UnsupportedError
        If it is called in training mode, for which its statistics would be needed.

    Examples
    --------
    >>> Folded("stem.conv").eval()(torch.ones(2))
    tensor([1., 1.])
    """

    into: str

    def __init__(self, into: str) -> None:
        super().__init__()
        self.into = into

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch's name
        """Return the input."""
        if self.training:
            raise UnsupportedError(
                f"this batch normalisation is folded into the convolution {self.into!r} and cannot be trained: train the model "
                "that was optimized, or optimize with fold=False"
            )
        return input

    def extra_repr(self) -> str:
        """Return where it went."""
        return f"into {self.into!r}"


@dataclass(frozen=True)
class Folds:
    """What was folded, and what was not.

    Parameters
    ----------
    into : dict of str to str
        Normalisation to the convolution that took it in, by name.
    left : dict of str to str
        Normalisation to the reason why it stands as it was.
    """

    into: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)

    def carry(self, source: Module, target: Module) -> None:
        """Make of another copy of the network what was made of `source`: its folded parameters, its `Folded`."""
        made, modules = dict(source.named_modules()), dict(target.named_modules())
        for norm, conv in self.into.items():
            _fold(modules[conv], modules[norm], conv, made[conv].weight, made[conv].bias)


def fold_norms(model: Module, example: Any) -> tuple[Module, Folds]:
    """Return a copy in evaluation mode, every batch normalisation folded that may be, and what that was.

    Parameters
    ----------
    model : torch.nn.Module
    example : Tensor, tuple, mapping or other
        What it is called with, as `optimize` takes it.

    Examples
    --------
    >>> net = torch.nn.Sequential(torch.nn.Conv1d(1, 2, 3), torch.nn.BatchNorm1d(2), torch.nn.ReLU(), torch.nn.BatchNorm1d(2))
    >>> folded, folds = fold_norms(net, (torch.zeros(1, 1, 9),))
    >>> folds
    Folds(into={'1': '0'}, left={'3': 'what it reads is not what a convolution layer makes'})
    >>> folded[1]
    Folded(into '0')
    """
    result = copied(model, train=False)
    modules = dict(result.named_modules())
    watched = {name: m for name, m in modules.items() if computes_only_a_convolution(m) or as_defined(m, NORMS)}
    norms = [name for name, m in watched.items() if type(m) in NORMS]
    if not norms:
        return result, Folds()
    flow = observe(result, example, watched)
    into, left = {}, {}
    for name in norms:
        if not flow.calls[name]:
            continue
        conv = flow.source(name)
        if reason := _against(name, conv, flow, watched):
            left[name] = reason
        elif conv is not None:
            into[name] = conv
    for name, conv in into.items():
        _fold(modules[conv], modules[name], conv, *_parameters(modules[conv], modules[name]))
    try:
        outputs(result, Call.of(example))
    except Exception as error:  # noqa: BLE001  a network whose own code looks at the normalisation may raise anything
        reason = f"the network does not run without it ({error.__cause__ or error})"
        return copied(model, train=False), Folds(left=left | dict.fromkeys(into, reason))
    return result, Folds(into, left)


def _against(name: str, conv: str | None, flow: Dataflow, modules: dict[str, Module]) -> str | None:
    """Return why a normalisation stays, or None."""
    norm: Any = modules[name]
    if norm.running_mean is None or norm.running_var is None:
        return "it normalises by the batch at hand, having no running statistics"
    if conv is None or type(modules[conv]) in NORMS:
        return "what it reads is not what a convolution layer makes"
    if not flow.alone(conv, name):
        return f"others read what {conv} makes, too"
    if hooked(modules[conv]) or hooked(norm):
        return f"it, or {conv}, has hooks, which would see other values"
    if flow.used & {name, conv}:
        return f"others read its parameters, or those of {conv}, too"
    spec = ConvSpec.from_module(modules[conv])
    channels = spec.in_channels if spec.transposed else spec.out_channels
    if norm.num_features != channels or any(len(shape) != spec.ndim + 2 for shape in flow.shapes(conv)):
        return f"its {norm.num_features} features are not the {channels} channels of {conv}, or the example has no batch"
    return None


def _parameters(conv: Any, norm: Any) -> tuple[Parameter, Parameter]:
    """Return the weight and the bias of a convolution with a normalisation in it."""
    spec, weight = ConvSpec.from_module(conv), conv.weight.detach().double()
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = -scale * norm.running_mean.double()
    if norm.bias is not None:
        shift = shift + norm.bias.detach().double()
    if spec.transposed:  # (inputs, [period,] outputs / groups, *kernel): the outputs of a group belong to its inputs
        at, apart = weight.ndim - spec.ndim - 1, weight.unflatten(0, (spec.groups, -1))
        per_group = scale.view(spec.groups, *(1,) * at, -1, *(1,) * spec.ndim)
        scaled = (apart * per_group).flatten(0, 1)
    else:
        each = scale if spec.table is None else scale[[output for output, _ in spec.table]]
        scaled = weight * each.view(-1, *(1,) * (weight.ndim - 1))
    if conv.bias is None:
        extra = (1,) * spec.ndim if spec.tiled else ()  # of a bias that is shared by all positions
        bias = shift.view(-1, *extra)
    else:
        old = conv.bias.detach().double()
        over = (-1, *(1,) * (old.ndim - 1))
        bias = old * scale.view(over) + shift.view(over)
    grad = conv.weight.requires_grad
    return tuple(Parameter(x.to(conv.weight.dtype), requires_grad=grad) for x in (scaled, bias))  # type: ignore[return-value]


def _fold(conv: Any, norm: Any, name: str, weight: Parameter, bias: Parameter) -> None:
    """Give a convolution other parameters, and make of its normalisation, whoever holds it, what does nothing."""
    conv.weight, conv.bias = weight, bias
    if isinstance(conv, Planned):
        conv.unfreeze()
    for held in (norm._parameters, norm._buffers):  # noqa: SLF001  a module's own tables
        held.clear()
    norm.__class__ = Folded
    norm.into = name
