"""Norms, generalised means, distance-weighted averages and log-sum-exp: definitions, limits, and gradients where they could break."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as tF

import ninefold.functional as F
from ninefold import reference
from ninefold.errors import ArgumentError, ArgumentTypeError, DTypeError
from ninefold.spec import PoolSpec

SIZES = {1: (11,), 2: (9, 7), 3: (5, 7, 6)}
KERNELS = {1: (3,), 2: (3, 2), 3: (2, 3, 1)}
STRIDES = {1: (2,), 2: (1, 3), 3: (2, 1, 3)}
DILATIONS = {1: (2,), 2: (2, 3), 3: (1, 2, 3)}


def image(n, batch=2):
    return torch.randn(batch, 3, *SIZES[n], dtype=torch.double)


def named(name, n):
    return getattr(F, f"{name}_pool{n}d")


def defined(n, x, reduce, padding, dilation, ceil, mode):
    spec = PoolSpec(KERNELS[n], STRIDES[n], padding, dilation, ceil, padding_mode=mode)
    return torch.from_numpy(reference.pool(spec, x.numpy(), reduce))


@pytest.mark.parametrize("mode", [None, "zeros", "symmetric"])
@pytest.mark.parametrize(("padding", "ceil"), [(0, False), ("same", "cover"), ("full", True)])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_all_are_their_definitions(n, padding, ceil, mode):
    x, r = image(n), reference.reductions
    for dilation in (1, DILATIONS[n]):
        where = (x, KERNELS[n], STRIDES[n], padding, dilation, ceil)
        for sigma in (0.4, 3.0):
            got = named("gaussian", n)(*where, sigma=sigma, padding_mode=mode)
            torch.testing.assert_close(got, defined(n, x, r["gaussian"](sigma), padding, dilation, ceil, mode))
        for steep in (1e-3, 1.7, -2.0):
            got = named("log_sum_exp", n)(*where, r=steep, padding_mode=mode)
            torch.testing.assert_close(
                got, defined(n, x, r["log_sum_exp"](steep), padding, dilation, ceil, mode), rtol=1e-9, atol=1e-9
            )
        how = {"padding": padding, "dilation": dilation, "padding_mode": mode}
        for p in (1, 1.5, 2, 3, 7.5):  # sums of powers, and of logarithms
            for convention, reduce in (("norm", r["norm"](p)), ("mean", r["power_mean"](p))):
                got = named("lp", n)(x, p, KERNELS[n], STRIDES[n], ceil, convention=convention, **how)
                torch.testing.assert_close(got, defined(n, x, reduce, padding, dilation, ceil, mode))


@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_torchs_convention_is_torchs(n, ceil):
    x = image(n)
    for p in (1, 2, 3, 4):
        kernel, stride = (KERNELS[n], STRIDES[n]) if n > 1 else (3, 2)
        for arguments in ((kernel,), (kernel, stride), (kernel, stride, ceil)):
            got, want = named("lp", n)(x, p, *arguments), getattr(tF, f"lp_pool{n}d")(x, float(p), *arguments)
            torch.testing.assert_close(got, want, equal_nan=True)
    assert got.isfinite().all()
    assert named("lp", n)(x, 3, KERNELS[n]).isnan().any()  # an odd power of negative numbers: what the others are for


def test_generalised_means_grow_from_the_average_of_absolutes_to_their_maximum():
    x = image(2)
    means = [F.lp_pool2d(x, p, 3, 2, convention="mean") for p in (0.5, 1, 2, 3, 4, 4.5, 8, 30, 1000, math.inf)]
    for low, high in itertools.pairwise(means):
        assert (low < high).all()
    torch.testing.assert_close(means[1], F.avg_pool2d(x.abs(), 3, 2))
    torch.testing.assert_close(means[2], F.lp_pool2d(x, 2, 3, 2) / 3)
    torch.testing.assert_close(means[-2], means[-1], rtol=0.01, atol=0)
    assert torch.equal(means[-1], F.max_pool2d(x.abs(), 3, 2))


def test_a_steep_mean_neither_overflows_nor_vanishes_in_single_precision():
    x = torch.tensor([[[1e-6, 2e-6, 1e6, 2e6]]])
    got = F.lp_pool1d(x, 60, 2, convention="mean")
    want = (0.5 * (1 + 2.0**60)) ** (1 / 60)
    torch.testing.assert_close(got, torch.tensor([[[want * 1e-6, want * 1e6]]]), rtol=1e-5, atol=0)


@pytest.mark.parametrize("convention", ["torch", "norm", "mean"])
@pytest.mark.parametrize("p", [0.5, 1, 1.5, 2, 3, 6])
def test_where_all_is_zero_the_gradient_is_zero(p, convention):
    x = torch.tensor([[[0.0, 0.0, 0.0, 3.0]]], dtype=torch.double, requires_grad=True)
    z = F.lp_pool1d(x, p, 2, convention=convention)
    assert z[0, 0, 0] == 0
    (g,) = torch.autograd.grad(z.sum(), x, create_graph=True)
    assert g[0, 0, :2].tolist() == [0, 0]
    assert g.isfinite().all()
    if convention != "torch" and p != 0.5:
        assert torch.autograd.grad(g.sum(), x)[0].isfinite().all()


def test_weights_constant_and_weights_of_nothing_but_the_centre():
    x = image(2)
    torch.testing.assert_close(F.gaussian_pool2d(x, 3, 2, sigma=math.inf), F.avg_pool2d(x, 3, 2))
    torch.testing.assert_close(F.gaussian_pool2d(x, 3, 2, sigma=1e9), F.avg_pool2d(x, 3, 2))
    around = F.gaussian_pool2d(x, 3, 1, "same", sigma=math.inf)
    torch.testing.assert_close(around, F.avg_pool2d(x, 3, 1, "same", count_include_pad=False))
    assert torch.equal(F.gaussian_pool2d(x, (3, 5), 1, "same", sigma=0), x)
    torch.testing.assert_close(F.gaussian_pool2d(x, (3, 5), 1, "same", sigma=1e-3), x)
    torch.testing.assert_close(F.gaussian_pool2d(x, (2, 4), sigma=0), F.avg_pool2d(x[..., 1:], 2, (2, 4))[..., :1])
    # a window whose centre lies outside has its nearest elements, whatever the width
    torch.testing.assert_close(F.gaussian_pool1d(x[:, :, 0], 5, 1, "full", sigma=1e-3)[..., 0], x[:, :, 0, 0])
    mixed = F.gaussian_pool2d(x, 3, 1, "same", sigma=(0, math.inf))
    torch.testing.assert_close(mixed, F.avg_pool2d(x, (1, 3), 1, ((0, 0), (1, 1)), count_include_pad=False))


def test_a_constant_image_stays_constant_at_the_border():
    x = torch.full((1, 2, 7, 5), 3.25, dtype=torch.double)
    for z in (
        F.gaussian_pool2d(x, 4, 1, "full", sigma=0.7),
        F.log_sum_exp_pool2d(x, 4, 1, "full", r=2.5),
        F.lp_pool2d(x, 3, 4, 1, padding="full", convention="mean"),
    ):
        torch.testing.assert_close(z, torch.full_like(z, 3.25))


def test_log_sum_exp_lies_between_average_and_maximum():
    x = image(2)
    average, largest = F.avg_pool2d(x, 3, 2), F.max_pool2d(x, 3, 2)
    steps = [F.log_sum_exp_pool2d(x, 3, 2, r=r) for r in (1e-9, 0.1, 1.0, 10.0, 1e3)]
    assert torch.equal(F.log_sum_exp_pool2d(x, 3, 2, r=0), average)
    assert torch.equal(F.log_sum_exp_pool2d(x, 3, 2, r=math.inf), largest)
    assert torch.equal(F.log_sum_exp_pool2d(x, 3, 2, r=-math.inf), -F.max_pool2d(-x, 3, 2))
    torch.testing.assert_close(steps[0], average)
    torch.testing.assert_close(steps[-1], largest, rtol=0, atol=0.01)
    for low, high in zip([average - 1e-8, *steps], [*steps, largest + 1e-12], strict=True):
        assert (low < high).all()
    torch.testing.assert_close(F.log_sum_exp_pool2d(x, 3, 2, r=-1.0), -F.log_sum_exp_pool2d(-x, 3, 2))


def test_log_sum_exp_over_a_whole_map_is_torchs_logsumexp():
    x = 300 * image(2)
    got = F.log_sum_exp_pool2d(x, SIZES[2], r=5.0).flatten(1)
    torch.testing.assert_close(got, ((5 * x).logsumexp((2, 3)) - math.log(63)) / 5)


def test_a_small_r_does_not_cancel_in_single_precision():
    x = torch.randn(1, 1, 9, 8)
    exact = F.log_sum_exp_pool2d(x.double(), 3, 1, "same", r=1e-5).float()
    torch.testing.assert_close(F.log_sum_exp_pool2d(x, 3, 1, "same", r=1e-5), exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("stride", [1, 2])  # windows that overlap go tap by tap, others all at once
def test_infinities_stay_where_they_are_and_spoil_no_gradient(stride):
    x = torch.tensor([[[-math.inf, -math.inf, 1.0, -math.inf, math.inf, 0.0, 2.0, 3.0]]], dtype=torch.double, requires_grad=True)
    y = F.log_sum_exp_pool1d(x, 2, stride)
    z = y.detach()
    assert z[0, 0, 0] == -math.inf
    assert z[0, 0, 4 // stride] == math.inf
    assert z[0, 0, 2 // stride] == pytest.approx(1 - math.log(2))
    assert z[0, 0, -1] == pytest.approx(math.log((math.exp(2) + math.exp(3)) / 2))
    (g,) = torch.autograd.grad(y.sum(), x)
    assert g.isfinite().all()
    assert g[0, 0, 2] >= 1


CASES = [
    lambda x: F.lp_pool2d(x, 3, (2, 3), 1, "cover", padding=1, convention="mean"),
    lambda x: F.lp_pool2d(x, 6.5, 2, 1, convention="norm"),
    lambda x: F.lp_pool2d(x, 2, 2),
    lambda x: F.gaussian_pool2d(x, (2, 3), 1, "same", (2, 1), sigma=0.8),
    lambda x: F.log_sum_exp_pool2d(x, (2, 3), 1, "full", r=1.5),
    lambda x: F.log_sum_exp_pool2d(x, 2, r=-1.5),
]


@pytest.mark.parametrize("pool", CASES)
def test_gradients_of_any_order_transforms_and_compilers(pool):
    x = torch.randn(1, 2, 3, 4, dtype=torch.double).requires_grad_()
    assert torch.autograd.gradcheck(pool, x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(pool, x)
    plain = x.detach()
    torch.testing.assert_close(torch.func.vmap(pool)(plain.unsqueeze(0)), pool(plain).unsqueeze(0))
    torch.testing.assert_close(torch.compile(pool, backend="aot_eager", fullgraph=True)(plain), pool(plain))


@pytest.mark.parametrize("pool", CASES)
def test_layouts_batches_and_half_precision(pool):
    x = torch.randn(2, 5, 6, 7)
    z = pool(x)
    last = pool(x.contiguous(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last, z)
    recorded = pool(x.contiguous(memory_format=torch.channels_last).requires_grad_())
    assert recorded.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(pool(x[0]), z[0])
    assert pool(x[:0]).shape == (0, *z.shape[1:])
    half = pool(x.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), z, rtol=0.05, atol=0.05)


def test_mistakes():
    x = torch.zeros(1, 1, 6, 5)
    with pytest.raises(ArgumentError, match="norm_type must be above 0, got 0"):
        F.lp_pool2d(x, 0, 2)
    with pytest.raises(ArgumentTypeError, match="norm_type must be a number, got '2' of type str"):
        F.lp_pool2d(x, "2", 2)
    with pytest.raises(ArgumentError, match=r"convention='sum' is not one of \['torch', 'norm', 'mean'\]"):
        F.lp_pool2d(x, 2, 2, convention="sum")
    with pytest.raises(ArgumentError, match="sigma must be at least 0, got -1"):
        F.gaussian_pool2d(x, 2, sigma=-1)
    with pytest.raises(ArgumentError, match=r"sigma must be one number or 2 .* got \(1, 2, 3\)"):
        F.gaussian_pool2d(x, 2, sigma=(1, 2, 3))
    with pytest.raises(ArgumentError, match="r must be a number, got nan"):
        F.log_sum_exp_pool2d(x, 2, r=math.nan)
    with pytest.raises(DTypeError, match="log-sum-exp takes floating-point numbers"):
        F.log_sum_exp_pool2d(x.int(), 2)
