"""Depthwise separable layers: the dense layer they equal, what they cost, and what may stand between."""

import copy
import pickle
from fractions import Fraction

import pytest
import torch

from ninefold import nn
from ninefold.errors import ArgumentError, ArgumentTypeError, UnsupportedError
from ninefold.spec import costs

SIZES = {1: (11,), 2: (9, 11), 3: (5, 6, 7)}
KERNELS = {1: (4,), 2: (2, 3), 3: (1, 2, 3)}


def whole(layer):
    """Give a layer small integers, in double precision."""
    for p in layer.double().parameters():
        p.data = torch.randint(-4, 5, p.shape).double()
    return layer


def make(n, **more):
    given = {"stride": 2, "padding": 1, "dilation": 2, "multiplier": 3} | more
    return whole(getattr(nn, f"DepthwiseSeparableConv{n}d")(4, 6, KERNELS[n], **given))


def image(n, batch=3):
    return torch.randint(-4, 5, (batch, 4, *SIZES[n])).double()


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("more", [{}, {"bias": False, "padding_mode": "circular"}, {"padding": "same", "multiplier": 1}])
def test_a_layer_is_a_dense_convolution_of_low_rank(n, more):
    layer, x = make(n, **more), image(n)
    dense = layer.to_dense()
    out = layer(x)
    assert torch.equal(out, dense(x))
    assert torch.equal(layer(x[0]), out[0])
    assert layer(x[:0]).shape == (0, *out.shape[1:])
    assert dense.spec == layer.dense_spec
    for kernels in dense.weight.transpose(0, 1).flatten(2):
        assert torch.linalg.matrix_rank(kernels) <= layer.multiplier


def test_a_layer_is_torchs_grouped_and_1x1_convolutions():
    layer, x = make(2), image(2)
    own = torch.conv2d(x, layer.depthwise.weight, None, 2, 1, 2, groups=4)
    assert torch.equal(layer(x), torch.conv2d(own, layer.pointwise.weight, layer.pointwise.bias))


def test_a_bias_of_the_first_stage_is_folded_too():
    layer, x = make(2, bias=False), image(2)
    layer.depthwise.bias = torch.nn.Parameter(torch.tensor([1.0, -2, 3, 5] * 3).double())
    assert torch.equal(layer(x), layer.to_dense()(x))


def test_counts_are_the_formulas_whatever_padding_and_stride():
    layer = nn.DepthwiseSeparableConv2d(4, 6, 3, bias=False)
    assert layer.macs((9, 9)) == costs.depthwise_separable_products(9, 9, 3, 4, 6) == 2940
    assert layer.dense_spec.macs((9, 9)) == costs.standard_products(9, 9, 3, 4, 6) == 10584
    assert layer.ratio == costs.depthwise_separable_ratio(3, 6) == Fraction(2940, 10584)
    for n in (1, 2, 3):
        odd = make(n, bias=False)
        assert odd.ratio == Fraction(odd.macs(SIZES[n]), odd.dense_spec.macs(SIZES[n]))
        weights = sum(p.numel() for p in odd.parameters())
        assert odd.ratio == Fraction(weights, odd.to_dense().weight.numel())


def test_what_stands_between_is_applied_and_is_part_of_the_layer():
    between = torch.nn.Sequential(torch.nn.BatchNorm2d(12), torch.nn.ReLU())
    layer, x = make(2, between=between).eval(), image(2)
    between[0].running_mean.fill_(2.0)
    assert torch.equal(layer(x), layer.pointwise(between(layer.depthwise(x))))
    assert {n for n, _ in layer.named_buffers()} >= {"between.0.running_mean"}
    with pytest.raises(UnsupportedError, match="Sequential between the stages"):
        layer.to_dense()
    function = make(2, between=torch.relu)
    assert torch.equal(function(x), function.pointwise(function.depthwise(x).clamp_min(0)))
    assert "between=relu" in repr(function)
    assert "between" not in repr(make(2))


@pytest.mark.parametrize("between", [None, torch.relu])
def test_layers_are_copied_pickled_loaded_and_compiled(between):
    layer, x = make(2, between=between), image(2)
    other = make(2, between=between)
    other.load_state_dict(layer.state_dict())
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), other, compiled):
        assert torch.equal(twin(x), layer(x))


def test_memory_format_transforms_and_autocast():
    layer, x = make(2, padding=2), image(2).contiguous(memory_format=torch.channels_last)
    out = layer(x)
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert not layer(x.contiguous()).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(torch.vmap(layer)(x.unsqueeze(1)).squeeze(1), out)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert copy.deepcopy(layer).float()(x.float()).dtype is torch.bfloat16


def test_gradients_of_gradients():
    layer, x = make(1, multiplier=2), image(1, batch=2).requires_grad_()
    inputs = (x, *(p.detach().requires_grad_() for p in layer.parameters()))
    names = [n for n, _ in layer.named_parameters()]
    run = lambda x, *ps: torch.func.functional_call(layer, dict(zip(names, ps, strict=True)), (x,))
    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)


def test_what_cannot_be_is_refused_in_words():
    with pytest.raises(ArgumentError, match="multiplier must be at least 1, got 0"):
        nn.DepthwiseSeparableConv2d(4, 6, 3, multiplier=0)
    with pytest.raises(ArgumentError, match="in_channels must be at least 1, got 0"):
        nn.DepthwiseSeparableConv2d(0, 6, 3)
    with pytest.raises(ArgumentTypeError, match="between='relu' cannot be called"):
        nn.DepthwiseSeparableConv2d(4, 6, 3, between="relu")
