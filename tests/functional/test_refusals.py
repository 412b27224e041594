"""What the functions and layers must refuse, in one sentence of the right kind, and what they must not get silently wrong."""

import numpy as np
import pytest
import torch

import ninefold as nf
import ninefold.functional as F
from ninefold import nn
from ninefold.errors import ArgumentError, ArgumentTypeError, DTypeError, ShapeError

X = torch.arange(2 * 4 * 7 * 8, dtype=torch.double).reshape(2, 4, 7, 8).square() % 23
POOLINGS = {
    "max": lambda x: F.max_pool2d(x, 3),
    "indices": lambda x: F.max_pool2d(x, 3, return_indices=True),
    "average": lambda x: F.avg_pool2d(x, 3),
    "dilated": lambda x: F.avg_pool2d(x, 3, dilation=2),
    "lp": lambda x: F.lp_pool2d(x, 2, 3),
    "gaussian": lambda x: F.gaussian_pool2d(x, 3, sigma=1.0),
    "log-sum-exp": lambda x: F.log_sum_exp_pool2d(x, 3),
    "adaptive average": lambda x: F.adaptive_avg_pool2d(x, 3),
    "adaptive max": lambda x: F.adaptive_max_pool2d(x, 3),
    "channels": lambda x: F.channel_pool(x, 2),
    "corners": lambda x: F.top_left_unpool2d(x, 2),
    "shuffle": nn.ChannelShuffle(2),
    "contrast": nn.LocalContrastNorm2d(3),
    "resize": nn.ResizeConv2d(4, 6, 3, dtype=torch.double),
    "convolution": nn.Conv2d(4, 6, 3, dtype=torch.double),
    "unshared": nn.LocallyConnected2d(4, 6, 3, input_size=(7, 8), dtype=torch.double),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("name", POOLINGS)
def test_sparse_and_nested_inputs_and_no_tensors(name):
    pool = POOLINGS[name]
    pool(X)
    with pytest.raises(DTypeError, match="to_dense"):
        pool(X.to_sparse())
    with pytest.raises(DTypeError, match="to_padded_tensor"):
        pool(torch.nested.nested_tensor([X[0], X[1]]))
    for other in ([[1.0]], None, X.numpy()):
        with pytest.raises(ArgumentTypeError, match="tensor"):
            pool(other)


@pytest.mark.parametrize("name", ["average", "dilated", "lp", "gaussian", "log-sum-exp", "adaptive average"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.uint8])
def test_averages_of_whole_numbers_would_be_rounded(name, dtype):
    with pytest.raises(DTypeError, match=f"{dtype}.*floating-point"):
        POOLINGS[name](X.to(dtype))


@pytest.mark.parametrize("name", ["max", "indices", "adaptive max", "channels"])
def test_complex_numbers_have_no_maximum(name):
    with pytest.raises(DTypeError, match="complex64"):
        POOLINGS[name](X.to(torch.complex64))


def test_adaptive_averages_of_complex_numbers():
    z = torch.complex(X, X.flip(-1))
    expected = torch.complex(F.adaptive_avg_pool2d(z.real, (2, 3)), F.adaptive_avg_pool2d(z.imag, (2, 3)))
    assert torch.allclose(F.adaptive_avg_pool2d(z, (2, 3)), expected)


def test_no_channels():
    with pytest.raises(ShapeError, match="no channels"):
        F.max_pool2d(X[:, :0], 3)
    with pytest.raises(ShapeError, match="0 channels"):
        F.channel_pool(X[:, :0], 2)


def test_a_number_that_changes_is_read_at_each_call():
    """Tensors are remembered by identity, and must not be."""
    size = torch.tensor(3)
    assert F.max_pool2d(X, size).shape[-1] == 2
    size.fill_(2)
    assert F.max_pool2d(X, size).shape[-1] == 4
    w, step = torch.ones(1, 4, 3, 3, dtype=torch.double), torch.tensor(1)
    assert F.conv2d(X, w, stride=step).shape[-1] == 6
    step.fill_(2)
    assert F.conv2d(X, w, stride=step).shape[-1] == 3


def test_numbers_of_numpy():
    assert torch.equal(F.max_pool2d(X, np.int64(3), np.int64(2)), F.max_pool2d(X, 3, 2))
    assert torch.equal(F.conv2d(X, X[:, :, :3, :3], stride=np.int64(2)), F.conv2d(X, X[:, :, :3, :3], stride=2))
    assert nn.ResizeConv2d(1, 2, 3, np.int64(2)).scale_factor == (2.0, 2.0)
    assert nf.plan(nf.ConvSpec(1, 2, 3), np.int64(9), batch=np.int64(2)).problem.batch == 2


@pytest.mark.parametrize("call", [lambda a: F.max_pool2d(X, a), lambda a: F.conv2d(X, X[:, :, :3, :3], stride=a)])
@pytest.mark.parametrize("value", [{"a": 1}, np.array([2, 2]), (2.0, 2), (True, 2)], ids=repr)
def test_what_is_no_number_also_after_its_equal(call, value):
    call((2, 2)), call((1, 2))
    with pytest.raises(ArgumentTypeError, match="whole number"):
        call(value)


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d, nn.ResizeConv2d, nf.ConvSpec])
def test_flip_kernel_is_true_or_false(kind):
    with pytest.raises(ArgumentTypeError, match="flip_kernel must be True or False, got 'no'"):
        kind(1, 2, 3, flip_kernel="no")


def test_bias_of_a_tiled_layer():
    with pytest.raises(ArgumentError, match="bias=0 is not one of"):
        nn.TiledConv2d(1, 2, 3, period=2, bias=0)


def test_padding_of_an_unpooling():
    z, at = F.max_pool2d(X, 2, return_indices=True)
    for padding in (2, -1, ((9, 9), (9, 9))):
        with pytest.raises(ArgumentError, match="between 0 and 1"):
            F.max_unpool2d(z, at, 2, padding=padding)


def test_divisors_that_are_no_whole_numbers():
    assert torch.allclose(F.avg_pool2d(X, 3, divisor_override=2.5), F.avg_pool2d(X, 3) * 9 / 2.5)
    assert torch.equal(F.avg_pool2d(X, 3, divisor_override=4.0), F.avg_pool2d(X, 3, divisor_override=4))
    with pytest.raises(ArgumentTypeError, match="divisor_override"):
        F.avg_pool2d(X, 3, divisor_override="4")
    with pytest.raises(ArgumentTypeError, match="count_include_pad"):
        F.avg_pool2d(X, 3, count_include_pad="no")


@pytest.mark.parametrize(
    "call",
    [
        lambda: F.channel_pool(X, 2, dim="channels"),
        lambda: F.conv_transpose2d(X, X[:, :, :3, :3].movedim(1, 0), output_size=9.5),
        lambda: F.conv2d_input(7, X[:, :, :3, :3], X[:, :2]),
        lambda: F.conv2d_weight(None, (2, 4, 3, 3), X[:, :2]),
        lambda: F.conv2d_weight(X, 7, X[:, :2]),
        lambda: F.conv2d_weight(X, (2, 4, 3, 3), None),
        lambda: nn.MLPConv2d(1, None, 3),
        lambda: nn.MLPConv2d(1, (2, 3), 3, activation=3),
        lambda: nf.ConvSpec(2, 2, 3, table=torch.tensor(3)),
        lambda: nf.project([[1.0]], nf.ConvSpec(1, 1, (3,)), 5),
        lambda: nf.to_linear(nf.ConvSpec(1, 1, (3,)), 5),
        lambda: nf.singular_values(nn.Conv1d(1, 1, 3), 9, count=2.5),
        lambda: nf.plan(nf.ConvSpec(1, 1, (3,)), 9.5),
        lambda: nf.plan(nf.ConvSpec(1, 1, (3,)), 9, batch=2.5),
        lambda: nf.plan(nf.ConvSpec(1, 1, (3,)), 9, dtype="float32"),
        lambda: nf.equivariance(torch.relu, X),
        lambda: nf.equivariance(torch.nn.ReLU(), X, spatial=1.5),
        lambda: nf.equivariance(torch.nn.ReLU(), X, tolerance="small"),
        lambda: nf.invariance(torch.nn.ReLU(), X, tolerance="small"),
        lambda: nf.advise_pooling(X, threshold="0"),
        lambda: nf.pooling_theory.bernoulli_max("0.1", 3),
        lambda: nf.pooling_theory.exponential_max(None, 3),
        lambda: nf.pooling_theory.signal_to_noise(1.0, 2.0),
    ],
)
def test_wrong_types_are_named(call):
    with pytest.raises(ArgumentTypeError, match="must|such as|give the layer"):
        call()


def test_the_wrong_shape_that_was_given_is_shown_not_the_resized_one():
    with pytest.raises(ShapeError, match=r"\(2, 3, 7, 8\)"):
        nn.ResizeConv2d(4, 6, 3, dtype=torch.double)(X[:, :3])


def test_contrast_where_there_is_no_autocast():
    assert nn.LocalContrastNorm2d(3)(X.to("meta")).shape == X.shape


def test_exponential_maxima_of_many():
    n = 20_001
    found = nf.pooling_theory.exponential_max(1.0, n)
    assert abs(found.mean - sum(1 / k for k in range(n, 0, -1))) < 1e-13
    assert abs(found.variance - sum(1 / k**2 for k in range(n, 0, -1))) < 1e-13
    assert nf.pooling_theory.exponential_max(1.0, 2**70).mean == pytest.approx(49.0975, abs=1e-3)


def test_overlaps_are_drawn_of_layers_too():
    layer = nn.ConvTranspose1d(1, 1, 3, stride=2)
    texts = [text.get_text() for text in nf.drawing.overlap(layer, 4).axes[0].texts]
    assert texts == ["1", "1", "2", "1", "2", "1", "2", "1", "1"]
    with pytest.raises(ArgumentError, match="n must be at least 1"):
        nf.drawing.borders(0)
