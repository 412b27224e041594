"""Local contrast normalisation against its definition written as loops, and its exact invariances."""

import copy
import itertools
import pickle

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ninefold import nn
from ninefold.errors import ArgumentError, ArgumentTypeError, DTypeError, ShapeError

SIZES = {1: (11,), 2: (6, 9), 3: (4, 5, 6)}
KERNELS = {1: (5,), 2: (3, 5), 3: (3, 1, 5)}
STDS = {1: (1.3,), 2: (0.8, 1.7), 3: (0.8, 1.0, 1.7)}


def make(n, **more):
    return getattr(nn, f"LocalContrastNorm{n}d")(KERNELS[n], STDS[n], **more)


def image(n, channels=3):
    return torch.randn(2, channels, *SIZES[n], dtype=torch.double)


def window(n):
    axes = [np.exp(-(((np.arange(k) - k // 2) / s) ** 2) / 2) for k, s in zip(KERNELS[n], STDS[n], strict=True)]
    w = axes[0]
    for axis in axes[1:]:
        w = np.multiply.outer(w, axis)
    return w / w.sum()


def defined(x, n, border):
    """One image, position by position: windows over all maps."""
    w, shape, maps = window(n), x.shape[1:], len(x)

    def average(values):
        out = np.empty(shape)
        for at in itertools.product(*map(range, shape)):
            total = mass = 0.0
            for offset in itertools.product(*map(range, w.shape)):
                p = [a + o - k // 2 for a, o, k in zip(at, offset, w.shape, strict=True)]
                if border == "replicate":
                    p = [min(max(i, 0), m - 1) for i, m in zip(p, shape, strict=True)]
                if all(0 <= i < m for i, m in zip(p, shape, strict=True)):
                    total += w[offset] / maps * values[(slice(None), *p)].sum()
                    mass += w[offset]
            out[at] = total / mass if border == "normalized" else total
        return out

    v = x - average(x)
    sigma = np.sqrt(average(v * v))
    return v / np.maximum(sigma.mean(), sigma)


@pytest.mark.parametrize("border", ["normalized", "zeros", "replicate"])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_definition(n, border):
    x = image(n)
    out = make(n, border=border)(x)
    expected = np.stack([defined(one, n, border) for one in x.numpy()])
    torch.testing.assert_close(out, torch.from_numpy(expected), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(
        make(n, border=border)(x[1]), out[1], rtol=1e-14, atol=1e-14
    )  # one example may have another engine


@pytest.mark.parametrize("border", ["normalized", "reflect", "symmetric", "replicate", "circular"])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_constant_is_nothing_and_neither_constants_nor_gains_matter(n, border):
    norm, x = make(n, border=border), image(n)
    assert torch.equal(norm(torch.full_like(x, 0.1)), torch.zeros_like(x))
    torch.testing.assert_close(norm(x + 3.7), norm(x), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(norm(0.3 * x), norm(x), rtol=1e-11, atol=1e-11)
    assert torch.equal(norm(0.25 * x), norm(x))  # exactly, for powers of 2
    assert torch.equal(norm(-x), -norm(x))
    assert not torch.allclose(norm(x), x)


def test_zeros_remove_constants_away_from_the_border_only():
    norm = make(2, border="zeros")
    w = torch.from_numpy(window(2))
    v = 1 - torch.nn.functional.conv2d(torch.ones(1, 1, 6, 9).double(), w[None, None], padding=(1, 2))
    out = norm(torch.ones(1, 3, 6, 9).double())
    assert v[0, 0, 2:-2, 3:-3].abs().max() < 1e-15
    assert out[0, :, 2:-2, 3:-3].abs().max() < 1e-12
    assert out[0, :, 0, 0].min() > 0.5


def test_images_of_a_batch_do_not_touch_one_another():
    norm, x = make(2), image(2)
    torch.testing.assert_close(norm(torch.cat([x, 100 * x.flip(0)]))[:2], norm(x), rtol=1e-11, atol=1e-11)
    assert norm(x[:0]).shape == x[:0].shape


def test_the_default_window_is_9_wide_with_a_quarter_of_it_as_deviation():
    norm = nn.LocalContrastNorm2d()
    assert (norm.kernel_size, norm.std) == ((9, 9), (2.25, 2.25))
    assert list(norm.state_dict()) == []


def test_passes_along_the_axes_cost_their_lengths_and_not_their_product():
    norm, x = nn.LocalContrastNorm2d((9, 7), border="replicate"), torch.randn(1, 16, 20, 30)
    with FlopCounterMode(display=False) as counter:
        norm(x)
    assert counter.get_total_flops() == 2 * 2 * (9 + 7) * 20 * 30


@pytest.mark.parametrize("n", [1, 2, 3])
def test_gradients_of_gradients(n):
    torch.manual_seed(0)
    x = torch.randn(1, 2, *(4, 3, 2)[:n], dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(make(n), x, fast_mode=n == 3)
    assert torch.autograd.gradgradcheck(make(n), x, fast_mode=True)


def test_gradients_are_finite_where_nothing_changes():
    x = torch.zeros(1, 2, 6, 9, dtype=torch.double)
    x[..., :3] = torch.randn(1, 2, 6, 3).double()
    for start in (x, torch.full_like(x, 2.5)):
        start.requires_grad_()
        (grad,) = torch.autograd.grad(make(2)(start).square().sum(), start)
        assert grad.isfinite().all()


def test_types_formats_copies_transforms_and_compilers():
    norm, x = make(2), image(2)
    z = norm(x)
    last = x.contiguous(memory_format=torch.channels_last)
    assert norm(last).is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(norm(last), z, rtol=1e-12, atol=1e-12)
    for twin in (copy.deepcopy(norm), pickle.loads(pickle.dumps(norm))):
        assert torch.equal(twin(x), z)
    compiled = torch.compile(norm, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), z, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.func.vmap(norm)(x), z, rtol=1e-12, atol=1e-12)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(norm(x.float()), norm.half()(x.float()))
        assert norm(x.float()).dtype == torch.float32
    half = norm(x.half())
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.double(), norm(x.half().double()), rtol=1e-3, atol=1e-3)


def test_what_does_not_fit_is_refused_in_words():
    with pytest.raises(ArgumentError, match=r"kernel_size=\(3, 4\) must be odd"):
        nn.LocalContrastNorm2d((3, 4))
    with pytest.raises(ArgumentError, match="border='same' is not one of"):
        make(2, border="same")
    with pytest.raises(ArgumentError, match="std=0 must be a positive number"):
        nn.LocalContrastNorm2d(3, 0)
    with pytest.raises(ArgumentError, match="std must be one number or 2"):
        nn.LocalContrastNorm2d(3, (1, 2, 3))
    with pytest.raises(ArgumentTypeError, match="std must be a number, got '1'"):
        nn.LocalContrastNorm2d(3, "1")
    with pytest.raises(ShapeError, match=r"shape \(3, 4\), 2 dimensions; 2-D images have 4, or 3"):
        make(2)(torch.zeros(3, 4))
    with pytest.raises(DTypeError, match="the input is torch.int64"):
        make(2)(torch.zeros(1, 1, 5, 5, dtype=torch.int64))
    assert "kernel_size=(3, 5), std=(0.8, 1.7), border=zeros" in repr(make(2, border="zeros"))
