"""A convolution as a dense layer and back: equality, gradients summed over ties, and a projection that is one."""

import pytest
import torch

import ninefold as nf
from ninefold import nn
from ninefold.errors import ShapeError, UnsupportedError

LAYERS = {
    "strided": (nn.Conv2d(2, 4, (3, 2), stride=(2, 1), padding=(1, 0), groups=2), (5, 6)),
    "torch's transposed": (torch.nn.ConvTranspose1d(3, 2, 4, stride=2, padding=1), (5,)),
    "unshared": (nn.LocallyConnected1d(2, 3, 2, input_size=6), (6,)),
    "tiled, flipped": (nn.TiledConv2d(2, 3, (2, 3), period=(2, 1), flip_kernel=True, bias="channel"), (5, 6)),
    "no bias": (torch.nn.Conv3d(2, 3, (1, 2, 3), dilation=(1, 2, 1), bias=False), (3, 4, 5)),
}


def spec_of(layer):
    return nf.ConvSpec.from_module(layer)


def image(layer, size, batch=3):
    spec = spec_of(layer)
    return torch.randn(batch, spec.out_channels if spec.transposed else spec.in_channels, *size).double()


@pytest.mark.parametrize(("layer", "size"), LAYERS.values(), ids=LAYERS)
def test_a_dense_layer_is_the_convolution_it_stands_for(layer, size):
    layer = layer.double()
    dense, x = nf.to_linear(layer, size), image(layer, size)
    torch.testing.assert_close(dense(x.flatten(1)), layer(x).flatten(1), rtol=1e-12, atol=1e-12)
    assert (dense.bias is None) == (layer.bias is None)


@pytest.mark.parametrize(("layer", "size"), LAYERS.values(), ids=LAYERS)
def test_a_kernels_gradient_is_the_dense_one_summed_over_ties(layer, size):
    layer = layer.double()
    dense, x = nf.to_linear(layer, size), image(layer, size)
    layer.zero_grad()
    layer(x).sin().sum().backward()
    dense(x.flatten(1)).sin().sum().backward()
    ties = nf.tie_map(layer, size)
    summed = torch.zeros(layer.weight.numel()).double().index_add(0, ties[ties >= 0], dense.weight.grad[ties >= 0])
    torch.testing.assert_close(summed.reshape(layer.weight.shape), layer.weight.grad, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("layer", "size"), LAYERS.values(), ids=LAYERS)
def test_the_projection_is_the_nearest_and_idempotent(layer, size):
    spec, ties = spec_of(layer), nf.tie_map(layer, size)
    torch.manual_seed(0)
    A = torch.randn(ties.shape).double()
    weight = nf.project(A, spec, size)
    near = torch.where(ties >= 0, weight.flatten()[ties.clamp_min(0)], 0.0)
    torch.testing.assert_close(nf.project(near, spec, size), weight, rtol=1e-12, atol=1e-12)
    penalty = nf.prior_penalty(A, spec, size)
    torch.testing.assert_close(penalty, (A - near).square().sum())
    for k in range(0, weight.numel(), 3):  # no other convolution is nearer
        other = weight.clone()
        other.view(-1)[k] += 0.1
        assert (A - torch.where(ties >= 0, other.flatten()[ties.clamp_min(0)], 0.0)).square().sum() > penalty


def test_a_projected_convolution_is_itself_and_costs_nothing():
    layer = torch.nn.Conv2d(2, 3, (3, 2), stride=2, padding=1).double()
    dense = nf.to_linear(layer, (5, 6))
    torch.testing.assert_close(nf.project(dense.weight, spec_of(layer), (5, 6)), layer.weight)
    assert nf.prior_penalty(dense.weight, spec_of(layer), (5, 6)) < 1e-25


def test_the_penalty_is_differentiable_and_its_gradient_leads_to_the_convolution():
    spec = nf.ConvSpec(2, 3, (3,), padding=1)
    A = torch.randn(15, 10).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda a: nf.prior_penalty(a, spec, 5), A)
    (slope,) = torch.autograd.grad(nf.prior_penalty(A, spec, 5), A)
    assert nf.prior_penalty(A - slope / 2, spec, 5) < 1e-20


def test_what_does_not_fit_is_refused_in_words():
    with pytest.raises(ShapeError, match=r"matrix has shape \(3, 4\); .* size 6 has 5 outputs and 6 inputs"):
        nf.project(torch.ones(3, 4), nf.ConvSpec(1, 1, (2,)), 6)
    with pytest.raises(
        UnsupportedError, match=r"the border \(replicate\) of \(4,\) lets several weights share one of the 16 entries"
    ):
        nf.tie_map(nf.ConvSpec(1, 1, (3,), padding=1, padding_mode="replicate"), 4)
