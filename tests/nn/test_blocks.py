"""Pointwise group convolution, mlpconv and the ShuffleNet unit."""

import copy
import pickle

import pytest
import torch

from ninefold import nn
from ninefold.errors import ArgumentError, ArgumentTypeError

SIZES = {1: (7,), 2: (5, 8), 3: (3, 4, 5)}


def whole(layer):
    """Give a layer small integers, in double precision."""
    for p in layer.double().parameters():
        p.data = torch.randint(-4, 5, p.shape).double()
    return layer


def image(channels, n, batch=3):
    return torch.randint(-4, 5, (batch, channels, *SIZES[n])).double()


@pytest.mark.parametrize("n", [1, 2, 3])
def test_pointwise_is_a_block_diagonal_matrix_at_each_position(n):
    layer, x = whole(getattr(nn, f"PointwiseGroupConv{n}d")(6, 9, groups=3)), image(6, n)
    matrix = torch.block_diag(*layer.weight.flatten(1).chunk(3))
    assert matrix.shape == (9, 6)
    expected = torch.einsum("oi,bi...->bo...", matrix, x) + layer.bias.view(9, *[1] * n)
    assert torch.equal(layer(x), expected)
    assert torch.equal(layer(x[1]), expected[1])
    for group in range(3):
        changed = x.clone()
        changed[:, 2 * group : 2 * group + 2] = 0
        same = (layer(changed) == expected).all(0).flatten(1).all(1).view(3, 3).all(1)
        assert same.tolist() == [g != group for g in range(3)]


def test_pointwise_steps_over_positions_and_is_pickled():
    layer, x = whole(nn.PointwiseGroupConv2d(6, 9, 3, bias=False, stride=(2, 3))), image(6, 2)
    assert torch.equal(layer(x), torch.conv2d(x[:, :, ::2, ::3], layer.weight, groups=3))
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), torch.compile(layer, backend="aot_eager")):
        assert torch.equal(twin(x), layer(x))
    assert "groups=3" in repr(layer)


def test_two_in_a_row_mix_their_groups_only_with_a_shuffle_between():
    first, second = nn.PointwiseGroupConv2d(6, 12, 3), nn.PointwiseGroupConv2d(12, 9, 3)
    for layer in (first, second):
        torch.nn.init.uniform_(layer.weight, 1, 2)

    def reach(*layers):
        return torch.autograd.functional.jacobian(torch.nn.Sequential(*layers), torch.ones(1, 6, 1, 1)).view(9, 6) != 0

    assert torch.equal(reach(first, second), torch.block_diag(*[torch.ones(3, 2)] * 3).bool())
    assert reach(first, nn.ChannelShuffle(3), second).all()


@pytest.mark.parametrize("n", [1, 2, 3])
def test_mlpconv_is_a_small_network_at_every_patch(n):
    layer, x = whole(getattr(nn, f"MLPConv{n}d")(4, (6, 5, 3), 3, stride=2)), image(4, n)
    convolution, two, three = (layer.layers[k] for k in (0, 2, 4))
    patches = x
    for axis in range(2, n + 2):
        patches = patches.unfold(axis, 3, 2)
    patches = patches.movedim(1, n + 1).flatten(n + 1)  # batch, positions, then values of the patch, channels first
    hidden = torch.relu(patches @ convolution.weight.flatten(1).T + convolution.bias)
    for dense in (two, three):
        hidden = torch.relu(hidden @ dense.weight.flatten(1).T + dense.bias)
    assert torch.equal(layer(x), hidden.movedim(-1, 1))
    assert torch.equal(layer(x[0]), hidden.movedim(-1, 1)[0])


def test_mlpconv_takes_other_activations_and_no_bias():
    layer = nn.MLPConv2d(4, [6, 3], 3, bias=False, activation=torch.nn.SiLU)
    assert [type(m).__name__ for m in layer.layers] == ["Conv2d", "SiLU"] * 2
    assert [p.shape for p in layer.parameters()] == [(6, 4, 3, 3), (3, 6, 1, 1)]


def test_a_1x1_convolution_commutes_with_permuting_positions_and_with_their_average():
    layer, x = whole(nn.PointwiseGroupConv2d(6, 9)), image(6, 2)
    x *= 40  # 5 * 8 positions, so that averages are whole
    order = torch.randperm(40)
    moved = x.flatten(2)[:, :, order].view_as(x)
    assert torch.equal(layer(moved), layer(x).flatten(2)[:, :, order].view(3, 9, 5, 8))
    assert torch.equal(layer(x.mean((2, 3), keepdim=True)), layer(x).mean((2, 3), keepdim=True))


def by_hand(unit, x):
    """Compute the unit from its weights with torch's functions, normalisation left to its layers."""
    y = torch.relu(unit.norm1(torch.conv2d(x, unit.reduce.weight, groups=unit.reduce.groups)))
    groups = unit.shuffle.groups
    order = torch.arange(y.shape[1]).view(groups, -1).T.flatten()
    y = torch.conv2d(y[:, order], unit.depthwise.weight, None, unit.stride, 1, groups=y.shape[1])
    y = unit.norm3(torch.conv2d(unit.norm2(y), unit.expand.weight, groups=groups))
    if unit.stride == 1:
        return torch.relu(x + y)
    window = torch.nn.functional.pad(x, (1, 1, 1, 1)).unfold(2, 3, 2).unfold(3, 3, 2)
    return torch.relu(torch.cat([window.mean((4, 5)), y], 1))


@pytest.mark.parametrize(("channels", "stride", "first"), [((24, 24), 1, None), ((12, 36), 2, None), ((9, 36), 2, 1)])
def test_shuffle_unit_step_by_step(channels, stride, first):
    torch.manual_seed(0)
    unit = nn.ShuffleUnit(*channels, groups=3, stride=stride, first_groups=first).double().eval()
    for name, tensor in (*unit.named_parameters(), *unit.named_buffers()):
        if "norm" in name and tensor.ndim:
            torch.nn.init.uniform_(tensor, 0.5, 1.5)
    x = torch.randn(2, channels[0], 7, 10, dtype=torch.float64)
    out = unit(x)
    assert out.shape == (2, channels[1], *((7, 10) if stride == 1 else (4, 5)))
    torch.testing.assert_close(out, by_hand(unit, x))
    assert unit.reduce.groups == (first or 3)
    assert unit.reduce.out_channels == channels[1] // 4
    torch.testing.assert_close(torch.compile(unit, backend="aot_eager", fullgraph=True)(x), out)


def test_what_does_not_fit_is_refused_in_words():
    with pytest.raises(ArgumentError, match="in_channels=24 and out_channels=48 must be equal"):
        nn.ShuffleUnit(24, 48, 3)
    with pytest.raises(ArgumentError, match="out_channels=24 must exceed in_channels=24"):
        nn.ShuffleUnit(24, 24, 3, stride=2)
    with pytest.raises(ArgumentError, match="stride=3"):
        nn.ShuffleUnit(24, 48, 3, stride=3)
    with pytest.raises(ArgumentError, match="groups=4 must divide the 6 channels in the middle and the 24 "):
        nn.ShuffleUnit(24, 24, 4, stride=1)
    with pytest.raises(ArgumentError, match="channels=\\[\\] must name at least one layer"):
        nn.MLPConv2d(3, [], 3)
    with pytest.raises(ArgumentError, match="groups=4"):
        nn.PointwiseGroupConv2d(6, 8, 4)
    with pytest.raises(ArgumentTypeError):
        nn.ShuffleUnit(24, 24.0, 3)
