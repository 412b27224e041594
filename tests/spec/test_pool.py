from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ninefold.errors import ArgumentError, ArgumentTypeError, ShapeError
from ninefold.spec import ConvSpec, PoolSpec

MAX = {n: getattr(torch.nn.functional, f"max_pool{n}d") for n in (1, 2, 3)}


@st.composite
def pools(draw):
    ndim = draw(st.integers(1, 3))

    def per_axis(least, most):
        return draw(st.tuples(*[st.integers(least, most)] * ndim))

    kernel = per_axis(1, 4)
    padding = tuple(min(p, k // 2) for p, k in zip(per_axis(0, 2), kernel, strict=True))
    spec = PoolSpec(kernel, per_axis(1, 5), padding, per_axis(1, 3), draw(st.booleans()))
    return spec, per_axis(1, 9)


@settings(max_examples=200, deadline=None)
@given(pools(), st.randoms(use_true_random=False))
def test_sizes_and_maxima_are_torchs(pool, random):
    spec, size = pool
    x = torch.tensor([random.randint(-9, 9) for _ in range(torch.Size(size).numel())]).reshape(1, 1, *size).double()
    pads = tuple(lo for lo, _ in spec.padding)
    try:
        y = MAX[spec.ndim](x, spec.kernel_size, spec.stride, pads, spec.dilation, spec.ceil_mode)
    except RuntimeError as error:
        assert "output size" in str(error).lower()  # noqa: PT017
        with pytest.raises(ShapeError, match=r"spans \d+ positions, but the padded input has only \d+ along axis \d"):
            spec.axes(size)
        return
    assert spec.output_size(size) == tuple(y.shape[2:])
    axes = spec.axes(size)
    for at in product(*[range(a.n_out) for a in axes]):
        seen = product(*[[i for i in a.reads(j) if i is not None] for a, j in zip(axes, at, strict=True)])
        values = [x[0, 0][i].item() for i in seen]
        assert max(values, default=-torch.inf) == y[0, 0][at].item()


@pytest.mark.parametrize(
    ("ceil_mode", "size", "count"),
    [
        (False, 6, 2),
        (True, 6, 3),  # figure 9.10: the last window is truncated, and no detector is dropped
        (True, 7, 3),
        (False, 8, 3),
        (True, 2, 1),
    ],
)
def test_width_3_stride_2(ceil_mode, size, count):
    spec = PoolSpec((3,), stride=2, ceil_mode=ceil_mode)
    assert spec.output_size(size) == (count,)
    if ceil_mode:
        assert count == -(-(size - 3) // 2) + 1


def test_last_window_starts_inside():
    # 5 windows would cover 9 positions, but the fifth would start in the padding behind the input
    assert PoolSpec((2,), stride=2, padding=1, ceil_mode=True).output_size(7) == (4,)
    assert PoolSpec((2,), stride=2, padding=1, ceil_mode=True).output_size(8) == (5,)
    assert PoolSpec((1,), stride=4, ceil_mode=True).output_size(6) == (2,)


def test_two_poolings_of_figure_9_11():
    size = PoolSpec(4).output_size(PoolSpec(4).output_size((256, 256)))
    assert size[0] * size[1] * 64 == 16_384


def test_defaults_and_sugar():
    spec = PoolSpec((3, 2))
    assert (spec.stride, spec.padding, spec.dilation) == ((3, 2), ((0, 0), (0, 0)), (1, 1))
    assert PoolSpec(3, stride=(2, 1, 2)).kernel_size == (3, 3, 3)
    assert PoolSpec((3,), stride=1, padding="same").output_size(8) == (8,)
    assert PoolSpec((4,), stride=1, padding=((3, 0),)).output_size(8) == (8,)


def test_average_is_a_convolution_of_the_same_axes():
    pool = PoolSpec((3, 2), stride=(2, 3), padding=((1, 0), (0, 1)), dilation=(1, 2), reduction="average")
    conv = ConvSpec(1, 1, (3, 2), stride=(2, 3), padding=((1, 0), (0, 1)), dilation=(1, 2))
    assert pool.axes((8, 11)) == conv.form((8, 11)).axes


@pytest.mark.parametrize(
    ("layer", "spec"),
    [
        (torch.nn.MaxPool1d(3), PoolSpec((3,))),
        (torch.nn.MaxPool2d(3, 2, (0, 1), (1, 2)), PoolSpec((3, 3), (2, 2), (0, 1), (1, 2))),
        (torch.nn.MaxPool3d((2, 3, 4), ceil_mode=True), PoolSpec((2, 3, 4), ceil_mode=True)),
        (torch.nn.AvgPool1d(3, 2, 1), PoolSpec((3,), 2, 1, reduction="average")),
        (torch.nn.AvgPool2d((3, 2), ceil_mode=True), PoolSpec((3, 2), ceil_mode=True, reduction="average")),
        (torch.nn.AvgPool3d(2, (1, 2, 3)), PoolSpec((2, 2, 2), (1, 2, 3), reduction="average")),
        (type("Mine", (torch.nn.MaxPool1d,), {})(3, 2), PoolSpec((3,), 2)),
    ],
)
def test_from_module(layer, spec):
    assert PoolSpec.from_module(layer) == spec
    size = (9, 10, 11)[: spec.ndim]
    assert tuple(layer(torch.zeros(1, 1, *size)).shape[2:]) == spec.output_size(size)


@pytest.mark.parametrize("layer", [torch.nn.AdaptiveAvgPool2d(3), torch.nn.Conv2d(2, 3, 5), torch.nn.MaxUnpool2d(2)])
def test_no_pooling(layer):
    with pytest.raises(ArgumentTypeError, match=rf"{type(layer).__name__} is no pooling layer .* MaxPool1d, .*AvgPool3d"):
        PoolSpec.from_module(layer)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"kernel_size": 0}, ArgumentError, r"kernel_size must be at least 1, got 0"),
        ({"kernel_size": 2.5}, ArgumentTypeError, r"kernel_size must be a whole number, got 2.5"),
        ({"kernel_size": 3, "stride": (1, 0)}, ArgumentError, r"stride\[1\] must be at least 1, got 0"),
        (
            {"kernel_size": (3, 2), "padding": (0, 3), "dilation": (1, 2)},
            ArgumentError,
            r"padding \(3, 3\) along axis 1 must lie between 0 and 2, for .* 2 with dilation 2 spans 3 positions",
        ),
        ({"kernel_size": (3,), "padding": ((0, 3),)}, ArgumentError, r"padding \(0, 3\) along axis 0 must lie between"),
        ({"kernel_size": 3, "padding": -1}, ArgumentError, r"padding \(-1, -1\) along axis 0 must lie between 0 and 2"),
        ({"kernel_size": 3, "padding": "sane"}, ArgumentError, r"padding='sane' is not one of"),
        ({"kernel_size": 3, "reduction": "min"}, ArgumentError, r"reduction='min' is not one of \['max', 'average'\]"),
    ],
)
def test_bad_pools(options, error, message):
    with pytest.raises(error, match=message):
        PoolSpec(**options)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((4, 2), r"a window of 3 .* has only 2 along axis 1 \(input size 2 \+ padding \(0, 0\)\); give .* at least 3"),
        ((0, 5), r"has only 0 along axis 0"),
        ((4,), r"input_size must hold 2 spatial sizes, one per axis, got 1"),
    ],
)
def test_bad_sizes(size, message):
    with pytest.raises(ShapeError, match=message):
        PoolSpec((2, 3), stride=1).output_size(size)


def test_a_maximum_over_nothing_is_refused_even_where_padding_would_give_one():
    with pytest.raises(ShapeError, match=r"give an input of at least 1"):
        PoolSpec((2,), stride=1, padding=1).output_size(0)
