"""Unshared and tiled layers: their limits, their definition, their biases and what they refuse."""

import copy
import itertools
import pickle

import pytest
import torch

from ninefold import nn, reference
from ninefold.errors import ArgumentError, ShapeError
from ninefold.functional import conv2d

SIZES = {1: (9,), 2: (7, 9), 3: (4, 6, 5)}
KERNELS = {1: (3,), 2: (2, 3), 3: (1, 2, 3)}
PERIODS = {1: (2,), 2: (3, 2), 3: (1, 2, 3)}


def whole(layer):
    """Give a layer small integers, in double precision."""
    for p in layer.double().parameters():
        p.data = torch.randint(-4, 5, p.shape).double()
    return layer


def make(kind, n, **more):
    given = {"groups": 2, "padding": 1, "stride": 2} | more
    if kind == "TiledConv":
        return whole(getattr(nn, f"TiledConv{n}d")(4, 6, KERNELS[n], period=PERIODS[n], **given))
    return whole(getattr(nn, f"LocallyConnected{n}d")(4, 6, KERNELS[n], input_size=SIZES[n], **given))


def image(n, batch=3):
    return torch.randint(-4, 5, (batch, 4, *SIZES[n])).double()


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("kind", ["TiledConv", "LocallyConnected"])
def test_a_layer_is_the_definition_plus_its_bias(kind, n):
    layer, x = make(kind, n), image(n)
    form = layer.spec.form(SIZES[n])
    expected = torch.from_numpy(reference.c(form, layer.weight.detach().numpy(), x.numpy()))
    for at in itertools.product(*(range(k) for k in form.n_out)):
        kernel = tuple(j % t for j, t in zip(at, form.period, strict=True))
        expected[(..., *at)] += layer.bias.detach()[(slice(None), *kernel)]
    assert torch.equal(layer(x), expected)
    assert torch.equal(layer(x[0]), expected[0])


@pytest.mark.parametrize("kind", ["TiledConv", "LocallyConnected"])
@pytest.mark.parametrize(("bias", "shape"), [("channel", (6, 1, 1)), ("location", (6, 4, 5)), (False, None)])
def test_biases_are_shared_as_told_and_a_zero_image_shows_them(kind, bias, shape):
    more = {"input_size": SIZES[2]} if kind == "TiledConv" else {}
    layer = make(kind, 2, bias=bias, **more)
    assert (None if layer.bias is None else tuple(layer.bias.shape)) == shape
    shown = layer(torch.zeros(1, 4, *SIZES[2]).double())[0]
    assert torch.equal(shown, torch.zeros(6, 4, 5).double() if shape is None else layer.bias.expand(6, 4, 5))


def test_a_bias_gradient_is_the_sum_over_the_units_that_share_it():
    layer = make("TiledConv", 2)
    up = torch.randint(-4, 5, (3, 6, 4, 5)).double()
    layer(image(2)).backward(up)
    for a, b in itertools.product(range(3), range(2)):
        assert torch.equal(layer.bias.grad[:, a, b], up[:, :, a::3, b::2].sum((0, 2, 3)))


def test_period_1_is_a_convolution_with_a_bias_where_one_likes_it():
    layer = whole(nn.TiledConv2d(4, 6, (2, 3), period=1, bias="location", input_size=(7, 9)))
    x = image(2)
    assert layer.weight.shape == (6, 4, 2, 3)
    assert torch.equal(layer(x), conv2d(x, layer.weight) + layer.bias)


def test_a_tiled_layer_is_interleaved_strided_convolutions():
    layer, x = whole(nn.TiledConv2d(4, 6, (2, 3), period=(3, 2), bias=False)), image(2)
    z = layer(x)
    for a, b in itertools.product(range(3), range(2)):
        assert torch.equal(z[:, :, a::3, b::2], torch.conv2d(x[:, :, a:, b:], layer.weight[:, a, b], stride=(3, 2)))


def test_equal_kernels_everywhere_are_a_convolution_and_gradients_sum_to_its_own():
    layer, x = whole(nn.LocallyConnected2d(4, 6, (2, 3), input_size=(7, 9), bias=False)), image(2)
    one = layer.weight.detach()[:, 0, 0].clone().requires_grad_()
    layer.weight.data = one.detach()[:, None, None].expand_as(layer.weight).clone()
    z, plain = layer(x), torch.conv2d(x, one)
    assert torch.equal(z, plain)
    up = torch.randint(-4, 5, z.shape).double()
    z.backward(up)
    plain.backward(up)
    assert torch.equal(layer.weight.grad.sum((1, 2)), one.grad)


@pytest.mark.parametrize("kind", ["TiledConv", "LocallyConnected"])
def test_layers_are_copied_pickled_loaded_and_compiled(kind):
    layer, x = make(kind, 2), image(2)
    z = layer(x)
    other = make(kind, 2)
    other.load_state_dict(layer.state_dict())
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), other, torch.compile(layer, backend="aot_eager")):
        assert torch.equal(twin(x), z)


def test_gradients_of_gradients():
    layer, x = make("TiledConv", 1), image(1, batch=2).requires_grad_()
    inputs = (x, layer.weight.detach().requires_grad_(), layer.bias.detach().requires_grad_())
    run = lambda x, w, b: torch.func.functional_call(layer, {"weight": w, "bias": b}, (x,))
    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)


def test_parameters_are_drawn_as_torch_draws_them():
    torch.manual_seed(0)
    layer = nn.LocallyConnected2d(4, 6, (2, 3), input_size=(17, 19))
    bound = (4 * 2 * 3) ** -0.5
    assert 0.99 * bound < layer.weight.abs().max() <= bound
    assert 0.9 * bound < layer.bias.abs().max() <= bound


def test_what_does_not_fit_is_refused_in_words():
    with pytest.raises(ShapeError, match=r"size \(7, 8\); this layer was made for input_size=\(7, 9\)"):
        make("LocallyConnected", 2)(torch.zeros(1, 4, 7, 8).double())
    with pytest.raises(ArgumentError, match="bias='location' .* give input_size"):
        nn.TiledConv2d(4, 6, 3, period=2, bias="location")
    with pytest.raises(ArgumentError, match=r"bias='unit' is not one of"):
        nn.TiledConv2d(4, 6, 3, period=2, bias="unit")
    with pytest.raises(ArgumentError, match="period must be at least 1, got 0"):
        nn.TiledConv2d(4, 6, 3, period=0)


def test_a_changed_period_or_weight_is_seen_by_the_next_call():
    layer, x = make("TiledConv", 2, bias=False), image(2)
    before = layer(x)
    layer.weight.data = 2 * layer.weight.data
    assert torch.equal(layer(x), 2 * before)
    layer.weight = torch.nn.Parameter(layer.weight.detach()[:, :1, :1])
    layer.period = (1, 2)
    with pytest.raises(ShapeError, match=r"weight has shape"):
        layer(x)
