"""Transposed unshared and tiled layers: their definition, their adjoints, their limits, their sizes and biases."""

import copy
import pickle

import pytest
import torch

import ninefold.functional as F
from ninefold import nn, reference
from ninefold.errors import ArgumentError, ShapeError
from ninefold.spec import ConvSpec
from ninefold.testing import dot_test

SIZES = {1: (5,), 2: (4, 5), 3: (2, 3, 4)}
KERNELS = {1: (3,), 2: (2, 3), 3: (1, 2, 3)}
PERIODS = {1: (2,), 2: (3, 2), 3: (1, 2, 3)}
KINDS = ["TiledConvTranspose", "LocallyConnectedTranspose"]
REST = {"stride": 2, "padding": 1, "groups": 2, "dilation": 2, "output_padding": 1}


def whole(layer):
    for p in layer.double().parameters():
        p.data = torch.randint(-4, 5, p.shape).double()
    return layer


def make(kind, n, **more):
    given = REST | more
    if kind == "TiledConvTranspose":
        return whole(getattr(nn, f"TiledConvTranspose{n}d")(6, 4, KERNELS[n], period=PERIODS[n], **given))
    return whole(getattr(nn, f"LocallyConnectedTranspose{n}d")(6, 4, KERNELS[n], **({"input_size": SIZES[n]} | given)))


def image(n, batch=3, channels=6):
    return torch.randint(-4, 5, (batch, channels, *SIZES[n])).double()


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_is_the_definition_plus_its_bias(kind, n):
    layer, x = make(kind, n), image(n)
    form = layer.spec.form(SIZES[n])
    expected = torch.from_numpy(reference.h(form, layer.weight.detach().numpy(), x.numpy())) + layer.bias.detach()
    z = layer(x)
    assert z.shape == (3, 4, *form.n_in)
    assert layer.bias.shape == ((4, *form.n_in) if kind == KINDS[1] else (4, *(1,) * n))
    assert torch.equal(z, expected)
    assert torch.equal(layer(x[0]), expected[0])
    assert layer(x[:0]).shape == (0, 4, *form.n_in)


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize("kind", ["tiled_conv", "locally_connected"])
def test_functions_are_adjoint_to_the_forward_ones(kind, mode, n):
    V = torch.randint(-4, 5, (2, 4, *(s + 4 for s in SIZES[n]))).double()
    rest = {"stride": 2, "padding": 1, "groups": 2, "padding_mode": mode, "flip_kernel": True}
    spec = ConvSpec(4, 6, KERNELS[n], 2, 1, 1, 2, mode, True, None if kind == "locally_connected" else PERIODS[n])
    size = V.shape[2:]
    K = torch.randint(-4, 5, spec.weight_shape(size)).double()
    G = torch.randint(-4, 5, (2, 6, *spec.output_size(size))).double()
    forward, back = getattr(F, f"{kind}{n}d"), getattr(F, f"{kind}_transpose{n}d")
    gradient = lambda V, G: torch.from_numpy(reference.g(spec.form(size), V.numpy(), G.numpy()))
    dot_test(lambda K, V: forward(V, K, **rest), lambda K, G: back(G, K, output_size=size, **rest), gradient, K, V, G)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_period_1_is_torchs_transposed_convolution(n):
    layer = whole(getattr(nn, f"TiledConvTranspose{n}d")(6, 4, KERNELS[n], period=1, **REST))
    theirs = getattr(torch.nn, f"ConvTranspose{n}d")(6, 4, KERNELS[n], **REST).double()
    theirs.weight.data, theirs.bias.data = layer.weight.data, layer.bias.data.flatten()
    x = image(n)
    assert torch.equal(layer(x), theirs(x))
    weight = layer.weight.detach().reshape(6, *(1,) * n, *layer.weight.shape[1:])
    rest = {name: REST[name] for name in ("stride", "padding", "output_padding", "groups", "dilation")}
    function = getattr(F, f"tiled_conv_transpose{n}d")
    assert torch.equal(function(x, weight, layer.bias.flatten(), period=1, **rest), theirs(x))


def test_a_period_of_the_inputs_size_is_unshared():
    local, x = make(KINDS[1], 2, bias=False), image(2)
    tiled = whole(nn.TiledConvTranspose2d(6, 4, (2, 3), period=SIZES[2], bias=False, **REST))
    tiled.load_state_dict(local.state_dict())
    assert torch.equal(tiled(x), local(x))
    assert torch.equal(F.tiled_conv_transpose2d(x, local.weight, None, 2, 1, 1, 2, 2), local(x))
    assert torch.equal(F.locally_connected_transpose2d(x, local.weight, None, 2, 1, 1, 2, 2), local(x))


def test_equal_kernels_everywhere_are_a_transposed_convolution():
    layer, x = make(KINDS[1], 2, bias=False), image(2)
    one = layer.weight.detach()[:, 0, 0].clone()
    layer.weight.data = one[:, None, None].expand_as(layer.weight).clone()
    assert torch.equal(layer(x), torch.conv_transpose2d(x, one, None, 2, 1, 1, 2, 2))


def test_a_tiled_layer_is_a_sum_of_transposed_convolutions_of_every_period_th_position():
    layer, x = whole(nn.TiledConvTranspose1d(6, 4, 3, stride=2, period=2, bias=False)), image(1)
    parts = []
    for r in range(2):
        kept = torch.zeros_like(x)
        kept[..., r::2] = x[..., r::2]
        parts.append(torch.conv_transpose1d(kept, layer.weight[:, r], stride=2))
    assert torch.equal(layer(x), sum(parts))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("bias", "shape"), [("channel", (4, 1, 1)), ("location", (4, 8, 12)), (False, None)])
def test_biases_are_shared_as_told_and_a_zero_image_shows_them(kind, bias, shape):
    layer = make(kind, 2, bias=bias, input_size=SIZES[2])
    assert (None if layer.bias is None else tuple(layer.bias.shape)) == shape
    shown = layer(torch.zeros(1, 6, *SIZES[2]).double())[0]
    assert torch.equal(shown, torch.zeros(4, 8, 12).double() if shape is None else layer.bias.expand(4, 8, 12))


def test_output_sizes_are_chosen_in_the_constructor_or_at_the_call():
    layer = make(KINDS[0], 2, bias=False, output_padding=0, dilation=1)
    x = image(2)
    assert layer(x).shape == (3, 4, 6, 9)
    larger = layer(x, output_size=(7, 10))
    assert torch.equal(larger[..., :6, :9], layer(x))
    assert torch.equal(layer(x, output_size=(3, 4, 7, 10)), larger)
    fixed = make(KINDS[1], 2, output_padding=0, dilation=1, output_size=(7, 10))
    assert fixed(x).shape == (3, 4, 7, 10)
    assert fixed.bias.shape == (4, 7, 10)
    with pytest.raises(ShapeError, match=r"result has size \(6, 9\), but the bias has a number for each of \(7, 10\)"):
        fixed(x, output_size=(6, 9))


def test_an_output_size_takes_the_place_of_an_output_padding():
    x, w = image(1), torch.randint(-4, 5, (6, 2, 3, 3)).double()
    named = F.tiled_conv_transpose1d(x, w, None, 2, "same", 1, output_size=9)
    assert torch.equal(named, F.tiled_conv_transpose1d(x, w, None, 2, "same", output_size=(3, 3, 9)))
    assert named.shape == (3, 3, 9)


@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_copied_pickled_loaded_and_compiled(kind):
    layer, x = make(kind, 2), image(2)
    z, other = layer(x), make(kind, 2)
    other.load_state_dict(layer.state_dict())
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), other, compiled):
        assert torch.equal(twin(x), z)
    last = x.contiguous(memory_format=torch.channels_last)
    assert torch.equal(layer(last), z)
    assert layer(last).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(torch.func.vmap(layer)(x[:, None])[:, 0], z)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_gradients(kind):
    layer, x = make(kind, 1), image(1, batch=2).requires_grad_()
    inputs = (x, layer.weight.detach().requires_grad_(), layer.bias.detach().requires_grad_())
    run = lambda x, w, b: torch.func.functional_call(layer, {"weight": w, "bias": b}, (x,))
    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)


def test_parameters_are_drawn_as_torch_draws_them():
    torch.manual_seed(0)
    layer = nn.TiledConvTranspose2d(6, 40, (2, 3), period=3, groups=2)
    bound = (20 * 2 * 3) ** -0.5
    assert 0.99 * bound < layer.weight.abs().max() <= bound
    assert layer.bias.abs().max() <= bound


def test_the_text_shows_what_is_set():
    text = repr(make(KINDS[0], 2, padding_mode="reflect"))
    for part in ("6, 4, kernel_size=(2, 3)", "period=(3, 2)", "output_padding=(1, 1)", "padding_mode=reflect", "groups=2"):
        assert part in text
    assert "output_size=(7, 10)" in repr(make(KINDS[1], 2, output_padding=0, dilation=1, output_size=(7, 10)))


def test_what_does_not_fit_is_refused_in_words():
    with pytest.raises(ShapeError, match=r"size \(4, 4\); this layer was made for input_size=\(4, 5\)"):
        make(KINDS[1], 2)(torch.zeros(1, 6, 4, 4).double())
    with pytest.raises(ArgumentError, match="give input_size"):
        make(KINDS[0], 2, bias="location")
    with pytest.raises(ArgumentError, match=r"output_size=\(7, 7\) is chosen .* give input_size"):
        make(KINDS[0], 2, output_size=7, output_padding=0)
    with pytest.raises(ArgumentError, match="exclude each other"):
        make(KINDS[1], 2, output_size=(8, 12))
    with pytest.raises(ShapeError, match="output_size=20 along axis 0 does not follow"):
        make(KINDS[1], 2, output_size=(20, 12), output_padding=0)
    with pytest.raises(ArgumentError, match=r"period=3 but the weight .* holds \(2, 2\) kernels"):
        F.tiled_conv_transpose2d(torch.zeros(1, 2, 4, 5), torch.zeros(2, 2, 2, 1, 3, 3), period=3)
    with pytest.raises(ShapeError, match=r"weight has shape \(2, 3, 3\), 3 dimensions; it must be \(in_channels, 1 input sizes"):
        F.locally_connected_transpose1d(torch.zeros(1, 2, 4), torch.zeros(2, 3, 3))
