"""Unpooling: by switches as torch does it, and top left as section 20.10.6 of the book does."""

import pytest
import torch
import torch.nn.functional as tF

import ninefold.functional as F
from ninefold import reference
from ninefold.errors import ArgumentError, DTypeError, ShapeError

SIZES = {1: (11,), 2: (9, 8), 3: (5, 7, 6)}
EVEN = {1: (12,), 2: (8, 9), 3: (4, 7, 6)}
KERNELS = {1: (3,), 2: (2, 3), 3: (2, 1, 3)}


def ints(n, low=-4):
    return torch.randint(low, 5, (2, 3, *SIZES[n])).double()


def named(name, n):
    return getattr(F, f"{name}{n}d")


@pytest.mark.parametrize("n", [1, 2, 3])
def test_switches_put_maxima_back_as_torch_does(n):
    kernel = KERNELS[n] if n > 1 else 3
    for sizes, named_sizes in ((EVEN, [None]), (SIZES, [SIZES[n], (2, 3, *SIZES[n])])):
        x = torch.randint(-4, 5, (2, 3, *sizes[n])).double()
        z, at = named("max_pool", n)(x, kernel, return_indices=True)
        want = getattr(tF, f"max_unpool{n}d")(z, at, kernel, output_size=x.shape[2:])
        for size in named_sizes:
            got = named("max_unpool", n)(z, at, kernel, output_size=size)
            assert torch.equal(got, want)
    assert torch.equal(got, torch.from_numpy(reference.unpool(z.numpy(), at.numpy(), SIZES[n])))
    assert torch.equal(named("max_unpool", n)(z[1], at[1], KERNELS[n], output_size=SIZES[n]), got[1])


def test_switches_of_overlapping_and_uneven_windows():
    x = torch.randperm(72).reshape(1, 1, 9, 8).double()
    z, at = F.max_pool2d(x, 3, 2, "same", return_indices=True)
    back = F.max_unpool2d(z, at, 3, 2, ((1, 1), (0, 1)), x.shape)
    assert torch.equal(back[back != 0], x[back != 0])
    assert torch.equal(F.max_pool2d(back, 3, 2, "same"), z)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_top_left_is_its_definition_and_is_undone_by_pooling_what_is_not_negative(n):
    y = ints(n, low=0)
    x = named("top_left_unpool", n)(y, KERNELS[n])
    assert torch.equal(x, torch.from_numpy(reference.unpool_top_left(y.numpy(), KERNELS[n])))
    assert torch.equal(named("max_pool", n)(x, KERNELS[n]), y)
    negative = -1 - y
    assert not torch.equal(named("max_pool", n)(named("top_left_unpool", n)(negative, KERNELS[n]), KERNELS[n]), negative)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_ones_around_unpooled_values_are_nearest_upsampling(n):
    y, kernel = ints(n), KERNELS[n]
    ones = torch.ones(3, 1, *kernel, dtype=torch.double)
    around = tuple((k - 1, 0) for k in kernel)
    spread = named("conv", n)(named("top_left_unpool", n)(y, kernel), ones, None, 1, around, groups=3, flip_kernel=True)
    assert torch.equal(spread, tF.interpolate(y, scale_factor=kernel, mode="nearest"))


def test_top_left_to_a_size_of_ones_own():
    y = ints(2, low=1)
    for size in ((18, 24), (17, 22), (19, 26)):
        x = F.top_left_unpool2d(y, (2, 3), size)
        assert x.shape[2:] == size
        assert torch.equal(F.max_pool2d(x, (2, 3), ceil_mode="cover")[:, :, :9, :8], y)
    with pytest.raises(
        ShapeError, match=r"output_size=\(16, 24\) must lie between 17 and 19 along axis 0, for the windows fill 18"
    ):
        F.top_left_unpool2d(y, (2, 3), (16, 24))


@pytest.mark.parametrize("n", [2, 3])
def test_both_differentiate_transform_compile_and_keep_the_layout(n):
    torch._dynamo.reset()  # or the number of axes would become a symbol
    y = torch.randn(2, 2, *(3,) * n, dtype=torch.double)
    at = torch.arange(3**n).reshape((3,) * n).expand(y.shape) * 2
    fmt = torch.channels_last if n == 2 else torch.channels_last_3d
    spread, back = named("top_left_unpool", n), named("max_unpool", n)
    for run in (lambda y: spread(y, 2), lambda y: back(y, at[: len(y)], 2)):
        small = y[:1].clone().requires_grad_()
        assert torch.autograd.gradcheck(run, small, check_forward_ad=True)
        assert torch.autograd.gradgradcheck(run, small)
        assert torch.equal(torch.compile(run, backend="aot_eager", fullgraph=True)(y), run(y))
        last = run(y.contiguous(memory_format=fmt))
        assert last.is_contiguous(memory_format=fmt)
        assert torch.equal(last, run(y))
        assert run(y[:0]).shape == (0, *last.shape[1:])


@pytest.mark.parametrize(("n", "index"), [(1, -1), (2, -1), (3, -100)])
def test_an_index_below_zero_is_named(n, index):
    y = torch.zeros(1, 1, *(3, 2, 4)[:n])
    at = torch.zeros_like(y, dtype=torch.long)
    at.view(-1)[1] = index
    with pytest.raises(ShapeError, match=f"the least index is {index}, and positions count from 0"):
        getattr(F, f"max_unpool{n}d")(y, at, 2)


def test_mistakes():
    y, at = torch.zeros(1, 1, 3, 2), torch.full((1, 1, 3, 2), 24)
    with pytest.raises(ShapeError, match=r"the largest index is 24, outside an output of \(6, 4\)"):
        F.max_unpool2d(y, at, 2)
    with pytest.raises(ShapeError, match=r"indices have shape \(1, 1, 3\), but the input has \(1, 1, 3, 2\)"):
        F.max_unpool2d(y, at[..., 0], 2)
    with pytest.raises(DTypeError, match=r"indices must be a tensor of int64, got torch.float32"):
        F.max_unpool2d(y, y, 2)
    with pytest.raises(ArgumentError, match="padding='same' depends on the size before pooling"):
        F.max_unpool2d(y, at, 2, padding="same")
    with pytest.raises(ShapeError, match=r"output_size=\(9, 4\) must lie between 5 and 7 along axis 0"):
        F.max_unpool2d(y, at, 2, output_size=(9, 4))
