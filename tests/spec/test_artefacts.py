"""Checkerboards against overlaps that are counted, gridding against chains that are followed, and against published counts."""

from fractions import Fraction
from itertools import product
from math import prod
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ninefold as nf
from ninefold.errors import ArgumentError, ArgumentTypeError
from ninefold.spec import ConvSpec, PoolSpec, coverage


@pytest.mark.parametrize(
    ("kernel", "stride", "counts"),
    [
        (3, 2, (1, 2, 4)),
        (5, 2, (4, 6, 9)),
        (5, 3, (1, 2, 4)),
        (4, 2, (4,)),
        (6, 3, (4,)),
        (2, 2, (1,)),
        (3, 3, (1,)),
        (2, 3, (0, 1)),
    ],
)
def test_published_overlaps(kernel, stride, counts):
    board = nf.checkerboard(ConvSpec(1, 1, (kernel, kernel), stride=stride, transposed=True))
    assert board.counts == counts
    assert board.even == (len(counts) == 1)
    assert board.unevenness == (Fraction(counts[-1], counts[0]) if counts[0] else None)


@given(st.integers(1, 7), st.integers(1, 4), st.integers(1, 3), st.booleans(), st.integers(0, 2))
def test_overlaps_are_those_counted_in_the_interior(kernel, stride, dilation, transposed, pad):
    spec = ConvSpec(1, 1, (kernel,), stride=stride, dilation=dilation, padding=pad)
    n = 12 * stride + 2 * spec.extent[0]
    (seen,) = spec.overlap(n)
    inner = seen[spec.extent[0] + stride : -spec.extent[0] - stride]
    board = nf.checkerboard(spec.replace(transposed=transposed))
    assert set(board.counts) == set(inner)
    assert board.even == (len(set(inner)) == 1)
    (fits,) = board.even_kernels
    assert all(nf.checkerboard(spec.replace(kernel_size=(k,))).even for k in fits)
    nearest = [k for k in range(1, kernel + stride + 1) if nf.checkerboard(spec.replace(kernel_size=(k,))).even]
    assert bool(fits) == bool(nearest)
    if nearest:
        assert min(abs(k - kernel) for k in nearest) == min(abs(k - kernel) for k in fits)


def test_axes_differ_and_their_counts_multiply():
    board = nf.checkerboard(ConvSpec(2, 3, (3, 5, 2), stride=(2, 3, 1), transposed=True))
    assert board.per_axis == ((2, 1), (2, 2, 1), (2,))
    assert board.counts == tuple(sorted({2 * a * b for a, b in product((1, 2), (1, 2))}))
    assert board.even_kernels == ((2, 4), (3, 6), (2,))


def test_a_checkerboard_says_where_it_shows_and_what_would_be_even():
    text = str(nf.checkerboard(ConvSpec(1, 1, (3, 4), stride=2, transposed=True)))
    for part in (
        "kernel 3x4, stride 2x2",
        "axis 0: positions overlap 2, 1 times",
        "even with kernel 2 or 4",
        "of the result meet 2 or 4",
    ):
        assert part in text
    assert "axis 1: positions overlap 2, 2 times in turn\n" in text
    forward = str(nf.checkerboard(ConvSpec(1, 1, (3,), stride=2)))
    assert "uneven: positions of the gradient to the input meet 1 or 2 taps, a factor of 2" in forward
    assert "some are never met" in str(nf.checkerboard(ConvSpec(1, 1, (4,), stride=2, dilation=2)))
    even = str(nf.checkerboard(ConvSpec(1, 1, (4,), stride=2, transposed=True)))
    assert "even: every position of the result meets 2 taps" in even
    for said in (text, forward, even):
        assert "artefacts can be learned" in said


def test_modules_are_taken_and_others_refused():
    module = SimpleNamespace(
        in_channels=4, out_channels=2, kernel_size=(3,), stride=(2,), padding=(0,), dilation=(1,), groups=1,
        padding_mode="zeros", bias=None, transposed=True, output_padding=(0,),
    )  # fmt: skip
    assert nf.checkerboard(module).transposed
    with pytest.raises(ArgumentTypeError, match="int is no convolution layer"):
        nf.checkerboard(3)
    with pytest.raises(ArgumentTypeError, match="str is no convolution layer"):
        nf.gridding(["conv"])
    with pytest.raises(ArgumentError, match="at least 1 layer, got 0"):
        nf.gridding([])


def stack(dilations, kernel=3, strides=(1, 1, 1)):
    return [ConvSpec(1, 1, (kernel,), dilation=d, stride=s) for d, s in zip(dilations, strides, strict=True)]


@pytest.mark.parametrize(
    ("dilations", "used", "extent"),
    [((1, 2, 4), 15, 15), ((2, 2, 2), 7, 13), ((2, 4, 8), 15, 29), ((1, 2, 5), 17, 17), ((1, 2, 9), 21, 25)],
)
def test_published_coverage(dilations, used, extent):
    found = nf.gridding(stack(dilations))
    assert found.coverage == ((used, extent),)
    assert found.complete == (used == extent) == (found.repair is None)


@pytest.mark.parametrize(("dilations", "repair"), [((2, 2, 2), (1, 2, 3)), ((2, 4, 8), (1, 3, 9)), ((1, 2, 9), (1, 3, 9))])
def test_repairs_keep_what_they_can_and_see_as_far(dilations, repair):
    found = nf.gridding(stack(dilations))
    assert found.repair == tuple((d,) for d in repair)
    assert coverage(stack(repair)) == ((found.repaired_extent[0],) * 2,)


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 3)), min_size=1, max_size=4))
def test_a_repair_leaves_no_hole_and_there_is_one_exactly_if_some_dilations_do(layers):
    specs = [ConvSpec(1, 1, (k,), dilation=d, stride=s) for k, d, s in layers]
    found = nf.gridding(specs)
    (used, total), (holes,) = coverage(specs)[0], found.holes
    assert len(holes) == total - used
    if not holes:
        assert found.repair is None
        return
    trials = (
        [
            coverage([x.replace(dilation=d) for x, d in zip(specs, some, strict=True)])[0]
            for some in product(range(1, 10), repeat=len(specs))
        ]
        if len(specs) < 4
        else None
    )
    if found.repair is not None:
        repaired = [x.replace(dilation=d) for x, d in zip(specs, found.repair, strict=True)]
        assert coverage(repaired) == (found.repaired_extent * 2,)
        if trials:
            furthest = max(n for k, n in trials if k == n)
            assert found.repaired_extent[0] >= min(found.extent[0], furthest)
    elif trials:
        assert all(k < n for k, n in trials)


def test_axes_are_repaired_apart_and_pools_take_part():
    found = nf.gridding(
        [ConvSpec(1, 1, (3, 3), dilation=(2, 1)), PoolSpec((1, 2), stride=(1, 2)), ConvSpec(1, 1, (3, 2), dilation=(2, 1))]
    )
    assert found.coverage == ((5, 9), (6, 6))
    assert found.holes == ((1, 3, 5, 7), ())
    assert found.repair == ((1, 1), (1, 1), (3, 1))
    assert found.repaired_extent == (9, 6)


def test_a_layer_before_a_stride_is_repaired_first_however_far_its_taps_lie_apart():
    found = nf.gridding([ConvSpec(1, 1, (2,), dilation=5, stride=2), ConvSpec(1, 1, (3,))])
    assert found.holes == ((1, 3, 6, 8),)
    assert found.repair == ((1,), (1,))
    assert found.repaired_extent == (6,)


def test_strides_too_large_cannot_be_repaired():
    found = nf.gridding(stack((1, 1, 1), kernel=2, strides=(3, 1, 1)))
    assert found.holes == ((2, 5),)
    assert found.repair is None
    assert "no dilations repair this" in str(found)


def test_a_gridding_is_told():
    text = str(nf.gridding([ConvSpec(1, 1, (3, 3), dilation=(2, 1)) for _ in range(3)]))
    for part in (
        "7 of 13 positions are used; holes at 1, 3",
        "axis 1: 7 of 7 positions are used; no hole",
        "repair: dilations 1x1, 2x1, 3x1 leave no hole and span 13x7",
    ):
        assert part in text
    assert prod(nf.gridding(stack((2, 2, 2))).extent) == 13
