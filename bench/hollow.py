"""A network whose convolutions compute nothing: what it costs beside them, for networks that look at no values."""

from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from ninefold.network.copying import copied
from ninefold.network.kinds import TWINS
from ninefold.network.running import Call, outputs
from ninefold.nn.conv import Planned


class _Hollow(torch.autograd.Function):
    """A convolution that computes nothing: memory of the right shapes, forward and backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, like: Tensor) -> Tensor:
        ctx.gradients = x, weight, bias
        return torch.empty_like(like)

    @staticmethod
    def backward(ctx: Any, _up: Tensor) -> tuple[Tensor | None, ...]:
        return (*ctx.gradients, None)


def hollowed(original: Module, x: Tensor) -> Module:
    """Copy a network with its convolutions replaced by ones that compute nothing."""
    model = copied(original, original.training)
    layers = [m for m in model.modules() if type(m) in TWINS or isinstance(m, Planned)]
    made: dict[Module, list[Tensor]] = {m: [] for m in layers}
    handles = [m.register_forward_hook(lambda m, _, out: made[m].append(out.detach())) for m in layers]
    outputs(model, Call.of(x))
    for handle in handles:
        handle.remove()
    for module in layers:
        if made[module]:
            module.forward = _hollow_forward(module, cycle(made[module]))
    return model


def _hollow_forward(module: Any, results: Iterator[Tensor]) -> Callable[..., Tensor]:
    """Give the outputs of a recorded run in turn, for a layer may be called with several sizes."""

    def forward(x: Tensor, *_: Any, **__: Any) -> Tensor:
        out: Tensor = _Hollow.apply(x, module.weight, module.bias, next(results))
        return out

    return forward
