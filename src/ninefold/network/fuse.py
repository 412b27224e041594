"""The ReLU behind a convolution, for inference: in the convolution's own pass where the engine can, else in place.

Who is behind whom is observed as in `fold`: a ReLU qualifies if all it reads, at every call, is made by convolutions and batch
normalisations, and nothing else reads that. It then may write over it, for none of them keeps its result. And where it follows
nothing but convolutions whose engines name the epilogue, they take it over and the module has nothing left to do. Both compute
the same bits as before, in training mode too.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, ReLU

from ninefold.network.dataflow import observe
from ninefold.network.fold import NORMS
from ninefold.network.kinds import as_defined, computes_only_a_convolution
from ninefold.nn.conv import fuses, hooked

__all__ = ["Fused", "Fuses", "find_detectors"]


class Overwriting(ReLU):
    """A ReLU that writes over what it reads where no gradient passes: who looks at gradients there may find a view."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch's name
        """Return the positive part."""
        return torch.relu(input) if input.requires_grad and torch.is_grad_enabled() else torch.relu_(input)


_NAMES: dict[type[Module], str] = {ReLU: "relu", Overwriting: "relu"}


class Fused(Module):
    """What is left of a ReLU that a convolution applies: nothing to do.

    Parameters
    ----------
    into : tuple of str
        The convolutions' names.

    Examples
    --------
    >>> import torch
    >>> Fused(("stem.conv",))(torch.ones(2))
    tensor([1., 1.])
    """

    into: tuple[str, ...]

    def __init__(self, into: tuple[str, ...]) -> None:
        super().__init__()
        self.into = into

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch's name
        """Return the input."""
        return input

    def extra_repr(self) -> str:
        """Return where it went."""
        return "into " + ", ".join(map(repr, self.into))


@dataclass(frozen=True)
class Fuses:
    """Which detectors may be taken over, or run in place.

    Parameters
    ----------
    behind : dict of str to tuple of str
        Detector to the convolutions that it follows, where it follows nothing else.
    alone : tuple of str
        Detectors that are the only readers of fresh memory, those behind convolutions among them.
    """

    behind: dict[str, tuple[str, ...]] = field(default_factory=dict)
    alone: tuple[str, ...] = ()

    def apply(self, model: Module, takes: dict[str, frozenset[str]]) -> tuple[str, ...]:
        """Change a copy of the network: `takes` names the epilogues that each convolution's engines take. Return who took one."""
        modules: dict[str, Any] = dict(model.named_modules())
        taken: list[str] = []
        for name in self.alone:
            detector, convs = modules[name], self.behind.get(name, ())
            epilogue = _NAMES[type(detector)]
            if convs and all(epilogue in takes.get(conv, ()) and fuses(modules[conv]) for conv in convs):
                for conv in convs:
                    modules[conv].epilogue = epilogue
                _retire(detector, convs)
                taken += convs
            else:
                _let_overwrite(detector)
        return tuple(taken)

    def carry(self, source: Module, target: Module) -> None:
        """Make of another copy of the network, its layers exchanged already, what was made of `source`."""
        made, modules = dict(source.named_modules()), dict(target.named_modules())
        for name in self.alone:
            if isinstance(fused := made[name], Fused):
                for conv in fused.into:
                    modules[conv].epilogue = made[conv].epilogue
                _retire(modules[name], fused.into)
            else:
                _let_overwrite(modules[name])


def _let_overwrite(detector: Any) -> None:
    if not detector.inplace:
        detector.__class__ = Overwriting


def _retire(detector: Any, convs: tuple[str, ...]) -> None:
    detector.__class__ = Fused
    detector.into = convs


def find_detectors(model: Module, example: Any) -> Fuses:
    """Return the detectors of a network in evaluation mode that read nothing but fresh memory, which nobody else reads.

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Conv1d(1, 2, 3), torch.nn.ReLU(), torch.nn.MaxPool1d(2), torch.nn.ReLU()).eval()
    >>> find_detectors(net, (torch.zeros(1, 1, 9),))
    Fuses(behind={'1': ('0',)}, alone=('1',))
    """
    modules = {name: m for name, m in model.named_modules() if computes_only_a_convolution(m) or as_defined(m, (*NORMS, *_NAMES))}
    detectors = [name for name, m in modules.items() if type(m) in _NAMES]
    if not detectors:
        return Fuses()
    flow = observe(model, example, modules)
    behind, alone = {}, []
    for name in detectors:
        makers = flow.sources(name)
        makes = [maker for maker in makers if maker is not None and type(modules[maker]) not in _NAMES]
        if not makers or len(makes) < len(makers) or hooked(modules[name]):
            continue
        if all(flow.alone(maker, name) and not hooked(modules[maker]) for maker in makes):
            alone.append(name)
            if all(type(modules[maker]) not in NORMS for maker in makes):
                behind[name] = tuple(makes)
    return Fuses(behind, tuple(alone))
