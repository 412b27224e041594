"""Multiply-adds of a network, by the spec of each convolution and the shape of each dense layer."""

import pytest
import torch
from torch import nn

from ninefold.spec import ConvSpec


def _macs(model, *size):
    counts = {}

    def hook_for(name):
        def hook(module, args, output):
            if isinstance(module, nn.Linear):
                counts[name] = module.in_features * module.out_features
            else:
                counts[name] = ConvSpec.from_module(module).macs(tuple(args[0].shape[2:]))

        return hook

    layers = (nn.Conv1d, nn.Conv2d, nn.Linear)
    hooks = [m.register_forward_hook(hook_for(n)) for n, m in model.named_modules() if isinstance(m, layers)]
    with torch.no_grad():
        model.to("meta").eval()(torch.zeros(1, *size, device="meta"))
    for hook in hooks:
        hook.remove()
    return counts


@pytest.fixture
def macs():
    """Name to multiply-adds, for one example of the given size; the weights are dropped on the way."""
    return _macs
