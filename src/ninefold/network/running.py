"""Run a network that somebody else wrote, and copy it: without a trace, and with a sentence where it cannot be done."""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import cycle
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.utils._pytree import tree_leaves

from ninefold.errors import ModelError
from ninefold.network.twins import TWINS
from ninefold.nn.conv import Planned

__all__ = ["copied", "hollowed", "outputs", "step"]


def copied(model: Module, train: bool) -> Module:
    """Return a copy in one of the two modes."""
    try:
        return copy.deepcopy(model).train(train)
    except (RuntimeError, TypeError) as error:
        raise ModelError(f"the model cannot be copied ({error}); detach stored activations, or optimize its parts") from error


def outputs(model: Module, inputs: tuple[Any, ...], within: AbstractContextManager[object] | None = None) -> list[Tensor]:
    """Run once without gradients, `within` a context, leaving the state as it was; return the floating-point results."""
    state = copy.deepcopy(dict(model.named_buffers()))
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            with within or nullcontext():
                out = model(*inputs)
    except (RuntimeError, TypeError, ValueError) as error:
        shapes = [tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__ for x in inputs]
        raise ModelError(f"{type(model).__name__} cannot be called with the example {shapes}: {error}") from error
    for name, buffer in model.named_buffers():
        buffer.copy_(state[name])
    found = [x for x in tree_leaves(out) if isinstance(x, Tensor) and (x.is_floating_point() or x.is_complex())]
    if not found:
        raise ModelError(f"{type(model).__name__} returns no floating-point tensor to compare, but {type(out).__name__}")
    return found


def step(model: Module, inputs: tuple[Any, ...], train: bool) -> Callable[[], object]:
    """Return one step of work: a call, or in training a call and the gradients to all parameters."""
    parameters = [p for p in model.parameters() if p.requires_grad]

    def infer() -> object:
        with torch.inference_mode():
            return model(*inputs)

    def learn() -> object:
        out = model(*inputs)
        parts = [x.float().square().mean() for x in tree_leaves(out) if isinstance(x, Tensor) and x.is_floating_point()]
        return torch.autograd.grad(torch.stack(parts).sum(), parameters, allow_unused=True)

    return learn if train and parameters else infer


class _Hollow(torch.autograd.Function):
    """A convolution that computes nothing: memory of the right shapes, forward and backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, like: Tensor) -> Tensor:
        ctx.gradients = x, weight, bias
        return torch.empty_like(like)

    @staticmethod
    def backward(ctx: Any, _up: Tensor) -> tuple[Tensor | None, ...]:
        return (*ctx.gradients, None)


def hollowed(original: Module, inputs: tuple[Any, ...]) -> Module:
    """Copy a network with its convolutions replaced by ones that compute nothing: what it costs beside them."""
    model = copied(original, original.training)
    layers = [m for m in model.modules() if type(m) in TWINS or isinstance(m, Planned)]
    made: dict[Module, list[Tensor]] = {m: [] for m in layers}
    handles = [m.register_forward_hook(lambda m, _, out: made[m].append(out.detach())) for m in layers]
    outputs(model, inputs)
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
