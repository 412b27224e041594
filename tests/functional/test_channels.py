"""Pooling over channels: groups of neighbours, maxout, and the rotation invariance of figure 9.9."""

import pytest
import torch

import ninefold.functional as F
from ninefold import reference
from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError


def ints(*shape):
    return torch.randint(-4, 5, shape).double()


@pytest.mark.parametrize("shape", [(2, 12), (2, 12, 5), (2, 12, 5, 4), (2, 12, 3, 5, 4)])
@pytest.mark.parametrize("groups", [1, 3, 4, 12])
def test_groups_of_neighbours(shape, groups):
    x = ints(*shape)
    for name in ("max", "average"):
        want = torch.from_numpy(reference.channel_pool(x.numpy(), groups, reference.reductions[name]))
        torch.testing.assert_close(F.channel_pool(x, groups, name), want)
        torch.testing.assert_close(F.channel_pool(x, None, name, size=12 // groups), want)
        torch.testing.assert_close(F.channel_pool(x[0], groups, name, dim=0), want[0])
    assert torch.equal(F.channel_pool(x, groups, lambda y, dim: y.sum(dim)), x.unflatten(1, (groups, -1)).sum(2))
    assert torch.equal(F.maxout(x, 12 // groups), F.channel_pool(x, groups))


def test_the_gradient_goes_to_the_first_of_equal_channels():
    x = torch.zeros(1, 6, 2, 3, requires_grad=True)
    F.channel_pool(x, 2).sum().backward()
    assert x.grad[0, :, 0, 0].tolist() == [1, 0, 0, 1, 0, 0]


def test_layout_gradients_transforms_and_compilers():
    x = torch.randn(2, 6, 5, 4)
    last = F.channel_pool(x.contiguous(memory_format=torch.channels_last), 2)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(last, F.channel_pool(x, 2))
    small = torch.randperm(12).reshape(1, 6, 1, 2).double().requires_grad_()
    for run in (lambda x: F.channel_pool(x, 2), lambda x: F.channel_pool(x, size=2, reduction="average")):
        assert torch.autograd.gradcheck(run, small, check_forward_ad=True)
        assert torch.autograd.gradgradcheck(run, small)
        assert torch.equal(torch.func.vmap(run)(x.unsqueeze(0))[0], run(x))
        assert torch.equal(torch.compile(run, backend="aot_eager", fullgraph=True)(x), run(x))
    assert F.channel_pool(x[:0], 3).shape == (0, 3, 5, 4)


def test_rotated_filters_under_a_maximum_are_invariant_to_rotation():
    """Figure 9.9: four detectors of one feature in four orientations feed one unit, and positions pool in space."""
    x, kernel = ints(1, 1, 8, 8), ints(3, 1, 3, 3)
    rotated = torch.stack([torch.rot90(kernel, r, (2, 3)) for r in range(4)], 1).flatten(0, 1)  # the four of a filter together

    def unit(x):
        return F.adaptive_max_pool2d(F.channel_pool(F.conv2d(x, rotated), 3), 1).flatten()

    want = unit(x)
    assert want.unique().numel() > 1
    for q in range(1, 4):
        assert torch.equal(unit(torch.rot90(x, q, (2, 3))), want)
    one = F.adaptive_max_pool2d(F.conv2d(x, kernel), 1).flatten()
    assert any(
        not torch.equal(F.adaptive_max_pool2d(F.conv2d(torch.rot90(x, q, (2, 3)), kernel), 1).flatten(), one) for q in (1, 2)
    )


def test_mistakes():
    x = torch.zeros(2, 6, 5)
    with pytest.raises(ShapeError, match="6 channels along dimension 1 are no multiple of groups=4"):
        F.channel_pool(x, 4)
    with pytest.raises(ShapeError, match="6 channels along dimension 1 are no multiple of size=5"):
        F.maxout(x, 5)
    with pytest.raises(ArgumentError, match="give either groups or size, got groups=2 and size=3"):
        F.channel_pool(x, 2, size=3)
    with pytest.raises(ArgumentError, match="reduction='sum' is not one of"):
        F.channel_pool(x, 2, "sum")
    with pytest.raises(ShapeError, match="dim=3 is no dimension"):
        F.channel_pool(x, 2, dim=3)
    with pytest.raises(ArgumentTypeError, match="the input must be a tensor, got type int"):
        F.channel_pool(3, 2)
