import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d

from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError
from ninefold.structured.networks import MultiscaleNet, laplacian_pyramid, reconstruct

SIZES = [(17,), (8,), (5, 8), (9, 12), (13, 7), (5, 6, 7)]


@pytest.mark.parametrize("size", SIZES)
def test_reconstruction_is_exact(size):
    torch.manual_seed(0)
    integers = torch.randint(-99, 99, (2, 3, *size)).double()  # all sums are exact: the kernel is a sixteenth of whole numbers
    assert torch.equal(reconstruct(laplacian_pyramid(integers, 3)), integers)
    x = torch.randn(2, 3, *size)
    torch.testing.assert_close(reconstruct(laplacian_pyramid(x, 3)), x)
    assert torch.equal(laplacian_pyramid(x, 1)[0], x)


@pytest.mark.parametrize("size", SIZES)
def test_levels_by_definition(size):
    """Reduction and expansion written out with SciPy: blur and take every second; zeros between, continued border, blur."""
    torch.manual_seed(0)
    x = torch.randn(1, 1, *size, dtype=torch.float64)
    line = np.array([1, 4, 6, 4, 1]) / 16
    fine = x[0, 0].numpy()
    coarse = fine
    for axis in range(len(size)):
        coarse = correlate1d(coarse, line, axis, mode="nearest")
    coarse = coarse[(slice(None, None, 2),) * len(size)]
    up = np.pad(coarse, 1, mode="edge")
    between = np.zeros([2 * n for n in up.shape])
    between[(slice(None, None, 2),) * len(size)] = up
    for axis in range(len(size)):
        between = correlate1d(between, 2 * line, axis, mode="constant")
    expanded = between[tuple(slice(2, 2 + n) for n in size)]
    first, second = laplacian_pyramid(x, 2)
    np.testing.assert_allclose(second[0, 0], coarse, atol=1e-12)
    np.testing.assert_allclose(first[0, 0], fine - expanded, atol=1e-12)


def test_a_constant_image_is_all_in_the_last_level():
    pyramid = laplacian_pyramid(torch.full((1, 2, 9, 14), 3.0, dtype=torch.float64), 3)
    assert [tuple(p.shape[2:]) for p in pyramid] == [(9, 14), (5, 7), (3, 4)]
    assert not pyramid[0].any()
    assert not pyramid[1].any()
    assert (pyramid[2] == 3).all()


def test_the_pyramid_has_gradients():
    x = torch.randn(1, 1, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: tuple(laplacian_pyramid(v, 2)), x)


def test_the_trunk_is_shared_and_its_gradient_a_sum():
    torch.manual_seed(0)
    net = MultiscaleNet(2, 3, widths=(4, 5), kernel_size=(3, 5)).double()
    assert sum(p.numel() for p in net.parameters()) == 15 * 2 * 4 + 4 + 15 * 4 * 5 + 5 + 3 * 5 * 3 + 3
    x = torch.randn(2, 2, 21, 14, dtype=torch.float64)
    calls = []
    net.trunk.register_forward_hook(lambda m, a, out: calls.append(a[0]))
    out = net(x)
    assert out.shape == (2, 3, 21, 14)
    for seen, level in zip(calls, laplacian_pyramid(x, 3), strict=True):
        assert torch.equal(seen, level)
    maps = net.features(x)
    first = net.trunk(laplacian_pyramid(x, 3)[0])
    torch.testing.assert_close(maps[:, :5], first)
    constant = MultiscaleNet(2, 3, trunk=torch.nn.Identity(), widths=(2,), levels=2)
    up = constant.features(torch.ones(1, 2, 7, 5))
    torch.testing.assert_close(up, torch.tensor([0.0, 0, 1, 1]).reshape(1, 4, 1, 1).expand(1, 4, 7, 5))


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_any_number_of_axes_and_contrast(ndim):
    torch.manual_seed(0)
    size = (9, 11, 7)[:ndim]
    net = MultiscaleNet(2, 3, widths=(3, 4), kernel_size=3, levels=2, ndim=ndim, contrast=5)
    x = torch.randn(2, 2, *size)
    out = net(x)
    assert out.shape == (2, 3, *size)
    torch.testing.assert_close(net(x[1:]), out[1:])
    out.sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in net.parameters())


def test_what_does_not_fit_is_said():
    with pytest.raises(ShapeError, match=r"\(5, 9\) positions; 5 levels take more than 8"):
        laplacian_pyramid(torch.zeros(1, 1, 5, 9), 5)
    with pytest.raises(ArgumentError, match="levels must be at least 1"):
        laplacian_pyramid(torch.zeros(1, 1, 5, 9), 0)
    with pytest.raises(ShapeError, match=r"it must be \(1, 1, 3, 5\)"):
        reconstruct([torch.zeros(1, 1, 5, 9), torch.zeros(1, 1, 2, 5)])
    with pytest.raises(ArgumentError, match="no level"):
        reconstruct([])
    with pytest.raises(ArgumentTypeError, match="trunk must be a module"):
        MultiscaleNet(1, 2, trunk=torch.relu)
