"""Borders by every mode and name, against the definition, torch, NumPy and SciPy."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as tF
from scipy import ndimage

import ninefold.functional as F
from ninefold import reference
from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError

TORCH = ("constant", "reflect", "replicate", "circular")
MODES = {"constant": "zeros", "reflect": "reflect", "symmetric": "symmetric", "replicate": "replicate", "circular": "circular"}
NUMPY = {"constant": "constant", "reflect": "reflect", "symmetric": "symmetric", "edge": "edge", "wrap": "wrap"}
SCIPY = {"grid-constant": 0, "mirror": 0, "grid-mirror": 0, "nearest": 0, "grid-wrap": 0}


def numbers(*shape):
    count = int(np.prod(shape))
    order = torch.randperm(count, generator=torch.Generator().manual_seed(count))
    return order.double().view(shape) + 1


def flat(pairs):
    """Torch's order of pairs that are given in the order of the axes."""
    return [width for pair in reversed(pairs) for width in pair]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(5,), (2, 4), (2, 3, 5, 4), (2, 3, 4, 2, 5), (2, 2, 3, 2, 3, 4)])
def test_any_axes_and_widths_by_the_definition(mode, shape):
    x = numbers(*shape)
    for pads in (((1, 2),), ((4, 0), (0, 3)), ((0, 1), (2, 2), (1, 0)), ((7, 9),), ((1, 1),) * 5):
        if len(pads) > len(shape):
            continue
        want = reference.pad(x.numpy(), pads, MODES[mode], 7)
        got = F.pad(x, flat(pads), mode, 7 if mode == "constant" else None)
        assert np.array_equal(got.numpy(), want)
        assert torch.equal(F.pad(x.to(torch.int16), flat(pads), mode, 7 if mode == "constant" else None), got.to(torch.int16))
        assert got.untyped_storage().data_ptr() != x.untyped_storage().data_ptr()


@pytest.mark.parametrize("mode", ["reflect", "symmetric", "replicate"])
def test_negative_pads_crop_and_the_rest_continues_the_whole(mode):
    x = numbers(2, 3, 6)
    for pads in itertools.product(range(-3, 4), repeat=2):
        want = reference.pad(x.numpy(), (pads,), mode)
        assert np.array_equal(F.pad(x, pads, mode).numpy(), want)
        if mode != "symmetric" and sum(pads) > -6:  # torch gives nothing of no size
            assert torch.equal(F.pad(x, pads, mode), tF.pad(x, pads, mode))


def test_negative_pads_of_what_is_circular_crop_first():
    x = numbers(2, 3, 6)
    for pads in itertools.product(range(-2, 4), repeat=2):
        assert torch.equal(F.pad(x, pads, "circular"), tF.pad(x, pads, "circular"))
    assert F.pad(torch.arange(6), (3, -4), "circular").tolist() == [1, 0, 1, 0, 1]


@pytest.mark.parametrize("mode", TORCH)
def test_torchs_own(mode):
    for shape, n in (((2, 3, 7), 1), ((3, 7), 1), ((2, 3, 6, 5), 2), ((3, 6, 5), 2), ((2, 3, 4, 5, 6), 3), ((0, 3, 6, 5), 2)):
        x = numbers(*shape)
        pads = [2, 1, 0, 3, 1, 2][: 2 * n]
        assert torch.equal(F.pad(x, pads, mode), tF.pad(x, pads, mode))
        leaves = [x.clone().requires_grad_() for _ in range(2)]
        for leaf, pad in zip(leaves, (F.pad, tF.pad), strict=True):
            pad(leaf, pads, mode).square().sum().backward()
        assert torch.equal(leaves[0].grad, leaves[1].grad)


def test_names_of_numpy_and_scipy():
    x = numbers(4, 5)
    for name in NUMPY:
        assert np.array_equal(F.pad(x, flat(((1, 3), (2, 6))), name).numpy(), np.pad(x.numpy(), ((1, 3), (2, 6)), name))
    for name in SCIPY:
        kernel = np.zeros(7)
        for shift in range(7):
            kernel[:] = 0
            kernel[shift] = 1
            mode = {"grid-mirror": "grid-mirror"}.get(name, name)
            want = ndimage.correlate1d(x.numpy(), kernel, axis=1, mode="constant" if name == "grid-constant" else mode)
            assert np.array_equal(F.pad(x, (3, 3), name).numpy()[:, shift : shift + 5], want)
    assert torch.equal(F.pad(x, (1, 2), "zeros"), tF.pad(x, (1, 2)))


@pytest.mark.parametrize("mode", MODES)
def test_gradients_transforms_and_formats(mode):
    x = torch.randn(2, 3, 4, 3, dtype=torch.double, requires_grad=True)

    def function(x):
        return F.pad(x, (5, 1, 2, 7), mode).square()

    assert torch.autograd.gradcheck(function, x, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(function, x)
    many = torch.randn(5, 2, 3, 4, 3, dtype=torch.double)
    assert torch.equal(torch.func.vmap(function)(many)[3], function(many[3]))
    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x.detach()), function(x.detach()))
    last = x.detach().contiguous(memory_format=torch.channels_last)
    assert torch.equal(function(last), function(x))
    for pads in ((5, 1, 2, 7), (1, 1, 1, 1)):
        assert F.pad(last, pads, mode).is_contiguous(memory_format=torch.channels_last)
    assert F.pad(x[:0], (5, 1, 2, 7), mode).shape == (0, 3, 13, 9)
    assert F.pad(torch.zeros(3, 4, device="meta"), (1, 2), mode).shape == (3, 7)


def test_mistakes():
    x = numbers(2, 3, 5)
    with pytest.raises(ArgumentError, match=r"mode='odd' is not one of \['constant', "):
        F.pad(x, (1, 1), "odd")
    with pytest.raises(ArgumentError, match=r"pad=\(1, 2, 3\) holds 3 numbers; it must hold two for each of at most 3 axes"):
        F.pad(x, (1, 2, 3))
    with pytest.raises(ArgumentError, match="holds 8 numbers"):
        F.pad(x, (1,) * 8)
    with pytest.raises(ArgumentTypeError, match="pad must be a sequence of whole numbers"):
        F.pad(x, 3)
    with pytest.raises(ArgumentTypeError, match=r"pad\[1\] must be a whole number, got 0.5"):
        F.pad(x, (1, 0.5))
    with pytest.raises(ArgumentError, match="value=3 is written by mode='constant' only"):
        F.pad(x, (1, 1), "reflect", 3)
    with pytest.raises(ShapeError, match=r"pad=\(-4, -2\) crops more than the 5 positions of axis 2"):
        F.pad(x, (-4, -2))
    with pytest.raises(ArgumentError, match="'reflect' needs at least 2 elements"):
        F.pad(x[..., :1], (1, 0), "reflect")
    with pytest.raises(ShapeError, match="nothing to continue"):
        F.pad(x[..., :0], (1, 0), "circular")
    for mode in TORCH[1:]:
        with pytest.raises(RuntimeError):
            tF.pad(x[..., :0], (1, 0), mode)
