"""The shuffle: its permutation, its inverse, and what it is for."""

import pytest
import torch

from ninefold import nn
from ninefold.errors import ArgumentError, ShapeError


@pytest.mark.parametrize(("groups", "channels"), [(3, 12), (4, 20), (1, 5), (6, 6)])
def test_the_permutation_and_its_inverse(groups, channels):
    x, shuffle = torch.randn(2, channels, 3, 4), nn.ChannelShuffle(groups)
    out, n = shuffle(x), channels // groups
    for i in range(n):
        for j in range(groups):
            assert torch.equal(out[:, i * groups + j], x[:, j * n + i])
    assert torch.equal(shuffle.inverse(channels)(out), x)


def test_a_volume_keeps_its_memory_format():
    x, shuffle = torch.randn(2, 6, 3, 4, 5), nn.ChannelShuffle(3)
    out = shuffle(x.contiguous(memory_format=torch.channels_last_3d))
    assert out.is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.equal(out, shuffle(x))
    assert shuffle(x).is_contiguous()


def test_stacked_group_convolutions_mix_only_with_it():
    first, second = (torch.nn.Conv1d(12, 12, 1, groups=3, bias=False) for _ in range(2))
    for layer in (first, second):
        torch.nn.init.uniform_(layer.weight, 1, 2)

    def reach(*layers):
        jacobian = torch.autograd.functional.jacobian(torch.nn.Sequential(*layers), torch.ones(1, 12, 1))
        return jacobian.reshape(12, 12) != 0

    assert torch.equal(reach(first, second), torch.block_diag(*[torch.ones(4, 4)] * 3).bool())
    assert reach(first, nn.ChannelShuffle(3), second).all()


def test_what_does_not_divide_is_refused():
    with pytest.raises(ShapeError, match=r"shape \(1, 10, 2\); .* multiple of groups=3"):
        nn.ChannelShuffle(3)(torch.ones(1, 10, 2))
    with pytest.raises(ShapeError, match="10 channels are no multiple of groups=3"):
        nn.ChannelShuffle(3).inverse(10)
    with pytest.raises(ArgumentError, match="groups must be at least 1, got 0"):
        nn.ChannelShuffle(0)
