"""Resize-convolutions: constants stay constant, and nearest resizing is a transposed convolution with a box-filtered kernel."""

import copy
import pickle

import pytest
import torch

from ninefold import nn
from ninefold.errors import ArgumentError, ArgumentTypeError

SIZES = {1: (7,), 2: (5, 7), 3: (3, 4, 5)}
KERNELS = {1: (3,), 2: (2, 3), 3: (1, 2, 3)}


def whole(layer):
    for p in layer.double().parameters():
        p.data = torch.randint(-4, 5, p.shape).double()
    return layer


def make(n, **more):
    return whole(getattr(nn, f"ResizeConv{n}d")(4, 6, KERNELS[n], **({"groups": 2} | more)))


def image(n):
    return torch.randint(-4, 5, (2, 4, *SIZES[n])).double()


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_a_layer_resizes_and_convolves_with_a_continued_border(mode, n):
    layer, x = make(n, mode=mode, dilation=2), image(n)
    torchs = {"nearest": "nearest", "linear": ("linear", "bilinear", "trilinear")[n - 1]}[mode]
    large = torch.nn.functional.interpolate(x, scale_factor=2, mode=torchs)
    expected = layer.conv(large)
    assert expected.shape == (2, 6, *(2 * k for k in SIZES[n]))
    assert torch.equal(layer(x), expected)
    assert torch.equal(layer(x[0]), expected[0])
    assert layer.conv.spec.padding_mode == "replicate"


@pytest.mark.parametrize("n", [1, 2, 3])
def test_torchs_own_names_of_linear_are_taken(n):
    assert make(n, mode=("linear", "bilinear", "trilinear")[n - 1]).mode == "linear"
    with pytest.raises(ArgumentError, match="cubic"):
        make(n, mode="cubic")


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_a_constant_stays_a_constant_up_to_the_border(mode, n):
    layer = make(n, mode=mode)
    out = layer(torch.full((1, 4, *SIZES[n]), 3.0).double())
    assert torch.equal(out, out.flatten(2)[..., :1].view(1, 6, *(1,) * n).expand_as(out))
    zeros = make(n, mode=mode, padding_mode="zeros")
    zeros.load_state_dict(layer.state_dict())
    darker = zeros(torch.full((1, 4, *SIZES[n]), 3.0).double())
    assert not torch.equal(darker, out)


@pytest.mark.parametrize("scale", [2, 3])
def test_nearest_resizing_is_a_transposed_convolution_with_a_box_filtered_kernel(scale):
    """out[q] = sum_i x[i] T[q - i s + pad], T[t] = sum of the taps K[m] with 0 <= t - pad + m - lo < s."""
    layer, x = make(1, scale_factor=scale, padding=((1, 1),), padding_mode="zeros", groups=1, bias=False), image(1)
    box = torch.ones(1, 1, scale).double()
    K = layer.conv.weight.detach()
    T = torch.nn.functional.conv1d(K.flip(2).reshape(-1, 1, 3), box, padding=scale - 1).view(6, 4, -1).transpose(0, 1)
    assert torch.equal(layer(x), torch.conv_transpose1d(x, T, stride=scale, padding=1))


def test_a_size_or_uneven_factors_may_be_given():
    x = image(2)
    assert make(2, size=(13, 9))(x).shape == (2, 6, 13, 9)
    assert make(2, size=8)(x).shape == (2, 6, 8, 8)
    assert make(2, scale_factor=(2, 1.5))(x).shape == (2, 6, 10, 10)


def test_layers_are_copied_pickled_compiled_and_differentiated():
    layer, x = make(2), image(2)
    z = layer(x)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), compiled):
        assert torch.equal(twin(x), z)
    assert layer(x.contiguous(memory_format=torch.channels_last)).is_contiguous(memory_format=torch.channels_last)
    assert layer(x[:0]).shape == (0, *z.shape[1:])
    small = whole(nn.ResizeConv1d(1, 2, 3, mode="linear"))
    assert torch.autograd.gradcheck(small, torch.randn(1, 1, 3).double().requires_grad_())
    assert torch.autograd.gradgradcheck(small, torch.randn(1, 1, 3).double().requires_grad_())
    assert "scale_factor=(2.0, 2.0), mode=nearest" in repr(layer)
    assert "size=(8, 8), mode=linear" in repr(make(2, size=8, mode="linear"))


def test_what_does_not_fit_is_refused_in_words():
    with pytest.raises(ArgumentError, match="mode='cubic' is not one of"):
        make(2, mode="cubic")
    with pytest.raises(ArgumentError, match=r"scale_factor=2 and size=8 say the same twice"):
        make(2, scale_factor=2, size=8)
    with pytest.raises(ArgumentError, match="scale_factor=-1 must be a positive number"):
        make(2, scale_factor=-1)
    with pytest.raises(ArgumentError, match=r"scale_factor must be one number or 2"):
        make(2, scale_factor=(1, 2, 3))
    with pytest.raises(ArgumentTypeError, match="scale_factor must be a number, got '2'"):
        make(2, scale_factor="2")
