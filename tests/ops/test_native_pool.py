"""The native route of poolings against the definition, and its gradients against the maps axis by axis."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ninefold.functional as F
from ninefold import reference
from ninefold.engines import native
from ninefold.ops import native_pool, windows
from ninefold.spec import PoolSpec

pytestmark = pytest.mark.skipif(native.instruction_set() is None, reason="0 native kernels are installed")

FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}
NAN = float("nan")


@pytest.fixture(autouse=True)
def _poisoned():
    native.extension_module().poison(True)
    yield
    native.extension_module().poison(False)


def spec(kernel, stride=None, padding=0, dilation=1, ceil_mode=False):
    return PoolSpec(kernel, stride, padding, dilation, ceil_mode)


# (size, windows): odd sizes, one wide, windows larger than the image, dilated, steps beyond the window, every residue of a vector
AWKWARD = [
    ((1,), spec((1,))),
    ((1,), spec((5,), 1, "same")),
    ((2,), spec((9,), 1, "full")),
    ((31,), spec((3,), 2, 1)),
    ((33,), spec((4,), 4, "same_lower")),
    ((29,), spec((3,), 1, ((4, 0),), 2)),
    ((17,), spec((2,), 5)),
    ((5003,), spec((9,), 1, 4)),
    ((4999,), spec((3,), 3, 1)),
    ((1, 1), spec((1, 1))),
    ((1, 7), spec((1, 3), 1, "same")),
    ((7, 1), spec((3, 1), 2, "same")),
    ((2, 3), spec((5, 7), 1, "same")),
    ((3, 2), spec((7, 5), (2, 3), "full")),
    ((13, 11), spec((3, 2), (2, 1), ((2, 0), (0, 1)))),
    ((9, 23), spec((3, 3), 1, 2, (2, 3))),
    ((12, 19), spec((2, 3), (1, 4), "same", (3, 1))),
    ((15, 8), spec((4, 4), 1, "same")),
    ((21, 18), spec((13, 11), 1, ((6, 6), (5, 5)))),
    ((10, 9), spec((3, 3), 2, 0, 1, True)),
    ((2, 2), spec((3, 3), 2, 0, 1, "cover")),
    ((6, 26), spec((2, 2), 2)),
    ((1, 5, 4), spec((1, 2, 3), 1)),
    ((5, 1, 4), spec((2, 1, 2), 1, "same")),
    ((4, 7, 6), spec((3, 2, 3), (1, 2, 1), "same")),
    ((2, 3, 5), spec((3, 5, 2), 1, "full", (2, 1, 2))),
    ((7, 6, 9), spec((3, 3, 3), 2, 1)),
]
NAMES = [f"{'x'.join(map(str, size))}-{what.kernel_size}-{what.stride}-{what.padding}-{what.dilation}" for size, what in AWKWARD]


def laid(x, last):
    return x.contiguous(memory_format=FORMATS[x.ndim]) if last and x.ndim in FORMATS else x


def both(size):
    return [False, True] if len(size) > 1 else [False]


def ints(*shape):
    return torch.randint(-9, 10, shape).double()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("size", "what"), AWKWARD, ids=NAMES)
def test_maxima_and_sums_are_their_definitions(size, what, dtype):
    x = ints(2, 5, *size)
    axes = what.axes(size)
    for last in both(size):
        y = laid(x, last).to(dtype)
        for join, reduce in (("max", reference.reductions["max"]), ("sum", reference.reductions["average_over"](1))):
            plan = native_pool.find(join, y, axes)
            got = plan.forward(y)
            want = torch.from_numpy(reference.pool(what, x.numpy(), reduce)).to(dtype)
            assert torch.equal(got, want)
            assert laid(got, last) is got or laid(got, last).data_ptr() == got.data_ptr()  # in the format that it came in


@pytest.mark.parametrize(("size", "what"), AWKWARD, ids=NAMES)
def test_sums_are_divided_and_rooted(size, what):
    x = ints(2, 3, *size)
    axes = what.axes(size)
    ones = torch.ones(1, 1, *size).double()
    count = torch.from_numpy(reference.pool(what, ones.numpy(), reference.reductions["average_over"](1))).clamp_min(1)
    divide = native_pool.Divide(1.5, tuple((0, a.n_in) for a in axes))
    count = 1.5 * count
    for last in both(size):
        y = laid(x, last)
        got = native_pool.find("sum", y, axes, "square", "root", divide).forward(y)
        total = torch.from_numpy(reference.pool(what, (x * x).numpy(), reference.reductions["average_over"](1)))
        torch.testing.assert_close(got, (total / count).sqrt())
        plan = native_pool.find("sum", y, axes, "abs", "", divide)
        total = torch.from_numpy(reference.pool(what, x.abs().numpy(), reference.reductions["average_over"](1)))
        torch.testing.assert_close(plan.forward(y), total / count)
        g = laid(ints(*total.shape), last)
        torch.testing.assert_close(plan.backward(None, g), windows.spread(plan, g.clone().requires_grad_()).detach())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("size", "what"), AWKWARD, ids=NAMES)
def test_gradients_are_those_of_the_maps_axis_by_axis(size, what, dtype):
    axes = what.axes(size)
    x = torch.randint(-2, 3, (2, 5, *size)).to(dtype)  # ties everywhere
    x[torch.rand(x.shape) < 0.2] = -torch.inf  # and windows of nothing but the least
    for last in both(size):
        y = laid(x, last).requires_grad_()
        for join in ("max", "sum"):
            plan = native_pool.find(join, y, axes)
            z = plan.forward(y.detach())
            g = laid(torch.randint(-3, 4, z.shape).to(dtype), last)
            with torch.enable_grad():  # the fallback, which is what is differentiated again
                want = windows._routed(plan, y, g) if join == "max" else windows.spread(plan, g)
            with torch.no_grad():
                got = plan.backward(y if join == "max" else None, g)
            assert torch.equal(got, want)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("size", "what"), AWKWARD, ids=NAMES)
def test_no_operation_meets_what_scratch_happened_to_hold(size, what, dtype):
    """Denormal numbers there would make it slow, even if what comes of them is thrown away."""
    extension, threads = native.extension_module(), torch.get_num_threads()
    if not extension.tells_of_denormals():
        pytest.skip("0 processor flags tell of denormals here")
    extension.poison(True, denormal=True)
    axes = what.axes(size)
    divide = native_pool.Divide(1.5, tuple((0, a.n_in) for a in axes))
    for last in both(size):
        x = laid(ints(2, 5, *size), last).to(dtype)
        for join, after, by in (("max", "", None), ("sum", "", None), ("sum", "root", divide)):
            plan = native_pool.find(join, x, axes, "square" if after else "", after, by)
            extension.met_denormals(threads)
            z = plan.forward(x)
            assert not extension.met_denormals(threads), f"{join} {after}"
            if after:
                continue
            g = laid(ints(*z.shape), last).to(dtype)
            plan = native_pool.find(join, x, axes, "", "", divide if join == "sum" else None)
            extension.met_denormals(threads)
            plan.backward(x if join == "max" else None, g)
            assert not extension.met_denormals(threads), f"gradient of {join}"


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [((3, 2), (2, 1), (1, 0)), ((3, 3), 2, 1), ((5, 4), 1, (2, 1))])
def test_nan_and_infinity_go_where_torchs_go(kernel, stride, padding, last):
    x = torch.randn(3, 7, 29, 23)
    x[torch.rand(x.shape) < 0.03] = NAN
    x[torch.rand(x.shape) < 0.03] = torch.inf
    x[torch.rand(x.shape) < 0.03] = -torch.inf
    x = laid(x, last).requires_grad_()
    axes = spec(kernel, stride, padding).axes((29, 23))
    want = torch.nn.functional.max_pool2d(x, kernel, stride, padding)
    got = windows.pooled(native_pool.find("max", x, axes), x)
    torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True)
    g = torch.randn_like(got)
    torch.testing.assert_close(*(torch.autograd.grad(z, x, g)[0] for z in (got, want)))
    with torch.no_grad():
        got = native_pool.find("sum", x, axes).forward(x)
        want = torch.nn.functional.avg_pool2d(x, kernel, stride, padding, divisor_override=1)
    torch.testing.assert_close(got, want, equal_nan=True, rtol=1e-5, atol=1e-5)


def test_views_slices_and_lazy_signs_are_read_as_what_they_show():
    base = ints(4, 6, 24, 19).float()
    what = spec((3, 2), (2, 1), "same")
    views = [
        base[:, ::2],
        base[1:3, :, 3:20, 2:15],
        base.transpose(2, 3),
        base.transpose(0, 1),
        base[:, :1].expand(4, 3, 24, 19),
        torch.complex(base, -base).conj().imag,  # a lazy sign
        laid(base, True)[:, 1:4],
        base.flip(3)[..., 1::2],
    ]
    for x in views:
        for join, reduce in (("max", "max"), ("sum", "average_over")):
            how = reference.reductions[reduce]
            want = reference.pool(what, x.double().numpy(), how if join == "max" else how(1))
            plan = native_pool.find(join, x, what.axes(tuple(x.shape[2:])))
            assert np.array_equal(plan.forward(x).double().numpy(), want)


def test_neither_reads_nor_writes_beside_its_operands():
    what = spec((3, 3), (2, 1), 1)
    room = torch.full((4, 400), NAN)
    for count in range(1, 20):
        axes = what.axes((5, count))
        x = room[0, 7 : 7 + 5 * count].view(1, 1, 5, count).copy_(ints(1, 1, 5, count))
        z = native_pool.find("max", x, axes).forward(x)
        assert torch.equal(z, windows._maximum(axes[0], -2, windows._maximum(axes[1], -1, x)))
        g = room[1, 3 : 3 + z.numel()].view_as(z).copy_(z)
        kernel = native_pool.find("max", x, axes)._bare
        into = room[2, 5 : 5 + x.numel()]
        kernel.backward(x.data_ptr(), g.data_ptr(), into.data_ptr())
        kernel.forward(x.data_ptr(), room[3, 9:].data_ptr())
        assert not into.isnan().any()
        inside = torch.zeros(4, 400, dtype=torch.bool)
        for row, start, n in ((0, 7, x.numel()), (1, 3, z.numel()), (2, 5, x.numel()), (3, 9, z.numel())):
            inside[row, start : start + n] = True
        assert room[~inside].isnan().all()
        room.fill_(NAN)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_windows(data):
    n = data.draw(st.integers(1, 3))

    def per_axis(least, most):
        return data.draw(st.tuples(*[st.integers(least, most)] * n))

    kernel, stride, dilation = per_axis(1, 5), per_axis(1, 4), per_axis(1, 3)
    size = per_axis(1, 40 if n < 3 else 9)
    pads = [(k - 1) * d for k, d in zip(kernel, dilation, strict=True)]
    around = tuple((data.draw(st.integers(0, p)), data.draw(st.integers(0, p))) for p in pads)
    if any(m + sum(a) <= p for m, a, p in zip(size, around, pads, strict=True)):
        return
    axes = spec(kernel, stride, around, dilation).axes(size)
    x = laid(torch.randint(-2, 3, (2, data.draw(st.sampled_from([1, 3, 9])), *size)).float(), data.draw(st.booleans()))
    for join in ("max", "sum"):
        plan = native_pool.find(join, x, axes)
        z = x
        for dim, axis in windows._dims(axes):
            z = windows._maximum(axis, dim, z) if join == "max" else windows._sum(axis, dim, None, z)
        assert torch.equal(plan.forward(x), z)
        g = torch.randint(-3, 4, z.shape).float()
        want = windows._routed(plan, x, g) if join == "max" else windows.spread(plan, g)
        with torch.no_grad():
            assert torch.equal(plan.backward(x if join == "max" else None, g), want)


def test_second_derivatives_and_batched_gradients():
    x = torch.randn(2, 3, 7, 6, dtype=torch.double, requires_grad=True)
    axes = spec((3, 2), (2, 1), 1).axes((7, 6))
    for join in ("max", "sum"):
        plan = native_pool.find(join, x, axes)
        assert torch.autograd.gradcheck(lambda x, plan=plan: windows.pooled(plan, x), x, check_batched_grad=True)
        assert torch.autograd.gradgradcheck(lambda x, plan=plan: windows.pooled(plan, x), x, check_batched_grad=True)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_any_number_of_threads_gives_the_same_bits(threads):
    x = torch.randn(3, 5, 61, 97)
    axes = spec((5, 4), (1, 2), "same").axes((61, 97))
    g = None
    before = torch.get_num_threads()
    results = []
    try:
        for count in (1, threads):
            torch.set_num_threads(count)
            for join in ("max", "sum"):
                plan = native_pool.find(join, x, axes)
                z = plan.forward(x)
                g = torch.randn_like(z) if g is None else g
                results += [z, plan.backward(x if join == "max" else None, g)]
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(results[:4], results[4:], strict=True))


def test_several_callers_at_once():
    what = spec((3, 3), (2, 1), 1)

    def run(seed):
        x = torch.randn(4, 7, 33 + seed, 41, generator=torch.Generator().manual_seed(seed)).requires_grad_()
        z = F.max_pool2d(x, what.kernel_size, what.stride, 1)
        return z.detach(), torch.autograd.grad(z, x, z.detach())[0]

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(run, [k % 4 for k in range(64)]))
    alone = [run(k) for k in range(4)]
    assert all(torch.equal(a, b) for k, pair in enumerate(together) for a, b in zip(pair, alone[k % 4], strict=True))


def test_an_empty_batch_and_whole_numbers_take_another_route():
    axes = spec((3, 2), (2, 1), 1).axes((7, 6))
    for x in (torch.zeros(0, 3, 7, 6), torch.zeros(2, 3, 7, 6, dtype=torch.int64), torch.zeros(2, 3, 7, 6, dtype=torch.float16)):
        assert native_pool.find("max", x, axes) is None
        assert windows.maximum(x, axes).shape == (*x.shape[:2], 4, 7)


def test_without_the_extension_everything_is_the_same(monkeypatch):
    x = torch.randint(-9, 10, (3, 16, 23, 17)).float().requires_grad_()
    g = torch.randint(-9, 10, (3, 16, 12, 17)).float()

    def results():
        made = [F.max_pool2d(x, 3, (2, 1), 1), F.avg_pool2d(x, 3, (2, 1), 1, divisor_override=1)]
        return [*made, *(torch.autograd.grad(z, x, g)[0] for z in made)]

    F_describe = F.sliding.describe(2, 3, (2, 1), 1)
    want = results()
    monkeypatch.setattr(native, "_module", None)
    native.instruction_set.cache_clear()
    F_describe.routes.clear()
    try:
        assert native_pool.find("max", x, F_describe.axes((23, 17))) is None
        got = results()
    finally:
        monkeypatch.undo()
        native.instruction_set.cache_clear()
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("p", "convention"), [(2, "torch"), (2, "norm"), (2, "mean"), (1, "norm"), (1, "mean")])
def test_norms_are_those_of_small_batches(p, convention, last):
    """A small input goes axis by axis, a large one through the kernels."""
    small = laid(torch.randn(1, 5, 13, 11, dtype=torch.double), last)
    small[:, :, :4, :5] = 0  # windows of zeros
    x = laid(small.repeat(16, 1, 1, 1), last).requires_grad_()
    one = small.clone().requires_grad_()
    where = {"padding": "same" if convention != "torch" else 0, "convention": convention}
    z, want = (F.lp_pool2d(y, p, (3, 2), (2, 1), **where) for y in (x, one))
    assert z.grad_fn.name().startswith("_Pooled")
    torch.testing.assert_close(z[:1], want)
    g = torch.randn_like(want)
    got, expected = (torch.autograd.grad(y, v, u)[0] for y, v, u in ((z, x, g.repeat(16, 1, 1, 1)), (want, one, g)))
    torch.testing.assert_close(got[3:4], expected)


def test_second_derivatives_of_norms():
    x = torch.randn(2, 2, 5, 4, dtype=torch.double, requires_grad=True)
    axes = spec((3, 2), (2, 1), 1).axes((5, 4))
    for before, after in (("square", "root"), ("abs", "")):
        plan = native_pool.find("sum", x, axes, before, after)
        assert torch.autograd.gradcheck(lambda x, plan=plan: windows.pooled(plan, x), x, check_batched_grad=True)
        assert torch.autograd.gradgradcheck(lambda x, plan=plan: windows.pooled(plan, x), x, check_batched_grad=True)
