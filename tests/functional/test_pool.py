"""Maxima and averages over windows against their definition and against torch, borders and all."""

import numpy as np
import pytest
import torch
import torch.nn.functional as tF
from hypothesis import given, settings
from hypothesis import strategies as st

import ninefold.functional as F
from ninefold import reference
from ninefold.errors import ArgumentError, ArgumentTypeError, DTypeError, ShapeError
from ninefold.functional.sliding import covered, describe
from ninefold.ops import windows
from ninefold.spec import PoolSpec

SIZES = {1: (11,), 2: (9, 7), 3: (5, 7, 6)}
KERNELS = {1: (3,), 2: (3, 2), 3: (2, 3, 1)}
STRIDES = {1: (2,), 2: (1, 3), 3: (2, 1, 3)}
PADS = {1: (1,), 2: (1, 0), 3: (1, 1, 0)}
DILATIONS = {1: (2,), 2: (2, 3), 3: (1, 2, 3)}
POLICIES = [0, "same", "same_lower", "full", "causal", ((2, 1),)]
MODES = [None, "zeros", "reflect", "symmetric", "replicate", "circular"]


def ints(*shape):
    return torch.randint(-9, 10, shape).double()


def distinct(*shape):
    n = torch.Size(shape).numel()
    return (torch.randperm(n) - n // 2).reshape(shape).double()


def image(n, make=ints):
    return make(2, 3, *SIZES[n])


def max_pool(n):
    return getattr(F, f"max_pool{n}d")


def avg_pool(n):
    return getattr(F, f"avg_pool{n}d")


def spec(n, kernel, stride=None, padding=0, dilation=1, ceil_mode=False, padding_mode=None):
    return PoolSpec(kernel, stride or kernel, padding, dilation, ceil_mode, padding_mode=padding_mode)


def pads(padding, n):
    return padding * n if isinstance(padding, tuple) else padding


# against the definition


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("ceil", [False, True, "cover"])
@pytest.mark.parametrize("padding", POLICIES)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_maxima_and_averages_are_their_definitions(n, padding, ceil, mode):
    kernel = (3,) if n == 1 else KERNELS[n]
    padding = pads(padding, n) if n == 1 else "same" if isinstance(padding, tuple) else padding
    stride, dilation = STRIDES[n], DILATIONS[n]
    x = image(n)
    what = spec(n, kernel, stride, padding, dilation, ceil, mode)
    got = max_pool(n)(x, kernel, stride, padding, dilation, ceil, padding_mode=mode)
    assert torch.equal(got, torch.from_numpy(reference.pool(what, x.numpy(), reference.reductions["max"])))
    got = avg_pool(n)(x, kernel, stride, padding, ceil, False, dilation=dilation, padding_mode=mode)
    torch.testing.assert_close(got, torch.from_numpy(reference.pool(what, x.numpy(), reference.reductions["average"])))
    got = avg_pool(n)(x, kernel, stride, padding, ceil, True, 1, dilation=dilation, padding_mode=mode)
    assert torch.equal(got, torch.from_numpy(reference.pool(what, x.numpy(), reference.reductions["average_over"](1))))


def test_uneven_pads_in_two_dimensions():
    x, kernel, around = image(2), (3, 2), ((2, 0), (0, 1))
    what = spec(2, kernel, (2, 1), around)
    got = F.max_pool2d(x, kernel, (2, 1), around)
    assert torch.equal(got, torch.from_numpy(reference.pool(what, x.numpy(), reference.reductions["max"])))
    got = F.avg_pool2d(x, kernel, (2, 1), around, False, False)
    torch.testing.assert_close(got, torch.from_numpy(reference.pool(what, x.numpy(), reference.reductions["average"])))


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("ceil", [False, True])
def test_uneven_padding_counts_and_what_truncated_windows_lack_does_not(ceil, dilation):
    x = image(2)
    z = F.avg_pool2d(x, 3, 2, ((2, 1), (1, 0)), ceil, dilation=dilation)
    ones = F.avg_pool2d(torch.ones(1, 1, 12, 8).double(), 3, 2, 0, ceil, divisor_override=1, dilation=dilation)
    total = F.avg_pool2d(tF.pad(x, (1, 0, 2, 1)), 3, 2, 0, ceil, divisor_override=1, dilation=dilation)
    assert (ones < 9).any() == ceil
    torch.testing.assert_close(z, total / ones)
    if dilation == 1:
        torch.testing.assert_close(z, tF.avg_pool2d(tF.pad(x, (1, 0, 2, 1)), 3, 2, 0, ceil))


# against torch


@st.composite
def pools(draw):
    n = draw(st.integers(1, 3))

    def per_axis(least, most):
        return draw(st.tuples(*[st.integers(least, most)] * n))

    kernel, stride = per_axis(1, 4), per_axis(1, 5)
    padding = tuple(min(p, k // 2) for p, k in zip(per_axis(0, 2), kernel, strict=True))
    return n, kernel, stride, padding, draw(st.booleans()), draw(st.booleans()), per_axis(1, 9), draw(st.booleans())


@settings(max_examples=80, deadline=None)
@given(pools(), st.integers(0, 9))
def test_values_and_gradients_are_torchs_by_either_route(pool, seed):
    n, kernel, stride, padding, ceil, include, size, many = pool
    torch.manual_seed(seed)
    x = torch.randint(-2, 3, (2, 60 if many else 2, *size)).double().requires_grad_()  # ties everywhere
    try:
        want = getattr(tF, f"max_pool{n}d")(x, kernel, stride, padding, 1, ceil)
    except RuntimeError:
        with pytest.raises(ShapeError):
            max_pool(n)(x, kernel, stride, padding, 1, ceil)
        return
    g = torch.randint(-3, 4, want.shape).double()
    axes = PoolSpec(kernel, stride, padding, 1, ceil).axes(size)
    for got in (max_pool(n)(x, kernel, stride, padding, 1, ceil), windows.maximum(x, axes)):
        assert torch.equal(got, want)
        assert torch.equal(torch.autograd.grad(got, x, g)[0], torch.autograd.grad(want, x, g, retain_graph=True)[0])
    if n == 3 and any(a < k for a, k in zip(size, kernel, strict=True)):
        return  # torch's average refuses even where the padding makes room
    want = getattr(tF, f"avg_pool{n}d")(x, kernel, stride, padding, ceil, include)
    got = avg_pool(n)(x, kernel, stride, padding, ceil, include)
    torch.testing.assert_close(got, want)
    pairs = tuple((p, p) for p in padding)
    torch.testing.assert_close(avg_pool(n)(x, kernel, stride, pairs, ceil, include), want)
    torch.testing.assert_close(torch.autograd.grad(got, x, g)[0], torch.autograd.grad(want, x, g)[0])


@pytest.mark.parametrize("n", [1, 2, 3])
def test_torchs_positional_order(n):
    x = image(n)
    arguments = (KERNELS[n], STRIDES[n], PADS[n], DILATIONS[n] if n == 1 else 1, True, True)
    for count in range(1, 7):
        want, got = (f(x, *arguments[:count]) for f in (getattr(tF, f"max_pool{n}d"), max_pool(n)))
        assert torch.equal(*((want, got) if count < 6 else (want[0], got[0])))
        assert count < 6 or torch.equal(want[1], got[1])
    arguments = (KERNELS[n], STRIDES[n], PADS[n], True, False, 5)
    for count in range(1, 6 + (n > 1)):
        want, got = (f(x, *arguments[:count]) for f in (getattr(tF, f"avg_pool{n}d"), avg_pool(n)))
        torch.testing.assert_close(got, want, rtol=1e-14, atol=1e-14)
    assert torch.equal(max_pool(n)(x[0], list(KERNELS[n])), getattr(tF, f"max_pool{n}d")(x[0], KERNELS[n]))


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("large", [False, True])
def test_layouts_batches_and_dtypes(n, large):
    x = torch.randn(2, 96 if large else 3, *SIZES[n])
    formats = [torch.contiguous_format] + [torch.channels_last] * (n == 2) + [torch.channels_last_3d] * (n == 3)
    for fmt in formats:
        y = x.contiguous(memory_format=fmt)
        for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
            for padding in (0, "same", "full"):
                for pool in (max_pool(n), avg_pool(n)):
                    z = pool(y.to(dtype), 3, 2, padding)
                    assert z.dtype == dtype
                    assert z.is_contiguous(memory_format=fmt)
                    one = pool(y[1].to(dtype), 3, 2, padding)
                    torch.testing.assert_close(one, z[1])
                    assert pool(y[:0].to(dtype), 3, 2, padding).shape == (0, *z.shape[1:])
                    torch.testing.assert_close(z.double(), pool(x.to(dtype).double(), 3, 2, padding), rtol=0.01, atol=0.01)


# the book's


@pytest.mark.parametrize("ceil", [True, "cover"])
def test_figure_9_10(ceil):
    x = torch.tensor([[[0.1, 1.0, 0.2, 0.1, 0.0, 0.1]]])
    assert F.max_pool1d(x, 3, 2, ceil_mode=ceil).flatten().tolist() == pytest.approx([1.0, 0.2, 0.1])
    padded = tF.pad(x, (0, 1), value=-torch.inf)
    assert torch.equal(F.max_pool1d(x, 3, 2, ceil_mode=ceil), F.max_pool1d(padded, 3, 2))


def test_figure_9_8_half_of_the_pooled_values_change():
    before = torch.tensor([[[0.3, 0.1, 1.0, 0.2, 0.1, 0.0]]])
    after = torch.tensor([[[0.4, 0.3, 0.1, 1.0, 0.2, 0.1]]])
    pooled = [F.max_pool1d(x, 3, 1, "same")[0, 0, 1:5] for x in (before, after)]
    assert (before != after).all()
    assert pooled[0].tolist() == pytest.approx([1, 1, 1, 0.2])
    assert (pooled[0] != pooled[1]).sum() == 2


@pytest.mark.parametrize(("n", "w", "s"), [(6, 3, 2), (7, 3, 2), (9, 4, 3), (12, 5, 1), (13, 4, 4), (2, 3, 1), (1, 5, 2)])
def test_cover_drops_no_detector(n, w, s):
    x = distinct(1, 1, n)
    z = F.max_pool1d(x, w, s, ceil_mode="cover")
    assert z.shape[2] == max(-(-(n - w) // s), 0) + 1
    hot = torch.eye(n).double().unsqueeze(1) - 1
    assert (F.max_pool1d(hot, w, s, ceil_mode="cover").amax(2) == 0).all()  # whichever detector fires is seen


def test_maximum_and_relu_commute_average_and_relu_do_not():
    x = image(2)
    assert torch.equal(F.max_pool2d(x, 3, 2).relu(), F.max_pool2d(x.relu(), 3, 2))
    assert not torch.equal(F.avg_pool2d(x, 3, 2).relu(), F.avg_pool2d(x.relu(), 3, 2))


def test_a_maximum_ignores_duplicates_and_negative_values_beat_the_border():
    x = image(2)
    assert torch.equal(F.max_pool2d(x.repeat_interleave(2, 2), (6, 2), (2, 1)), F.max_pool2d(x, (3, 2), 1))
    below = -1 - x.abs()
    assert (F.max_pool2d(below, 3, 1, "same") < 0).all()
    assert (F.max_pool2d(below, 3, 1, "same", padding_mode="zeros")[:, :, 0] == 0).all()


# gradients


@pytest.mark.parametrize(("padding", "dilation"), [(0, 1), ("full", 1), ("same", 2)])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_each_window_has_a_mass_of_one_at_its_first_maximum(n, padding, dilation):
    x = torch.zeros(1, 2, *SIZES[n], dtype=torch.double, requires_grad=True)
    z = max_pool(n)(x, KERNELS[n], STRIDES[n], padding, dilation)
    z.sum().backward()
    assert x.grad.sum() == z.numel()
    first = torch.zeros_like(x)
    axes = describe(n, KERNELS[n], STRIDES[n], padding, dilation).spec.axes(SIZES[n])
    for at in np.ndindex(*z.shape[2:]):
        place = tuple(next(i for i in a.reads(j) if i is not None) for a, j in zip(axes, at, strict=True))
        first[(..., *place)] += 1
    assert torch.equal(x.grad, first)


def test_tangents_and_gradients_agree_where_values_are_equal():
    x, v = torch.zeros(1, 2, 5, 6).double(), ints(1, 2, 5, 6)
    pool = lambda x: F.max_pool2d(x, (2, 3), 1, "full")
    z, tangent = torch.func.jvp(pool, (x,), (v,))
    g = ints(*z.shape)
    (back,) = torch.func.vjp(pool, x)[1](g)
    assert (g * tangent).sum() == (back * v).sum()


@pytest.mark.parametrize("recorded", [False, True])
def test_windows_of_minus_infinity_and_nan(recorded):
    x = torch.full((1, 1, 9), -torch.inf)
    x[..., 4:] = torch.tensor([1.0, 2.0, torch.nan, 0.0, -1.0])
    x.requires_grad_(recorded)
    z = F.max_pool1d(x, 2, 2, ((1, 0),))
    assert z[0, 0].tolist()[:3] == [-torch.inf, -torch.inf, 1.0]
    assert z[0, 0, 3].isnan()
    assert z[0, 0, 4] == 0
    if recorded:
        (g,) = torch.autograd.grad(z, x, torch.tensor([[[1.0, 2.0, torch.inf, 4.0, 5.0]]]))
        assert not g.isnan().any()
        assert g[0, 0].tolist()[4:] == [torch.inf, 0.0, 4.0, 5.0, 0.0] or g[0, 0, 4] == torch.inf
        assert g[..., [6, 5]].sum() == 4


def test_an_empty_window_is_minus_infinity_or_zero():
    x = torch.ones(1, 1, 1, dtype=torch.double, requires_grad=True)
    z = F.max_pool1d(x, 2, 1, 1, 2)  # reads positions -1 and 1 of one
    assert z.item() == -torch.inf
    assert torch.autograd.grad(z.sum(), x)[0].item() == 0
    assert F.avg_pool1d(x, 2, 1, 1, False, False, dilation=2).item() == 0
    with pytest.raises(ShapeError, match="sees nothing of an input of"):
        F.max_pool1d(x, 2, 1, 1, 2, return_indices=True)


CASES = [
    lambda x: F.max_pool2d(x, (2, 3), (1, 2), "full"),
    lambda x: F.max_pool2d(x, 2, padding_mode="reflect", padding=1),
    lambda x: F.avg_pool2d(x, (2, 3), (1, 2), "same", False, False, dilation=(2, 1)),
    lambda x: F.avg_pool2d(x, 2, 1, ((1, 0), (0, 1)), padding_mode="circular"),
    lambda x: F.max_pool2d(x, (3, 2), 1, ((2, 0), (0, 1)), 1, False, True)[0],
]


@pytest.mark.parametrize("pool", CASES)
def test_gradients_of_any_order_and_transforms(pool):
    x = distinct(1, 2, 4, 3).requires_grad_()
    assert torch.autograd.gradcheck(pool, x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(pool, x)
    plain = x.detach()
    assert torch.equal(torch.func.vmap(pool)(plain.unsqueeze(0)), pool(plain).unsqueeze(0))
    loss = lambda x: pool(x).pow(3).sum()
    want = torch.autograd.grad(loss(x), x)[0]
    torch.testing.assert_close(torch.func.grad(loss)(plain), want)
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(loss))(plain.unsqueeze(1)).squeeze(1), want)
    torch.testing.assert_close(torch.func.jacfwd(pool)(plain), torch.func.jacrev(pool)(plain))


COMPILED = [
    *CASES[:4],
    lambda x: F.avg_pool2d(x, 3, 1, ((2, 0), (0, 1)), padding_mode="zeros"),
    lambda x: F.max_pool2d(x, 2, 1, 1),
    lambda x: F.avg_pool2d(x, 2, 2, ceil_mode=True),
]


@pytest.mark.parametrize("pool", COMPILED)
def test_compiled_without_a_break(pool):
    x = distinct(2, 3, 6, 5).requires_grad_()
    compiled = torch.compile(pool, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(x), pool(x))
    (got,) = torch.autograd.grad(compiled(x).pow(2).sum(), x)
    torch.testing.assert_close(got, torch.autograd.grad(pool(x).pow(2).sum(), x)[0])


# switches


@pytest.mark.parametrize("mode", [None, "reflect", "symmetric", "replicate", "circular"])
@pytest.mark.parametrize("padding", [0, "same", "full"])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_indices_point_at_the_maxima(n, padding, mode):
    x = image(n, distinct).requires_grad_()
    how = (KERNELS[n], STRIDES[n], padding, 1, "cover")
    z, at = max_pool(n)(x, *how, True, padding_mode=mode)
    assert torch.equal(z, max_pool(n)(x, *how, padding_mode=mode))
    assert torch.equal(z, x.flatten(2).gather(2, at.flatten(2)).view_as(z))
    g = ints(*z.shape)
    plain = max_pool(n)(x, *how, padding_mode=mode)
    assert torch.equal(*(torch.autograd.grad(y, x, g)[0] for y in (z, plain)))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_switches_by_the_route_of_deterministic_accelerators(n, monkeypatch):
    x = image(n).requires_grad_()
    usual = max_pool(n)(x, KERNELS[n], return_indices=True)
    back = getattr(F, f"max_unpool{n}d")(*usual, KERNELS[n], output_size=x.shape)
    for module in ("pool", "unpool"):
        monkeypatch.setattr(f"ninefold.functional.{module}.exactly", lambda _: True)
    z, at = max_pool(n)(x, KERNELS[n], return_indices=True)
    assert torch.equal(z, usual[0])
    g = ints(*z.shape)
    assert torch.equal(*(torch.autograd.grad(y, x, g, retain_graph=True)[0] for y in (z, usual[0])))
    assert torch.equal(getattr(F, f"max_unpool{n}d")(z, at, KERNELS[n], output_size=x.shape), back)


def test_even_minus_infinity_is_found_inside():
    x = torch.full((1, 1, 3, 4), -torch.inf)
    z, at = F.max_pool2d(x, 2, 1, "full", return_indices=True)
    assert (z == -torch.inf).all()
    assert at[0, 0, 0].tolist() == [0, 0, 1, 2, 3]
    with pytest.raises(ArgumentError, match="stands nowhere in the input"):
        F.max_pool2d(x, 2, 1, 1, return_indices=True, padding_mode="zeros")


# mistakes


@pytest.mark.parametrize("pool", [F.max_pool2d, F.avg_pool2d])
@pytest.mark.parametrize(
    ("x", "arguments", "error", "message"),
    [
        ((2, 3, 4, 5), {"kernel_size": 0}, ArgumentError, "kernel_size must be at least 1, got 0"),
        ((2, 3, 4, 5), {"kernel_size": 2.0}, ArgumentTypeError, "kernel_size must be a whole number, got 2.0"),
        ((2, 3, 4, 5), {"kernel_size": (2, 2, 2)}, ArgumentError, "kernel_size must be one number or 2"),
        (
            (2, 3, 4, 5),
            {"kernel_size": 2, "padding": 2},
            ArgumentError,
            r"padding \(2, 2\) along axis 0 must lie between 0 and 1",
        ),
        ((2, 3, 4, 5), {"kernel_size": 2, "padding": "sane"}, ArgumentError, "padding='sane' is not one of"),
        ((2, 3, 4, 5), {"kernel_size": 2, "padding_mode": "wrap"}, ArgumentError, "padding_mode='wrap' is not one of"),
        ((2, 3, 4, 5), {"kernel_size": 2, "ceil_mode": "most"}, ArgumentError, "ceil_mode='most' is not True, False or 'cover'"),
        ((2, 3, 4, 5), {"kernel_size": (5, 2)}, ShapeError, r"a window of 5 .* has only 4 along axis 0 .* at least 5"),
        ((2, 3, 4, 5), {"kernel_size": (5, 2), "dilation": 1}, ShapeError, r"a window of 5 .* has only 4 along axis 0"),
        (
            (4, 5),
            {"kernel_size": 2},
            ShapeError,
            r"the input has shape \(4, 5\); it must be \(batch, channels, 2 spatial sizes\)",
        ),
    ],
)
def test_bad_arguments(pool, x, arguments, error, message):
    with pytest.raises(error, match=message):
        pool(torch.zeros(x), **arguments)


def test_bad_operands():
    with pytest.raises(ArgumentTypeError, match="the input must be a tensor, got type list"):
        F.max_pool1d([[1.0]], 1)
    with pytest.raises(DTypeError, match="complex numbers have no order"):
        F.max_pool1d(torch.zeros(1, 1, 4, dtype=torch.cfloat), 2, 1, "same")
    with pytest.raises(DTypeError, match="an average takes floating-point or complex numbers"):
        F.avg_pool1d(torch.zeros(1, 1, 4, dtype=torch.int), 2, 1, "same")
    with pytest.raises(ArgumentError, match="divisor_override must not be 0"):
        F.avg_pool2d(torch.zeros(1, 1, 4, 4), 2, divisor_override=0)


def test_counts_of_what_is_covered():
    axis = PoolSpec((3,), 2, ((2, 1),), 2).axes(6)[0]
    inside = [sum(i is not None for i in axis.reads(j)) for j in range(axis.n_out)]
    assert covered(axis, "cpu").tolist() == inside


@pytest.mark.gpu
def test_deterministic_gradients_on_an_accelerator():
    x = torch.randint(0, 2, (2, 3, 12, 13, 11), device="cuda").double().requires_grad_()
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        for pool in (F.max_pool3d, F.avg_pool3d):
            z = pool(x, 3, 1, 1)
            (got,) = torch.autograd.grad(z.pow(2).sum(), x)
            (want,) = torch.autograd.grad(pool(y := x.detach().cpu().requires_grad_(), 3, 1, 1).pow(2).sum(), y)
            torch.testing.assert_close(got.cpu(), want)
    finally:
        torch.use_deterministic_algorithms(before)
