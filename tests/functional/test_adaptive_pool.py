"""Pooling to grids and pyramids: both conventions of bins, against torch and the definition."""

import pytest
import torch
import torch.nn.functional as tF

import ninefold.functional as F
from ninefold import reference
from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError
from ninefold.functional import adaptive_pool

SIZES = {1: (11,), 2: (9, 13), 3: (5, 7, 6)}
GRIDS = {1: (4,), 2: (4, 3), 3: (2, 3, 4)}


def ints(n):
    return torch.randint(-4, 5, (2, 3, *SIZES[n])).double()


def named(name, n):
    return getattr(F, f"adaptive_{name}_pool{n}d")


@pytest.fixture
def exactly(monkeypatch):
    """Take the route of accelerators that must be deterministic."""
    monkeypatch.setattr(adaptive_pool, "exactly", lambda _: True)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_overlapping_bins_are_torchs(n):
    x = ints(n)
    for size in (GRIDS[n], 3, SIZES[n], (None, *GRIDS[n][1:])):
        for name in ("avg", "max"):
            want = getattr(tF, f"adaptive_{name}_pool{n}d")(x, size) if n > 1 or size != (None,) else x
            assert torch.equal(named(name, n)(x, size), want)
    z, at = named("max", n)(x, GRIDS[n], True)
    want = getattr(tF, f"adaptive_max_pool{n}d")(x, GRIDS[n], return_indices=True)
    assert torch.equal(z, want[0])
    assert torch.equal(at, want[1])


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_exact_route_is_torchs_too(n, exactly):
    x = ints(n).requires_grad_()
    want, places = getattr(tF, f"adaptive_max_pool{n}d")(x, GRIDS[n], return_indices=True)
    z, at = named("max", n)(x, GRIDS[n], True)
    assert torch.equal(z, want)
    assert torch.equal(at, places)  # the first of equal ones
    g = torch.randint(-4, 5, z.shape).double()
    assert torch.equal(*(torch.autograd.grad(y, x, g)[0] for y in (z, want)))
    got, want = named("avg", n)(x, GRIDS[n]), getattr(tF, f"adaptive_avg_pool{n}d")(x, GRIDS[n])
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(*(torch.autograd.grad(y, x, g)[0] for y in (got, want)))


@pytest.mark.parametrize("bins", ["overlapping", "disjoint"])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_both_conventions_are_their_definitions(n, bins):
    x, r = ints(n), reference.reductions
    got = named("max", n)(x, GRIDS[n], bins=bins)
    assert torch.equal(got, torch.from_numpy(reference.pool_bins(x.numpy(), GRIDS[n], bins, r["max"])))
    got = named("avg", n)(x, GRIDS[n], bins=bins)
    torch.testing.assert_close(got, torch.from_numpy(reference.pool_bins(x.numpy(), GRIDS[n], bins, r["average"])))


def ranges_of(n, o, bins):
    _, starts, counts = adaptive_pool._cells(torch.zeros(n), -1, o, bins)
    return [(a, a + count) for a, count in zip(starts.tolist(), counts.tolist(), strict=True)]


def test_bins_of_64_over_3():
    assert reference.bins(64, 3) == ((0, 22), (21, 43), (42, 64))
    assert ranges_of(64, 3, "overlapping") == [(0, 22), (21, 43), (42, 64)]
    assert ranges_of(64, 3, "disjoint") == [(0, 21), (21, 43), (43, 64)]
    x = torch.eye(64).double().unsqueeze(1)
    seen = F.adaptive_avg_pool1d(x, 3)[:, 0] > 0
    assert [seen[:, k].nonzero().flatten().tolist() for k in range(3)] == [[*range(22)], [*range(21, 43)], [*range(42, 64)]]
    apart = F.adaptive_avg_pool1d(x, 3, bins="disjoint")[:, 0] > 0
    assert apart.sum() == 64
    assert (apart.sum(1) == 1).all()


@pytest.mark.parametrize(("n", "o"), [(n, o) for n in range(1, 14) for o in range(1, n + 1)])
def test_bins_cover_all_and_agree_where_the_sizes_divide(n, o):
    for bins in ("overlapping", "disjoint"):
        ranges = ranges_of(n, o, bins)
        assert tuple(ranges) == reference.bins(n, o, bins)
        assert set().union(*(range(a, b) for a, b in ranges)) == set(range(n))
        assert all(a < b for a, b in ranges)
    same = reference.bins(n, o) == reference.bins(n, o, "disjoint")
    assert same == (n % o == 0)


def test_where_the_sizes_divide_a_grid_is_plain_pooling():
    x = torch.randint(-4, 5, (2, 3, 12, 9)).double()
    for bins in ("overlapping", "disjoint"):
        torch.testing.assert_close(F.adaptive_avg_pool2d(x, (4, 3), bins=bins), F.avg_pool2d(x, 3))
        assert torch.equal(F.adaptive_max_pool2d(x, (4, 3), bins=bins), F.max_pool2d(x, 3))


def test_four_quadrants_whatever_the_size():
    for size in ((2, 2), (5, 9), (31, 4)):
        x = torch.randn(1, 64, *size)
        assert F.adaptive_max_pool2d(x, 2, bins="disjoint").flatten(1).shape == (1, 256)
        assert torch.equal(F.adaptive_max_pool2d(x, 2, bins="disjoint").amax((2, 3)), x.amax((2, 3)))


@pytest.mark.parametrize("bins", ["overlapping", "disjoint"])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_pyramid_has_one_length_and_is_its_grids_in_a_row(n, bins):
    levels = [1, 2, GRIDS[n]]
    cells = 1 + 2**n + torch.Size(GRIDS[n]).numel()
    for size in (SIZES[n], tuple(s + 3 for s in SIZES[n])):
        x = torch.randn(2, 3, *size)
        for reduction, name in (("max", "max"), ("average", "avg")):
            v = getattr(F, f"spatial_pyramid_pool{n}d")(x, levels, reduction, bins=bins)
            assert v.shape == (2, 3 * cells)
            rows = [named(name, n)(x, level, bins=bins).flatten(1) for level in levels]
            assert torch.equal(v, torch.cat(rows, 1))
            assert torch.equal(getattr(F, f"spatial_pyramid_pool{n}d")(x[0], levels, reduction, bins=bins), v[0])


@pytest.mark.parametrize("pool", [F.adaptive_avg_pool2d, F.adaptive_max_pool2d])
def test_disjoint_bins_differentiate_transform_and_keep_the_layout(pool):
    run = lambda x: pool(x, (2, 3), bins="disjoint")
    x = torch.randperm(2 * 5 * 4).reshape(1, 2, 5, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(run, x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(run, x)
    assert torch.equal(torch.func.vmap(run)(x.detach().unsqueeze(0))[0], run(x))
    assert torch.equal(torch.compile(run, backend="aot_eager", fullgraph=True)(x), run(x))
    image = torch.randn(2, 3, 5, 7)
    last = run(image.contiguous(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(last, run(image))
    assert run(image[:0]).shape == (0, 3, 2, 3)
    ties = torch.zeros(1, 1, 6, 6, requires_grad=True)
    run(ties).sum().backward()
    assert ties.grad.sum().item() == pytest.approx(6)


def test_mistakes():
    x = torch.zeros(1, 1, 6, 5)
    with pytest.raises(ArgumentError, match=r"bins='even' is not one of \['overlapping', 'disjoint'\]"):
        F.adaptive_avg_pool2d(x, 2, bins="even")
    with pytest.raises(ShapeError, match="needs at least 6 positions along axis 1, but the input has 5"):
        F.adaptive_max_pool2d(x, 6, bins="disjoint")
    with pytest.raises(ArgumentError, match="output_size must be at least 0, got -1"):
        F.adaptive_avg_pool2d(x, -1)
    with pytest.raises(ArgumentTypeError, match="output_size must be a whole number, got 2.5"):
        F.adaptive_avg_pool2d(x, 2.5)
    with pytest.raises(ArgumentError, match=r"reduction='sum' is not one of \['max', 'average'\]"):
        F.spatial_pyramid_pool2d(x, [1], "sum")
    with pytest.raises(ArgumentError, match="levels=3 must be a sequence of grids"):
        F.spatial_pyramid_pool2d(x, 3)
