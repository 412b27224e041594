"""Lazy convolutions beside torch's: before, at and after the first call."""

import copy
import pickle

import pytest
import torch
from torch.nn.parameter import UninitializedParameter

from ninefold import nn

FORWARD = [f"LazyConv{n}d" for n in (1, 2, 3)]
NAMES = [*FORWARD, *(f"LazyConvTranspose{n}d" for n in (1, 2, 3))]


def axes(name):
    return int(name[-2])


def image(name, channels=4):
    generator = torch.Generator().manual_seed(axes(name))
    return torch.randn(2, channels, *(6, 5, 4)[: axes(name)], generator=generator)


def pair(name, *args, **named):
    return [getattr(where, name)(*args, **named) for where in (torch.nn, nn)]


def arguments(name):
    return (6, (3, 2, 3)[: axes(name)], 2, 1, 1, 2)  # the fifth is a dilation, or an output padding


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bias", [True, False])
def test_the_first_call_makes_what_torch_makes(name, bias):
    x = image(name)
    found = []
    for layer in pair(name, *arguments(name), bias=bias):
        assert isinstance(layer, getattr(torch.nn, name))
        assert isinstance(layer.weight, UninitializedParameter)
        assert layer.in_channels == 0
        torch.manual_seed(0)
        out = layer(x)
        found.append((out, {k: v.detach() for k, v in layer.state_dict().items()}))
        assert layer.in_channels == 4
        assert not layer._forward_pre_hooks
        assert not layer._load_state_dict_pre_hooks
    torch.testing.assert_close(found[1], found[0])
    assert type(layer) is getattr(nn, name.removeprefix("Lazy"))
    assert type(layer.weight) is torch.nn.Parameter


@pytest.mark.parametrize("name", NAMES)
def test_states_travel_between_both_initialised_or_not(name):
    theirs, ours = pair(name, *arguments(name))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    assert ours.has_uninitialized_params()
    x = image(name)
    want = theirs(x)
    for layer in (ours, copy.deepcopy(getattr(nn, name)(*arguments(name)))):
        layer.load_state_dict(theirs.state_dict())
        assert not layer.has_uninitialized_params()
        torch.testing.assert_close(layer(x), want)
        assert type(layer) is getattr(nn, name.removeprefix("Lazy"))
    with pytest.raises(RuntimeError):
        theirs.load_state_dict(getattr(nn, name)(*arguments(name)).state_dict())


@pytest.mark.parametrize("name", NAMES)
def test_copies_pickles_and_moves_before_the_first_call(name):
    layer = getattr(nn, name)(*arguments(name), flip_kernel=True)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer).double()):
        x = image(name).to(torch.double if other.weight.dtype == torch.double else torch.float32)
        assert other(x).dtype == x.dtype
        assert other.flip_kernel
        assert "flip_kernel=True" in repr(other)
    assert layer.has_uninitialized_params()
    made = getattr(nn, name)(*arguments(name), dtype=torch.double, device="meta")
    assert made(image(name).double().to("meta")).dtype == torch.double


@pytest.mark.parametrize("name", FORWARD)
def test_what_torch_lacks(name):
    n = axes(name)
    for named in (
        {"stride": 2, "padding": "same"},
        {"padding": ((1, 0),) * n},
        {"padding": 1, "padding_mode": "symmetric"},
        {"padding": "causal", "flip_kernel": True},
    ):
        lazy = getattr(nn, name)(6, 3, **named)
        made = getattr(nn, name.removeprefix("Lazy"))(4, 6, 3, **named)
        x = image(name)
        assert lazy(x).shape == made(x).shape
        made.load_state_dict(lazy.state_dict())
        assert torch.equal(lazy(x), made(x))
        assert repr(lazy) == repr(made)


def test_an_optimiser_a_network_and_a_compiler():
    found = []
    for build in (torch.nn, nn):
        torch.manual_seed(0)
        net = torch.nn.Sequential(build.LazyConv2d(3, (3, 2)), torch.nn.ReLU(), build.LazyConvTranspose2d(2, 3, 2))
        x = image("LazyConv2d")
        net(x)
        compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), net(x))
        net(x).sum().backward()
        torch.optim.SGD(net.parameters(), 0.1).step()
        found.append(net(x))
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.parametrize("name", NAMES)
def test_refusals_are_torchs(name):
    for layer in pair(name, 6, 3, groups=3):
        with pytest.raises(ValueError, match="divisible by groups"):
            layer(image(name))
    for layer in pair(name, 6, 3):
        with pytest.raises(RuntimeError):
            layer(torch.zeros(3))
    for arguments in ((0, 3), (6, 0), (6, 3, 0), (6, 3, 1, 1, 0, 4)):
        with pytest.raises(ValueError):
            getattr(nn, name)(*arguments)
